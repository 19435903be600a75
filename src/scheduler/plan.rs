//! A plan: the decisions behind a schedule as plain numbers, and the directives that carry them
//! out.
//!
//! Promises: a plan that [`Plan::check`] accepts becomes a schedule whose directives all apply to
//! the plain nest of the problem; equal plans become equal schedules. Two decisions change the
//! order of a sum: whether padding is skipped ([`Plan::in_place`]), and whether an output is
//! several sums ([`LaneAxis::Channels`]); plans that agree in these give the same bits. Does not:
//! choose (that is the scheduler), or ask whether the nest fits the target's limits (that is the
//! verifier).

mod check;
mod write;

use convgen_ir::elem::Layout;
use convgen_ir::every;
use convgen_ir::problem::{ConvProblem, SpatialAxis};
use convgen_ir::schedule::Schedule;

pub use self::check::{Excluded, LARGEST_BODY, fewest_operands};
pub(super) use self::check::{kernels_in_use, loops_if_peeled};
use self::write::PlanWriter;
use crate::algorithm::PhaseLoop;
use crate::target::{DEINTERLEAVED, Target};
use crate::transform::pack_input::aligned_columns;

/// Which axis becomes the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneAxis {
    /// Output channels of a group: weights are vectors, activations are broadcast.
    OutChannels,
    /// Output channels of a group, each with a few input channels, whose sums are added at the end:
    /// for output channels that do not fill their vectors.
    Channels,
    /// Groups: both are vectors (depthwise).
    Groups,
    /// Neighbouring groups by their output channels, in one vector: weights are vectors, the input
    /// of each group is repeated over its output channels.
    GroupChannels,
    /// Output columns: activations are vectors, weights are broadcast.
    Columns,
    /// None is long enough.
    None,
}

impl LaneAxis {
    /// Every choice.
    pub const ALL: [LaneAxis; 6] =
        every!(LaneAxis { OutChannels, Channels, Groups, GroupChannels, Columns, None });

    /// What the lanes run over, in words.
    pub fn name(self) -> &'static str {
        match self {
            LaneAxis::OutChannels => "output channels",
            LaneAxis::Channels => "channels",
            LaneAxis::Groups => "groups",
            LaneAxis::GroupChannels => "group channels",
            LaneAxis::Columns => "columns",
            LaneAxis::None => "nothing",
        }
    }

    /// Whether weights are vectors of the channels of one group, which all read the same pixel.
    pub(super) fn share_pixels(self) -> bool {
        matches!(self, LaneAxis::OutChannels | LaneAxis::Channels)
    }

    /// Whether a register tile may have several lines of output.
    pub(super) fn takes_lines(self, problem: &ConvProblem) -> bool {
        self == LaneAxis::Columns && problem.in_channels_per_group() == 1
    }

    /// Sums that each output has in a vector.
    pub(super) fn sums(self, problem: &ConvProblem, target: &Target) -> u64 {
        if self == LaneAxis::Channels { sums_a_channel(problem, target) } else { 1 }
    }

    /// Lanes of a vector that belong to different outputs.
    pub(super) fn outputs_a_vector(self, problem: &ConvProblem, target: &Target) -> u64 {
        u64::from(target.lanes()) / self.sums(problem, target)
    }

    /// Input channels that one of the sums of an output goes over at each tap.
    pub(super) fn summed_channels(self, problem: &ConvProblem, target: &Target) -> u64 {
        problem.in_channels_per_group() / self.sums(problem, target)
    }
}

/// The loops around a register tile, by what they walk over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopClass {
    /// Over channels: of groups, of output channels, of tiles of either.
    Channels,
    /// Over the output rows of a task, and over planes.
    Rows,
    /// Over tiles of output columns.
    Columns,
}

/// The order of the loops around a register tile inside a task, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoopOrder(pub [LoopClass; 3]);

impl LoopOrder {
    /// A pixel is done whole, and the next one beside it: memory is met from front to back.
    pub(super) const PIXELS: LoopOrder =
        LoopOrder([LoopClass::Rows, LoopClass::Columns, LoopClass::Channels]);
    /// A tile of a few channels moves down its columns: rows that share taps are met one after the
    /// other.
    pub(super) const DOWN_COLUMNS: LoopOrder =
        LoopOrder([LoopClass::Columns, LoopClass::Channels, LoopClass::Rows]);

