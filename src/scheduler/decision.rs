//! Whether a problem is computed by an algorithm of transformed tiles: its predicted time beside
//! that of the sum.
//!
//! All times are estimates in closed form, at the rates of the target: those of tiles are counted by
//! [`winograd`] and [`fourier`], that of the sum is its best plan's. An algorithm
//! is taken if it is predicted to be faster by a margin: a sum is the more exact of two equals.

use std::cell::OnceCell;
use std::fmt;

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use super::Planned;
use crate::accuracy::{Accuracy, ERROR_BUDGET};
use crate::algorithm::{Algorithm, winograd};
use crate::cost::Estimate;
use crate::fourier;
use crate::target::Target;

/// How much shorter a prediction must be than that of the sum, for the transforms of small tiles and
/// for Fourier's, whose library was not measured on each machine.
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
pub struct Tiles {
    /// The sizes, as directives.
    pub schedule: Schedule,
    /// Predicts a call on one core.
    pub estimate: Estimate,
    /// The tiles and their error, in words.
    pub about: String,
}

impl Tiles {
    /// Whether a search for the best candidate should look among such tiles too.
    pub(super) fn is_near(&self, direct: &Estimate) -> bool {
        self.estimate.seconds() < NEAR * direct.seconds()
    }
}

impl Decision {
    /// The tiles, if the decision is for them.
    pub fn tiles(&self) -> Option<&Tiles> {
        match self {
            Decision::Inexact { .. } | Decision::Outside { .. } => None,
            Decision::Predicted { tiles, direct, margin } => {
                let [tiled, sum] = [&tiles.estimate, direct].map(Estimate::seconds);
                (tiled * margin < sum).then_some(tiles)
            }
        }
    }

    /// Whether the decision is for the algorithm.
    pub fn is_for(&self) -> bool {
        self.tiles().is_some()
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
                tiles.estimate, tiles.about
            ),
        }
    }
}

/// Decides for one algorithm after another, the sum estimated once.
pub struct Weighing<'p> {
    problem: &'p ConvProblem,
    target: &'p Target,
    direct: OnceCell<Estimate>,
}

impl<'p> Weighing<'p> {
    /// Of a problem on a target.
    pub fn new(problem: &'p ConvProblem, target: &'p Target) -> Weighing<'p> {
        Weighing { problem, target, direct: OnceCell::new() }
    }

    /// The algorithm that is decided for, with its tiles; none if it is the sum.
    pub fn chosen(&self) -> Option<(Algorithm, Tiles)> {
        let decided = Algorithm::ALL.into_iter().map(|a| (a, self.decide(a)));
        let taken = decided.filter_map(|(a, decision)| Some((a, decision.tiles()?.clone())));
        taken.min_by(|(_, a), (_, b)| a.estimate.seconds().total_cmp(&b.estimate.seconds()))
    }

    /// Whether an algorithm is taken instead of the sum.
    pub fn decide(&self, algorithm: Algorithm) -> Decision {
        let (problem, target) = (self.problem, self.target);
        let accuracy = target.accuracy();
        let (allowed, margin, best): (bool, f64, BestTiles) = match algorithm {
            Algorithm::Direct => {
                return Decision::Outside { reason: "it is the sum".to_string() };
            }
            Algorithm::Winograd => (!accuracy.is_sum(), WINOGRAD_MARGIN, winograd_tiles),
            Algorithm::Fourier => (!accuracy.is_local(), FOURIER_MARGIN, fourier_tiles),
        };
        if !allowed {
            return Decision::Inexact { accuracy };
        }
        let tiles = match best(problem, target) {
            Ok(tiles) => Box::new(tiles),
            Err(reason) => return Decision::Outside { reason },
        };
        let direct = *self.direct.get_or_init(|| direct_estimate(problem, target));
        Decision::Predicted { tiles, direct, margin }
    }
}

/// The best tiles of an algorithm, or why there are none.
type BestTiles = fn(&ConvProblem, &Target) -> Result<Tiles, String>;

/// Predicts the best plan of the sum, or the peak rate of multiply-adds where it has no plans.
fn direct_estimate(problem: &ConvProblem, target: &Target) -> Estimate {
    let planned = Planned::new(Algorithm::Direct, problem);
    let plans = planned.map(|planned| planned.picker(target).estimated()).unwrap_or_default();
    let peak = || {
        let products = problem.macs() as f64 * target.rates().fma / f64::from(target.lanes());
        Estimate { products, ..Estimate::default() }
    };
    plans.first().map_or_else(peak, |(estimate, _)| *estimate)
}

fn winograd_tiles(problem: &ConvProblem, target: &Target) -> Result<Tiles, String> {
    let lanes = u64::from(target.lanes());
    let channels = problem.in_channels_per_group().min(problem.out_channels_per_group());
    if channels < lanes {
        // Not weighed: transforms of vectors that are not full outweigh all products.
        return Err(format!("{channels} channels do not fill a vector of {lanes}"));
    }
    let chosen = winograd::choose(problem, target).map_err(|unsupported| unsupported.reason)?;
    let schedule = chosen.tiling.schedule(problem);
    let plan = &chosen.plans[0];
    let tiles: Vec<String> = plan.axes.iter().map(|axis| axis.tile.to_string()).collect();
    let about = format!(
        "tiles of {} outputs, {} of them a block, workspace {} KiB; error expected {:.1e} of a budget of {ERROR_BUDGET:.1e}, in the worst case {:.1e}, of the norm of the {}",
        tiles.join("x"),
        plan.tiles(),
        plan.workspace_bytes() / 1024,
        plan.error(),
        plan.bound(),
        if plan.is_local() { "window" } else { "tile" }
    );
    Ok(Tiles { schedule, estimate: chosen.estimate, about })
}

fn fourier_tiles(problem: &ConvProblem, target: &Target) -> Result<Tiles, String> {
    let plan = fourier::Plan::new(problem, target)?;
    let error = plan.error();
    if error > ERROR_BUDGET {
        return Err(format!(
            "its worst case {error:.1e} of the tile's norm exceeds the budget {ERROR_BUDGET:.1e}"
        ));
    }
    let tiles: Vec<String> = plan.axes.iter().map(|axis| axis.tile.to_string()).collect();
    let about = format!(
        "tiles of {} outputs; worst case {error:.1e} of the tile's norm, budget {ERROR_BUDGET:.1e}",
        tiles.join("x")
    );
    let estimate = plan.estimate(problem, target, target.rates());
    Ok(Tiles { schedule: plan.schedule(problem), estimate, about })
}
