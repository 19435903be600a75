//! Which algorithm and schedule a problem gets on a target.
//!
//! The pick is made in three steps, each a small decision with its reason beside it: which axis the
//! lanes run over, how large the register tile is, and how the work around the tile is blocked.

use convgen_ir::elem::Layout;
use convgen_ir::problem::{ConvProblem, SpatialAxis};
use convgen_ir::schedule::{Directive, Schedule, Tail};

use crate::algorithm::Algorithm;
use crate::target::{Isa, Target};

/// The default pick: legal for every problem on every target.
pub fn default_schedule(problem: &ConvProblem, target: &Target) -> (Algorithm, Schedule) {
    (Algorithm::Direct, Plan::new(problem, target).schedule())
}

/// Which axis becomes the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneAxis {
    /// Output channels of a group: weights are vectors, activations are broadcast.
    OutChannels,
    /// Groups: both are vectors (depthwise).
    Groups,
    /// Output columns: activations are vectors, weights are broadcast.
    Columns,
    /// None is long enough.
    None,
}

/// Lanes worth a vector, full or not.
const SHORTEST_VECTOR: u64 = 4;

/// Multiply-adds in the body of the innermost loop: enough to hide the loop's own instructions, few
/// enough that compiling them stays well below a millisecond.
const UNROLLED_STEPS: u64 = 32;

/// Registers that Cranelift needs for operands: its multiply-add overwrites a factor, so a tile of
/// twelve accumulators spills (35 GFLOP/s on ResNet-50's 3x3 layers), one of eight does not (45), and
/// eight are enough to hide the latency of two units.
const CRANELIFT_OPERANDS: u64 = 8;

/// Registers that a micro-kernel needs for operands: two vectors of weights, a broadcast, and one for
/// what the epilogue computes.
const MICRO_KERNEL_OPERANDS: u64 = 4;

/// Multiply-adds in the body of the innermost loop of a kernel without input channels to sum over:
/// written out, neighbouring taps share the columns they load.
const UNROLLED_TAPS: u64 = 256;

/// One way of a first-level cache: a page, on every CPU that looks it up by virtual address. On 1x1
/// layers of 1024 channels tiles of 14 rows reach 77 % of the peak, tiles of 7 rows 97 %.
const L1_WAY_BYTES: u64 = 4096;

/// Multiply-adds of one task, at least: a task should last some microseconds.
const TASK_MACS: u64 = 1 << 20;

struct Plan<'p> {
    problem: &'p ConvProblem,
    target: &'p Target,
    lane_axis: LaneAxis,
    /// Spatial output axes, outermost first, as they are after fusing.
    axes: Vec<(String, u64)>,
    fused: bool,
}