    /// Every order. The first keeps a panel of weights while it walks over the pixels of a task.
    pub const ALL: [LoopOrder; 6] = [
        LoopOrder([LoopClass::Channels, LoopClass::Rows, LoopClass::Columns]),
        LoopOrder([LoopClass::Channels, LoopClass::Columns, LoopClass::Rows]),
        LoopOrder([LoopClass::Rows, LoopClass::Channels, LoopClass::Columns]),
        LoopOrder([LoopClass::Rows, LoopClass::Columns, LoopClass::Channels]),
        LoopOrder([LoopClass::Columns, LoopClass::Rows, LoopClass::Channels]),
        LoopOrder([LoopClass::Columns, LoopClass::Channels, LoopClass::Rows]),
    ];
}

/// Where the input is copied into scratch, border and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyInput {
    /// Once an iteration of this walk: of its outermost loop over channels, of its innermost loop
    /// over anything else; once a task if none is named.
    pub at: Option<LoopClass>,
    /// The order of the copy's dimensions, if it is not the input's.
    pub layout: Option<Layout>,
    /// Whether columns of a copy in another order are unrolled, so that vectors of columns become
    /// vectors of channels in registers; only where all parts of the problem copy the same columns.
    pub transposed: bool,
}

/// The knobs of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The loops over phases that the problem's nests have around the loops of one phase.
    pub phases: Vec<PhaseLoop>,
    /// Whether a register tile has all phases, each with its own rows: they are unrolled.
    pub tile_phases: bool,
    /// Whether the spatial axes are one; only where every output pixel reads one input pixel.
    pub fused: bool,
    /// The axis of the lanes.
    pub lanes: LaneAxis,
    /// Vectors a register tile has along the lanes.
    pub vectors: u64,
    /// Rows of a register tile: columns, or output channels where columns are the lanes.
    pub rows: u64,
    /// Output lines of a register tile, where columns are the lanes: neighbouring lines share those
    /// of the input that their taps meet, all of which are unrolled.
    pub lines: u64,
    /// Iterations of the first spatial axis in one task.
    pub block: u64,
    /// Whether the outermost loop over channels is shared among tasks too.
    pub channel_tasks: bool,
    /// The order of the loops of a task.
    pub order: LoopOrder,
    /// Where the input is copied, if it is.
    pub copy: Option<CopyInput>,
    /// Whether padding is met where the input lies: taps outside are skipped in rows and planes,
    /// and known in the tiles of columns at a border, which become kernels of their own.
    pub in_place: bool,
    /// Whether the weights are copied into the order in which they are read.
    pub pack_weights: bool,
    /// Input channels unrolled in the innermost loop, for each of the sums of an output.
    pub steps: u64,
    /// Whether the taps of the last axis are unrolled too; only if all input channels are.
    pub taps: bool,
}

/// The sums that an output may have in a vector: what a load can repeat, and an epilogue add up
/// soon.
const SUMS_A_CHANNEL: [u64; 3] = [1, 2, 4];

/// A problem as a plan sees it: the loops that are tiled, named as they are after fusing.
pub(super) struct Shape<'p> {
    problem: &'p ConvProblem,
    /// Spatial output axes, outermost first.
    pub(super) axes: Vec<(String, u64)>,
}

