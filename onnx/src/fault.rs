//! Why a node says nothing of its outputs: it is malformed, or something is not known.

use std::sync::Arc;

use convgen_ir::problem::ProblemError;

use super::proto::ProtoError;

/// Why a shape is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A size that only a caller knows.
    Dimension(Arc<str>),
    /// Anything else, in words.
    Because(Arc<str>),
}

/// What ends the look at a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stop {
    /// The model is legal as far as one can see, but a shape is not known.
    Unknown(Unknown),
    /// The model is malformed.
    Fault(Fault),
}

impl Stop {
    pub(super) fn unknown(because: String) -> Stop {
        Stop::Unknown(Unknown::Because(because.into()))
    }
}

impl<T: Into<Fault>> From<T> for Stop {
    fn from(fault: T) -> Stop {
        Stop::Fault(fault.into())
    }
}

/// What is wrong with a node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name every field")]
pub enum Fault {
    #[error(transparent)]
    Proto(#[from] ProtoError),
    #[error("input {index} is missing")]
    MissingInput { index: usize },
    #[error("attribute `{name}` is missing")]
    MissingAttribute { name: &'static str },
    #[error("attribute `{name}` has {given} values, expected {expected}")]
    Count { name: &'static str, given: usize, expected: usize },
    #[error("attribute `{name}` is {given}, expected {expected}")]
    Value { name: &'static str, given: String, expected: &'static str },
    #[error("{what} has {given} dimensions, expected {expected}")]
    Rank { what: &'static str, given: usize, expected: &'static str },
    #[error("a size of {given}")]
    Size { given: i64 },
    #[error("a size of {given}, expected at most {limit}")]
    TooLarge { given: u64, limit: u64 },
    #[error("axis {given} of {rank} dimensions")]
    Axis { given: i64, rank: usize },
    #[error("shapes {left:?} and {right:?} do not fit together")]
    Mismatch { left: Vec<u64>, right: Vec<u64> },
    #[error(
        "the input has {channels} channels, the weights read {read} in each of {groups} groups"
    )]
    Channels { channels: u64, read: u64, groups: u64 },
    #[error("a shape of {to:?} for the elements of {from:?}")]
    Elements { from: Vec<u64>, to: Vec<i64> },
    #[error("a window of {extent} on {padded} positions")]
    Window { extent: i128, padded: i128 },
    #[error(transparent)]
    Problem(#[from] ProblemError),
}
