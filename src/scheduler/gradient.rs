//! The schedule of the gradients of weights and bias.

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use crate::target::Target;

/// Legal for every problem whose direction is one of these gradients.
pub(super) fn schedule(_problem: &ConvProblem, _target: &Target) -> Schedule {
    Schedule { directives: vec![] }
}