impl<'p> Plan<'p> {
    fn new(problem: &'p ConvProblem, target: &'p Target) -> Plan<'p> {
        let fused = is_pointwise(problem);
        let axes = problem
            .axis_names()
            .iter()
            .zip(problem.spatial())
            .map(|(name, s)| (format!("o{name}"), s.output()))
            .collect();
        let mut plan = Plan { problem, target, lane_axis: LaneAxis::None, axes, fused };
        if fused {
            let name =
                plan.axes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("_");
            let pixels = plan.axes.iter().map(|(_, extent)| extent).product();
            plan.axes = vec![(name, pixels)];
        }
        plan.lane_axis = plan.choose_lanes();
        plan
    }

    /// Vectors should be contiguous in memory where the data is: channels last, channels; channels
    /// first, columns, unless a stride tears them apart. Masks make short vectors worth while.
    fn choose_lanes(&self) -> LaneAxis {
        let lanes = u64::from(self.target.lanes());
        let enough = lanes.min(SHORTEST_VECTOR);
        let channels = self.problem.out_channels_per_group();
        let columns = self.columns();
        let stride = self.problem.spatial().last().map_or(1, |s| s.stride);
        let channels_first = self.problem.layout() == Layout::ChannelsFirst;
        if channels_first
            && stride == 1
            && (columns >= lanes || channels < columns)
            && columns >= enough
        {
            LaneAxis::Columns
        } else if channels >= enough {
            LaneAxis::OutChannels
        } else if self.problem.groups() >= enough && !channels_first {
            LaneAxis::Groups
        } else if columns >= enough {
            LaneAxis::Columns
        } else if self.problem.groups() >= enough {
            LaneAxis::Groups
        } else {
            LaneAxis::None
        }
    }

    fn columns(&self) -> u64 {
        self.axes.last().map_or(1, |(_, extent)| *extent)
    }

    fn schedule(&self) -> Schedule {
        let mut directives = Vec::new();
        if self.fused {
            self.fuse(&mut directives);
        }
        let tile = self.tile();
        let block = self.task_block(&tile);
        let blocked = self.block(&tile, block, &mut directives);
        self.finish_tile(&tile, &blocked, &mut directives);
        directives.push(Directive::PackWeights);
        if self.is_padded() && self.packed_input_bytes(&tile, block) <= self.scratch_limit() {
            let layout = (self.lane_axis == LaneAxis::OutChannels
                && self.problem.layout() == Layout::ChannelsFirst)
                .then_some(Layout::ChannelsLast);
            directives.push(Directive::PackInput { at: blocked.copy, layout });
            self.vectorize_copy(&tile, layout, &mut directives);
        }
        Schedule { directives }
    }

    fn fuse(&self, directives: &mut Vec<Directive>) {
        let names = self.problem.axis_names();
        let mut outer = format!("o{}", names[0]);
        for name in &names[1..] {
            let inner = format!("o{name}");
            let fused = format!("{outer}_{inner}");
            directives.push(Directive::Fuse { outer, inner });
            outer = fused;
        }
    }

    /// The register tile: the lane axis by one or two vectors, another axis by rows.
    fn tile(&self) -> Tile {
        let lanes = u64::from(self.target.lanes());
        let operands = match self.target.isa() {
            Isa::Clif => CRANELIFT_OPERANDS,
            Isa::Avx2 | Isa::Avx512 => MICRO_KERNEL_OPERANDS,
        };
        let budget = u64::from(self.target.registers()) - operands;
        let channels = self.problem.out_channels_per_group();
        let columns = self.columns();
        let (lane, row) = match self.lane_axis {
            LaneAxis::OutChannels => (channels, columns),
            LaneAxis::Groups => (self.problem.groups(), columns),
            LaneAxis::Columns => (columns, channels),
            LaneAxis::None => (1, columns),
        };
        let vectors = match self.target.isa() {
            // Cranelift has no masks: what is no whole vector is done lane by lane.
            Isa::Clif => (lane / lanes).clamp(1, 2),
            Isa::Avx2 | Isa::Avx512 => fewest_lanes_wasted(lane.div_ceil(lanes)),
        };
        let lane_extent = (vectors * lanes).min(lane);
        let rows = balanced(row, (budget / vectors).min(self.rows_in_cache()));
        Tile { lane_extent, rows, vectors }
    }

    /// Rows whose elements of one input channel the first-level cache can hold at once. Where pixels
    /// are a multiple of a way apart they all fall into one set, and one way is the weights'.
    fn rows_in_cache(&self) -> u64 {
        let pixel = self.problem.in_channels() * self.problem.elem().bytes() as u64;
        let stride = self.problem.spatial().last().map_or(1, |s| s.stride);
        let in_place = self.lane_axis == LaneAxis::OutChannels
            && self.problem.layout() == Layout::ChannelsLast;
        let ways = self.target.caches().l1d as u64 / L1_WAY_BYTES;
        match in_place && (pixel * stride).is_multiple_of(L1_WAY_BYTES) {
            true => ways.saturating_sub(1).max(1),
            false => u64::MAX,
        }
    }

    /// Iterations of the first output axis in one task: enough work for a task, few enough rows
    /// that their input fits the scratch.
    fn task_block(&self, tile: &Tile) -> u64 {
        let extent = self.axes[0].1;
        let images = self.problem.batch().max(1);
        let per_step = (self.problem.macs() / images / extent).max(1);
        let unit = self.task_unit(tile);
        let mut block = TASK_MACS.div_ceil(per_step).next_multiple_of(unit);
        let cached = self.target.caches().l2 as u64;
        while block > unit && self.packed_input_bytes(tile, block.min(extent)) > cached {
            block = (block / 2).next_multiple_of(unit);
        }
        block.min(extent)
    }

    /// Where the only axis is tiled too, a task is a whole number of tiles.
    fn task_unit(&self, tile: &Tile) -> u64 {
        match (self.axes.len(), self.lane_axis) {
            (1, LaneAxis::Columns) => tile.lane_extent,
            (1, LaneAxis::OutChannels | LaneAxis::Groups | LaneAxis::None) => tile.rows,
            (_, _) => 1,
        }
    }

    /// Splits and orders the spatial loops: tasks, then blocks that reuse a panel of weights, then
    /// the tile.
    fn block(&self, tile: &Tile, block: u64, directives: &mut Vec<Directive>) -> Blocked {
        let (task_axis, task_extent) = &self.axes[0];
        // A task that is one tile has no second split to cut the last one short.
        let one_tile = self.axes.len() == 1 && block == self.task_unit(tile);
        let tail = if one_tile { Tail::Cut } else { Tail::Guard };
        let (task_outer, within) = split(task_axis, block, *task_extent, tail, directives);
        let mut axes = self.axes.clone();
        axes[0] = (within, block);
        let columns = axes.pop().unwrap_or_default();

        let problem = self.problem;
        let (oc, g) = (problem.out_channels_per_group(), problem.groups());
        // Outer loops over channels, the tile's outer loop over columns, and the tile's loops.
        let mut order = Vec::new();
        // Every channel reads the same input, except where each group has its own.
        let mut copy = None;
        let (column_outer, row, lane) = match self.lane_axis {
            LaneAxis::Columns => {
                let lane = split(&columns.0, tile.lane_extent, columns.1, Tail::Cut, directives);
                let row = split("oc", tile.rows, oc, Tail::Cut, directives);
                order.push("g".to_string());
                order.extend(row.0);
                (lane.0, row.1, Some(lane.1))
            }
            LaneAxis::OutChannels => {
                let lane = split("oc", tile.lane_extent, oc, Tail::Pad, directives);
                let row = split(&columns.0, tile.rows, columns.1, Tail::Cut, directives);
                order.push("g".to_string());
                order.extend(lane.0);
                (row.0, row.1, Some(lane.1))
            }
            LaneAxis::Groups => {
                let lane = split("g", tile.lane_extent, g, Tail::Pad, directives);
                let row = split(&columns.0, tile.rows, columns.1, Tail::Cut, directives);
                copy = lane.0.clone();
                order.extend(lane.0);
                order.push("oc".to_string());
                (row.0, row.1, Some(lane.1))
            }
            LaneAxis::None => {
                let row = split(&columns.0, tile.rows, columns.1, Tail::Cut, directives);
                order.extend(["g".to_string(), "oc".to_string()]);
                (row.0, row.1, None)
            }
        };
        let tasks: Vec<String> = ["n".to_string()].into_iter().chain(task_outer).collect();
        let within = axes.into_iter().map(|(name, _)| name).chain(column_outer);
        let mut order: Vec<String> = tasks.iter().cloned().chain(order).chain(within).collect();
        let innermost = order[order.len() - 1].clone();
        order.push(row.clone());
        order.extend(lane.clone());
        directives.push(Directive::Reorder { axes: order });
        directives.extend(tasks.iter().map(|axis| Directive::Parallel { axis: axis.clone() }));
        directives.push(Directive::AccumulateOutput { at: innermost });
        let copy = copy.unwrap_or_else(|| tasks[tasks.len() - 1].clone());
        Blocked { copy, row, lane }
    }

    /// Writes out the tile and a few steps of the reduction.
    fn finish_tile(&self, tile: &Tile, blocked: &Blocked, directives: &mut Vec<Directive>) {
        let unroll = |axis: &str| Directive::Unroll { axis: axis.to_string() };
        directives.push(unroll(&blocked.row));
        if let Some(lane) = &blocked.lane {
            directives.push(Directive::Vectorize { axis: lane.clone() });
        }
        let channels = self.problem.in_channels_per_group();
        let steps = (UNROLLED_STEPS / (tile.rows * tile.vectors)).max(1);
        let by = (1..=steps.min(channels)).rev().find(|by| channels.is_multiple_of(*by));
        let by = by.unwrap_or(1);
        if by < channels {
            split("ic", by, channels, Tail::Guard, directives);
            directives.push(unroll("ic.i"));
            return;
        }
        directives.push(unroll("ic"));
        let steps = match (channels, self.target.isa()) {
            (1, Isa::Avx2 | Isa::Avx512) => UNROLLED_TAPS / (tile.rows * tile.vectors),
            (_, Isa::Clif | Isa::Avx2 | Isa::Avx512) => steps,
        };
        if let (Some(s), Some(name)) =
            (self.problem.spatial().last(), self.problem.axis_names().last())
            && s.kernel * channels <= steps
        {
            directives.push(unroll(&format!("k{name}")));
        }
    }

    /// Copies channels by vectors where they are neighbours in the copy: whether a pixel is padding
    /// is then asked once a vector.
    fn vectorize_copy(&self, tile: &Tile, layout: Option<Layout>, directives: &mut Vec<Directive>) {
        let channels = self.copied_channels(tile);
        let last = layout.unwrap_or(self.problem.layout()) == Layout::ChannelsLast;
        let lanes = u64::from(self.target.lanes());
        let by = [4 * lanes, 2 * lanes, lanes].into_iter().find(|by| channels.is_multiple_of(*by));
        if let (true, Some(by)) = (last, by) {
            let (_, inner) = split("copy.c", by, channels, Tail::Guard, directives);
            directives.push(Directive::Vectorize { axis: inner });
        }
    }

    /// Whether some tap of some output falls outside the input.
    fn is_padded(&self) -> bool {
        self.problem.spatial().iter().any(|s| {
            let end = (s.output() - 1) * s.stride + s.extent();
            s.pad_before > 0 || end as i64 - s.pad_before > s.input as i64
        })
    }

    /// Bytes of the input that one task reads, if it is copied.
    fn packed_input_bytes(&self, tile: &Tile, block: u64) -> u64 {
        // The copy's box holds what the last, incomplete tile of columns would read if it were whole.
        let columns = match self.lane_axis {
            LaneAxis::Columns => tile.lane_extent,
            LaneAxis::OutChannels | LaneAxis::Groups | LaneAxis::None => tile.rows,
        };
        let last = self.problem.rank() - 1;
        let rows = |i: usize, s: &SpatialAxis| {
            let outputs = if i == 0 && !self.fused { block } else { s.output() };
            let outputs = if i == last { outputs.next_multiple_of(columns) } else { outputs };
            (outputs - 1) * s.stride + s.extent()
        };
        let pixels: u64 =
            self.problem.spatial().iter().enumerate().map(|(i, s)| rows(i, s)).product();
        pixels * self.copied_channels(tile) * self.problem.elem().bytes() as u64
    }

    /// Channels of one copy of the input.
    fn copied_channels(&self, tile: &Tile) -> u64 {
        match self.lane_axis {
            LaneAxis::Groups => tile.lane_extent * self.problem.in_channels_per_group(),
            LaneAxis::OutChannels | LaneAxis::Columns | LaneAxis::None => {
                self.problem.in_channels()
            }
        }
    }

    fn scratch_limit(&self) -> u64 {
        self.target.limits().scratch_bytes as u64
    }
}

