//! Convolution by Fourier transforms: overlap-save along each axis, in tiles of one or two axes.
//!
//! ```text
//! for each image, group and tile:  X[ic] = F(input tile of ic), padding and all
//!   for each output channel oc:    Y = sum over ic of X[ic] * conj(W[oc,ic])       generated: `products`
//!                                  sums = F^-1(Y), of which the first `tile` an axis are no wrapped ones
//!                                  output = epilogue(sums + bias)                  generated: `finish`
//! ```
//! `W = F(weights) / P`, the kernel spread by its dilation, is computed when weights are packed;
//! `P` is the number of points of a transform. A stride keeps every `s`-th sum. The transforms are
//! those of the crates `realfft` (rows) and `rustfft` (columns); the rest is two nests of our own
//! language, held bit for bit against the interpreter like all others. The transforms round as the
//! host's vector units make them, so bits may differ from one kind of CPU to another, never between
//! calls or numbers of threads on one.
//!
//! # Error
//!
//! With `u = 2^-24`, `|.|` the 2-norm over a tile, and `L` the levels of butterflies of a transform
//! (a factor 2 is one, a factor 3 counts as two, taking the real from the complex transform is
//! one):
//!
//! - A level is a product with a factor of modulus one, itself known to `u`, and a sum: it adds at
//!   most `e = (sqrt(2)*4 + 1) * u < 7u` to the relative error in the 2-norm (Higham, Accuracy and
//!   Stability of Numerical Algorithms, 24.1). So `|dX| <= L*e*|X|`, and the same for `W`.
//! - By Cauchy, Schwarz and Parseval the sum over frequencies of `|dX||W|/P` is at most
//!   `L*e*|x||w|`: the error of each output from that of `X`. That from `W` is as large.
//! - A product of `ic` complex pairs is `2*ic` fused multiply-adds for each of two components: at
//!   most `sqrt(2)*2*ic*u` times the sum of `|X||W|`. Scaling `W` adds `u`.
//! - Back, every path from a frequency to an output goes through `L` levels: again `L*e*|x||w|`.
//!
//! To first order an output is within `(21*L + 3*ic + 4) * u * sum over ic of |x||w|`, with a
//! hundredth on top for the higher orders. That is [`Plan::error`]; an infinity or a NaN spreads
//! over its tile.

mod nests;
mod plan;
mod transform;

pub use self::plan::{AxisPlan, Plan};
pub(crate) use self::transform::{Memory, Transforms};