impl<'p> Shape<'p> {
    pub(super) fn new(problem: &'p ConvProblem, fused: bool) -> Shape<'p> {
        let names = problem.axis_names().iter().zip(problem.spatial());
        let mut axes: Vec<_> = names.map(|(name, s)| (format!("o{name}"), s.output())).collect();
        if fused {
            let names: Vec<&str> = axes.iter().map(|(name, _)| name.as_str()).collect();
            let pixels = axes.iter().map(|(_, extent)| extent).product();
            axes = vec![(names.join("_"), pixels)];
        }
        Shape { problem, axes }
    }

    /// Output columns: the last spatial axis.
    pub(super) fn columns(&self) -> u64 {
        self.axes.last().map_or(1, |(_, extent)| *extent)
    }

    /// The length of the axis of the lanes, and of that of the rows.
    pub(super) fn tiled(&self, lanes: LaneAxis) -> (u64, u64) {
        let channels = self.problem.out_channels_per_group();
        match lanes {
            LaneAxis::OutChannels | LaneAxis::Channels => (channels, self.columns()),
            LaneAxis::Groups | LaneAxis::GroupChannels => (self.problem.groups(), self.columns()),
            LaneAxis::Columns => (self.columns(), channels),
            LaneAxis::None => (1, self.columns()),
        }
    }
}

impl Plan {
    /// Iterations of the loop of the lanes in a register tile: lanes, or groups of them.
    pub fn lane_extent(&self, problem: &ConvProblem, target: &Target) -> u64 {
        let (lane, _) = Shape::new(problem, self.fused).tiled(self.lanes);
        let most = match self.lanes == LaneAxis::GroupChannels {
            true => groups_a_vector(problem, target),
            false => self.vectors * self.lanes.outputs_a_vector(problem, target),
        };
        most.min(lane)
    }

    /// Vectors of sums of a register tile.
    pub(super) fn tile(&self) -> u64 {
        self.vectors * self.rows * self.lines * self.phases_of_tile()
    }

    /// Phases of a register tile.
    pub(super) fn phases_of_tile(&self) -> u64 {
        if self.tile_phases { PhaseLoop::in_all(&self.phases) } else { 1 }
    }

    /// Where the only axis is tiled too, a task is a whole number of tiles.
    pub(super) fn task_unit(&self, shape: &Shape, lane_extent: u64) -> u64 {
        match (shape.axes.len(), self.lanes == LaneAxis::Columns) {
            (1, true) => lane_extent,
            (1, false) => self.rows,
            (_, _) => 1,
        }
    }

    /// Bytes of the input that one task reads, if it is copied once a task.
    pub(super) fn packed_input_bytes(&self, problem: &ConvProblem, target: &Target) -> u64 {
        let lane_extent = self.lane_extent(problem, target);
        // The copy's box holds what the last, incomplete tile of columns would read if it were
        // whole.
        let columns = self.columns_of_tile(problem, target);
        let mut pixels = self.copied_pixels(problem, columns);
        let neighbours =
            self.lanes == LaneAxis::Columns && problem.layout() == Layout::ChannelsLast;
        if let (true, Some(s), Some(columns)) =
            (neighbours, problem.spatial().last(), pixels.last_mut())
        {
            let (_, length) = aligned_columns(-s.pad_before, *columns as i64, problem.elem());
            *columns = length as u64;
        }
        pixels.into_iter().product::<u64>()
            * self.copied_channels(problem, lane_extent)
            * problem.elem().bytes() as u64
    }

    /// The spatial box that one task reads, if it is copied once a task, in tiles of these columns.
    fn copied_pixels(&self, problem: &ConvProblem, columns: u64) -> Vec<u64> {
        let last = problem.rank() - 1;
        let rows = |(i, s): (usize, &SpatialAxis)| {
            let outputs = if i == 0 && !self.fused { self.block } else { s.output() };
            let outputs = if i == last { outputs.next_multiple_of(columns) } else { outputs };
            let phases = self.phases.iter().filter(|phases| phases.axis == i);
            (outputs - 1) * s.stride + s.extent() + phases.map(|phases| phases.shift).sum::<u64>()
        };
        problem.spatial().iter().enumerate().map(rows).collect()
    }

    /// Whether a task is one vector strip of the pixels of a fused problem, which are neighbours,
    /// in several planes.
    pub(super) fn is_one_strip(&self, problem: &ConvProblem, target: &Target) -> bool {
        self.fused
            && problem.in_channels() > 1
            && problem.layout() == Layout::ChannelsFirst
            && self.lanes == LaneAxis::Columns
            && target.has_masks()
            && self.block <= self.lane_extent(problem, target)
    }

    /// Channels of one copy of the input.
    fn copied_channels(&self, problem: &ConvProblem, lane_extent: u64) -> u64 {
        let place = |class| self.order.0.iter().position(|w| *w == class);
        let at = self.copy.and_then(|copy| copy.at);
        let inside =
            self.channel_tasks || at.is_some_and(|at| place(at) >= place(LoopClass::Channels));
        match (self.lanes, inside) {
            (LaneAxis::Groups, _) | (LaneAxis::GroupChannels, true) => {
                lane_extent * problem.in_channels_per_group()
            }
            (_, true) => problem.in_channels_per_group(),
            (_, false) => problem.in_channels(),
        }
    }

