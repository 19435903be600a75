//! The sizes of minimal filtering as one value: what a schedule says, what the search for tiles
//! chooses among.
//!
//! ```text
//! tile oh by 4; block oh by 7; tile ow by 4; block ow by 14      tiles of 4x4 outputs, 98 a block
//! register t by 14; register oc by 32                           the tile of the products
//! block oc by 64; copy ic by 64                                 channels of a task, and copied at once
//! merge oh by 2; ahead ic by 8                                  if phases share blocks, if weights are prefetched
//! ```
//! The phases of a transposed problem share the numbers: a part has at most so many.

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::{Schedule, Size};

use super::estimate::error;
use super::plan::{AxisPlan, LOCAL_TILE, Plan, dense_taps};
use super::toom::MAX_POINTS;
use crate::accuracy::{Accuracy, ERROR_BUDGET};
use crate::algorithm::TRANSFORMED_BYTES;
use crate::algorithm::sizes::{Sizes, size};
use crate::algorithm::sum::DenseSum;
use crate::cost::Rates;
use crate::target::{MICRO_KERNEL_OPERANDS, Target, WORKSPACE_BYTES};

/// Input channels that are copied together: some cache lines of each pixel.
const COPIED: u64 = 64;

/// Tiles of a block, at most: more do not read the weights notably less often.
pub(super) const MOST_TILES: u64 = 128;

/// The sizes of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AxisTiling {
    /// Outputs of a tile.
    pub tile: u64,
    /// Tiles of a block, of each of its phases.
    pub block: u64,
    /// Phases of a dilation that share a block.
    pub merge: u64,
}

/// All sizes that the nests of a problem are written with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// The spatial axes.
    pub axes: Vec<AxisTiling>,
    /// Tiles of the register tile of the products.
    pub pixels: u64,
    /// Output channels of the register tile, and of a panel of weights.
    pub channels: u64,
    /// Output channels of a task; each task transforms its input for itself.
    pub task_channels: u64,
    /// Input channels copied together.
    pub copied: u64,
    /// Iterations over input channels by which the products prefetch weights.
    pub ahead: Option<u32>,
}

impl Tiling {
    /// The sizes that a schedule begins with, and the rewrites after them.
    ///
    /// # Errors
    /// The size that is missing, given twice, zero or none of these.
    pub fn read(problem: &ConvProblem, schedule: &Schedule) -> Result<(Tiling, Schedule), String> {
        let mut sizes = Sizes::of(schedule);
        let mut axes = Vec::new();
        for name in problem.axis_names() {
            let axis = format!("o{name}");
            let tile = sizes.need(Size::Tile, &axis)?;
            let block = sizes.need(Size::Block, &axis)?;
            let merge = sizes.take(Size::Merge, &axis)?.unwrap_or(1);
            axes.push(AxisTiling { tile, block, merge });
        }
        let tiling = Tiling {
            axes,
            pixels: sizes.need(Size::Register, "t")?,
            channels: sizes.need(Size::Register, "oc")?,
            task_channels: sizes.need(Size::Block, "oc")?,
            copied: sizes.need(Size::Copy, "ic")?,
            // A size is at most `u32::MAX`.
            ahead: sizes.take(Size::Ahead, "ic")?.map(|by| by as u32),
        };
        Ok((tiling, sizes.rewrites()?))
    }

    /// The sizes as directives; [`Tiling::read`] gives them back.
    pub fn schedule(&self, problem: &ConvProblem) -> Schedule {
        let mut directives = Vec::new();
        for (axis, name) in self.axes.iter().zip(problem.axis_names()) {
            let name = format!("o{name}");
            directives.push(size(Size::Tile, &name, axis.tile));
            directives.push(size(Size::Block, &name, axis.block));
            if axis.merge > 1 {
                directives.push(size(Size::Merge, &name, axis.merge));
            }
        }
        directives.extend([
            size(Size::Register, "t", self.pixels),
            size(Size::Register, "oc", self.channels),
            size(Size::Block, "oc", self.task_channels),
            size(Size::Copy, "ic", self.copied),
        ]);
        directives.extend(self.ahead.map(|by| size(Size::Ahead, "ic", u64::from(by))));
        Schedule { directives }
    }
}

/// A tiling, the plans that it becomes, and how long they take.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The sizes.
    pub tiling: Tiling,
    /// The plan of each part that has a sum.
    pub plans: Vec<Plan>,
    /// Predicted seconds of a call at the problem's batch on one core.
    pub seconds: f64,
}

/// What tilings are chosen for.
pub(super) struct Search<'s> {
    pub(super) problem: &'s ConvProblem,
    pub(super) target: &'s Target,
    pub(super) rates: &'s Rates,
    /// The sums of the parts, none of them empty.
    pub(super) sums: &'s [DenseSum],
}

