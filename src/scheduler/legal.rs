//! The default pick of the defining sum, which is asked whether it is legal before it is made.
//!
//! Promises: the pick went through transforms, lowering and the verifier within the target's
//! limits, and it is the first that does of a list that begins with the fastest known and ends with
//! the plain nest; each does without something that may have been too much. What was lowered to
//! find out is the code generator's. Does not: generate code; whoever does may ask for the first
//! pick whose code is accepted as well.

use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::Schedule;

use super::caution::Caution;
use super::plan::{LaneAxis, Plan};
use super::{Picker, Planned, gradient};
use crate::algorithm::Algorithm;
use crate::error::Error;
use crate::lower::Outlined;
use crate::stages;
use crate::target::Target;

/// A legal pick of the defining sum.
#[derive(Clone, Debug)]
pub(crate) struct LegalSum {
    /// What the schedule is written from, if it is a plan.
    pub(crate) plan: Option<Plan>,
    /// The schedule.
    pub(crate) schedule: Schedule,
    /// The nests that it makes, verified.
    pub(crate) nests: Vec<Outlined>,
}

/// The first pick that is legal; `best` is the default plan, if it was chosen already.
///
/// # Errors
/// If not even the plain nest is: why the first one is not.
pub(crate) fn legal_sum(
    problem: &ConvProblem,
    target: &Target,
    best: Option<Plan>,
) -> Result<LegalSum, Error> {
    first_legal(problem, target, best, Ok)
}

/// What becomes of the first pick that is legal and accepted.
///
/// # Errors
/// If none is: why the first one is not.
pub(crate) fn first_legal<T>(
    problem: &ConvProblem,
    target: &Target,
    best: Option<Plan>,
    mut accept: impl FnMut(LegalSum) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut try_pick = |(plan, schedule): (Option<Plan>, Schedule)| {
        let nests = stages::lower_for(target, problem, Algorithm::Direct, &schedule)?;
        accept(LegalSum { plan, schedule, nests })
    };
    let mut refused = None;
    for pick in picks(problem, target, best) {
        match try_pick(pick) {
            Ok(accepted) => return Ok(accepted),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    try_pick((None, Schedule::default())).map_err(|error| refused.unwrap_or(error))
}

/// The picks but the plain nest, each once, fastest first.
pub(super) fn picks<'p>(
    problem: &'p ConvProblem,
    target: &'p Target,
    mut best: Option<Plan>,
) -> impl Iterator<Item = (Option<Plan>, Schedule)> + 'p {
    let planned = Planned::new(Algorithm::Direct, problem);
    let mut tried: Vec<Schedule> = vec![];
    let pick = move |caution: Caution| {
        let (plan, schedule) = match &planned {
            Some(planned) => {
                let plan = match best.take() {
                    Some(plan) if caution == Caution::NONE => plan,
                    Some(_) | None => planned.picker(target).careful(caution),
                };
                let schedule = plan.schedule(&planned.forward, target);
                (Some(plan), schedule)
            }
            None => (None, without_plan(problem, target, caution)?),
        };
        (!tried.contains(&schedule)).then(|| {
            tried.push(schedule.clone());
            (plan, schedule)
        })
    };
    Caution::ALL.into_iter().filter_map(pick)
}

/// The schedule of a problem whose parts are no forward convolutions, if there is one.
fn without_plan(problem: &ConvProblem, target: &Target, caution: Caution) -> Option<Schedule> {
    match problem.direction() {
        Direction::BackwardWeights | Direction::BackwardBias => {
            Some(gradient::schedule(problem, target, caution))
        }
        // The forward problem of the parts would exceed what a problem may be.
        Direction::Forward | Direction::Transposed | Direction::BackwardData => None,
    }
}

impl Picker<'_> {
    /// The plan that does without some things.
    pub(super) fn careful(mut self, caution: Caution) -> Plan {
        self.in_place &= !caution.borders;
        let mut plan = self.plan();
        if let (true, Some(copy)) = (caution.transposes, &mut plan.copy) {
            copy.transposed = false;
        }
        // Vectors of several groups have all input channels unrolled or are none.
        if caution.steps && plan.lanes != LaneAxis::GroupChannels {
            (plan.steps, plan.taps) = (1, false);
        }
        if caution.copies {
            plan.copy = None;
        }
        if caution.tiles {
            (plan.vectors, plan.rows, plan.lines, plan.tile_phases) = (1, 1, 1, false);
            let unit = plan.task_unit(&self.shape, plan.lane_extent(self.problem, self.target));
            let block = plan.block.next_multiple_of(unit).min(self.shape.axes[0].1);
            plan.block = self.block.unwrap_or(block);
        }
        plan.canonical(self.problem, self.target)
    }
}