    /// The directives, in the order in which they are carried out.
    pub fn schedule(&self, problem: &ConvProblem, target: &Target) -> Schedule {
        let shape = Shape::new(problem, self.fused);
        let lane_extent = self.lane_extent(problem, target);
        let writer =
            PlanWriter { plan: self, problem, target, shape, lane_extent, directives: vec![] };
        writer.write()
    }

    /// The loops around its tile.
    fn loops(&self, problem: &ConvProblem, target: &Target) -> Loops {
        let shape = Shape::new(problem, self.fused);
        let lane_extent = self.lane_extent(problem, target);
        let mut writer =
            PlanWriter { plan: self, problem, target, shape, lane_extent, directives: vec![] };
        writer.loops()
    }

    /// The same plan, with the first of the orders that are alike where walks have no loops.
    pub(super) fn canonical(mut self, problem: &ConvProblem, target: &Target) -> Plan {
        self.order = self.order.canonical(&self.loops(problem, target));
        self
    }

    /// Whether its tile is one of several pixels of a row that meet padding where the input lies:
    /// the taps of each pixel are a loop that ends where its input does, and no border is unrolled.
    fn is_pixel_in_place(&self, problem: &ConvProblem) -> bool {
        let several = problem.spatial().last().is_some_and(|s| s.output() > 1);
        self.in_place && self.rows == 1 && !self.taps && self.lanes != LaneAxis::Columns && several
    }

    /// Whether padding is met where the input lies by tiles whose columns, taps and borders are
    /// unrolled.
    pub(super) fn is_tile_in_place(&self, problem: &ConvProblem) -> bool {
        self.in_place && !self.is_pixel_in_place(problem)
    }

    /// The axis of the lines of a register tile that has several, and iterations of it in a task.
    pub(super) fn line_axis<'p>(&self, problem: &'p ConvProblem) -> Option<(&'p SpatialAxis, u64)> {
        let (_, others) = problem.spatial().split_last()?;
        let axis = others.last().filter(|_| self.lines > 1 && !self.fused)?;
        Some((axis, if others.len() == 1 { self.block } else { axis.output() }))
    }

    /// Whether the taps of a row are straight code.
    pub(super) fn unrolls_taps(&self, problem: &ConvProblem) -> bool {
        self.taps || self.is_tile_in_place(problem)
    }

    /// Taps of the axes whose taps are straight code.
    pub(super) fn unrolled_taps(&self, problem: &ConvProblem) -> u64 {
        let row = problem.spatial().last().map_or(1, |s| s.kernel);
        let row = if self.unrolls_taps(problem) { row } else { 1 };
        row * self.line_axis(problem).map_or(1, |(axis, _)| axis.kernel)
    }

    /// How many kernels of straight code take turns, for the borders of the image.
    pub(super) fn kernels_in_use(&self, problem: &ConvProblem, target: &Target) -> f64 {
        if !self.is_tile_in_place(problem) {
            return 1.0;
        }
        let lines = self.line_axis(problem).map(|(axis, _)| (axis, self.lines));
        let columns = problem.spatial().last().map(|s| (s, self.columns_of_tile(problem, target)));
        let peeled = lines.into_iter().chain(columns).filter(|(s, _)| has_padding(s));
        peeled.map(|(s, outputs)| kernels_in_use(s, outputs)).product()
    }

    /// Output columns of a register tile.
    fn columns_of_tile(&self, problem: &ConvProblem, target: &Target) -> u64 {
        match self.lanes == LaneAxis::Columns {
            true => self.lane_extent(problem, target),
            false => self.rows,
        }
    }
}

/// Loops around the tile, each list outermost first, and the loops of the tile.
struct Loops {
    tasks: Vec<String>,
    channels: Vec<String>,
    rows: Vec<String>,
    columns: Vec<String>,
    row: String,
    /// The loop over the lines of the tile, if it has several.
    lines: Option<String>,
    /// The loop over the vectors of a row of the tile, if it is one of its own.
    vectors: Option<String>,
    /// The loops of the lanes, outermost first.
    lanes: Vec<String>,
}

