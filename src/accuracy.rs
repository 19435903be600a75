//! How far a kernel may be from the defining sum.
//!
//! Every algorithm of sums rounds each multiply-add once, in some order. Others, such as
//! [`fourier`](crate::fourier), save arithmetic and round otherwise: within a derived bound, but not
//! within that of the sum. Whether they may be chosen is the user's decision.

use std::fmt;
use std::str::FromStr;

/// The error that [`Accuracy::Default`] grants, in multiples of the product of the norms of what an
/// output reads and of its weights. The bound of a plain sum of `k` products is `k * 2^-24` times the
/// sum of their magnitudes, which is at most that product: this is the bound of a sum of 1,677.
pub const ERROR_BUDGET: f64 = 1e-4;

/// Which algorithms the scheduler may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accuracy {
    /// Those of sums alone: the arithmetic of the definition never changes.
    Strict,
    /// Also those whose derived error bound is within [`ERROR_BUDGET`].
    #[default]
    Default,
}

impl Accuracy {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Accuracy::Strict => "strict",
            Accuracy::Default => "default",
        }
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that is no accuracy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no accuracy `{given}`; there is: strict, default")]
pub struct UnknownAccuracy {
    /// The word.
    pub given: String,
}

impl FromStr for Accuracy {
    type Err = UnknownAccuracy;

    fn from_str(given: &str) -> Result<Accuracy, UnknownAccuracy> {
        let known = [Accuracy::Strict, Accuracy::Default];
        let found = known.into_iter().find(|accuracy| accuracy.name() == given);
        found.ok_or_else(|| UnknownAccuracy { given: given.to_string() })
    }
}
