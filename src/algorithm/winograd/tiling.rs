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

use crate::algorithm::sizes::{Sizes, size};

/// Tiles of a block, at most: more do not read the weights notably less often.
pub(crate) const MOST_TILES: u64 = 128;

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
