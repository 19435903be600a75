//! How a sum is cut into tiles and blocks of tiles: a few numbers, chosen by counted work.

use std::sync::OnceLock;

use convgen_ir::elem::{ElemType, Layout};
use convgen_ir::problem::{ConvProblem, SpatialAxis};

use super::linear;
use super::toom::{MAX_POINTS, Transforms};
use crate::accuracy::{Accuracy, ERROR_BUDGET, ROUNDOFF};
use crate::algorithm::TRANSFORMED_BYTES;
use crate::algorithm::sum::DenseSum;
use crate::cost::Rates;
use crate::target::{
    Caches, LATENCY_SUMS, MICRO_KERNEL_OPERANDS, Target, UNROLLED_STEPS, WORKSPACE_BYTES,
};

/// Outputs of a tile, each of which is made of the inputs of its own window alone; see the
/// [module](super).
const LOCAL_TILE: u64 = 2;

/// Channels that pass through the transforms together: a vector of the widest registers.
pub(super) const SLICE: u64 = 16;

/// Input channels that are copied together: some cache lines of each pixel.
const COPIED: u64 = 64;

/// The longest stride whose phases are summed: a longer one hardly has taps to share.
const MAX_STRIDE: u64 = 4;

/// Tiles of a block, at most: more do not read the weights notably less often.
const MOST_TILES: u64 = 128;

/// The part of the peak rate of multiply-adds that the products reach.
const PRODUCTS_RATE: f64 = 0.92;

/// Cycles of a vector operation of the transforms, loads, stores and loops included.
const TRANSFORM_CYCLES: f64 = 0.9;

/// Cycles of an element that is read or written by itself: where neither channels nor columns are
/// neighbours. A causal sum over 64 channels of 1024 positions, dilated by 8, takes 110 for each
/// vector of 16.
const APART_CYCLES: f64 = 7.0;

/// Neighbouring elements of which `count` times `width` are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) count: u64,
    pub(super) width: u64,
}

/// As many whole pieces as there are, and what is left.
pub(super) fn pieces(total: u64, width: u64) -> Vec<Piece> {
    let (count, rest) = (total / width, total % width);
    let whole = Piece { start: 0, count, width };
    let rest = Piece { start: total - rest, count: 1, width: rest };
    [whole, rest].into_iter().filter(|piece| piece.count * piece.width > 0).collect()
}

/// One axis of the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AxisPlan {
    conv: SpatialAxis,
    /// Outputs of the sum.
    outputs: u64,
    /// Outputs of a tile.
    pub tile: u64,
    /// Tiles of a phase.
    pub tiles: u64,
    /// Tiles of a block, of each of its phases.
    pub block: u64,
    /// Phases of a block: more than one only where it has all of their tiles.
    pub merged: u64,
}

impl AxisPlan {
    fn new(conv: &SpatialAxis, outputs: u64, tile: u64) -> AxisPlan {
        let conv =
            SpatialAxis { dilation: if conv.kernel > 1 { conv.dilation } else { 1 }, ..*conv };
        let tiles = outputs.div_ceil(conv.dilation).div_ceil(tile);
        AxisPlan { conv, outputs, tile, tiles, block: tiles, merged: 1 }
    }

    /// Taps.
    pub(super) fn taps(&self) -> u64 {
        self.conv.kernel
    }

    /// Inputs between those that neighbouring outputs begin at.
    pub(super) fn stride(&self) -> u64 {
        self.conv.stride
    }

    /// Products of a tile: those of each phase of the stride that has taps.
    pub(super) fn points(&self) -> u64 {
        let AxisPlan { conv, tile, .. } = self;
        let phases = 0..conv.stride.min(conv.kernel);
        phases.map(|phase| tile + (conv.kernel - phase).div_ceil(conv.stride) - 1).sum()
    }

    /// Elements that a tile reads.
    pub(super) fn window(&self) -> u64 {
        (self.tile - 1) * self.conv.stride + self.conv.kernel
    }

    /// Whether its values are transformed; otherwise it has one tap, and each tile one output.
    pub(super) fn is_active(&self) -> bool {
        self.conv.kernel > 1
    }

    /// Grids on which a dilated sum is a dense one.
    pub(super) fn phases(&self) -> u64 {
        self.conv.dilation
    }

    /// Sets of phases that blocks share.
    pub(super) fn phase_sets(&self) -> u64 {
        self.phases() / self.merged
    }

    /// Blocks of a phase.
    pub(super) fn blocks(&self) -> u64 {
        self.tiles.div_ceil(self.block)
    }

