//! How one sum is cut into tiles and blocks of tiles: a [`Tiling`] held against it.

use convgen_ir::elem::ElemType;
use convgen_ir::problem::{ConvProblem, SpatialAxis};

use super::tiling::{AxisTiling, MOST_TILES, Tiling};
use super::toom::MAX_POINTS;
use crate::algorithm::TRANSFORMED_BYTES;
use crate::algorithm::sum::DenseSum;
use crate::target::{Target, UNROLLED_STEPS};

/// Outputs of a tile, each of which is made of the inputs of its own window alone; see the
/// [module](super).
pub(super) const LOCAL_TILE: u64 = 2;

/// Channels that pass through the transforms together: a vector of the widest registers.
pub(super) const SLICE: u64 = 16;

/// The longest stride whose phases are summed: a longer one hardly has taps to share.
pub(super) const MAX_STRIDE: u64 = 4;

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
    /// The numbers of a tiling that an axis has use for: one of one tap is not transformed, none
    /// has more tiles or phases than there are.
    fn new(conv: &SpatialAxis, outputs: u64, tiling: &AxisTiling) -> Result<AxisPlan, String> {
        let &AxisTiling { tile, block, merge } = tiling;
        let transformed = conv.kernel > 1;
        let conv = SpatialAxis { dilation: if transformed { conv.dilation } else { 1 }, ..*conv };
        if transformed && tile + dense_taps(&conv) > MAX_POINTS + 1 {
            return Err(format!(
                "tiles of {tile} outputs of {} taps need more than {MAX_POINTS} points",
                conv.kernel
            ));
        }
        let tile = if transformed { tile } else { 1 };
        let tiles = outputs.div_ceil(conv.dilation).div_ceil(tile);
        let (block, merged) = (block.min(tiles), merge.min(conv.dilation));
        if !conv.dilation.is_multiple_of(merged) || merged > 1 && block < tiles {
            return Err(format!(
                "{merged} of {} phases do not share blocks of {block} of {tiles} tiles",
                conv.dilation
            ));
        }
        Ok(AxisPlan { conv, outputs, tile, tiles, block, merged })
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
    /// What is transformed.
    pub(super) elem: ElemType,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) lanes: u64,
    /// Iterations over input channels by which the products prefetch weights.
    pub(super) ahead: Option<u32>,
    /// Whether the emitter has registers to transpose in.
    pub(super) wide: bool,
}

impl Plan {
    /// A tiling held against a sum.
    ///
    /// # Errors
    /// The number that does not fit the sum.
    pub(super) fn new(
        problem: &ConvProblem,
        sum: &DenseSum,
        target: &Target,
        tiling: &Tiling,
    ) -> Result<Plan, String> {
        let axes = sum.axes.iter().zip(&tiling.axes);
        let axes = axes.map(|(axis, tiling)| AxisPlan::new(&axis.conv, axis.outputs, tiling));
        let axes: Vec<AxisPlan> = axes.collect::<Result<_, _>>()?;
        let blocks = axes.iter().flat_map(|a| [a.block, a.merged]);
        let tiles = blocks.fold(1, u64::saturating_mul);
        if tiles > MOST_TILES {
            return Err(format!("a block of {tiles} tiles, at most {MOST_TILES} are"));
        }
        let (reads, writes) = sum.channels;
        let elem = problem.elem();
        let set_conflicts = reads.is_multiple_of(2 * SLICE);
        let channels = tiling.channels.min(writes);
        let plan = Plan {
            axes,
            pixels: tiling.pixels.min(tiles),
            channels,
            parts: parts(tiling.task_channels.min(writes), channels, writes)?,
            copied: tiling.copied.min(reads),
            padded_channels: reads + if set_conflicts { SLICE } else { 0 },
            elem,
            reads,
            writes,
            lanes: u64::from(target.isa().lanes(elem)),
            ahead: tiling.ahead,
            wide: target.has_micro_kernels(),
        };
        match plan.packed_bytes(problem) {
            bytes if bytes > TRANSFORMED_BYTES => Err(format!(
                "the transformed weights need more than {} MiB",
                TRANSFORMED_BYTES >> 20
            )),
            _ => Ok(plan),
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

    pub(super) fn products(&self) -> u64 {
        self.axes.iter().map(AxisPlan::points).product()
    }

    /// Bytes of scratch of a task, without what lies between two stages.
    pub fn workspace_bytes(&self) -> u64 {
        let reach: u64 = self.axes.iter().map(AxisPlan::reach).product();
        let sums = self.products() * self.rows();
        self.bytes(sums.saturating_mul(self.padded_channels + self.channels) + reach * self.copied)
    }

    /// Bytes of the transformed weights of all groups.
    pub(super) fn packed_bytes(&self, problem: &ConvProblem) -> u64 {
        let channels = problem.groups().saturating_mul(self.reads).saturating_mul(self.writes);
        self.bytes(channels.saturating_mul(self.products()))
    }

    pub(super) fn bytes(&self, elements: u64) -> u64 {
        elements.saturating_mul(self.elem.bytes() as u64)
    }
}

/// Tasks that share the output channels: each takes whole panels.
fn parts(of_task: u64, panel: u64, all: u64) -> Result<u64, String> {
    let whole = of_task == all || all.is_multiple_of(of_task) && of_task.is_multiple_of(panel);
    match whole {
        true => Ok(all / of_task),
        false => Err(format!(
            "tasks of {of_task} of {all} output channels are no whole panels of {panel}"
        )),
    }
}

/// Taps of the phase of a stride that has most.
pub(super) fn dense_taps(conv: &SpatialAxis) -> u64 {
    conv.kernel.div_ceil(conv.stride)
}