/// A register tile: one or two vectors of the lane axis by some rows of another.
struct Tile {
    lane_extent: u64,
    rows: u64,
    vectors: u64,
}

/// The names that blocking produced.
struct Blocked {
    /// The loop whose body copies its input, if the input is copied.
    copy: String,
    /// The tile's rows.
    row: String,
    /// The tile's lanes.
    lane: Option<String>,
}

/// Splits an axis if there is more than one tile of it: the outer axis, if any, and the inner one.
fn split(
    axis: &str,
    by: u64,
    extent: u64,
    tail: Tail,
    directives: &mut Vec<Directive>,
) -> (Option<String>, String) {
    if by >= extent {
        return (None, axis.to_string());
    }
    directives.push(Directive::Split { axis: axis.to_string(), by: by as u32, tail });
    (Some(format!("{axis}.o")), format!("{axis}.i"))
}

/// How many vectors wide a tile is, given how many there are: two to four keep the broadcasts rare;
/// fewest run past the end, then fewest a tile.
fn fewest_lanes_wasted(vectors: u64) -> u64 {
    let padded = |width: &u64| vectors.div_ceil(*width) * width;
    if vectors == 1 { 1 } else { (2..=4).min_by_key(padded).unwrap_or(2) }
}

/// The rows of a tile, at most `limit`: a divisor of the extent if one is nearly as large, so that no
/// second kernel is needed for the rest; else the size that makes the fewest tiles most alike.
fn balanced(extent: u64, limit: u64) -> u64 {
    let limit = limit.clamp(1, extent);
    let nearly = (limit * 3).div_ceil(4);
    let divisor = (nearly..=limit).rev().find(|rows| extent.is_multiple_of(*rows));
    divisor.unwrap_or_else(|| extent.div_ceil(extent.div_ceil(limit)))
}

/// Whether every output pixel depends on the input pixel at the same place alone.
fn is_pointwise(problem: &ConvProblem) -> bool {
    problem.rank() > 1
        && problem
            .spatial()
            .iter()
            .all(|s| s.kernel == 1 && s.stride == 1 && s.pad_before == 0 && s.output() == s.input)
}