    /// Elements that a block reads of a phase.
    pub(super) fn reach(&self) -> u64 {
        (self.block * self.tile - 1) * self.conv.stride + self.conv.kernel
    }

    /// Tiles of every phase all of whose outputs exist.
    pub(super) fn whole_tiles(&self) -> u64 {
        self.outputs / self.phases() / self.tile
    }

    /// Whether some block reads beyond the input.
    pub(super) fn is_padded(&self) -> bool {
        let stride = self.conv.stride;
        let last = (self.blocks() - 1) * self.block * self.tile * stride + self.reach() - 1;
        let place = last * self.phases() + (self.phases() - 1) * stride;
        let place = place as i64 - self.conv.pad_before;
        self.conv.pad_before > 0 || place >= self.conv.input as i64
    }
}

/// The tiles of a sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The spatial axes.
    pub axes: Vec<AxisPlan>,
    /// Tiles of the register tile of the products.
    pub pixels: u64,
    /// Output channels of the register tile, and of a panel of weights.
    pub channels: u64,
    /// Tasks that share the output channels of a block; each transforms the input for itself.
    pub parts: u64,
    /// Input channels copied together.
    pub(super) copied: u64,
    /// Input channels, and what keeps neighbouring tiles in different sets of a cache.
    pub(super) padded_channels: u64,
    /// Predicted seconds of a call at the problem's batch on one core, at nominal rates.
    pub seconds: f64,
    /// What is transformed.
    pub(super) elem: ElemType,
    reads: u64,
    writes: u64,
    lanes: u64,
    /// Iterations over input channels that the products look ahead, where no cache holds the
    /// weights.
    pub(super) ahead: Option<u32>,
    /// Whether the emitter has registers to transpose in.
    pub(super) wide: bool,
}

