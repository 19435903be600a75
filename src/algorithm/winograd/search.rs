//! The search for the tiles with the shortest predicted time.

use convgen_ir::problem::ConvProblem;

use super::plan::{AxisPlan, LOCAL_TILE, Plan, dense_taps};
use super::tiling::{AxisTiling, MOST_TILES, Tiling};
use super::toom::MAX_POINTS;
use crate::accuracy::{Accuracy, ERROR_BUDGET};
use crate::algorithm::TRANSFORMED_BYTES;
use crate::algorithm::sum::DenseSum;
use crate::cost::{Estimate, Rates};
use crate::target::{MICRO_KERNEL_OPERANDS, Target, WORKSPACE_BYTES};

/// Input channels that are copied together: some cache lines of each pixel.
const COPIED: u64 = 64;

/// Outputs of a tile to choose from.
pub(crate) const TILES: [u64; 3] = [LOCAL_TILE, 4, 6];

/// A tiling, the plans that it becomes, and how long they take.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The sizes.
    pub tiling: Tiling,
    /// The plan of each part that has a sum.
    pub plans: Vec<Plan>,
    /// Predicts a call at the problem's batch on one core.
    pub estimate: Estimate,
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
            let error = single.plans.iter().map(|plan| plan.error()).fold(0.0, f64::max);
            if error > ERROR_BUDGET {
                least_error = least_error.min(error);
                continue;
            }
            for axes in blocked(&single.plans[lead].axes) {
                let weighed = self.weighed(self.tiling(lead, axes, 1));
                let shorter = |chosen: &Chosen| {
                    best.as_ref()
                        .is_none_or(|best| chosen.estimate.seconds() < best.estimate.seconds())
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
            Accuracy::Reproducible | Accuracy::Strict | Accuracy::Default => &TILES,
        };
        (0..self.problem.rank()).fold(vec![vec![]], |all, axis| {
            let convs = || self.sums.iter().map(|sum| &sum.axes[axis].conv);
            let taps = convs().map(dense_taps).max().unwrap_or(1);
            let choices: Vec<u64> = match convs().all(|conv| conv.kernel == 1) {
                true => vec![1],
                false => tiles.iter().copied().filter(|m| m + taps <= MAX_POINTS + 1).collect(),
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
        let plans = super::plans(self.problem, self.sums, &tiling, self.target).ok()?;
        let fits = plans.iter().all(|plan| plan.workspace_bytes() <= WORKSPACE_BYTES);
        let estimate = |(sum, plan): (&DenseSum, &Plan)| {
            plan.estimate(self.problem, sum, self.target, self.rates)
        };
        let estimate = self.sums.iter().zip(&plans).map(estimate).sum();
        fits.then_some(Chosen { tiling, plans, estimate })
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
        let Chosen { tiling, estimate, .. } = &chosen;
        let (panels, writes) =
            (self.sums[lead].channels.1 / tiling.channels, self.sums[lead].channels.1);
        let whole = writes.is_multiple_of(tiling.channels);
        let most = if whole { cores.min(panels) } else { 1 };
        let (ahead, estimate) = (tiling.ahead, *estimate);
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
                (best, shortest) = (Chosen { estimate, ..other }, elapsed);
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

/// The tiling of some plans, by the smallest numbers.
pub(super) fn tiling_of(plans: &[Plan], ahead: Option<u32>) -> Tiling {
    let most = |number: &dyn Fn(&Plan) -> u64| plans.iter().map(number).max().unwrap_or(1);
    let axes = plans.first().map_or(0, |plan| plan.axes.len());
    let axis = |axis: usize| AxisTiling {
        tile: most(&|plan| plan.axes[axis].tile),
        block: most(&|plan| plan.axes[axis].block),
        merge: most(&|plan| plan.axes[axis].merged),
    };
    Tiling {
        axes: (0..axes).map(axis).collect(),
        pixels: most(&|plan| plan.pixels),
        channels: most(&|plan| plan.channels),
        task_channels: most(&|plan| plan.writes / plan.parts),
        copied: most(&|plan| plan.copied),
        ahead,
    }
}
