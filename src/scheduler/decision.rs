//! Whether a problem is computed by an algorithm of transformed tiles: its predicted time beside
//! that of the sum.
//!
//! All times are estimates in closed form, at the rates of the target: those of tiles are counted
//! by [`winograd`] and [`fourier`], that of the sum is its best plan's. An algorithm is taken if it
//! is predicted to be faster by a margin: a sum is the more exact of two equals.

use std::cell::OnceCell;
use std::fmt;

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use super::Planned;
use super::legal::{LegalSum, legal_sum};
use super::plan::Plan;
use crate::accuracy::{Accuracy, ERROR_BUDGET};
use crate::algorithm::{Algorithm, winograd};
use crate::cost::Estimate;
use crate::error::Error;
use crate::fourier;
use crate::target::Target;

/// How much shorter a prediction must be than that of the sum, for the transforms of small tiles
/// and for Fourier's, whose library was not measured on each machine.
const WINOGRAD_MARGIN: f64 = 1.05;
const FOURIER_MARGIN: f64 = 1.25;

/// Tiles predicted to take so many times as long as the sum may yet be faster, if better ones are
/// searched for.
const NEAR: f64 = 1.5;

/// What is said for and against an algorithm of transformed tiles.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The accuracy asked for allows no such arithmetic.
    Inexact {
        /// The accuracy.
        accuracy: Accuracy,
    },
    /// The problem is outside the algorithm's domain, or of its error budget.
    Outside {
        /// Why.
        reason: String,
    },
    /// The shorter of two predicted times, if by a margin.
    Predicted {
        /// The tiles.
        tiles: Box<Tiles>,
        /// Predicts the best plan of the sum.
        direct: Estimate,
        /// How many times the tiles must be faster.
        margin: f64,
    },
}

/// The best tiles of an algorithm for a problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Tiles {
    /// Of minimal filtering.
    Winograd(winograd::Chosen),
    /// Of Fourier transforms, and what they will take.
    Fourier(fourier::Plan, Estimate),
}

impl Tiles {
    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Tiles::Winograd(_) => Algorithm::Winograd,
            Tiles::Fourier(..) => Algorithm::Fourier,
        }
    }

    /// Predicts a call on one core.
    pub fn estimate(&self) -> Estimate {
        match self {
            Tiles::Winograd(chosen) => chosen.estimate,
            Tiles::Fourier(_, estimate) => *estimate,
        }
    }

    /// The sizes, as directives.
    pub fn schedule(&self, problem: &ConvProblem) -> Schedule {
        match self {
            Tiles::Winograd(chosen) => chosen.tiling.schedule(problem),
            Tiles::Fourier(plan, _) => plan.schedule(problem),
        }
    }

    /// Whether a search for the best candidate should look among such tiles too.
    pub(super) fn is_near(&self, direct: &Estimate) -> bool {
        self.estimate().seconds() < NEAR * direct.seconds()
    }
}

impl fmt::Display for Tiles {
    /// The tiles and their error, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |tiles: Vec<String>| tiles.join("x");
        match self {
            Tiles::Winograd(chosen) => {
                let plan = &chosen.plans[0];
                write!(
                    f,
                    "tiles of {} outputs, {} of them a block, workspace {} KiB; error expected {:.1e} of a budget of {ERROR_BUDGET:.1e}, in the worst case {:.1e}, of the norm of the {}",
                    by(plan.axes.iter().map(|axis| axis.tile.to_string()).collect()),
                    plan.tiles(),
                    plan.workspace_bytes() / 1024,
                    plan.error(),
                    plan.bound(),
                    if plan.is_local() { "window" } else { "tile" }
                )
            }
            Tiles::Fourier(plan, _) => write!(
                f,
                "tiles of {} outputs; worst case {:.1e} of the tile's norm, budget {ERROR_BUDGET:.1e}",
                by(plan.axes.iter().map(|axis| axis.tile.to_string()).collect()),
                plan.error()
            ),
        }
    }
}

impl Decision {
    /// Whether the decision is for the algorithm.
    pub fn is_for(&self) -> bool {
        match self {
            Decision::Inexact { .. } | Decision::Outside { .. } => false,
            Decision::Predicted { tiles, direct, margin } => {
                tiles.estimate().seconds() * margin < direct.seconds()
            }
        }
    }

