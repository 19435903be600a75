//! What the algorithms share in writing nests down.

use convgen_ir::elem::Layout;
use convgen_ir::nest::{Affine, AxisId, AxisKind, Dim, Loop, Nest, Stmt};

/// One loop axis with its extent.
#[derive(Clone, Copy)]
pub(super) struct Iteration {
    pub(super) axis: AxisId,
    pub(super) extent: Dim,
}

impl Iteration {
    /// A new axis of the nest.
    pub(super) fn new(nest: &mut Nest, name: String, kind: AxisKind, extent: Dim) -> Iteration {
        Iteration { axis: nest.add_axis(name, kind), extent }
    }

    /// The variable in an index: zero if it is always zero.
    pub(super) fn index(self) -> Affine {
        match self.extent {
            Dim::Fixed(1) => Affine::constant(0),
            Dim::Fixed(_) | Dim::Batch => Affine::axis(self.axis),
        }
    }
}

pub(super) fn fixed(extent: u64) -> Dim {
    Dim::Fixed(extent as i64)
}

/// Loops around a block, the first one outermost.
pub(super) fn nested(
    axes: impl DoubleEndedIterator<Item = Iteration>,
    innermost: Vec<Stmt>,
) -> Vec<Stmt> {
    axes.rev().fold(innermost, |body, it| vec![Stmt::Loop(Loop::new(it.axis, it.extent, body))])
}

/// Batch, channel and positions in the order of a layout.
pub(crate) fn ordered<T>(layout: Layout, batch: T, channel: T, positions: Vec<T>) -> Vec<T> {
    let mut dims = vec![batch];
    match layout {
        Layout::ChannelsFirst => {
            dims.push(channel);
            dims.extend(positions);
        }
        Layout::ChannelsLast => {
            dims.extend(positions);
            dims.push(channel);
        }
    }
    dims
}
