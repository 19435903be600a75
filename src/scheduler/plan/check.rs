//! Whether a plan is a schedule of its problem, and what rules it out if not.

use convgen_ir::elem::Layout;
use convgen_ir::epilogue::expand::expand;
use convgen_ir::nest::{Expr, Nest};
use convgen_ir::problem::{ConvProblem, SpatialAxis};

use super::{
    CopyInput, LaneAxis, LoopClass, Plan, Shape, columns_are_vectors, groups_a_vector, has_padding,
    is_pointwise, sums_a_channel,
};
use crate::target::{MICRO_KERNEL_OPERANDS, Target};

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
    #[error("{lines} lines of a tile: {reason}")]
    Lines { lines: u64, reason: &'static str },
    #[error("a task of {block} does not fit the {extent} there are, or is no multiple of {unit}")]
    Block { block: u64, extent: u64, unit: u64 },
    #[error("there is no loop over {class:?} to order or to copy in")]
    NoLoop { class: LoopClass },
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

/// Vector registers that must be left for operands, at least: of Cranelift's code a weight, and a
/// value or a broadcast.
pub fn fewest_operands(target: &Target) -> u64 {
    if target.has_micro_kernels() { MICRO_KERNEL_OPERANDS } else { 2 }
}

/// Vector multiply-adds in the body of the innermost loop, at most: beyond, the time to compile
/// grows and the first level of the instruction cache overflows.
pub const LARGEST_BODY: u64 = 512;

/// Vector multiply-adds of the kernels of a tile of several lines, of those that take turns: code
/// beyond the first-level cache is fetched again for each plane. 7x7 over planes of 14x14, with
/// AVX2: 0.22 ms by kernels of two lines, 0.47 of four.
const MOST_PRODUCTS: f64 = 1024.0;

/// Kernels for one loop over tiles of columns, at most: one a tile at a border, one for the others.
const MOST_BORDERS: i64 = 8;

impl Plan {
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
        self.check_line_tile(problem, target)?;
        self.check_loops(problem, target, &shape)?;
        if self.in_place {
            self.check_in_place(problem, target)?;
            self.check_borders(problem, target)?;
        }
        self.check_body(problem, target)
    }

    /// Whether all padding is skipped or known at compile time.
    pub(in super::super) fn check_in_place(
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
        if target.accuracy().keeps_order() {
            return excluded("a tap that is skipped is missing in the sum");
        }
        if others.iter().any(|s| s.kernel == 1 && has_padding(s)) {
            return excluded("no loop over taps can skip it");
        }
        if !has_padding(columns) {
            return Ok(());
        }
        let by_lanes = self.lanes == LaneAxis::Columns;
        if by_lanes && !columns_are_vectors(problem, target) {
            return excluded("columns are the lanes, and too far apart");
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

    fn check_tile(
        &self,
        problem: &ConvProblem,
        target: &Target,
        shape: &Shape,
    ) -> Result<(), Excluded> {
        let (lane, row) = shape.tiled(self.lanes);
        let needed = match self.lanes {
            LaneAxis::GroupChannels => 1,
            LaneAxis::Channels => lane.div_ceil(self.lanes.outputs_a_vector(problem, target)),
            LaneAxis::None | LaneAxis::OutChannels | LaneAxis::Columns | LaneAxis::Groups => {
                target.vectors_for(lane)
            }
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
        let operands = fewest_operands(target);
        if tile + operands > registers {
            return Err(Excluded::Registers { tile, operands, registers });
        }
        match self.lanes {
            LaneAxis::GroupChannels => self.check_group_lanes(problem, target)?,
            LaneAxis::Channels => self.check_sum_lanes(problem, target, needed)?,
            LaneAxis::OutChannels | LaneAxis::Groups | LaneAxis::Columns | LaneAxis::None => {}
        }
        let wanted = match self.lanes == LaneAxis::Columns {
            true => Layout::ChannelsFirst,
            false => Layout::ChannelsLast,
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
        if !target.has_permutes() {
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
            return excluded("not all input channels of a group are unrolled");
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

    /// Whether a tile may have several lines.
    fn check_line_tile(&self, problem: &ConvProblem, target: &Target) -> Result<(), Excluded> {
        let lines = self.lines;
        let excluded = |reason| Err(Excluded::Lines { lines, reason });
        if lines == 1 {
            return Ok(());
        }
        let Some((axis, extent)) = self.line_axis(problem) else {
            return excluded("there is one");
        };
        if self.lanes != LaneAxis::Columns {
            return excluded("columns are no lanes");
        }
        if !self.lanes.takes_lines(problem) || !self.unrolls_taps(problem) {
            return excluded("taps are no straight code");
        }
        if lines > extent {
            return excluded("a task has fewer");
        }
        if !axis.output().is_multiple_of(extent) {
            return excluded("the last task would end within a tile");
        }
        let products = (self.tile() * self.unrolled_taps(problem)) as f64;
        if products * self.kernels_in_use(problem, target) > MOST_PRODUCTS {
            return excluded("the kernels that take turns are too much code");
        }
        if self.in_place && has_padding(axis) {
            if extent < axis.output() {
                return excluded("tasks begin anywhere in a column");
            }
            if loops_if_peeled(axis, lines) > MOST_BORDERS {
                return excluded("too many tiles touch padding");
            }
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
        let missing = |class: LoopClass| loops.of(class).is_empty();
        if let (Some(class), true) = (
            self.order.0.into_iter().find(|class| missing(*class)),
            self.order.canonical(&loops) != self.order,
        ) {
            return Err(Excluded::NoLoop { class });
        }
        // Loops that are tasks have nothing but one another in their bodies.
        if let Some(CopyInput { at: Some(class), .. }) = self.copy
            && (missing(class) || (class == LoopClass::Channels && self.channel_tasks))
        {
            return Err(Excluded::NoLoop { class });
        }
        let channels = problem.out_channels_per_group();
        if self.channel_tasks && self.lanes == LaneAxis::Groups && channels > 1 {
            return Err(Excluded::Interleaved { channels });
        }
        // Tasks of groups alone need a loop inside of them to put the tile in.
        let shared = match loops.channels.len() {
            0 => false,
            1 => problem.groups() > 1 && !(missing(LoopClass::Rows) && missing(LoopClass::Columns)),
            _ => true,
        };
        if self.channel_tasks && (self.order.0[0] != LoopClass::Channels || !shared) {
            return Err(Excluded::NoLoop { class: LoopClass::Channels });
        }
        Ok(())
    }

    /// Whether the body of the innermost loop is short enough.
    pub(in super::super) fn check_body(
        &self,
        problem: &ConvProblem,
        target: &Target,
    ) -> Result<(), Excluded> {
        let channels = self.lanes.summed_channels(problem, target);
        if self.steps == 0 || !channels.is_multiple_of(self.steps) || self.taps_early(channels) {
            return Err(Excluded::Steps { steps: self.steps, channels });
        }
        let body = self.tile() * self.steps * self.unrolled_taps(problem);
        match body > LARGEST_BODY {
            true => Err(Excluded::Body { body, limit: LARGEST_BODY }),
            false => Ok(()),
        }
    }

    /// Whether the kernels of all borders of a row are a small program together: each writes out
    /// the whole tile, its epilogue too.
    pub(in super::super) fn check_borders(
        &self,
        problem: &ConvProblem,
        target: &Target,
    ) -> Result<(), Excluded> {
        let lines = self.line_axis(problem).map(|(axis, _)| Peeled::new(axis, self.lines));
        let padded = |s: &&SpatialAxis| has_padding(s) || lines.is_some();
        let Some(columns) = problem.spatial().last().filter(padded) else {
            return Ok(());
        };
        if self.is_pixel_in_place(problem) {
            return Ok(());
        }
        let peeled = Peeled::new(columns, self.columns_of_tile(problem, target));
        let of_lines = lines.as_ref().map_or(1, Peeled::columns_written);
        // Of a sum: its first value, its taps, its epilogue, and its store.
        let taps = self.unrolled_taps(problem);
        let steps = self.steps * taps + statements(problem) + 2;
        let column = match self.lanes == LaneAxis::Columns {
            // The lanes are the columns, beside one another for each row of the tile; where the
            // last tile has fewer rows, it is code of its own.
            true => (self.rows + rest_of_tile(problem.out_channels_per_group(), self.rows)) * steps,
            false => self.vectors * u64::from(target.lanes()) * steps,
        };
        let (kernels, limit) = (peeled.kernels(), target.limits().unrolled);
        let given = column as i64 * peeled.columns_written() * of_lines;
        match given > limit {
            true => Err(Excluded::Borders { kernels, given, limit }),
            false => Ok(()),
        }
    }

    fn taps_early(&self, channels: u64) -> bool {
        self.taps && self.steps < channels
    }
}

/// Rows of the last tile, if there are several and it is shorter.
fn rest_of_tile(extent: u64, rows: u64) -> u64 {
    if extent > rows { extent % rows } else { 0 }
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

/// The tiles of an axis where those that touch padding are peeled: kernels of their own, where the
/// tile is unrolled.
struct Peeled {
    /// Outputs of a tile, and of the last one if that is shorter.
    tile: i64,
    rest: i64,
    /// How many tiles there are; the first that touches no padding, and the first after it that
    /// does.
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

/// The kernels that take turns in a row of tiles, about: one where nearly all tiles are alike.
pub(in super::super) fn kernels_in_use(s: &SpatialAxis, rows: u64) -> f64 {
    let peeled = Peeled::new(s, rows);
    let bordering = (peeled.tiles - (peeled.end - peeled.first)) as f64 / peeled.tiles as f64;
    1.0 + (peeled.loops() - 1) as f64 * bordering
}

/// Loops that the loop over tiles of `rows` outputs of an axis becomes if those that touch padding
/// are peeled.
pub(in super::super) fn loops_if_peeled(s: &SpatialAxis, rows: u64) -> i64 {
    Peeled::new(s, rows).loops()
}