impl Search<'_> {
    /// The tiling with the shortest predicted time on one core: its tiles, and so its bits, in
    /// blocks and parts that keep all cores busy.
    ///
    /// # Errors
    /// Why the problem is outside the domain.
    pub(super) fn choose(&self) -> Result<Chosen, String> {
        let lead = self.lead()?;
        let mut best: Option<Chosen> = None;
        let mut least_error = f64::INFINITY;
        for tiles in self.tile_sizes() {
            let one = |tile: &u64| AxisTiling { tile: *tile, block: 1, merge: 1 };
            let single = tiles.iter().map(one).collect();
            let Some(single) = self.weighed(self.tiling(lead, single, 1)) else { continue };
            let error = single.plans.iter().map(|plan| error(&plan.axes)).fold(0.0, f64::max);
            if error > ERROR_BUDGET {
                least_error = least_error.min(error);
                continue;
            }
            for axes in blocked(&single.plans[lead].axes) {
                let weighed = self.weighed(self.tiling(lead, axes, 1));
                let shorter = |chosen: &Chosen| {
                    best.as_ref().is_none_or(|best| chosen.seconds < best.seconds)
                };
                best = weighed.filter(shorter).or(best);
            }
        }
        match best {
            Some(best) => Ok(self.shared(lead, self.prefetched(lead, best))),
            None if least_error.is_finite() => Err(format!(
                "its expected error {least_error:.1e} of the tile's norm exceeds the budget {ERROR_BUDGET:.1e}"
            )),
            None => Err(format!(
                "no tiles need at most {} MiB a thread and {} MiB of transformed weights",
                WORKSPACE_BYTES >> 20,
                TRANSFORMED_BYTES >> 20
            )),
        }
    }

    /// The sum with most to do, whose tiles are counted.
    fn lead(&self) -> Result<usize, String> {
        let products = |sum: &DenseSum| -> u64 {
            let axes = sum.axes.iter().map(|axis| axis.outputs.saturating_mul(axis.conv.kernel));
            axes.fold(1, u64::saturating_mul)
        };
        let numbered = self.sums.iter().enumerate();
        let lead = numbered.max_by_key(|(place, sum)| (products(sum), usize::MAX - place));
        lead.map(|(place, _)| place).ok_or_else(|| "nothing is summed".to_string())
    }

    /// The sizes of tiles to choose from: an axis of one tap is not transformed, any other by at
    /// most [`MAX_POINTS`] points.
    fn tile_sizes(&self) -> Vec<Vec<u64>> {
        let tiles: &[u64] = match self.target.accuracy() {
            Accuracy::Local => &[LOCAL_TILE],
            // Sums are chosen, unless transforms are asked for by name.
            Accuracy::Reproducible | Accuracy::Strict | Accuracy::Default => &[LOCAL_TILE, 4, 6],
        };
        (0..self.problem.rank()).fold(vec![vec![]], |all, axis| {
            let taps = self.sums.iter().map(|sum| dense_taps(&sum.axes[axis].conv)).max();
            let most = MAX_POINTS + 1 - taps.unwrap_or(1);
            let choices: Vec<u64> = match taps {
                Some(1) | None if self.sums.iter().all(|s| s.axes[axis].conv.kernel == 1) => {
                    vec![1]
                }
                Some(_) | None => tiles.iter().copied().filter(|m| *m <= most).collect(),
            };
            let longer = |sizes: &Vec<u64>| -> Vec<Vec<u64>> {
                choices.iter().map(|m| sizes.iter().copied().chain([*m]).collect()).collect()
            };
            all.iter().flat_map(longer).collect()
        })
    }

    /// The sizes of some blocks, with the register tile that suits them.
    fn tiling(&self, lead: usize, axes: Vec<AxisTiling>, parts: u64) -> Tiling {
        let (reads, writes) = self.sums[lead].channels;
        let lanes = u64::from(self.target.isa().lanes(self.problem.elem()));
        let registers = u64::from(self.target.registers());
        let budget = match self.target.has_micro_kernels() {
            true => registers - MICRO_KERNEL_OPERANDS,
            // A multiply-add of Cranelift overwrites a factor.
            false => registers / 2,
        };
        let vectors = writes.div_ceil(lanes).min(2);
        let tiles = axes.iter().map(|a| a.block.saturating_mul(a.merge));
        let tiles = tiles.fold(1, u64::saturating_mul);
        Tiling {
            axes,
            pixels: tiles.div_ceil(tiles.div_ceil((budget / vectors).max(1))),
            channels: (vectors * lanes).min(writes),
            task_channels: writes / parts,
            copied: reads.min(COPIED),
            ahead: None,
        }
    }

    /// The tiling held against all sums; none if it does not fit one, or takes too much memory.
    fn weighed(&self, tiling: Tiling) -> Option<Chosen> {
        let plan = |sum| Plan::new(self.problem, sum, self.target, &tiling).ok();
        let plans: Vec<Plan> = self.sums.iter().map(plan).collect::<Option<_>>()?;
        let fits = plans.iter().all(|plan| plan.workspace_bytes() <= WORKSPACE_BYTES);
        let seconds = |(sum, plan): (&DenseSum, &Plan)| {
            plan.seconds(self.problem, sum, self.target, self.rates)
        };
        let seconds = self.sums.iter().zip(&plans).map(seconds).sum();
        fits.then_some(Chosen { tiling, plans, seconds })
    }

    /// The same, its weights prefetched where no cache holds them.
    fn prefetched(&self, lead: usize, chosen: Chosen) -> Chosen {
        let plan = &chosen.plans[lead];
        let step = plan.bytes(plan.channels * plan.steps(plan.pixels * plan.channels));
        let ahead = self.target.ahead(plan.packed_bytes(self.problem), step);
        let tiling = Tiling { ahead, ..chosen.tiling.clone() };
        self.weighed(tiling).unwrap_or(chosen)
    }

    /// The same tiles, and so the same bits, in blocks and parts that keep all cores busy: the
    /// shortest time if each core takes as many tasks as the next.
    fn shared(&self, lead: usize, chosen: Chosen) -> Chosen {
        let cores = self.target.cores() as u64;
        let Chosen { tiling, seconds, .. } = &chosen;
        let (panels, writes) =
            (self.sums[lead].channels.1 / tiling.channels, self.sums[lead].channels.1);
        let whole = writes.is_multiple_of(tiling.channels);
        let most = if whole { cores.min(panels) } else { 1 };
        let (ahead, seconds) = (tiling.ahead, *seconds);
        let ways = if cores > 1 { blocked(&chosen.plans[lead].axes) } else { vec![] };
        let shares = |axes: Vec<AxisTiling>| {
            let divides = |parts: &u64| panels.is_multiple_of(*parts);
            let parts = (1..=most).filter(divides);
            parts.map(move |parts| (axes.clone(), parts)).collect::<Vec<_>>()
        };
        let mut shortest = self.elapsed(&chosen);
        let mut best = chosen;
        for (axes, parts) in ways.into_iter().flat_map(shares) {
            let tiling = Tiling { ahead, ..self.tiling(lead, axes, parts) };
            let Some(other) = self.weighed(tiling) else { continue };
            let elapsed = self.elapsed(&other);
            if elapsed < shortest {
                // What a call takes on one core is a question of the tiles.
                (best, shortest) = (Chosen { seconds, ..other }, elapsed);
            }
        }
        best
    }

    /// Predicted seconds of a call that all cores share.
    fn elapsed(&self, chosen: &Chosen) -> f64 {
        let plans = self.sums.iter().zip(&chosen.plans);
        plans.map(|(sum, plan)| plan.elapsed(self.problem, sum, self.target, self.rates)).sum()
    }
}

