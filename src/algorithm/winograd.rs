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
//! transformed. The nests are written in the order in which they run, with the sizes of a
//! [`Tiling`], which the schedule begins with.
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
mod estimate;
mod linear;
mod nest;
mod plan;
mod search;
mod stages;
mod tiling;
mod toom;

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

pub use self::plan::Plan;
use self::plan::{MAX_STRIDE, dense_taps};
pub use self::search::Chosen;
pub(crate) use self::search::TILES;
use self::search::{Search, tiling_of};
pub(crate) use self::tiling::MOST_TILES;
pub use self::tiling::{AxisTiling, Tiling};
use self::toom::MAX_POINTS;
use super::sizes::SizesError;
use super::sum::DenseSum;
use super::{Algorithm, Part, PartsError, Unsupported, fill};
use crate::accuracy::{Accuracy, ERROR_BUDGET};
use crate::target::Target;

/// The nests of a problem, one a phase of a transposed one, with the sizes that a schedule begins
/// with; and the rewrites after these.
///
/// # Errors
/// Why the problem is outside the domain, or the sizes do not fit it.
pub(super) fn parts(
    problem: &ConvProblem,
    schedule: &Schedule,
    target: &Target,
) -> Result<(Vec<Part>, Schedule), PartsError> {
    let (tiling, rewrites) = Tiling::read(problem, schedule).map_err(refused)?;
    let part = |sum: DenseSum| match sum.is_empty() {
        true => {
            let schedule = Some(fill(problem, &sum));
            Ok(Part { nest: sum.nest(problem), schedule })
        }
        false => {
            let plan = Plan::new(problem, &sum, target, &tiling)?;
            Ok(Part { nest: nest::nest(problem, &sum, &plan), schedule: None })
        }
    };
    let sums = sums(problem).map_err(outside)?;
    let parts = sums.into_iter().map(part).collect::<Result<_, String>>().map_err(refused)?;
    Ok((parts, rewrites))
}

/// How the parts of a problem that have a sum are cut by the sizes that a schedule begins with.
///
/// # Errors
/// Why the problem is outside the domain, or the sizes do not fit it.
pub fn planned(
    problem: &ConvProblem,
    schedule: &Schedule,
    target: &Target,
) -> Result<Vec<Plan>, PartsError> {
    let (tiling, _) = Tiling::read(problem, schedule).map_err(refused)?;
    let sums = summed(problem).map_err(outside)?;
    plans(problem, &sums, &tiling, target).map_err(refused)
}

/// A tiling with no number larger than the problem has use for, and its plans.
///
/// # Errors
/// Why the problem is outside the domain, or the numbers do not fit it.
pub(crate) fn fitted(
    problem: &ConvProblem,
    tiling: &Tiling,
    target: &Target,
) -> Result<(Tiling, Vec<Plan>), String> {
    let plans = plans(problem, &summed(problem)?, tiling, target)?;
    Ok((tiling_of(&plans, tiling.ahead), plans))
}

/// Whether an accuracy allows the error of some plans.
///
/// # Errors
/// By how much it does not.
pub(crate) fn exact_enough(plans: &[Plan], accuracy: Accuracy) -> Result<(), String> {
    let error = plans.iter().map(Plan::error).fold(0.0, f64::max);
    if error > ERROR_BUDGET {
        return Err(format!("its error {error:.3e} exceeds the budget {ERROR_BUDGET:.1e}"));
    }
    match accuracy.is_local() && !plans.iter().all(Plan::is_local) {
        true => Err("local accuracy allows tiles of two outputs alone".to_string()),
        false => Ok(()),
    }
}

/// The plan of each sum.
fn plans(
    problem: &ConvProblem,
    sums: &[DenseSum],
    tiling: &Tiling,
    target: &Target,
) -> Result<Vec<Plan>, String> {
    sums.iter().map(|sum| Plan::new(problem, sum, target, tiling)).collect()
}

/// The tiling with the shortest predicted time.
///
/// # Errors
/// Why the problem is outside the domain.
pub fn choose(problem: &ConvProblem, target: &Target) -> Result<Chosen, Unsupported> {
    let unsupported = |reason| Unsupported { algorithm: Algorithm::Winograd, reason };
    let sums = summed(problem).map_err(unsupported)?;
    Search { problem, target, rates: target.rates(), sums: &sums }.choose().map_err(unsupported)
}

/// The dense sums of a problem in the domain.
fn sums(problem: &ConvProblem) -> Result<Vec<DenseSum>, String> {
    let sums = super::sums(problem)?;
    for sum in sums.iter().filter(|sum| !sum.is_empty()) {
        if let Some(axis) = sum.axes.iter().find(|axis| axis.conv.stride > MAX_STRIDE) {
            return Err(format!("its stride {} exceeds {MAX_STRIDE}", axis.conv.stride));
        }
        if let Some(axis) = sum.axes.iter().find(|axis| dense_taps(&axis.conv) >= MAX_POINTS) {
            return Err(format!("{} taps need more than {MAX_POINTS} points", axis.conv.kernel));
        }
        if sum.axes.iter().all(|axis| axis.conv.kernel == 1) {
            return Err("each output reads one place".to_string());
        }
    }
    Ok(sums)
}

/// Those of them that are not empty.
fn summed(problem: &ConvProblem) -> Result<Vec<DenseSum>, String> {
    Ok(sums(problem)?.into_iter().filter(|sum| !sum.is_empty()).collect())
}

fn outside(reason: String) -> PartsError {
    Unsupported { algorithm: Algorithm::Winograd, reason }.into()
}

fn refused(reason: String) -> PartsError {
    SizesError { algorithm: Algorithm::Winograd, reason }.into()
}
