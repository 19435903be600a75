//! How a problem is cut into tiles and transforms: a few numbers, chosen by counted operations.

use convgen_ir::elem::{ElemType, Layout};
use convgen_ir::problem::{ConvProblem, Direction, SpatialAxis};
use convgen_ir::schedule::{Schedule, Size};

use crate::accuracy::{ERROR_BUDGET, ROUNDOFF};
use crate::algorithm::sizes::{Sizes, SizesError, size};
use crate::algorithm::{Algorithm, PartsError, TRANSFORMED_BYTES, Unsupported};
use crate::calibration::cycles::{APART_ELEMENT, FOURIER_CALL, FOURIER_FINISH, FOURIER_FLOPS};
use crate::cost::{Estimate, Rates};
use crate::target::{Target, WORKSPACE_BYTES};

/// Output channels of a task at most: their sums are kept until the last stage.
const MAX_BLOCK: u64 = 16;

/// The longest transform of one axis, before the workspace limits it.
const MAX_POINTS: u64 = 1 << 18;

/// One axis of the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AxisPlan {
    /// The axis of the problem.
    pub conv: SpatialAxis,
    /// Points of the transform.
    pub points: u64,
    /// Outputs of a tile.
    pub tile: u64,
    /// Tiles.
    pub tiles: u64,
}

impl AxisPlan {
    /// Transforms of so many points, and tiles of so many outputs.
    fn new(conv: &SpatialAxis, points: u64, tile: u64) -> Result<AxisPlan, String> {
        let odd = points >> points.trailing_zeros();
        if !points.is_multiple_of(2) || ![1, 3].contains(&odd) || points > MAX_POINTS {
            return Err(format!(
                "{points} points, expected an even number that is a power of two or three times one, at most {MAX_POINTS}"
            ));
        }
        let tile = tile.min(conv.output());
        let reach = (tile - 1) * conv.stride + conv.extent();
        if reach > points {
            return Err(format!("a tile of {tile} outputs reads {reach} of {points} points"));
        }
        Ok(AxisPlan { conv: *conv, points, tile, tiles: conv.output().div_ceil(tile) })
    }

    /// Elements of the input that a tile reads.
    pub fn reach(&self) -> u64 {
        (self.tile - 1) * self.conv.stride + self.conv.extent()
    }

    /// Sums of a tile, those between strides included.
    pub fn sums(&self) -> u64 {
        (self.tile - 1) * self.conv.stride + 1
    }

    /// Where a tile begins in the input; may be outside.
    pub fn origin(&self, tile: u64) -> i64 {
        (tile * self.tile * self.conv.stride) as i64 - self.conv.pad_before
    }

    /// Butterfly levels of the transform; see the [error](crate::fourier).
    fn levels(&self) -> u64 {
        let twos = u64::from(self.points.trailing_zeros());
        if self.points >> twos == 1 { twos } else { twos + 2 }
    }
}

/// The tiles of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The spatial axes, one or two.
    pub axes: Vec<AxisPlan>,
    /// What is transformed.
    pub elem: ElemType,
    /// Groups, and channels of each.
    pub groups: u64,
    /// Input channels of a group.
    pub in_channels: u64,
    /// Output channels of a group.
    pub out_channels: u64,
    /// Output channels of a task, a divisor of those of a group.
    pub block: u64,
    /// Frequencies of a vector.
    pub lanes: u64,
}

