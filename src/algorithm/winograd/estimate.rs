//! How long the tiles of a sum take, and how exact they are: counted operations at a target's
//! rates.

use std::sync::OnceLock;

use convgen_ir::elem::Layout;
use convgen_ir::problem::ConvProblem;

use super::linear;
use super::plan::{AxisPlan, LOCAL_TILE, MAX_STRIDE, Plan};
use super::toom::{MAX_POINTS, Transforms};
use crate::accuracy::ROUNDOFF;
use crate::algorithm::sum::DenseSum;
use crate::calibration::cycles::{APART_ELEMENT, TILE_PRODUCTS_RATE, TILE_TRANSFORM};
use crate::cost::{Estimate, Rates};
use crate::target::{Caches, LATENCY_SUMS, Target};

impl Plan {
    /// Predicted seconds of a call on all cores, the last tasks of which may leave some idle.
    pub(super) fn elapsed(
        &self,
        problem: &ConvProblem,
        sum: &DenseSum,
        target: &Target,
        rates: &Rates,
    ) -> f64 {
        let tasks = self.tasks(problem);
        let rounds = tasks.div_ceil(target.cores() as u64);
        let seconds = self.estimate(problem, sum, target, rates).seconds();
        seconds * rounds as f64 / tasks as f64
    }

    fn tasks(&self, problem: &ConvProblem) -> u64 {
        let blocks: u64 = self.axes.iter().map(|a| a.blocks() * a.phase_sets()).product();
        problem.batch().max(1) * problem.groups() * blocks * self.parts
    }

    /// Predicts a call at the problem's batch on one core.
    pub(super) fn estimate(
        &self,
        problem: &ConvProblem,
        sum: &DenseSum,
        target: &Target,
        rates: &Rates,
    ) -> Estimate {
        let [input, output] = operations(&self.axes);
        let (reads, writes) = (sum.channels.0 as f64, sum.channels.1 as f64);
        let parts = self.parts as f64;
        let calls = self.tasks(problem) as f64 / parts;
        let tiles = self.tiles() as f64;
        let lanes = self.lanes as f64;
        let vectors = |channels: f64| (channels / lanes).ceil();
        let products = self.products() as f64 * tiles * reads * vectors(writes);
        let multiply = products * rates.fma / TILE_PRODUCTS_RATE * self.waiting();
        // The weights come from where all of them fit, once a block.
        let caches = target.caches();
        let group = (reads * writes * self.elem.bytes() as f64) as usize * self.products() as usize;
        let byte = match group * problem.groups() as usize {
            bytes if bytes <= caches.l2 / 2 => 0.0,
            bytes if bytes <= caches.l3 => rates.l3,
            _ => rates.memory,
        };
        let weights = group as f64 * byte;
        let reach: u64 = self.axes.iter().map(AxisPlan::reach).product();
        let merged: u64 = self.axes.iter().map(|a| a.merged).product();
        let copied = 2.0 * (reach * merged) as f64 * vectors(reads);
        let moved =
            tiles * (parts * input as f64 * vectors(reads) + output as f64 * vectors(writes));
        let written: u64 = self.axes.iter().map(|a| a.tile).product();
        let elements = parts * (reach * merged) as f64 * reads + tiles * written as f64 * writes;
        let gathered = if self.needs_gather(problem, sum) { elements * APART_ELEMENT } else { 0.0 };
        let [spilled, read] = self.spilled_bytes(caches).map(|bytes| bytes * rates.l3);
        let block = Estimate {
            products: multiply,
            // Nothing hides what is written.
            tiles: moved * TILE_TRANSFORM * rates.cycle + spilled,
            copies: (parts * copied * TILE_TRANSFORM + gathered) * rates.cycle,
            traffic: weights + read,
        };
        block.times(calls)
    }

    /// Whether no element of a tile has a neighbour in memory that is read or written with it:
    /// channels are planes, and columns of a phase lie apart.
    fn needs_gather(&self, problem: &ConvProblem, sum: &DenseSum) -> bool {
        let apart = self.axes.last().is_some_and(|axis| axis.phases() > 1)
            || sum.axes.last().is_some_and(|axis| axis.stripe.by > 1);
        apart && problem.layout() == Layout::ChannelsFirst
    }

