//! Winograd's minimal filtering: fewer multiplications than the defining sum has, by transforms of
//! tiles.
//!
//! ```text
//! for each image, group, phase and block of tiles:
//!   rows = the input of the block, padding and all               once for some channels at a time
//!   V[p,t,ic] = B d B'                                           of every tile t, axis by axis
//!   for each panel of output channels:
//!     S[p,t,oc] = sum over ic of V[p,t,ic] * U[p,ic,oc]          for each point p, in register tiles
//!     output = epilogue(A S A' + bias)                           of every tile t, axis by axis
//! ```
//! `U = G g G'` is computed when weights are packed. A tile of `m` outputs of `r` taps has
//! `m + r - 1` points an axis where the sum has `m * r` products. A dilated sum is a dense one on
//! each grid of every `d`-th output, some of which a block may share; one of stride `s` is the sum
//! of dense ones of every `s`-th tap, and has the points of all. Axes of one tap are not
//! transformed. The nests are written in the order in which they run: a [`Plan`] decides, no
//! schedule rewrites them.
//!
//! # Error
//!
//! With `u = 2^-24`: an output is a sum of products of three entries, of `A`, `G` and `B`, with an
//! input and a weight. The sum of their magnitudes is at most
//! `growth * max|input| * sum |weights|`, where `growth` is the product over the axes of
//! `max_k sum_i |A_ki| max_j|G_ij| sum_l |B_il|`. Each product passes at most `R` roundings: a row
//! of each matrix, the constants of `G`, the sum over `ic`, the bias. So to first order an output
//! is within `R * u * growth` of that unit, with a hundredth on top for the higher orders:
//! [`Plan::bound`]. Roundings rarely meet in one direction; [`Plan::error`], which counts one, is
//! what the accuracy policy compares.
//!
//! `max|input|` is that of the whole tile: each output adds and subtracts inputs that it does not
//! depend on. Tiles of **two** outputs are an exception, since two of the points are zero and
//! infinity. The first input of a tile is in no product but that of zero, and that in no output but
//! the first; the last input is in that of infinity alone, and that in the last output alone. So
//! each of two outputs is made of its own window, the largest input is that of the window, and a
//! NaN reaches no other output: [`Plan::is_local`].

mod channels_first;
mod linear;
mod nest;
mod plan;
mod stages;
mod toom;

use convgen_ir::problem::ConvProblem;

pub use self::plan::Plan;
use super::sum::DenseSum;
use super::{Part, fill};
use crate::target::Target;

/// The nests of a problem, one a phase of a transposed one, with the plan of each that has a sum.
///
/// # Errors
/// Why the problem is outside the domain.
pub(super) fn parts(problem: &ConvProblem, target: &Target) -> Result<Vec<Part>, String> {
    let planned = plans(problem, target)?.into_iter();
    Ok(planned
        .map(|(sum, plan)| match plan {
            Some(plan) => Part { nest: nest::nest(problem, &sum, &plan), schedule: None },
            None => {
                let schedule = Some(fill(problem, &sum));
                Part { nest: sum.nest(problem), schedule }
            }
        })
        .collect())
}

/// The dense sums of a problem, and how each is cut, unless it is empty.
fn plans(problem: &ConvProblem, target: &Target) -> Result<Vec<(DenseSum, Option<Plan>)>, String> {
    let planned = |sum: DenseSum| match sum.is_empty() {
        true => Ok((sum, None)),
        false => Plan::new(problem, &sum, target).map(|plan| (sum, Some(plan))),
    };
    super::sums(problem)?.into_iter().map(planned).collect()
}

/// How the parts of a problem that have a sum are cut.
///
/// # Errors
/// Why the problem is outside the domain.
pub fn planned(problem: &ConvProblem, target: &Target) -> Result<Vec<Plan>, String> {
    Ok(plans(problem, target)?.into_iter().filter_map(|(_, plan)| plan).collect())
}
