//! Kernels whose lanes are groups: each element of the input serves few products, so order and tile
//! decide how often it comes from beyond L2.

use convgen_ir::elem::Layout;

use super::plan::{LaneAxis, LoopClass, LoopOrder, Plan, weight_bytes};
use super::{DEPTHWISE_COLUMNS, FEWEST_PIXELS, Picker, balanced, tile_registers};
use crate::target::{L1_WAY_BYTES, LATENCY_SUMS};

/// Columns of such a tile of several vectors: neighbouring lines of memory are fetched together, so
/// that few columns by many channels are read faster than many by few. 3x3 at stride 2 over 192
/// channels of 28x28: 67 GFLOP/s by tiles of 7 columns by three vectors, 54 of 14 by one.
const COLUMNS_OF_VECTORS: u64 = 7;

/// Rows of a kernel for which reading lines again costs more than reading them from front to back
/// saves: 5x5 over 240 channels of 28x28, which no near cache holds, 133 and 176 GFLOP/s; 3x3 gains
/// and loses.
const TALL_KERNEL: u64 = 5;

/// Columns, at most, of a tile of one vector for kernels so long that a border is several tiles:
/// each is unrolled.
const NARROW_COLUMNS: u64 = 12;

impl Picker<'_> {
    /// Whether all loads of the tile are vectors: each element of the input is then used for so few
    /// products that a copy of it costs as much as they do.
    pub(super) fn is_depthwise(&self, lanes: LaneAxis) -> bool {
        lanes == LaneAxis::Groups && self.problem.in_channels_per_group() == 1
    }

    /// Channels inside pixels: the input is then read from front to back. Not if the weights, which
    /// every pixel then needs, would fill the first-level cache, nor if the image stays in the
    /// second one: a few channels of the rows that share taps then stay in the first. 3x3 over 576
    /// channels of 14x14 at stride 2: 61 GFLOP/s pixel by pixel, 81 channels outermost; over 96 of
    /// 112x112, which no near cache holds, 24 and 18. The more rows share a line, the sooner that
    /// pays. Of a tall kernel each line serves so many rows of taps that a tile moves down its
    /// columns, and finds it in the first-level cache.
    fn depthwise_order(&self) -> LoopOrder {
        if self.block.is_some() {
            // The rows of a task of a pair are in the second-level cache.
            return LoopOrder::DOWN_COLUMNS;
        }
        let elem = self.problem.elem().bytes() as u64;
        let elements = |shape: Vec<u64>| shape.iter().product::<u64>();
        let batch = self.problem.batch();
        let image = elements(self.problem.input_shape(1)) + elements(self.problem.output_shape(1));
        let rows = self.problem.spatial().first().map_or(1, |s| s.kernel);
        let caches = self.target.caches();
        if weight_bytes(self.problem) > caches.l1d as u64 / 2 {
            return LoopOrder::ALL[0];
        }
        match elem * image * batch <= caches.l2 as u64 * rows / 4 {
            // Neighbours in a column then lie in few sets of a cache: they are met one after the
            // other.
            true if self.has_set_conflicts() => LoopOrder::DOWN_COLUMNS,
            true => LoopOrder::ALL[0],
            false if rows >= TALL_KERNEL => LoopOrder::DOWN_COLUMNS,
            false => LoopOrder::PIXELS,
        }
    }

    /// Meets padding in place if some tile can: lanes are channels of several groups, and nothing
    /// is summed over the input for long.
    pub(super) fn depthwise_in_place(&self, plan: &mut Plan, lanes: LaneAxis) {
        plan.order = match lanes == LaneAxis::Channels {
            // A group has less than a line of a pixel. 8 channels a group, 28x28: 0.21 ms group by
            // group, 0.19 so.
            true => LoopOrder::PIXELS,
            false => self.depthwise_order(),
        };
        // Whether padding can be met in place depends on whether tasks share a row.
        plan.block = self.shape.axes[0].1;
        // The borders of long kernels are unrolled by narrow tiles.
        let columns = self.shape.axes.last().map_or(1, |(_, extent)| *extent);
        let narrow = [balanced(columns, NARROW_COLUMNS), LATENCY_SUMS].map(|rows| (1, rows));
        let narrow = narrow.into_iter().filter(|_| self.is_depthwise(lanes));
        let tiles = [(plan.vectors, plan.rows)].into_iter().chain(narrow);
        let in_place =
            |(vectors, rows)| Plan { in_place: self.in_place, vectors, rows, ..plan.clone() };
        let fits = tiles.map(in_place).find(|plan| {
            plan.check_in_place(self.problem, self.target).is_ok()
                && plan.check_borders(self.problem, self.target).is_ok()
                && plan.check_body(self.problem, self.target).is_ok()
        });
        if let Some(fitting) = fits {
            *plan = fitting;
        }
    }

    /// Makes tasks of channels where a row, all there is, is read in place and would be no task's
    /// alone; leaves it one task where pixels go first and a core is alone: 4 taps over 1536
    /// channels of 512 positions take 5 % less without a copy.
    pub(super) fn shares_channels_of_rows(&self, plan: &mut Plan) -> bool {
        let one_row = plan.in_place && self.shape.axes.len() == 1 && self.block.is_none();
        if !one_row || plan.order.0[0] != LoopClass::Channels {
            return one_row && self.target.cores() == 1;
        }
        let shared = Plan { channel_tasks: true, ..plan.clone() };
        let fits = shared.check(self.problem, self.target).is_ok();
        if fits {
            *plan = shared;
        }
        fits
    }

    /// Whether neighbouring pixels are a multiple of half a way apart, and so fall into two sets of
    /// the first-level cache.
    pub(super) fn has_set_conflicts(&self) -> bool {
        let pixel = self.problem.in_channels() * self.problem.elem().bytes() as u64;
        self.problem.layout() == Layout::ChannelsLast
            && pixel.is_multiple_of(L1_WAY_BYTES as u64 / 2)
    }

    /// The tile of a depthwise kernel: beside the sums, the weights of a row of taps stay in
    /// registers, and an element of the input, a zero and what the epilogue computes pass. Where
    /// pixels are a multiple of half a way apart they fall into two sets of the first-level cache,
    /// and the rows of taps put each other out (58 GFLOP/s at 512 channels): few pixels by many
    /// vectors, which are neighbouring lines, do not (98).
    pub(super) fn depthwise_tile(&self) -> (u64, u64) {
        let (lane, columns) = self.tiled(LaneAxis::Groups);
        let taps = self.problem.spatial().last().map_or(1, |s| s.kernel);
        let registers = u64::from(self.target.registers());
        let budget = match self.target.has_micro_kernels() {
            true => registers.saturating_sub(taps + 3).max(registers / 2),
            false => tile_registers(self.target),
        };
        let rows = balanced(columns, budget.min(DEPTHWISE_COLUMNS));
        let all = self.target.vectors_for(lane);
        let wide = if budget >= 4 * FEWEST_PIXELS { 4 } else { 2 };
        if self.has_set_conflicts() && all.is_multiple_of(wide) {
            return (wide, balanced(columns, budget / wide));
        }
        let narrow = balanced(columns, COLUMNS_OF_VECTORS);
        // The weights of a row of taps stay in registers beside the sums, and two operands.
        let held = |vectors: u64| vectors * (narrow + taps) + 2 <= registers;
        // Pairs of lines are fetched together, so an even number of vectors goes first: 3x3 over
        // 192 channels of 28x28, 141 GFLOP/s by three vectors, 151 by two.
        let wide = [4, 2, 3].into_iter();
        let wide = wide.filter(|vectors| held(*vectors)).find(|n| all.is_multiple_of(*n));
        match wide.filter(|_| self.target.has_micro_kernels()) {
            Some(vectors) => (vectors, narrow),
            None => {
                let fits = |vectors: &u64| all.is_multiple_of(*vectors) && vectors * rows <= budget;
                ((1..=4).rev().find(fits).unwrap_or(1), rows)
            }
        }
    }
}
