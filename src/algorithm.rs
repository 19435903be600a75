//! From a problem to unscheduled nests: one module an algorithm, one list of all of them.

mod direct;

use std::fmt;

use convgen_ir::nest::Nest;
use convgen_ir::problem::ConvProblem;

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The defining sum, one multiply-add a tap. Accepts every problem.
    Direct,
}

/// Why an algorithm does not compute a problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{algorithm} does not apply: {reason}")]
pub struct Unsupported {
    /// The algorithm that was asked for.
    pub algorithm: Algorithm,
    /// The property of the problem that is outside its domain.
    pub reason: String,
}

impl Algorithm {
    /// Every algorithm, the most general first.
    pub const ALL: [Algorithm; 1] = [Algorithm::Direct];

    /// The name in kernels' names, reports and the command line.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Direct => "direct",
        }
    }

    /// The unscheduled nest of a problem: every loop serial, one sum in one register.
    ///
    /// # Errors
    /// [`Unsupported`] if the problem is outside the algorithm's domain.
    pub fn nest(self, problem: &ConvProblem) -> Result<Nest, Unsupported> {
        match self {
            Algorithm::Direct => Ok(direct::nest(problem)),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