impl Plan {
    /// The tiles with the shortest predicted time.
    ///
    /// # Errors
    /// Why the problem is outside the domain.
    pub fn new(problem: &ConvProblem, target: &Target) -> Result<Plan, String> {
        in_domain(problem)?;
        let mut best: Option<(f64, Plan)> = None;
        let mut axes = vec![vec![]];
        for axis in problem.spatial() {
            let choices = axis_plans(axis, u64::from(target.lanes()));
            let longer = |axes: &Vec<AxisPlan>| -> Vec<Vec<AxisPlan>> {
                choices
                    .iter()
                    .map(|choice| axes.iter().chain([choice]).copied().collect())
                    .collect()
            };
            axes = axes.iter().flat_map(longer).collect();
        }
        let out_channels = problem.out_channels_per_group();
        let divides = |by: &u64| out_channels.is_multiple_of(*by);
        let block = (1..=MAX_BLOCK).rev().find(divides).unwrap_or(1);
        for axes in axes {
            let plan = Plan::with(problem, target, axes, block);
            if !plan.fits() {
                continue;
            }
            let seconds = plan.estimate(problem, target, target.rates()).seconds();
            if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                best = Some((seconds, plan));
            }
        }
        best.map(|(_, plan)| plan).ok_or_else(too_large)
    }

    /// The tiles with the sizes that a schedule consists of:
    /// ```text
    /// points oh by 32; tile oh by 26; points ow by 64; tile ow by 58      transforms and their outputs
    /// block oc by 16                                                      output channels of a task
    /// ```
    ///
    /// # Errors
    /// Why the problem is outside the domain, or the sizes do not fit it.
    pub fn read(
        problem: &ConvProblem,
        schedule: &Schedule,
        target: &Target,
    ) -> Result<Plan, PartsError> {
        let algorithm = Algorithm::Fourier;
        in_domain(problem).map_err(|reason| Unsupported { algorithm, reason })?;
        let plan = Plan::of_sizes(problem, schedule, target);
        plan.map_err(|reason| SizesError { algorithm, reason }.into())
    }

    fn of_sizes(
        problem: &ConvProblem,
        schedule: &Schedule,
        target: &Target,
    ) -> Result<Plan, String> {
        let mut sizes = Sizes::of(schedule);
        let mut axes = Vec::new();
        for (conv, name) in problem.spatial().iter().zip(problem.axis_names()) {
            let name = format!("o{name}");
            let points = sizes.need(Size::Points, &name)?;
            axes.push(AxisPlan::new(conv, points, sizes.need(Size::Tile, &name)?)?);
        }
        let (block, channels) = (sizes.need(Size::Block, "oc")?, problem.out_channels_per_group());
        if block > MAX_BLOCK || !channels.is_multiple_of(block) {
            return Err(format!(
                "tasks of {block} of {channels} output channels, expected a divisor of at most {MAX_BLOCK}"
            ));
        }
        if let Some(rewrite) = sizes.rewrites()?.directives.first() {
            return Err(format!("`{rewrite}`: no schedule rewrites stages around transforms"));
        }
        let plan = Plan::with(problem, target, axes, block);
        if plan.fits() { Ok(plan) } else { Err(too_large()) }
    }

    /// The sizes as directives; [`Plan::read`] gives the plan back.
    pub fn schedule(&self, problem: &ConvProblem) -> Schedule {
        let axes = self.axes.iter().zip(problem.axis_names()).flat_map(|(axis, name)| {
            let name = format!("o{name}");
            [size(Size::Points, &name, axis.points), size(Size::Tile, name, axis.tile)]
        });
        axes.chain([size(Size::Block, "oc", self.block)]).collect()
    }

    fn with(problem: &ConvProblem, target: &Target, axes: Vec<AxisPlan>, block: u64) -> Plan {
        Plan {
            axes,
            elem: problem.elem(),
            groups: problem.groups(),
            in_channels: problem.in_channels_per_group(),
            out_channels: problem.out_channels_per_group(),
            block,
            lanes: u64::from(target.isa().lanes(problem.elem())),
        }
    }

    /// The plans whose transforms of one axis, or whose tasks, have another size.
    pub fn neighbours(&self, problem: &ConvProblem, target: &Target) -> Vec<Plan> {
        let mut found = Vec::new();
        for (place, axis) in problem.spatial().iter().enumerate() {
            for choice in axis_plans(axis, self.lanes) {
                let mut axes = self.axes.clone();
                axes[place] = choice;
                found.push(Plan::with(problem, target, axes, self.block));
            }
        }
        let blocks = (1..=MAX_BLOCK).filter(|by| self.out_channels.is_multiple_of(*by));
        found.extend(blocks.map(|block| Plan { block, ..self.clone() }));
        found.retain(Plan::fits);
        found
    }

    /// Whether it needs no more memory than a plan may.
    fn fits(&self) -> bool {
        self.workspace_bytes() <= WORKSPACE_BYTES && self.packed_bytes() <= TRANSFORMED_BYTES
    }

    /// Whether its error is within the budget.
    ///
    /// # Errors
    /// By how much it is not.
    pub(crate) fn exact_enough(&self) -> Result<(), String> {
        match self.error() {
            error if error > ERROR_BUDGET => Err(format!(
                "its worst case {error:.3e} of the tile's norm exceeds the budget {ERROR_BUDGET:.1e}"
            )),
            _ => Ok(()),
        }
    }

    /// Rows and columns of a transform; one row if there is one axis.
    pub fn points(&self) -> (u64, u64) {
        let columns = self.axes.last().map_or(1, |axis| axis.points);
        (self.axes.iter().rev().nth(1).map_or(1, |axis| axis.points), columns)
    }

    /// Rows and columns of sums of a tile; the columns that wrapped around are kept.
    pub fn sums(&self) -> (u64, u64) {
        (self.axes.iter().rev().nth(1).map_or(1, AxisPlan::sums), self.points().1)
    }

    /// Complex numbers that stand for the transform of a real tile.
    pub fn frequencies(&self) -> u64 {
        let (rows, columns) = self.points();
        rows * (columns / 2 + 1)
    }

    /// Vectors of them, the last one filled up.
    pub fn vectors(&self) -> u64 {
        self.frequencies().div_ceil(self.lanes)
    }

    /// Floats of one channel's spectrum: real and imaginary parts in turns of a vector.
    pub fn spectrum(&self) -> u64 {
        2 * self.lanes * self.vectors()
    }

    /// Tasks of an image.
    pub fn tasks(&self) -> u64 {
        let tiles: u64 = self.axes.iter().map(|axis| axis.tiles).product();
        self.groups * tiles * (self.out_channels / self.block)
    }

    /// Floats of the transformed weights.
    pub fn packed_len(&self) -> u64 {
        let channels =
            self.groups.saturating_mul(self.out_channels).saturating_mul(self.in_channels);
        channels.saturating_mul(self.spectrum())
    }

    fn packed_bytes(&self) -> u64 {
        self.bytes(self.packed_len())
    }

    fn bytes(&self, elements: u64) -> u64 {
        elements.saturating_mul(self.elem.bytes() as u64)
    }

    /// Bytes that a thread needs: spectra of the input and of a block, their sums, a row, and three
    /// complex grids, of which the transforms use one for themselves.
    pub fn workspace_bytes(&self) -> u64 {
        let (rows, columns) = self.sums();
        let spectra = (self.in_channels + self.block).saturating_mul(self.spectrum());
        let sums = self.block.saturating_mul(rows * columns);
        self.bytes(spectra.saturating_add(sums + columns + 6 * self.frequencies() + 4 * columns))
    }

    /// The largest error of an output in multiples of the sum over input channels of the product of
    /// the norms of a tile and of a kernel; derived in the [module](crate::fourier).
    pub fn error(&self) -> f64 {
        let levels = 1 + self.axes.iter().map(AxisPlan::levels).sum::<u64>();
        1.01 * (21 * levels + 3 * self.in_channels + 4) as f64 * ROUNDOFF
    }

    /// Predicts a call at the problem's batch on one core.
    pub fn estimate(&self, problem: &ConvProblem, target: &Target, rates: &Rates) -> Estimate {
        let (rows, columns) = self.points();
        let points = (rows * columns) as f64;
        let tiles: u64 = self.axes.iter().map(|axis| axis.tiles).product();
        let calls = (problem.batch().max(1) * self.groups * tiles) as f64;
        let channels = (self.in_channels + self.out_channels) as f64;
        let flops = 2.5 * points * points.log2();
        // One a row, and where there are several rows one a column.
        let short = rows + if rows > 1 { columns / 2 + 1 } else { 0 };
        let transform = flops / FOURIER_FLOPS + short as f64 * FOURIER_CALL;
        let outputs = self.axes.iter().map(|axis| axis.tile).product::<u64>() * self.out_channels;
        let cycles = channels * transform + FOURIER_FINISH * outputs as f64;
        // Elements of a channel that lie apart are copied by themselves.
        let read: u64 = self.axes.iter().map(AxisPlan::reach).product();
        let apart = problem.layout() == Layout::ChannelsLast && problem.in_channels() > 1;
        let elements = if apart { read * self.in_channels + outputs } else { 0 };
        let products = (self.in_channels * self.out_channels * self.vectors()) as f64;
        // Four multiply-adds use two vectors of weights, which come from where all of them fit.
        let caches = target.caches();
        let byte = match self.packed_bytes() as usize {
            bytes if bytes <= caches.l2 => rates.l2,
            bytes if bytes <= caches.l3 => rates.l3,
            _ => rates.memory,
        };
        let tile = Estimate {
            products: products * 4.0 * rates.fma,
            tiles: cycles * rates.cycle,
            copies: elements as f64 * APART_ELEMENT * rates.cycle,
            traffic: products * self.bytes(2 * self.lanes) as f64 * byte,
        };
        tile.times(calls)
    }
}

