//! Moves among the sizes of algorithms of transformed tiles.
//!
//! Promises: every schedule that a move leads to is accepted by its algorithm, in the accuracy and
//! the error budget of the target.

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use super::MOST_VECTORS;
use crate::algorithm::Algorithm;
use crate::algorithm::winograd::{self, Tiling};
use crate::fourier::Plan;
use crate::target::Target;

/// Input channels that are copied together: from a vector to some cache lines.
const COPIED: [u64; 4] = [16, 32, 64, 128];

/// Iterations by which weights are prefetched.
const AHEAD: [Option<u32>; 6] = [None, Some(1), Some(2), Some(4), Some(8), Some(16)];

/// The schedules that differ in one size, and in what must follow from it.
pub(super) fn neighbours(
    algorithm: Algorithm,
    problem: &ConvProblem,
    target: &Target,
    schedule: &Schedule,
) -> Vec<Schedule> {
    let mut found: Vec<Schedule> = match algorithm {
        Algorithm::Direct => vec![],
        Algorithm::Winograd => winograd(problem, target, schedule),
        Algorithm::Fourier => fourier(problem, target, schedule),
    };
    let mut seen = std::collections::HashSet::from([schedule.clone()]);
    found.retain(|schedule| seen.insert(schedule.clone()));
    found
}

fn winograd(problem: &ConvProblem, target: &Target, schedule: &Schedule) -> Vec<Schedule> {
    let Ok((tiling, _)) = Tiling::read(problem, schedule) else { return vec![] };
    let lanes = u64::from(target.lanes());
    let mut moves = axis_moves(problem, &tiling);
    let mut with = |set: &dyn Fn(&mut Tiling)| {
        let mut tiling = tiling.clone();
        set(&mut tiling);
        moves.push(tiling);
    };
    for pixels in 1..=u64::from(target.registers()) {
        with(&|tiling| tiling.pixels = pixels);
    }
    for vectors in 1..=MOST_VECTORS {
        // What a task has must stay whole panels.
        let channels = vectors * lanes;
        with(&|tiling| (tiling.channels, tiling.task_channels) = (channels, u64::MAX));
    }
    for parts in 1..=target.cores() as u64 {
        with(&|tiling| tiling.task_channels = written(problem).div_ceil(parts));
    }
    for copied in COPIED {
        with(&|tiling| tiling.copied = copied);
    }
    for ahead in AHEAD {
        with(&|tiling| tiling.ahead = ahead);
    }
    let legal = moves.iter().filter_map(|tiling| fitted(problem, target, tiling));
    legal.map(|tiling| tiling.schedule(problem)).collect()
}

/// The output channels of a group.
fn written(problem: &ConvProblem) -> u64 {
    problem.result_channels() / problem.groups()
}

/// What an axis may be cut into: other tiles, other blocks, other phases of one.
fn axis_moves(problem: &ConvProblem, tiling: &Tiling) -> Vec<Tiling> {
    let mut moves = Vec::new();
    for (place, axis) in tiling.axes.iter().enumerate() {
        let tiles = winograd::TILES.into_iter().map(|tile| (tile, axis.block, axis.merge));
        let blocks = (1..=winograd::MOST_TILES).map(|block| (axis.tile, block, 1));
        let phases = problem.spatial()[place].dilation;
        let merges = (1..=phases.min(winograd::MOST_TILES)).map(|m| (axis.tile, u64::MAX, m));
        for (tile, block, merge) in tiles.chain(blocks).chain(merges) {
            let mut tiling = tiling.clone();
            let axis = &mut tiling.axes[place];
            (axis.tile, axis.block, axis.merge) = (tile, block, merge);
            moves.push(tiling);
        }
    }
    moves
}

/// The tiling with no number larger than it has use for; none if it is not legal.
fn fitted(problem: &ConvProblem, target: &Target, tiling: &Tiling) -> Option<Tiling> {
    let (tiling, plans) = winograd::fitted(problem, tiling, target).ok()?;
    winograd::exact_enough(&plans, target.accuracy()).is_ok().then_some(tiling)
}

fn fourier(problem: &ConvProblem, target: &Target, schedule: &Schedule) -> Vec<Schedule> {
    let Ok(plan) = Plan::read(problem, schedule, target) else { return vec![] };
    let others = plan.neighbours(problem, target).into_iter();
    let others = others.filter(|plan| plan.exact_enough().is_ok());
    others.map(|plan| plan.schedule(problem)).collect()
}
