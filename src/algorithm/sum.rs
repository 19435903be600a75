//! The dense sums that make up a problem, as data.

use convgen_ir::PaddingMode;
use convgen_ir::nest::Stripe;
use convgen_ir::problem::SpatialAxis;

/// One of the dense sums that make up a problem: a forward convolution, and where its taps find
/// their weights and its outputs their place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DenseSum {
    /// Channels of a group that are read, and written.
    pub(super) channels: (u64, u64),
    /// Whether the weights' first dimension is that of the channels read.
    pub(super) weights_by_input: bool,
    /// What is read outside of the input: of a transposed sum zeros, as no output reads there.
    pub(super) padding: PaddingMode,
    pub(super) axes: Vec<SumAxis>,
}

/// One spatial axis of a [`DenseSum`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SumAxis {
    /// The convolution; no taps where nothing is read.
    pub(super) conv: SpatialAxis,
    /// Its outputs.
    pub(super) outputs: u64,
    /// The weight of tap `k` is at `first + step*k`.
    pub(super) first_tap: i64,
    pub(super) tap_step: i64,
    /// Extent of the output tensor, and where in it the outputs are.
    pub(super) written: u64,
    pub(super) stripe: Stripe,
    /// The phases that this one stands for; what is said above is said of the first.
    pub(super) phases: Phases,
}

/// Phases of an axis that differ by a multiple of their number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Phases {
    pub(super) count: u64,
    /// What each adds to the padding before, to the first tap, and to the place that is written.
    pub(super) padding: i64,
    pub(super) tap: i64,
    pub(super) step: i64,
    /// Taps of the axis, if those of some phase are fewer than the loop over them has iterations.
    pub(super) taps: Option<i64>,
    /// As many outputs as there are from one phase to the next, of which one has taps.
    pub(super) classes: u64,
    pub(super) active: u64,
}

impl Phases {
    /// One, by itself.
    pub(super) const ONE: Phases =
        Phases { count: 1, padding: 0, tap: 0, step: 1, taps: None, classes: 1, active: 0 };
}

impl DenseSum {
    /// Whether some axis has no tap: then nothing is summed.
    pub(super) fn is_empty(&self) -> bool {
        self.axes.iter().any(|axis| axis.conv.kernel == 0)
    }
}
