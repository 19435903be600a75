//! One problem of a list, and what became of it.

use convgen::check::{self, Check};
use convgen::{Compiler, Error, Pick};
use convgen_ir::elem::Layout;
use convgen_ir::problem::ConvProblem;

use crate::args::DirectionArg;
use crate::memory;
use crate::source::{Blame, Line};

/// A line to verify.
pub struct Job {
    /// Where it stands.
    pub line: Line,
    /// The problem with the batch and the layout asked for, or why there is none.
    pub problem: Result<ConvProblem, String>,
}

/// What became of a line.
pub enum Outcome {
    /// Every element compared was right.
    Verified(Check),
    /// The line is no problem, or its kernel is not right.
    Failed(String),
    /// No kernel computes it, or not here.
    Unsupported(String),
}

impl Outcome {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Verified(_) => "verified",
            Outcome::Failed(_) => "failed",
            Outcome::Unsupported(_) => "unsupported",
        }
    }
}

impl Job {
    /// The line's problem, over another batch or layout, or in another direction, if they are
    /// given.
    pub fn new(
        line: Line,
        batch: Option<u64>,
        layout: Option<Layout>,
        direction: &DirectionArg,
    ) -> Job {
        let problem = match &line.descriptor {
            Err(blame) => Err(blame.explained(&line.text).to_string()),
            Ok(descriptor) => direction
                .apply(&descriptor.problem)
                .map(|problem| layout.map_or(problem.clone(), |layout| problem.with_layout(layout)))
                .and_then(|problem| batch.map_or(Ok(problem.clone()), |n| problem.with_batch(n)))
                .map_err(|error| error.to_string()),
        };
        Job { line, problem }
    }

    /// Compiles the problem and compares its kernel with the oracles.
    pub fn check(&self, compiler: &Compiler) -> Outcome {
        let problem = match &self.problem {
            Ok(problem) => problem,
            Err(error) => {
                return match &self.line.descriptor {
                    Err(Blame::Unsupported(_)) => Outcome::Unsupported(error.clone()),
                    Ok(_) | Err(Blame::Text(_)) => Outcome::Failed(error.clone()),
                };
            }
        };
        if let Err(too_large) = memory::check(problem) {
            return Outcome::Unsupported(too_large.to_string());
        }
        match compiler.compile(problem) {
            Err(Error::Unsupported(unsupported)) => Outcome::Unsupported(unsupported.to_string()),
            Err(error) => {
                let Pick { schedule, .. } = compiler.pick(problem);
                let test_case = format!("problem:\n{problem}\nschedule:\n{schedule}");
                Outcome::Failed(format!("{error}\n{}", test_case.trim_end()))
            }
            Ok(kernel) => match check::check(&kernel) {
                Ok(check) => Outcome::Verified(check),
                Err(mismatch) => Outcome::Failed(mismatch.to_string().trim_end().to_owned()),
            },
        }
    }
}
