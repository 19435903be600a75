//! Where padding is met: in the input itself, tap by tap, or in a copy that has zeros.

use convgen_ir::elem::Layout;
use convgen_ir::problem::SpatialAxis;

use super::inside::inside;
use super::plan::{LaneAxis, LoopOrder, Plan, has_padding, weight_bytes};
use super::{FEWEST_STEPS, Picker, TASKS_A_CORE, balanced};
use crate::target::LATENCY_SUMS;

/// Vector multiply-adds that each element of the input must serve for a copy by elements to pay:
/// MobileNet's first layer, 3 channels to 32 at stride 2, has four and takes half the time without
/// one; VGG-16's, to 64 at stride 1, has 36.
const PRODUCTS_WORTH_A_COPY: u64 = 16;

/// The part of the taps that is on the input, below which products are worth less than the padding
/// that a copy for them writes: 6x6 taps dilated by two on 4x4 from 32 channels to 10, 13 GFLOP/s
/// with a copy and 92 in place.
const MOSTLY_PADDING: f64 = 0.5;

/// Input channels that a sum has for each tap, at least, for padding to be met in place: each tap
/// of a row is then a loop of its own, which must be long beside its ends.
const CHANNELS_WORTH_A_LOOP: u64 = 32;

/// Parts of the second-level cache, of eight, that the rows of input which a task reads in place
/// may fill; panels of weights pass through the rest. 3x3 over 512 channels of 14x14 reaches 88 %
/// of the 256-bit peak in tasks of 7 rows (3/8), 73 % in one of 14.
const PARTS_FOR_ROWS: u64 = 3;