    /// By what the products of a small register tile take longer, whose sums wait for themselves or
    /// whose operands for their loads.
    fn waiting(&self) -> f64 {
        let vectors = self.channels.div_ceil(self.lanes);
        let sums = self.pixels * vectors;
        let busy = sums.max(LATENCY_SUMS).max(self.pixels + vectors);
        busy as f64 / sums as f64
    }

    /// Bytes of a block that pass the second-level cache, which holds weights beside them:
    /// transformed input on being written, each line fetched before, and sums on both ways, which
    /// nothing hides; and transformed input on being read for every panel of weights.
    fn spilled_bytes(&self, caches: Caches) -> [f64; 2] {
        let bytes = |channels: u64| self.bytes(self.products() * self.rows() * channels) as f64;
        let (transformed, sums) = (bytes(self.padded_channels), bytes(self.channels));
        let panels = self.writes.div_ceil(self.channels) as f64;
        let filled = self.workspace_bytes() as f64 / caches.l2 as f64;
        let (beside, alone) =
            ((2.0 * filled - 1.0).clamp(0.0, 1.0), (filled - 1.0).clamp(0.0, 1.0));
        let written = 2.0 * transformed * beside + 3.0 * sums * panels * alone;
        [written, panels * transformed * alone]
    }

    /// The largest error of an output for one rounding of each value on the way, in multiples of
    /// the largest input times the sum of the weights' magnitudes; see the [module](super).
    pub fn error(&self) -> f64 {
        let growth = self.axes.iter().map(|axis| Costs::of(axis).growth);
        growth.product::<f64>() * ROUNDOFF
    }

    /// Whether an output's error depends on what it reads alone, instead of on its tile.
    pub fn is_local(&self) -> bool {
        self.axes.iter().all(|axis| !axis.is_active() || axis.tile == LOCAL_TILE)
    }

    /// A bound of the error of an output, in the same unit: every rounding of a path at its worst.
    pub fn bound(&self) -> f64 {
        let axis = |a: &AxisPlan| 2 * a.points() + a.taps() + 3;
        let roundings = self.axes.iter().map(axis).sum::<u64>() + self.reads + 2;
        1.01 * roundings as f64 * self.error()
    }
}

/// What the transforms of an axis are like; found once a process for each number of outputs and
/// taps.
#[derive(Clone, Copy, Debug)]
struct Costs {
    growth: f64,
    /// Operations of the transforms of input and output.
    input: u64,
    output: u64,
}

impl Costs {
    fn of(axis: &AxisPlan) -> Costs {
        const TILES: usize = MAX_POINTS as usize + 1;
        const TAPS: usize = (MAX_POINTS * MAX_STRIDE) as usize;
        static ALL: [OnceLock<Costs>; TILES * TAPS * MAX_STRIDE as usize] =
            [const { OnceLock::new() }; TILES * TAPS * MAX_STRIDE as usize];
        let [tile, taps, stride] = [axis.tile, axis.taps(), axis.stride()].map(|x| x as usize);
        let place = (tile * TAPS + taps) * MAX_STRIDE as usize + stride - 1;
        *ALL[place].get_or_init(|| {
            let transforms = Transforms::new(axis.tile, axis.taps(), axis.stride());
            Costs {
                growth: transforms.growth(),
                input: linear::operations(&transforms.input),
                output: linear::operations(&transforms.output),
            }
        })
    }
}

/// Vector operations, loads and stores of the transforms of one tile of one slice, input and
/// output.
fn operations(axes: &[AxisPlan]) -> [u64; 2] {
    let mut counts = [0; 2];
    let mut before: Vec<u64> = axes.iter().map(AxisPlan::window).collect();
    let mut after: Vec<u64> = axes.iter().map(AxisPlan::points).collect();
    for (i, axis) in axes.iter().enumerate().filter(|(_, a)| a.is_active()) {
        let costs = Costs::of(axis);
        let others = |extents: &[u64]| -> u64 {
            extents.iter().enumerate().filter(|(a, _)| *a != i).map(|(_, e)| *e).product()
        };
        let input = costs.input + axis.window() + axis.points();
        let output = costs.output + axis.points() + axis.tile;
        counts[0] += others(&before) * input;
        counts[1] += others(&after) * output;
        before[i] = axis.points();
        after[i] = axis.tile;
    }
    counts
}
