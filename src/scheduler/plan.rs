//! A plan: the decisions behind a schedule as plain numbers, and the directives that carry them out.
//!
//! Promises: a plan that [`Plan::check`] accepts becomes a schedule whose directives all apply to the
//! plain nest of the problem; equal plans become equal schedules. No decision changes the order of a
//! sum, so every plan of a problem gives the same bits, or two sets of bits where padding may be
//! skipped ([`Plan::in_place`]). Does not: choose (that is the scheduler), or
//! ask whether the nest fits the target's limits (that is the verifier).

mod write;

use convgen_ir::elem::Layout;
use convgen_ir::epilogue::expand::expand;
use convgen_ir::nest::{Expr, Nest};
use convgen_ir::problem::{ConvProblem, SpatialAxis};
use convgen_ir::schedule::Schedule;

use self::write::Writer;
use crate::algorithm::PhaseLoop;
use crate::target::{Isa, Target};
use crate::transform::pack_input::aligned_columns;

/// Which axis becomes the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneAxis {
    /// Output channels of a group: weights are vectors, activations are broadcast.
    OutChannels,
    /// Output channels of a group, each with a few input channels, whose sums are added at the end: for
    /// output channels that do not fill their vectors.
    Channels,
    /// Groups: both are vectors (depthwise).
    Groups,
    /// Neighbouring groups by their output channels, in one vector: weights are vectors, the input of
    /// each group is repeated over its output channels.
    GroupChannels,
    /// Output columns: activations are vectors, weights are broadcast.
    Columns,
    /// None is long enough.
    None,
}

impl LaneAxis {
    /// Every choice.
    pub const ALL: [LaneAxis; 6] = [
        LaneAxis::OutChannels,
        LaneAxis::Channels,
        LaneAxis::Groups,
        LaneAxis::GroupChannels,
        LaneAxis::Columns,
        LaneAxis::None,
    ];

    /// Whether weights are vectors of the channels of one group, which all read the same pixel.
    pub(super) fn share_pixels(self) -> bool {
        match self {
            LaneAxis::OutChannels | LaneAxis::Channels => true,
            LaneAxis::Groups | LaneAxis::GroupChannels | LaneAxis::Columns | LaneAxis::None => {
                false
            }
        }
    }

    /// Sums that each output has in a vector.
    pub(super) fn sums(self, problem: &ConvProblem, target: &Target) -> u64 {
        match self {
            LaneAxis::Channels => sums_a_channel(problem, target),
            LaneAxis::OutChannels
            | LaneAxis::Groups
            | LaneAxis::GroupChannels
            | LaneAxis::Columns
            | LaneAxis::None => 1,
        }
    }
}

/// The loops around a register tile, by what they walk over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Walk {
    /// Over channels: of groups, of output channels, of tiles of either.
    Channels,
    /// Over the output rows of a task, and over planes.
    Rows,
    /// Over tiles of output columns.
    Columns,
}

/// The order of the loops around a register tile inside a task, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order(pub [Walk; 3]);

impl Order {
    /// Every order. The first keeps a panel of weights while it walks over the pixels of a task.
    pub const ALL: [Order; 6] = [
        Order([Walk::Channels, Walk::Rows, Walk::Columns]),
        Order([Walk::Channels, Walk::Columns, Walk::Rows]),
        Order([Walk::Rows, Walk::Channels, Walk::Columns]),
        Order([Walk::Rows, Walk::Columns, Walk::Channels]),
        Order([Walk::Columns, Walk::Rows, Walk::Channels]),
        Order([Walk::Columns, Walk::Channels, Walk::Rows]),
    ];
}

/// Where the input is copied into scratch, border and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyInput {
    /// Once an iteration of this walk: of its outermost loop over channels, of its innermost loop over
    /// anything else; once a task if none is named.
    pub at: Option<Walk>,
    /// The order of the copy's dimensions, if it is not the input's.
    pub layout: Option<Layout>,
    /// Whether columns of a copy in another order are written out, so that vectors of columns become
    /// vectors of channels in registers; only where all parts of the problem copy the same columns.
    pub transposed: bool,
}