impl Plan {
    /// The tiles with the shortest predicted time.
    ///
    /// # Errors
    /// Why the sum is outside the domain.
    pub(super) fn new(
        problem: &ConvProblem,
        sum: &DenseSum,
        target: &Target,
    ) -> Result<Plan, String> {
        if let Some(axis) = sum.axes.iter().find(|axis| axis.conv.stride > MAX_STRIDE) {
            return Err(format!("its stride {} exceeds {MAX_STRIDE}", axis.conv.stride));
        }
        if let Some(axis) = sum.axes.iter().find(|axis| dense_taps(&axis.conv) >= MAX_POINTS) {
            return Err(format!("{} taps need more than {MAX_POINTS} points", axis.conv.kernel));
        }
        if sum.is_empty() || sum.axes.iter().all(|axis| axis.conv.kernel == 1) {
            return Err("each output reads one place".to_string());
        }
        let rates = Rates::nominal(target);
        let mut best: Option<(f64, Plan)> = None;
        let mut least_error = f64::INFINITY;
        for tiles in tile_sizes(sum, target.accuracy()) {
            let axes: Vec<AxisPlan> = sum
                .axes
                .iter()
                .zip(tiles)
                .map(|(axis, tile)| AxisPlan::new(&axis.conv, axis.outputs, tile))
                .collect();
            let error = error(&axes);
            if error > ERROR_BUDGET {
                least_error = least_error.min(error);
                continue;
            }
            let operations = operations(&axes);
            for axes in blocked(&axes) {
                let plan = Plan::with(problem, sum, target, axes);
                let packed = plan.packed_bytes(problem, sum);
                if plan.workspace_bytes() > WORKSPACE_BYTES || packed > TRANSFORMED_BYTES {
                    continue;
                }
                let seconds = plan.seconds(problem, sum, target, &rates, operations);
                if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                    let tile = plan.pixels * plan.channels;
                    let ahead = target.ahead(packed, plan.bytes(plan.channels * plan.steps(tile)));
                    best = Some((seconds, Plan { seconds, ahead, ..plan }));
                }
            }
        }
        let best = best.map(|(_, plan)| plan.shared(problem, sum, target, &rates));
        best.ok_or_else(|| {
            if least_error.is_finite() {
                return format!(
                    "its expected error {least_error:.1e} of the tile's norm exceeds the budget {ERROR_BUDGET:.1e}"
                );
            }
            format!(
                "no tiles need at most {} MiB a thread and {} MiB of transformed weights",
                WORKSPACE_BYTES >> 20,
                TRANSFORMED_BYTES >> 20
            )
        })
    }

    /// The same tiles, and so the same bits, in blocks and parts that keep all cores busy: the
    /// shortest time if each core takes as many tasks as the next.
    fn shared(self, problem: &ConvProblem, sum: &DenseSum, target: &Target, rates: &Rates) -> Plan {
        let cores = target.cores() as u64;
        if cores == 1 {
            return self;
        }
        let operations = operations(&self.axes);
        let runs = sum.channels.1 / self.channels;
        let whole = sum.channels.1.is_multiple_of(self.channels);
        let mut best = self.clone();
        let mut shortest = self.elapsed(problem, sum, target, rates, operations);
        for axes in blocked(&self.axes) {
            let most = if whole { cores.min(runs) } else { 1 };
            for parts in (1..=most).filter(|parts| runs.is_multiple_of(*parts)) {
                let (seconds, ahead) = (self.seconds, self.ahead);
                let plan = Plan::with(problem, sum, target, axes.clone());
                let plan = Plan { seconds, ahead, parts, ..plan };
                if plan.workspace_bytes() > WORKSPACE_BYTES {
                    continue;
                }
                let elapsed = plan.elapsed(problem, sum, target, rates, operations);
                if elapsed < shortest {
                    (best, shortest) = (plan, elapsed);
                }
            }
        }
        best
    }

    fn with(problem: &ConvProblem, sum: &DenseSum, target: &Target, axes: Vec<AxisPlan>) -> Plan {
        let elem = problem.elem();
        let lanes = u64::from(target.isa().lanes(elem));
        let (reads, writes) = sum.channels;
        let registers = u64::from(target.registers());
        let budget = match target.has_micro_kernels() {
            true => registers - MICRO_KERNEL_OPERANDS,
            // A multiply-add of Cranelift overwrites a factor.
            false => registers / 2,
        };
        let vectors = writes.div_ceil(lanes).min(2);
        let tiles: u64 = axes.iter().map(|a| a.block * a.merged).product();
        let rows = (budget / vectors).max(1);
        let pixels = tiles.div_ceil(tiles.div_ceil(rows));
        let set_conflicts = reads.is_multiple_of(2 * SLICE);
        Plan {
            axes,
            pixels,
            channels: (vectors * lanes).min(writes),
            parts: 1,
            copied: reads.min(COPIED),
            padded_channels: reads + if set_conflicts { SLICE } else { 0 },
            seconds: 0.0,
            elem,
            reads,
            writes,
            lanes,
            ahead: None,
            wide: target.has_micro_kernels(),
        }
    }

    /// Tiles of a block.
    pub fn tiles(&self) -> u64 {
        self.axes.iter().map(|a| a.block * a.merged).product()
    }

    /// The same, made odd: the points of a tile then lie in different sets of a cache.
    pub(super) fn rows(&self) -> u64 {
        self.tiles() | 1
    }

    /// Steps of the reduction that are unrolled, a divisor of the input channels.
    pub(super) fn steps(&self, tile: u64) -> u64 {
        let products = tile.div_ceil(self.lanes).max(1);
        let most = (UNROLLED_STEPS / products).max(1);
        (1..=most.min(self.reads)).rev().find(|by| self.reads.is_multiple_of(*by)).unwrap_or(1)
    }

    fn products(&self) -> u64 {
        self.axes.iter().map(AxisPlan::points).product()
    }

    /// Bytes of scratch of a task, without what lies between two stages.
    pub fn workspace_bytes(&self) -> u64 {
        let reach: u64 = self.axes.iter().map(AxisPlan::reach).product();
        let sums = self.products() * self.rows();
        self.bytes(sums.saturating_mul(self.padded_channels + self.channels) + reach * self.copied)
    }

    fn packed_bytes(&self, problem: &ConvProblem, sum: &DenseSum) -> u64 {
        let (reads, writes) = sum.channels;
        let channels = problem.groups().saturating_mul(reads).saturating_mul(writes);
        self.bytes(channels.saturating_mul(self.products()))
    }

    fn bytes(&self, elements: u64) -> u64 {
        elements.saturating_mul(self.elem.bytes() as u64)
    }

    /// Predicted seconds of a call on all cores, the last tasks of which may leave some idle.
    fn elapsed(
        &self,
        problem: &ConvProblem,
        sum: &DenseSum,
        target: &Target,
        rates: &Rates,
        operations: [u64; 2],
    ) -> f64 {
        let tasks = self.tasks(problem);
        let rounds = tasks.div_ceil(target.cores() as u64);
        let seconds = self.seconds(problem, sum, target, rates, operations);
        seconds * rounds as f64 / tasks as f64
    }

    fn tasks(&self, problem: &ConvProblem) -> u64 {
        let blocks: u64 = self.axes.iter().map(|a| a.blocks() * a.phase_sets()).product();
        problem.batch().max(1) * problem.groups() * blocks * self.parts
    }

    fn seconds(
        &self,
        problem: &ConvProblem,
        sum: &DenseSum,
        target: &Target,
        rates: &Rates,
        [input, output]: [u64; 2],
    ) -> f64 {
        let (reads, writes) = (sum.channels.0 as f64, sum.channels.1 as f64);
        let parts = self.parts as f64;
        let calls = self.tasks(problem) as f64 / parts;
        let tiles = self.tiles() as f64;
        let lanes = self.lanes as f64;
        let vectors = |channels: f64| (channels / lanes).ceil();
        let products = self.products() as f64 * tiles * reads * vectors(writes);
        let multiply = products * rates.fma / PRODUCTS_RATE * self.waiting();
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
        let copied = parts * copied;
        let moved =
            tiles * (parts * input as f64 * vectors(reads) + output as f64 * vectors(writes));
        let written: u64 = self.axes.iter().map(|a| a.tile).product();
        let elements = parts * (reach * merged) as f64 * reads + tiles * written as f64 * writes;
        let torn = if self.is_torn(problem, sum) { elements * APART_CYCLES } else { 0.0 };
        let transforms = ((moved + copied) * TRANSFORM_CYCLES + torn) * rates.cycle();
        let [written, read] = self.spilled_bytes(caches).map(|bytes| bytes * rates.l3);
        let far = weights + read;
        calls * (multiply.max(far) + 0.3 * multiply.min(far) + transforms + written)
    }

    /// Whether no element of a tile has a neighbour in memory that is read or written with it:
    /// channels are planes, and columns of a phase lie apart.
    fn is_torn(&self, problem: &ConvProblem, sum: &DenseSum) -> bool {
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
        error(&self.axes)
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

fn error(axes: &[AxisPlan]) -> f64 {
    let growth = axes.iter().map(|a| Costs::of(a).growth);
    growth.product::<f64>() * ROUNDOFF
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

/// Taps of the phase of a stride that has most.
fn dense_taps(conv: &SpatialAxis) -> u64 {
    conv.kernel.div_ceil(conv.stride)
}

/// The sizes of tiles to choose from: an axis of one tap is not transformed, any other by at most
/// [`MAX_POINTS`] points.
fn tile_sizes(sum: &DenseSum, accuracy: Accuracy) -> Vec<Vec<u64>> {
    let tiles: &[u64] = match accuracy {
        Accuracy::Local => &[LOCAL_TILE],
        // Sums are chosen, unless transforms are asked for by name.
        Accuracy::Reproducible | Accuracy::Strict | Accuracy::Default => &[LOCAL_TILE, 4, 6],
    };
    sum.axes.iter().fold(vec![vec![]], |all, axis| {
        let most = MAX_POINTS + 1 - dense_taps(&axis.conv);
        let choices: Vec<u64> = if axis.conv.kernel == 1 {
            vec![1]
        } else {
            tiles.iter().copied().filter(|m| *m <= most).collect()
        };
        let longer = |sizes: &Vec<u64>| -> Vec<Vec<u64>> {
            choices.iter().map(|m| sizes.iter().copied().chain([*m]).collect()).collect()
        };
        all.iter().flat_map(longer).collect()
    })
}

/// Ways to cut the tiles into blocks of neighbouring ones: the innermost axes whole, then a part of
/// one; and of all tiles of several phases of a dilation, so that small grids share the weights
/// they need.
fn blocked(axes: &[AxisPlan]) -> Vec<Vec<AxisPlan>> {
    let mut ways = Vec::new();
    let mut one: Vec<AxisPlan> = axes.to_vec();
    one.iter_mut().for_each(|a| a.block = 1);
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
        one[i].block = axes[i].tiles;
    }
    for i in (0..axes.len()).rev() {
        let phases = axes[i].phases();
        for merged in (2..=phases.min(MOST_TILES)).filter(|merged| phases.is_multiple_of(*merged)) {
            let mut way = one.clone();
            way[i].merged = merged;
            ways.push(way);
        }
        one[i].merged = phases;
    }
    let tiles = |way: &[AxisPlan]| {
        let numbers = way.iter().flat_map(|a| [a.block, a.merged]);
        numbers.fold(1, u64::saturating_mul)
    };
    ways.retain(|way| tiles(way) <= MOST_TILES);
    ways
}
