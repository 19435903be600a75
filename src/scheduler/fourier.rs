//! Whether a problem is computed by Fourier transforms: five rules, the first that applies decides.
//!
//! The times compared are predictions at the same nominal rates: the cost model's walk of the
//! direct nest, and the counted operations of [`Plan::seconds`]. Lowering the direct nest takes
//! longer than the rest of a decision, so it is done only where the arithmetic could pay.

use std::fmt;

use convgen_ir::problem::ConvProblem;

use super::legal_sum;
use crate::accuracy::ERROR_BUDGET;
use crate::cost::{self, Rates};
use crate::fourier::Plan;
use crate::lower::Outlined;
use crate::target::Target;

/// How much shorter the prediction must be than that of the direct nest: both are within about that
/// of what is measured, and the sum is the more exact of two equals.
const MARGIN: f64 = 1.5;

/// Why a problem is computed by Fourier transforms or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The accuracy asked for allows no error by the norm of a tile.
    Strict,
    /// Outside the algorithm's domain.
    Outside {
        /// Why.
        reason: String,
    },
    /// The error bound exceeds the budget.
    Inexact {
        /// The bound, in multiples of the tile's norm.
        error: f64,
    },
    /// Slower than the direct sum would be at the peak rate of multiply-adds.
    Arithmetic {
        /// Predicted seconds of the transforms and products.
        fourier: f64,
        /// Seconds of the direct sum at the peak rate.
        peak: f64,
    },
    /// The shorter of the predicted times, if by a margin.
    Predicted {
        /// Predicted seconds of the transforms and products.
        fourier: f64,
        /// Predicted seconds of the direct nest.
        direct: f64,
        /// The error bound, in multiples of the tile's norm.
        error: f64,
    },
}

impl Decision {
    /// Whether it is for Fourier transforms.
    pub fn is_fourier(&self) -> bool {
        self.seconds().is_some()
    }

    /// The predicted seconds, if it is for Fourier transforms.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Decision::Strict
            | Decision::Outside { .. }
            | Decision::Inexact { .. }
            | Decision::Arithmetic { .. } => None,
            Decision::Predicted { fourier, direct, .. } => {
                (fourier * MARGIN < *direct).then_some(*fourier)
            }
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |seconds: &f64| seconds * 1e6;
        match self {
            Decision::Strict => {
                write!(f, "strict, reproducible and local accuracy allow no such arithmetic")
            }
            Decision::Outside { reason } => write!(f, "does not apply: {reason}"),
            Decision::Inexact { error } => {
                write!(
                    f,
                    "its worst case {error:.1e} of the tile's norm exceeds the budget {ERROR_BUDGET:.1e}"
                )
            }
            Decision::Arithmetic { fourier, peak } => write!(
                f,
                "predicted {:.3} us, direct at the peak rate {:.3} us",
                us(fourier),
                us(peak)
            ),
            Decision::Predicted { fourier, direct, error } => write!(
                f,
                "predicted {:.3} us, direct {:.3} us, at least {MARGIN} times that are needed; worst case {error:.1e} of the tile's norm, \
                 budget {ERROR_BUDGET:.1e}",
                us(fourier),
                us(direct)
            ),
        }
    }
}

/// Applies the rules.
pub fn decide(problem: &ConvProblem, target: &Target) -> Decision {
    if target.accuracy().is_local() {
        return Decision::Strict;
    }
    let plan = match Plan::new(problem, target) {
        Ok(plan) => plan,
        Err(reason) => return Decision::Outside { reason },
    };
    let error = plan.error();
    if error > ERROR_BUDGET {
        return Decision::Inexact { error };
    }
    let rates = Rates::nominal(target);
    let fourier = plan.seconds(problem, target, &rates);
    let peak = problem.macs() as f64 * rates.fma / f64::from(target.lanes());
    if fourier >= peak {
        return Decision::Arithmetic { fourier, peak };
    }
    let direct = match legal_sum(problem, target) {
        Ok(sum) => {
            let nests = sum.nests.iter().map(Outlined::nest);
            cost::cost(nests, target, &rates, problem.batch(), 1).seconds
        }
        Err(_) => peak,
    };
    Decision::Predicted { fourier, direct, error }
}