    /// The tiles, if the decision is for them.
    pub fn into_tiles(self) -> Option<Tiles> {
        let taken = self.is_for();
        match self {
            Decision::Predicted { tiles, .. } if taken => Some(*tiles),
            Decision::Predicted { .. } | Decision::Inexact { .. } | Decision::Outside { .. } => {
                None
            }
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Inexact { accuracy } => {
                write!(f, "{accuracy} accuracy allows no such arithmetic")
            }
            Decision::Outside { reason } => write!(f, "does not apply: {reason}"),
            Decision::Predicted { tiles, direct, margin } => write!(
                f,
                "predicted {}, direct {direct}, at least {margin} times that are needed; {}",
                tiles.estimate(),
                tiles
            ),
        }
    }
}

/// Decides for one algorithm after another, the sum planned once.
pub struct Weighing<'p> {
    problem: &'p ConvProblem,
    target: &'p Target,
    /// The best plan of the sum; none where it has no plans.
    direct: OnceCell<Option<(Estimate, Plan)>>,
}

impl<'p> Weighing<'p> {
    /// Of a problem on a target.
    pub fn new(problem: &'p ConvProblem, target: &'p Target) -> Weighing<'p> {
        Weighing { problem, target, direct: OnceCell::new() }
    }

    /// The tiles that are decided for; none if it is the sum.
    pub fn chosen(&self) -> Option<Tiles> {
        let decided = Algorithm::ALL.into_iter().map(|algorithm| self.decide(algorithm));
        let seconds = |tiles: &Tiles| tiles.estimate().seconds();
        let taken = decided.filter_map(Decision::into_tiles);
        taken.min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
    }

    /// Whether an algorithm is taken instead of the sum.
    pub fn decide(&self, algorithm: Algorithm) -> Decision {
        let accuracy = self.target.accuracy();
        if !algorithm.is_allowed_by(accuracy) {
            return Decision::Inexact { accuracy };
        }
        let (tiles, margin) = match algorithm {
            Algorithm::Direct => (Err("it is the sum".to_string()), 1.0),
            Algorithm::Winograd => (self.winograd(), WINOGRAD_MARGIN),
            Algorithm::Fourier => (self.fourier(), FOURIER_MARGIN),
        };
        match tiles {
            Ok(tiles) => {
                let (tiles, direct) = (Box::new(tiles), self.sum());
                Decision::Predicted { tiles, direct, margin }
            }
            Err(reason) => Decision::Outside { reason },
        }
    }

    /// The default pick of the sum, whose plan is not chosen again if it was.
    pub(crate) fn legal_sum(&self) -> Result<LegalSum, Error> {
        let best = self.direct.get().and_then(|best| best.as_ref().map(|(_, plan)| plan.clone()));
        legal_sum(self.problem, self.target, best)
    }

    /// Predicts the best plan of the sum, or the peak rate of multiply-adds where it has no plans.
    fn sum(&self) -> Estimate {
        let (problem, target) = (self.problem, self.target);
        let best = self.direct.get_or_init(|| {
            let planned = Planned::new(Algorithm::Direct, problem)?;
            planned.picker(target).estimated().into_iter().next()
        });
        best.as_ref().map_or_else(
            || {
                let fma = target.rates().fma / f64::from(target.lanes());
                Estimate { products: problem.macs() as f64 * fma, ..Estimate::default() }
            },
            |(estimate, _)| *estimate,
        )
    }

    fn winograd(&self) -> Result<Tiles, String> {
        let (problem, lanes) = (self.problem, u64::from(self.target.lanes()));
        let channels = problem.in_channels_per_group().min(problem.out_channels_per_group());
        if channels < lanes {
            // Not weighed: transforms of vectors that are not full outweigh all products.
            return Err(format!("{channels} channels do not fill a vector of {lanes}"));
        }
        let chosen = winograd::choose(problem, self.target);
        chosen.map(Tiles::Winograd).map_err(|unsupported| unsupported.reason)
    }

    fn fourier(&self) -> Result<Tiles, String> {
        let plan = fourier::Plan::new(self.problem, self.target)?;
        plan.exact_enough()?;
        let estimate = plan.estimate(self.problem, self.target, self.target.rates());
        Ok(Tiles::Fourier(plan, estimate))
    }
}