impl Picker<'_> {
    /// Meets padding where the input lies if the columns of a tile are lanes: masks leave it out.
    pub(super) fn read_columns_in_place(&self, plan: &mut Plan) {
        self.adopt(plan, Plan { in_place: self.in_place, ..plan.clone() });
    }

    /// Takes a plan that meets padding in place, if it does and is a schedule of the problem.
    pub(super) fn adopt(&self, plan: &mut Plan, candidate: Plan) {
        if candidate.in_place && self.is_legal(&candidate) {
            *plan = candidate;
        }
    }

    /// Whether a copy of the input would take about as long as the products it is made for: few
    /// output channels, and input channels that are not copied by vectors, or products that are
    /// mostly of the zeros that it would write.
    pub(super) fn low_reuse(&self, lanes: LaneAxis) -> bool {
        let axes = self.problem.spatial().iter();
        let (taps, strides) =
            axes.fold((1, 1), |(taps, strides), s| (taps * s.kernel, strides * s.stride));
        let products = self.problem.out_channels_per_group() * taps / strides;
        let width = u64::from(self.target.lanes());
        lanes.share_pixels()
            && self.target.has_micro_kernels()
            && self.problem.layout() == Layout::ChannelsLast
            && (!self.problem.in_channels().is_multiple_of(width) || self.is_mostly_padding())
            && (products < PRODUCTS_WORTH_A_COPY * width
                || self.problem.in_channels_per_group() <= FEWEST_STEPS)
    }

    /// Whether a copy would mostly write the zeros of padding, and products would mostly be of
    /// these.
    pub(super) fn is_mostly_padding(&self) -> bool {
        inside(self.problem) < MOSTLY_PADDING
    }

    /// Meets padding where the input lies, and writes out all input channels of a tap, if the
    /// tile's code then stays small: the tile, or half of it. 7x7 from 3 channels to 64: 168
    /// GFLOP/s from a copy, 185 in place; 3x3x3, 176 and 203.
    pub(super) fn read_in_place(&self, plan: &mut Plan) {
        let steps = plan.lanes.summed_channels(self.problem, self.target);
        let block = self.shape.axes[0].1;
        let columns = self.shape.axes.last().map_or(1, |(_, extent)| *extent);
        let half = balanced(columns, (plan.rows / 2).max(1));
        for rows in [plan.rows, half] {
            let hides = rows == plan.rows || rows * plan.vectors >= LATENCY_SUMS;
            if !plan.in_place && hides {
                let in_place = self.in_place;
                self.adopt(plan, Plan { in_place, steps, block, rows, ..plan.clone() });
            }
        }
    }

    /// Reads the input where it lies if many channels are summed at each tap: taps beyond the first
    /// and last rows cost nothing, and what the taps of a dilated kernel lie apart is not copied.
    /// Tasks then share channels, since no copy is made for each of them: a panel of weights, which
    /// may come from far, serves all rows of a task, and their input stays near from one panel to
    /// the next.
    pub(super) fn sums_channels_in_place(&self, plan: &mut Plan) -> bool {
        let padded = self.is_padded();
        let fits = plan.lanes.share_pixels()
            && self.block.is_none()
            && self.target.has_micro_kernels()
            && self.problem.layout() == Layout::ChannelsLast
            && (self.is_mostly_padding()
                || (self.problem.in_channels_per_group() >= CHANNELS_WORTH_A_LOOP
                    && !self.weights_fit_l1(plan.lanes)))
            && (!padded || (self.in_place && self.shape.axes.len() > 1));
        if !fits {
            return false;
        }
        let block = self.rows_in_place(plan);
        let order = LoopOrder::ALL[0];
        if padded && self.target.accuracy().keeps_order() {
            return self.sums_channels_of_a_copy(plan, block);
        }
        let candidate =
            Plan { in_place: padded, channel_tasks: true, block, order, ..plan.clone() };
        // Where one panel has all channels there is nothing to share.
        let alone = Plan { channel_tasks: false, ..candidate.clone() };
        let accepted = [candidate, alone].into_iter().find(|plan| self.is_legal(plan));
        accepted.map(|accepted| *plan = accepted).is_some()
    }

    /// As [`Picker::sums_channels_in_place`] from a copy, where taps on padding stay in the sum and
    /// no near cache holds the weights: each task passes over all of them, so tasks have as many
    /// rows, or a core's part. 3x3 over 512 channels of 7x7: 2.5 ms in tasks of a row, 1.4 in one.
    fn sums_channels_of_a_copy(&self, plan: &mut Plan, rows: u64) -> bool {
        let extent = self.shape.axes[0].1;
        let block = rows.min(extent.div_ceil(self.target.cores() as u64));
        let candidate = Plan { block, order: LoopOrder::ALL[0], ..plan.clone() };
        let copy = self.copied_input(&candidate);
        let candidate = Plan { copy, ..candidate };
        let far = weight_bytes(self.problem) > self.target.caches().l2 as u64;
        let taken = far && copy.is_some() && self.is_legal(&candidate);
        if taken {
            *plan = candidate;
        }
        taken
    }

    /// Output rows of a task that reads its input in place and whose channels are tasks too: as
    /// many as use a panel of weights while their input stays in the second-level cache, in tasks
    /// of one size.
    pub(super) fn rows_in_place(&self, plan: &Plan) -> u64 {
        let extent = self.shape.axes[0].1;
        let pixel = self.problem.in_channels() * self.problem.elem().bytes() as u64;
        let cached = self.target.caches().l2 as u64 * PARTS_FOR_ROWS / 8;
        let fitting = match self.problem.spatial().split_first() {
            Some((s, inner)) if !self.fused => {
                // Padding is not read, nor is what lies between the taps of a dilated or strided
                // kernel.
                let read = |s: &SpatialAxis| s.input.min(s.output() * s.kernel);
                let row = inner.iter().map(read).product::<u64>() * pixel;
                let shared = s.kernel.saturating_sub(s.stride);
                let whole = cached / row >= read(s);
                let step = s.stride.min(s.kernel);
                if whole { extent } else { (cached / row).saturating_sub(shared) / step }
            }
            Some(_) | None => cached / pixel,
        };
        let lanes = plan.lane_extent(self.problem, self.target);
        let tiles = self.problem.groups() * self.problem.out_channels_per_group().div_ceil(lanes);
        let tasks = TASKS_A_CORE * self.target.cores() as u64;
        let most = fitting.min(extent * tiles / tasks).clamp(1, extent);
        let unit = plan.task_unit(&self.shape, lanes);
        extent.div_ceil(extent.div_ceil(most)).next_multiple_of(unit).min(extent)
    }

    /// Whether some tap of some output falls outside the input.
    pub(super) fn is_padded(&self) -> bool {
        self.problem.spatial().iter().any(has_padding)
    }
}