/// The knobs of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The loops over phases that the problem's nests have around the loops of one phase.
    pub phases: Vec<PhaseLoop>,
    /// Whether a register tile has all phases, each with its own rows: they are written out.
    pub tile_phases: bool,
    /// Whether the spatial axes are one; only where every output pixel reads one input pixel.
    pub fused: bool,
    /// The axis of the lanes.
    pub lanes: LaneAxis,
    /// Vectors a register tile has along the lanes.
    pub vectors: u64,
    /// Rows of a register tile: columns, or output channels where columns are the lanes.
    pub rows: u64,
    /// Iterations of the first spatial axis in one task.
    pub block: u64,
    /// Whether the outermost loop over channels is shared among tasks too.
    pub channel_tasks: bool,
    /// The order of the loops of a task.
    pub order: Order,
    /// Where the input is copied, if it is.
    pub copy: Option<CopyInput>,
    /// Whether padding is met where the input lies: taps outside are skipped in rows and planes, and
    /// known in the tiles of columns at a border, which become kernels of their own.
    pub in_place: bool,
    /// Whether the weights are copied into the order in which they are read.
    pub pack_weights: bool,
    /// Input channels written out in the innermost loop, for each of the sums of an output.
    pub steps: u64,
    /// Whether the taps of the last axis are written out too; only if all input channels are.
    pub taps: bool,
}

