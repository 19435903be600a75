//! How far a kernel may be from the defining sum, and what its bits depend on. This page is the
//! place where that is said; `u` is `2^-24`, half a unit in the last place of one.
//!
//! # Sums
//!
//! [`Algorithm::Direct`](crate::algorithm::Algorithm::Direct) rounds each of an output's `k`
//! multiply-adds once, in some order. Its error is at most `k * u` times the sum of the magnitudes
//! of these products: it is small beside what *this output* reads. Exact data gives exact results.
//!
//! # Tiles
//!
//! [Winograd's minimal filtering](crate::algorithm::winograd) and [Fourier
//! transforms](crate::fourier) transform a tile of the input, which is larger than the window of
//! one output, and add and subtract all of it on the way to each output. Their error is bounded
//! **normwise over the tile**:
//!
//! ```text
//! error of an output  <=  c * |tile| * |weights of its channel|
//! ```
//!
//! | | norm of the tile | norm of the weights | `c` expected | `c` in the worst case |
//! |---|---|---|---|---|
//! | Winograd | its largest magnitude | the sum of magnitudes | `growth * u` | `growth * u` times the roundings on a path |
//! | Fourier | its 2-norm, for each input channel | the 2-norm | not derived | `(21 L + 3 ic + 4) * u` |
//!
//! Expected is what one rounding can do, since roundings rarely meet in one direction; the worst
//! case is proved. The modules derive both; `convgen explain` prints them. An accuracy grants a
//! **budget** for `c`: Winograd's expected `c` and Fourier's worst case must be within it. The
//! kernels of a problem take the fastest tiles that are.
//!
//! The budget is no promise about what *one output* reads. Where a tile has values `D` times as
//! large as those of some output's window, the error of that output, in units of its own window,
//! may be `D * c`: for 64 input channels and tiles of 4x6 outputs of a 3x3 kernel, beside pixels
//! 65,535 times as bright, up to 7.5e-3 is measured, 75 budgets, where the output itself may be
//! smaller than that.
//!
//! Winograd's tiles of **two** outputs an axis are an exception: each output is made of products in
//! which no input outside of its window takes part
//! ([`Plan::is_local`](crate::algorithm::winograd::Plan::is_local)), so the norm of the tile may be
//! replaced by that of the window. [`Accuracy::Local`] allows these, for images of high dynamic
//! range: their worst case is a small multiple of that of the sum.
//!
//! | 3x3, 64 channels | `c` expected | in the worst case | times the norm of | products saved |
//! |---|---|---|---|---|
//! | sum | | 3.4e-5 | the window | 1 |
//! | tiles of 2x2 | 9.5e-7 | 9.1e-5 | the window | 2.25 |
//! | tiles of 4x4 | 5.1e-5 | 5.3e-3 | the tile | 4 |
//! | tiles of 6x6 | 9.6e-5 | 1.1e-2 | the tile | 5.06 |
//!
//! The bounds hold where nothing overflows and nothing is subnormal **inside of the transforms**
//! either, whose sums of inputs are up to some hundred times as large as these and whose weights
//! are up to some thousand times as small: inputs beyond 1e36 may give infinities where the sum is
//! finite, weights below 1e-34 lose digits.
//!
//! # Infinities and NaNs
//!
//! - A NaN or an infinity in the input reaches the outputs whose windows hold it, nine of a 3x3
//!   kernel, if these are sums or local. Other transforms spread it, as NaNs, over the outputs of
//!   each tile that holds it: 36 of a tile of 6x6, thousands of a Fourier tile. In weights it
//!   reaches the outputs of its channel either way.
//! - On padding a sum either multiplies a weight by zero or skips the tap; which one is the
//!   schedule's choice (`skip padding`), so it depends on layout and instruction set. The results
//!   differ where that weight is infinite or a NaN, zero times which is a NaN, and in the sign of
//!   zero. [`Accuracy::Reproducible`] never skips.
//!
//! # Bits
//!
//! A **nest** has one result on every machine. A **problem** has one for each nest that a schedule
//! makes of it, and the pick depends on the target: instruction set, caches, tuning records. So
//! [`Accuracy::Strict`] with AVX2 and with AVX-512 may differ in the last bits, by the order of
//! sums (`rfactor`, `reorder`). [`Accuracy::Reproducible`] admits only the order of the problem's
//! plain nest: one result for a problem, on every instruction set, with and without tuning records.
//!
//! # Time
//!
//! On one core of an Emerald Rapids, AVX-512, channels last
//! (`bench --suite resnet50 --isa avx512 --accuracy ..`, 2026-11-30, the shortest of three rounds
//! on a busy machine), ResNet-50's layers take 1.05 times as long reproducible as strict in
//! geometric mean, 1.3 times at most (3x3 over 512 channels of 7x7). Its 3x3 layers of stride one
//! over 64 to 256 channels take 0.4 to 0.5 of the strict time by default, and 0.6 local.

use std::fmt;
use std::str::FromStr;

use convgen_ir::every;

/// What transforms may be off by, in multiples of the norms of the tile and of the weights. A plain
/// sum of `k` products is within `k * 2^-24`: this is the bound of a sum of 1,677.
pub const ERROR_BUDGET: f64 = 1e-4;

/// The unit roundoff of single precision: the largest relative error of one rounding.
pub(crate) const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

/// Which algorithms and schedules may be chosen. See the [module](self) for what each promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accuracy {
    /// Sums, in the order of the problem's plain nest: the same bits on every instruction set.
    Reproducible,
    /// Sums, in any order: the arithmetic of the definition never changes.
    Strict,
    /// Also transforms whose error is within [`ERROR_BUDGET`] times the norm of what each output
    /// reads.
    Local,
    /// Also transforms whose error is within [`ERROR_BUDGET`] times the norm of a tile.
    #[default]
    Default,
}

impl Accuracy {
    /// Every accuracy, the most exact first.
    pub const ALL: [Accuracy; 4] = every!(Accuracy { Reproducible, Strict, Local, Default });

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Accuracy::Reproducible => "reproducible",
            Accuracy::Strict => "strict",
            Accuracy::Local => "local",
            Accuracy::Default => "default",
        }
    }

    /// Whether only sums may be chosen.
    pub fn is_sum(self) -> bool {
        match self {
            Accuracy::Reproducible | Accuracy::Strict => true,
            Accuracy::Local | Accuracy::Default => false,
        }
    }

    /// Whether the order of every sum is that of the plain nest.
    pub fn keeps_order(self) -> bool {
        match self {
            Accuracy::Reproducible => true,
            Accuracy::Strict | Accuracy::Local | Accuracy::Default => false,
        }
    }

    /// Whether the error of an output must be small beside what it reads.
    pub fn is_local(self) -> bool {
        match self {
            Accuracy::Reproducible | Accuracy::Strict | Accuracy::Local => true,
            Accuracy::Default => false,
        }
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that is no accuracy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no accuracy `{given}`; there is: {known}")]
pub struct UnknownAccuracy {
    /// The word.
    pub given: String,
    /// The words that there are.
    pub known: String,
}

impl FromStr for Accuracy {
    type Err = UnknownAccuracy;

    fn from_str(given: &str) -> Result<Accuracy, UnknownAccuracy> {
        let found = Accuracy::ALL.into_iter().find(|accuracy| accuracy.name() == given);
        found.ok_or_else(|| UnknownAccuracy {
            given: given.to_string(),
            known: Accuracy::ALL.map(Accuracy::name).join(", "),
        })
    }
}