/// Ways to cut the tiles into blocks of neighbouring ones: the innermost axes whole, then a part of
/// one; and of all tiles of several phases of a dilation, so that small grids share the weights
/// they need.
fn blocked(axes: &[AxisPlan]) -> Vec<Vec<AxisTiling>> {
    let mut ways = Vec::new();
    let single = |a: &AxisPlan| AxisTiling { tile: a.tile, block: 1, merge: 1 };
    let mut one: Vec<AxisTiling> = axes.iter().map(single).collect();
    for i in (0..axes.len()).rev() {
        let tiles = axes[i].tiles;
        for block in (1..=tiles.min(MOST_TILES)).rev() {
            // Of the sizes that make as many blocks, the one that makes them alike.
            if tiles.div_ceil(tiles.div_ceil(block)) == block {
                let mut way = one.clone();
                way[i].block = block;
                ways.push(way);
            }
        }
        one[i].block = tiles;
    }
    for i in (0..axes.len()).rev() {
        let phases = axes[i].phases();
        for merge in (2..=phases.min(MOST_TILES)).filter(|merge| phases.is_multiple_of(*merge)) {
            let mut way = one.clone();
            way[i].merge = merge;
            ways.push(way);
        }
        one[i].merge = phases;
    }
    let tiles = |way: &[AxisTiling]| {
        let numbers = way.iter().flat_map(|a| [a.block, a.merge]);
        numbers.fold(1, u64::saturating_mul)
    };
    ways.retain(|way| tiles(way) <= MOST_TILES);
    ways
}
