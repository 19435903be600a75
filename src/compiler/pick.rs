//! Which algorithm and schedule a problem gets: those of its tuning record, or the default pick.
//!
//! Promises: a record is used if it is there for exactly this problem (over any batch), target and
//! number of threads, and if its schedule goes through the transforms and the verifier; otherwise
//! the default pick is, and the reason can be asked for. A record decides how a problem is
//! computed, never what.

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use super::{Compiler, Lowered};
use crate::algorithm::{Algorithm, PartsError, winograd};
use crate::fourier::Plan;
use crate::record::Record;
use crate::scheduler;
use crate::scheduler::decision::{Decision, Weighing};

/// What a problem is compiled with.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The schedule.
    pub schedule: Schedule,
    /// Who picked them.
    pub origin: Origin,
}

/// Where a pick comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The scheduler: there is no record.
    Default,
    /// A tuning record.
    Record(Box<Record>),
    /// The scheduler: there is a record, but it is not used.
    Refused {
        /// Why not.
        reason: String,
    },
}

impl Compiler {
    /// What [`Compiler::compile`] compiles a problem with, and why. (Should the code of a record's
    /// schedule be refused, which no stage before can know, it takes the default pick as well.)
    pub fn pick(&self, problem: &ConvProblem) -> Pick {
        self.pick_and_lower(problem).0
    }

    /// Whether a problem without a record is computed by an algorithm of tiles, and why. Of two
    /// that are, the shorter prediction wins.
    pub fn decision(&self, problem: &ConvProblem, algorithm: Algorithm) -> Decision {
        Weighing::new(problem, &self.target).decide(algorithm)
    }

    /// Whether the accuracy asked for lets a problem be computed by an algorithm with the sizes of
    /// a schedule.
    ///
    /// # Errors
    /// The rule that forbids it.
    fn allows(
        &self,
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: &Schedule,
    ) -> Result<(), String> {
        let accuracy = self.accuracy();
        if !algorithm.is_allowed_by(accuracy) {
            return Err(Decision::Inexact { accuracy }.to_string());
        }
        let text = |error: PartsError| error.to_string();
        match algorithm {
            Algorithm::Direct => Ok(()),
            Algorithm::Winograd => {
                let plans = winograd::planned(problem, schedule, &self.target).map_err(text)?;
                winograd::exact_enough(&plans, accuracy)
            }
            Algorithm::Fourier => {
                Plan::read(problem, schedule, &self.target).map_err(text)?.exact_enough()
            }
        }
    }

    /// Whether the accuracy asked for lets a schedule have its order of sums.
    ///
    /// # Errors
    /// The directive that is not allowed.
    fn allows_order(&self, problem: &ConvProblem, schedule: &Schedule) -> Result<(), String> {
        match self.accuracy().keeps_order() {
            true => scheduler::order::kept(problem, schedule).map_err(|error| error.to_string()),
            false => Ok(()),
        }
    }

    /// What a problem without a record gets.
    pub(crate) fn default_choice(&self, problem: &ConvProblem) -> (Algorithm, Schedule) {
        let (algorithm, schedule, _) = self.lowered_choice(problem);
        (algorithm, schedule)
    }

    /// The same, with what it is lowered to; nothing if no pick is legal. An algorithm of tiles
    /// whose stages are refused gives way to the sum.
    fn lowered_choice(&self, problem: &ConvProblem) -> (Algorithm, Schedule, Option<Lowered>) {
        let weighing = Weighing::new(problem, &self.target);
        if let Some(tiles) = weighing.chosen() {
            let (algorithm, schedule) = (tiles.algorithm(), tiles.schedule(problem));
            if let Ok(lowered) = self.lower_all(problem, algorithm, &schedule) {
                return (algorithm, schedule, Some(lowered));
            }
        }
        match weighing.legal_sum() {
            Ok(sum) => (Algorithm::Direct, sum.schedule, Some(Lowered::Nests(sum.nests))),
            Err(_) => {
                let (algorithm, schedule) = scheduler::default_schedule(problem, &self.target);
                (algorithm, schedule, None)
            }
        }
    }

    /// The pick, with what it is lowered to.
    pub(super) fn pick_and_lower(&self, problem: &ConvProblem) -> (Pick, Option<Lowered>) {
        let default = |origin| {
            let (algorithm, schedule, lowered) = self.lowered_choice(problem);
            (Pick { algorithm, schedule, origin }, lowered)
        };
        let record = match self.records.find(problem, &self.target, self.threads) {
            Ok(Some(record)) => record,
            Ok(None) => return default(Origin::Default),
            Err(error) => return default(Origin::Refused { reason: error.to_string() }),
        };
        let allowed = self.allows(problem, record.algorithm, &record.schedule);
        if let Err(reason) = allowed.and_then(|()| self.allows_order(problem, &record.schedule)) {
            return default(Origin::Refused { reason });
        }
        match self.lower_all(problem, record.algorithm, &record.schedule) {
            Ok(lowered) => {
                let (algorithm, schedule) = (record.algorithm, record.schedule.clone());
                let origin = Origin::Record(Box::new(record));
                (Pick { algorithm, schedule, origin }, Some(lowered))
            }
            Err(error) => default(Origin::Refused { reason: error.to_string() }),
        }
    }
}