/// Whether the algorithm computes a problem.
fn in_domain(problem: &ConvProblem) -> Result<(), String> {
    match problem.direction() {
        Direction::Forward => {}
        Direction::Transposed
        | Direction::BackwardData
        | Direction::BackwardWeights
        | Direction::BackwardBias => return Err("the problem is no forward one".to_string()),
    }
    match problem.rank() {
        1 | 2 => Ok(()),
        rank => Err(format!("it has {rank} spatial axes, at most 2 are")),
    }
}

fn too_large() -> String {
    format!(
        "no tile needs at most {} MiB a thread and {} MiB of transformed weights",
        WORKSPACE_BYTES >> 20,
        TRANSFORMED_BYTES >> 20
    )
}

/// The transforms of an axis: of `2^a` or `3 * 2^a` points (even, as real transforms are fastest),
/// from the shortest that has an output to the first that needs no second tile.
fn axis_plans(axis: &SpatialAxis, lanes: u64) -> Vec<AxisPlan> {
    let mut sizes: Vec<u64> = (1..=18).flat_map(|a| [1 << a, 3 << a]).collect();
    sizes.retain(|points| *points >= axis.extent() && *points <= MAX_POINTS);
    sizes.sort_unstable();
    let mut plans = Vec::new();
    for points in sizes {
        let mut tile = ((points - axis.extent()) / axis.stride + 1).min(axis.output());
        // Whole vectors, if there is one.
        if tile < axis.output() && tile > lanes {
            tile -= tile % lanes;
        }
        let tiles = axis.output().div_ceil(tile);
        plans.push(AxisPlan { conv: *axis, points, tile, tiles });
        if tiles == 1 {
            break;
        }
    }
    plans
}