/// Why a plan is no schedule of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names every field")]
pub enum Excluded {
    #[error("outputs depend on more than the pixel at their place, so axes are not fused")]
    NotPointwise,
    #[error("{axis:?} is {extent} long: no lanes")]
    NoLanes { axis: LaneAxis, extent: u64 },
    #[error("{vectors} vectors are more than the {needed} that the lanes need")]
    Vectors { vectors: u64, needed: u64 },
    #[error("{rows} rows do not fit the {extent} there are")]
    Rows { rows: u64, extent: u64 },
    #[error("a tile of {tile} registers and {operands} operands do not fit {registers}")]
    Registers { tile: u64, operands: u64, registers: u64 },
    #[error("a task of {block} does not fit the {extent} there are, or is no multiple of {unit}")]
    Block { block: u64, extent: u64, unit: u64 },
    #[error("there is no loop over {walk:?} to order or to copy in")]
    NoLoop { walk: Walk },
    #[error("{steps} steps do not divide {channels} input channels")]
    Steps { steps: u64, channels: u64 },
    #[error("a loop body of {body} multiply-adds is larger than {limit}")]
    Body { body: u64, limit: u64 },
    #[error("{kernels} kernels for the borders have {given} lane operations, the limit is {limit}")]
    Borders { kernels: i64, given: i64, limit: i64 },
    #[error("padding is not met in place: {reason}")]
    InPlace { reason: &'static str },
    #[error("tasks of one of {channels} output channels a group write between one another")]
    Interleaved { channels: u64 },
    #[error("groups by output channels are no lanes: {reason}")]
    GroupLanes { reason: &'static str },
    #[error("input channels are no lanes: {reason}")]
    SumLanes { reason: &'static str },
    #[error("the input has that layout already, or the lanes are no neighbours in it")]
    CopyLayout,
}

/// Vector registers that must be left for operands, at least: a weight, and a value or a broadcast; of a
/// micro-kernel one more of each, or it is left to Cranelift where a mask or an epilogue needs some.
pub fn fewest_operands(isa: Isa) -> u64 {
    match isa {
        Isa::Clif => 2,
        Isa::Avx2 | Isa::Avx512 => 4,
    }
}

/// Vector multiply-adds in the body of the innermost loop, at most: beyond, the time to compile grows
/// and the first level of the instruction cache overflows.
pub const LARGEST_BODY: u64 = 512;

/// The sums that an output may have in a vector: what a load can repeat, and an epilogue add up soon.
const MOST_SUMS: [u64; 3] = [1, 2, 4];

/// Kernels for one loop over tiles of columns, at most: one a tile at a border, one for the others.
pub const MOST_BORDERS: i64 = 8;

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
        match self.lanes {
            LaneAxis::GroupChannels => groups_a_vector(problem, target).min(lane),
            LaneAxis::OutChannels
            | LaneAxis::Channels
            | LaneAxis::Groups
            | LaneAxis::Columns
            | LaneAxis::None => {
                let lanes = u64::from(target.lanes()) / self.lanes.sums(problem, target);
                (self.vectors * lanes).min(lane)
            }
        }
    }

    /// Input channels that one of the sums of an output goes over at each tap.
    pub(super) fn summed_channels(&self, problem: &ConvProblem, target: &Target) -> u64 {
        problem.in_channels_per_group() / self.lanes.sums(problem, target)
    }

    /// Vectors of sums of a register tile.
    pub(super) fn tile(&self) -> u64 {
        let phases = self.phases.iter().map(|phases| phases.count);
        let phases = if self.tile_phases { phases.product() } else { 1 };
        self.vectors * self.rows * phases
    }

    /// Where the only axis is tiled too, a task is a whole number of tiles.
    pub(super) fn task_unit(&self, shape: &Shape, lane_extent: u64) -> u64 {
        match (shape.axes.len(), self.lanes) {
            (1, LaneAxis::Columns) => lane_extent,
            (
                1,
                LaneAxis::OutChannels
                | LaneAxis::Channels
                | LaneAxis::Groups
                | LaneAxis::GroupChannels
                | LaneAxis::None,
            ) => self.rows,
            (_, _) => 1,
        }
    }

    /// Bytes of the input that one task reads, if it is copied once a task.
    pub(super) fn packed_input_bytes(&self, problem: &ConvProblem, target: &Target) -> u64 {
        let lane_extent = self.lane_extent(problem, target);
        // The copy's box holds what the last, incomplete tile of columns would read if it were whole.
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

    /// Whether a task is one vector strip of the pixels of a fused problem, which are neighbours.
    pub(super) fn is_one_strip(&self, problem: &ConvProblem, target: &Target) -> bool {
        self.fused
            && problem.layout() == Layout::ChannelsFirst
            && self.lanes == LaneAxis::Columns
            && target.isa().vectors().is_some()
            && self.block <= self.lane_extent(problem, target)
    }

    /// Channels of one copy of the input.
    fn copied_channels(&self, problem: &ConvProblem, lane_extent: u64) -> u64 {
        let place = |walk| self.order.0.iter().position(|w| *w == walk);
        let at = self.copy.and_then(|copy| copy.at);
        let inside = self.channel_tasks || at.is_some_and(|at| place(at) >= place(Walk::Channels));
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
        let writer = Writer { plan: self, problem, target, shape, lane_extent, directives: vec![] };
        writer.write()
    }

    /// The loops around its tile.
    fn loops(&self, problem: &ConvProblem, target: &Target) -> Loops {
        let shape = Shape::new(problem, self.fused);
        let lane_extent = self.lane_extent(problem, target);
        let mut writer =
            Writer { plan: self, problem, target, shape, lane_extent, directives: vec![] };
        writer.loops()
    }

    /// The same plan, with the first of the orders that are alike where walks have no loops.
    pub(super) fn canonical(mut self, problem: &ConvProblem, target: &Target) -> Plan {
        self.order = self.order.canonical(&self.loops(problem, target));
        self
    }

    /// Whether the plan is a schedule of the problem whose tile stays in the target's registers.
    ///
    /// # Errors
    /// What rules it out.
    pub fn check(&self, problem: &ConvProblem, target: &Target) -> Result<(), Excluded> {
        if self.fused && !is_pointwise(problem) {
            return Err(Excluded::NotPointwise);
        }
        let shape = Shape::new(problem, self.fused);
        self.check_tile(problem, target, &shape)?;
        self.check_loops(problem, target, &shape)?;
        if self.in_place {
            self.check_in_place(problem, target)?;
            self.check_borders(problem, target)?;
        }
        self.check_body(problem, target)
    }

    /// Whether all padding is skipped or known at compile time.
    pub(super) fn check_in_place(
        &self,
        problem: &ConvProblem,
        target: &Target,
    ) -> Result<(), Excluded> {
        let excluded = |reason| Err(Excluded::InPlace { reason });
        let Some((columns, others)) = problem.spatial().split_last() else {
            return excluded("there is no axis");
        };
        if self.copy.is_some() {
            return excluded("the input is copied");
        }
        if !problem.spatial().iter().any(has_padding) {
            return excluded("there is none");
        }
        if problem.extends_input() {
            return excluded("it is made of the input");
        }
        if others.iter().any(|s| s.kernel == 1 && has_padding(s)) {
            return excluded("no loop over taps can skip it");
        }
        if !has_padding(columns) {
            return Ok(());
        }
        let by_lanes = self.lanes == LaneAxis::Columns;
        if by_lanes && !columns_are_neighbours(problem) {
            return excluded("columns are the lanes, and no neighbours");
        }
        if others.is_empty() && self.block < columns.output() {
            return excluded("tasks begin anywhere in a row");
        }
        if !self.is_pixel_in_place(problem)
            && loops_if_peeled(columns, self.columns_of_tile(problem, target)) > MOST_BORDERS
        {
            return excluded("too many tiles touch it");
        }
        Ok(())
    }

    /// Whether its tile is one of several pixels of a row that meet padding where the input lies: the taps
    /// of each pixel are a loop that ends where its input does, and no border is written out.
    fn is_pixel_in_place(&self, problem: &ConvProblem) -> bool {
        let several = problem.spatial().last().is_some_and(|s| s.output() > 1);
        self.in_place && self.rows == 1 && !self.taps && self.lanes != LaneAxis::Columns && several
    }

    /// Whether padding is met where the input lies by tiles whose columns, taps and borders are written out.
    pub(super) fn is_tile_in_place(&self, problem: &ConvProblem) -> bool {
        self.in_place && !self.is_pixel_in_place(problem)
    }

    /// Output columns of a register tile.
    fn columns_of_tile(&self, problem: &ConvProblem, target: &Target) -> u64 {
        match self.lanes {
            LaneAxis::Columns => self.lane_extent(problem, target),
            LaneAxis::OutChannels
            | LaneAxis::Channels
            | LaneAxis::Groups
            | LaneAxis::GroupChannels
            | LaneAxis::None => self.rows,
        }
    }

    fn check_tile(
        &self,
        problem: &ConvProblem,
        target: &Target,
        shape: &Shape,
    ) -> Result<(), Excluded> {
        let (lane, row) = shape.tiled(self.lanes);
        let lanes = u64::from(target.lanes());
        // Cranelift has no masks: what is no whole vector is done lane by lane.
        let needed = match (self.lanes, target.isa()) {
            (LaneAxis::GroupChannels, _) => 1,
            (LaneAxis::Channels, _) => {
                lane.div_ceil(lanes / self.lanes.sums(problem, target).min(lanes))
            }
            (_, Isa::Clif) => (lane / lanes).max(1),
            (_, Isa::Avx2 | Isa::Avx512) => lane.div_ceil(lanes),
        };
        if lane < 2 && self.lanes != LaneAxis::None {
            return Err(Excluded::NoLanes { axis: self.lanes, extent: lane });
        }
        if self.vectors == 0 || self.vectors > needed {
            return Err(Excluded::Vectors { vectors: self.vectors, needed });
        }
        if self.rows == 0 || self.rows > row {
            return Err(Excluded::Rows { rows: self.rows, extent: row });
        }
        let (tile, registers) = (self.tile(), u64::from(target.registers()));
        let operands = fewest_operands(target.isa());
        if tile + operands > registers {
            return Err(Excluded::Registers { tile, operands, registers });
        }
        match self.lanes {
            LaneAxis::GroupChannels => self.check_group_lanes(problem, target)?,
            LaneAxis::Channels => self.check_sum_lanes(problem, target, needed)?,
            LaneAxis::OutChannels | LaneAxis::Groups | LaneAxis::Columns | LaneAxis::None => {}
        }
        let wanted = match self.lanes {
            LaneAxis::Columns => Layout::ChannelsFirst,
            LaneAxis::OutChannels
            | LaneAxis::Channels
            | LaneAxis::Groups
            | LaneAxis::GroupChannels
            | LaneAxis::None => Layout::ChannelsLast,
        };
        match self.copy.and_then(|copy| copy.layout) {
            Some(layout) if layout != wanted || layout == problem.layout() => {
                Err(Excluded::CopyLayout)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether groups by output channels fill a vector whose input is one vector of memory too.
    fn check_group_lanes(&self, problem: &ConvProblem, target: &Target) -> Result<(), Excluded> {
        let excluded = |reason| Err(Excluded::GroupLanes { reason });
        let copied = self.copy.and_then(|copy| copy.layout).unwrap_or(problem.layout());
        if target.isa().vectors().is_none() {
            return excluded("no micro-kernels permute lanes here");
        }
        if problem.out_channels_per_group() < 2 {
            return excluded("a group has one output channel");
        }
        if groups_a_vector(problem, target).min(problem.groups()) < 2 {
            return excluded("two groups have more channels than a vector has lanes");
        }
        if copied != Layout::ChannelsLast {
            return excluded("the channels of a pixel are no neighbours");
        }
        if self.steps != problem.in_channels_per_group() {
            return excluded("not all input channels of a group are written out");
        }
        Ok(())
    }

    /// Whether input channels are lanes beside output channels, and neighbours where they are read.
    fn check_sum_lanes(
        &self,
        problem: &ConvProblem,
        target: &Target,
        needed: u64,
    ) -> Result<(), Excluded> {
        let excluded = |reason| Err(Excluded::SumLanes { reason });
        let copied = self.copy.and_then(|copy| copy.layout).unwrap_or(problem.layout());
        if sums_a_channel(problem, target) == 1 {
            return excluded("output channels alone fill their vectors as well");
        }
        if copied != Layout::ChannelsLast {
            return excluded("the channels of a pixel are no neighbours");
        }
        if !needed.is_multiple_of(self.vectors) {
            return excluded("some tile would have fewer vectors");
        }
        Ok(())
    }

    fn check_loops(
        &self,
        problem: &ConvProblem,
        target: &Target,
        shape: &Shape,
    ) -> Result<(), Excluded> {
        let extent = shape.axes[0].1;
        let unit = self.task_unit(shape, self.lane_extent(problem, target));
        let whole = self.block.is_multiple_of(unit) || self.block == extent;
        if self.block == 0 || self.block > extent || !whole {
            return Err(Excluded::Block { block: self.block, extent, unit });
        }
        let loops = self.loops(problem, target);
        let missing = |walk: Walk| loops.of(walk).is_empty();
        if let (Some(walk), true) = (
            self.order.0.into_iter().find(|walk| missing(*walk)),
            self.order.canonical(&loops) != self.order,
        ) {
            return Err(Excluded::NoLoop { walk });
        }
        // Loops that are tasks have nothing but one another in their bodies.
        if let Some(CopyInput { at: Some(walk), .. }) = self.copy
            && (missing(walk) || (walk == Walk::Channels && self.channel_tasks))
        {
            return Err(Excluded::NoLoop { walk });
        }
        let channels = problem.out_channels_per_group();
        if self.channel_tasks && self.lanes == LaneAxis::Groups && channels > 1 {
            return Err(Excluded::Interleaved { channels });
        }
        // Tasks of groups alone need a loop inside of them to put the tile in.
        let shared = match loops.channels.len() {
            0 => false,
            1 => problem.groups() > 1 && !(missing(Walk::Rows) && missing(Walk::Columns)),
            _ => true,
        };
        if self.channel_tasks && (self.order.0[0] != Walk::Channels || !shared) {
            return Err(Excluded::NoLoop { walk: Walk::Channels });
        }
        Ok(())
    }

    /// Whether the body of the innermost loop is short enough.
    pub(super) fn check_body(
        &self,
        problem: &ConvProblem,
        target: &Target,
    ) -> Result<(), Excluded> {
        let channels = self.summed_channels(problem, target);
        if self.steps == 0 || !channels.is_multiple_of(self.steps) || self.taps_early(channels) {
            return Err(Excluded::Steps { steps: self.steps, channels });
        }
        let kernel = problem.spatial().last().map_or(1, |s| s.kernel);
        let taps = if self.taps || self.is_tile_in_place(problem) { kernel } else { 1 };
        let body = self.tile() * self.steps * taps;
        match body > LARGEST_BODY {
            true => Err(Excluded::Body { body, limit: LARGEST_BODY }),
            false => Ok(()),
        }
    }

    /// Whether the kernels of all borders of a row are a small program together: each writes out the
    /// whole tile, its epilogue too.
    pub(super) fn check_borders(
        &self,
        problem: &ConvProblem,
        target: &Target,
    ) -> Result<(), Excluded> {
        let Some(columns) = problem.spatial().last().filter(|s| has_padding(s)) else {
            return Ok(());
        };
        if self.is_pixel_in_place(problem) {
            return Ok(());
        }
        let peeled = Peeled::new(columns, self.columns_of_tile(problem, target));
        // Of a sum: its first value, its taps, its epilogue, and its store.
        let steps = self.steps * columns.kernel + statements(problem) + 2;
        let column = self.vectors * u64::from(target.lanes()) * steps;
        let column = match self.lanes {
            // The lanes are the columns, beside one another for each row of the tile.
            LaneAxis::Columns => self.rows * steps,
            LaneAxis::OutChannels
            | LaneAxis::Channels
            | LaneAxis::Groups
            | LaneAxis::GroupChannels
            | LaneAxis::None => column,
        };
        let (kernels, limit) = (peeled.kernels(), target.limits().unrolled);
        let given = column as i64 * peeled.columns_written();
        match given > limit {
            true => Err(Excluded::Borders { kernels, given, limit }),
            false => Ok(()),
        }
    }

    fn taps_early(&self, channels: u64) -> bool {
        self.taps && self.steps < channels
    }
}

/// Loops around the tile, each list outermost first, and the loops of the tile.
struct Loops {
    tasks: Vec<String>,
    channels: Vec<String>,
    rows: Vec<String>,
    columns: Vec<String>,
    row: String,
    /// The loop over the vectors of a row of the tile, if it is one of its own.
    vectors: Option<String>,
    /// The loops of the lanes, outermost first.
    lanes: Vec<String>,
}

impl Loops {
    fn of(&self, walk: Walk) -> &[String] {
        match walk {
            Walk::Channels => &self.channels,
            Walk::Rows => &self.rows,
            Walk::Columns => &self.columns,
        }
    }
}

impl Order {
    /// The first order that is the same where some walks have no loops.
    fn canonical(self, loops: &Loops) -> Order {
        let written = |order: &Order| -> Vec<Walk> {
            order.0.into_iter().filter(|walk| !loops.of(*walk).is_empty()).collect()
        };
        let same = |order: &Order| written(order) == written(&self);
        Order::ALL.into_iter().find(same).unwrap_or(self)
    }
}

/// Statements of the epilogue of a sum.
fn statements(problem: &ConvProblem) -> u64 {
    let mut nest = Nest::new("epilogue");
    let mut written = vec![];
    for op in problem.epilogue() {
        let extra = op.takes_extra().map(|_| Expr::f32(0.0));
        expand(op, &mut nest, Expr::f32(0.0), extra, &mut written);
    }
    written.len() as u64
}

/// How many input channels each output channel has beside it in a vector, for a pixel to take least time:
/// one, two or four.
pub(super) fn sums_a_channel(problem: &ConvProblem, target: &Target) -> u64 {
    let divides = |sums: &u64| problem.in_channels_per_group().is_multiple_of(*sums);
    let possible = MOST_SUMS.into_iter().filter(divides);
    match target.isa().vectors() {
        Some(_) => possible.min_by_key(|sums| pixel_work(problem, target, *sums)).unwrap_or(1),
        None => 1,
    }
}

/// Vector operations of a pixel of a group where each output is so many sums: their products, and then
/// a permutation of each and the additions.
pub(super) fn pixel_work(problem: &ConvProblem, target: &Target, sums: u64) -> u64 {
    let taps: u64 = problem.spatial().iter().map(|s| s.kernel).product();
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

/// Whether the output channels of several groups are a vector, and those of one are less than half of one.
/// With 4 channels a group, 32 groups and 56x56 that is 108 GFLOP/s with AVX-512, where lanes of one
/// group reach 21; with 8 and 28x28 it is 77 to 90, where they reach 44.
pub(super) fn groups_fill_a_vector(problem: &ConvProblem, target: &Target) -> bool {
    let groups = groups_a_vector(problem, target).min(problem.groups());
    target.isa().vectors().is_some()
        && problem.layout() == Layout::ChannelsLast
        && problem.out_channels_per_group() > 1
        && groups > 1
}

/// Whether some tap of some output falls outside the input in this axis.
pub(super) fn has_padding(s: &SpatialAxis) -> bool {
    s.reads_padding(s.output())
}

/// The tiles of an axis where those that touch padding are peeled: kernels of their own, where the tile is
/// unrolled.
struct Peeled {
    /// Outputs of a tile, and of the last one if that is shorter.
    tile: i64,
    rest: i64,
    /// How many tiles there are; the first that touches no padding, and the first after it that does.
    tiles: i64,
    first: i64,
    end: i64,
}

impl Peeled {
    fn new(s: &SpatialAxis, tile: u64) -> Peeled {
        let tiles = s.output().div_ceil(tile) as i64;
        let step = (tile * s.stride) as i64;
        let reach = ((tile - 1) * s.stride + s.extent()) as i64;
        let first = (s.pad_before + step - 1).div_euclid(step).clamp(0, tiles);
        let end = (s.input as i64 + s.pad_before - reach).div_euclid(step) + 1;
        let rest = (s.output() % tile) as i64;
        Peeled { tile: tile as i64, rest, tiles, first, end: end.clamp(first, tiles) }
    }

    /// Loops that the one over the tiles becomes.
    fn loops(&self) -> i64 {
        self.first + (self.tiles - self.end) + i64::from(self.first < self.end)
    }

    /// Whether the short tile at the end is cut from tiles that touch no padding.
    fn cuts(&self) -> bool {
        self.rest > 0 && self.end == self.tiles
    }

    fn kernels(&self) -> i64 {
        self.loops() + i64::from(self.cuts())
    }

    /// Columns of all kernels.
    fn columns_written(&self) -> i64 {
        let whole = self.kernels() - i64::from(self.rest > 0);
        whole * self.tile + self.rest
    }
}

/// Loops that the loop over tiles of `rows` outputs of an axis becomes if those that touch padding are
/// peeled.
pub(super) fn loops_if_peeled(s: &SpatialAxis, rows: u64) -> i64 {
    Peeled::new(s, rows).loops()
}

/// Whether the columns that neighbouring outputs read are neighbours in memory.
pub(super) fn columns_are_neighbours(problem: &ConvProblem) -> bool {
    let stride = problem.spatial().last().map_or(1, |s| s.stride);
    stride == 1 && (problem.layout() == Layout::ChannelsFirst || problem.in_channels() == 1)
}

/// Whether every output pixel depends on the input pixel at the same place alone.
pub(super) fn is_pointwise(problem: &ConvProblem) -> bool {
    problem.rank() > 1
        && problem
            .spatial()
            .iter()
            .all(|s| s.kernel == 1 && s.stride == 1 && s.pad_before == 0 && s.output() == s.input)
}