impl Loops {
    fn of(&self, class: LoopClass) -> &[String] {
        match class {
            LoopClass::Channels => &self.channels,
            LoopClass::Rows => &self.rows,
            LoopClass::Columns => &self.columns,
        }
    }
}

impl LoopOrder {
    /// The first order that is the same where some walks have no loops.
    fn canonical(self, loops: &Loops) -> LoopOrder {
        let written = |order: &LoopOrder| -> Vec<LoopClass> {
            order.0.into_iter().filter(|class| !loops.of(*class).is_empty()).collect()
        };
        let same = |order: &LoopOrder| written(order) == written(&self);
        LoopOrder::ALL.into_iter().find(same).unwrap_or(self)
    }
}

/// How many input channels each output channel has beside it in a vector, for a pixel to take least
/// time: one, two or four. One where the order of the sum must stay.
pub(super) fn sums_a_channel(problem: &ConvProblem, target: &Target) -> u64 {
    if target.accuracy().keeps_order() {
        return 1;
    }
    let divides = |sums: &u64| problem.in_channels_per_group().is_multiple_of(*sums);
    let possible = SUMS_A_CHANNEL.into_iter().filter(divides);
    match target.has_permutes() {
        true => possible.min_by_key(|sums| pixel_work(problem, target, *sums)).unwrap_or(1),
        false => 1,
    }
}

/// Vector operations of a pixel of a group where each output is so many sums: their products, and
/// then a permutation of each and the additions.
pub(super) fn pixel_work(problem: &ConvProblem, target: &Target, sums: u64) -> u64 {
    let taps = problem.taps();
    let outputs = (u64::from(target.lanes()) / sums).max(1);
    let added = if sums > 1 { 2 * sums - 1 } else { 0 };
    let each = problem.in_channels_per_group() * taps / sums + added;
    problem.out_channels_per_group().div_ceil(outputs) * each
}

/// Groups of which a vector holds all output channels, and another one all input channels.
pub(super) fn groups_a_vector(problem: &ConvProblem, target: &Target) -> u64 {
    let widest = problem.out_channels_per_group().max(problem.in_channels_per_group());
    u64::from(target.lanes()) / widest
}

/// Whether the output channels of several groups are a vector, and those of one are less than half
/// of one. With 4 channels a group, 32 groups and 56x56 that is 108 GFLOP/s with AVX-512, where
/// lanes of one group reach 21; with 8 and 28x28 it is 77 to 90, where they reach 44.
pub(super) fn groups_fill_a_vector(problem: &ConvProblem, target: &Target) -> bool {
    let groups = groups_a_vector(problem, target).min(problem.groups());
    target.has_permutes()
        && problem.layout() == Layout::ChannelsLast
        && problem.out_channels_per_group() > 1
        && groups > 1
}

/// Whether some tap of some output falls outside the input in this axis.
pub(super) fn has_padding(s: &SpatialAxis) -> bool {
    s.reads_padding(s.output())
}

/// Whether vectors are loaded of the columns that neighbouring outputs read, and masked at padding:
/// of neighbours, or of every second element.
pub(super) fn columns_are_vectors(problem: &ConvProblem, target: &Target) -> bool {
    let step = column_step(problem, problem.layout());
    step == 1 || (step == DEINTERLEAVED && target.has_micro_kernels())
}

/// Elements of a layout between the columns that neighbouring outputs read.
pub(super) fn column_step(problem: &ConvProblem, layout: Layout) -> u64 {
    let stride = problem.spatial().last().map_or(1, |s| s.stride);
    match layout {
        Layout::ChannelsFirst => stride,
        Layout::ChannelsLast => stride * problem.in_channels(),
    }
}

/// Bytes of all weights.
pub(super) fn weight_bytes(problem: &ConvProblem) -> u64 {
    problem.weights_shape().iter().product::<u64>() * problem.elem().bytes() as u64
}

/// Whether every output pixel depends on the input pixel at the same place alone.
pub(super) fn is_pointwise(problem: &ConvProblem) -> bool {
    problem.rank() > 1
        && problem
            .spatial()
            .iter()
            .all(|s| s.kernel == 1 && s.stride == 1 && s.pad_before == 0 && s.output() == s.input)
}
