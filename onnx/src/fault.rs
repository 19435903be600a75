//! Why a node says nothing of its outputs: it is malformed, or something is not known.

use std::sync::Arc;

use convgen_ir::problem::ProblemError;

use super::elem::Elem;
use super::proto::ProtoError;

/// Why a size, a shape or an element is not known; many values share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A size that only a caller knows.
    Open(Arc<Open>),
    /// Something in the graph.
    Cause(Arc<Cause>),
}

/// A size of an input that the model leaves open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// What `Options::dims` calls it.
    pub(super) name: String,
    /// The input's name and the number of the dimension.
    pub(super) place: String,
}

/// A convolution that is not computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unsupported {
    /// Kernels are of single floats.
    #[error("its weights are {elem}, only 32-bit floats are computed")]
    Elements {
        /// What the weights are.
        elem: Elem,
    },
    /// More spatial dimensions than a problem has.
    #[error("{rank} spatial dimensions")]
    Rank {
        /// How many.
        rank: usize,
    },
    /// A relative of the convolution that is none.
    #[error("`{op}` is not computed, only convolutions of 32-bit floats are")]
    Operation {
        /// The operation.
        op: String,
    },
    /// It stands in a graph of its own, of a loop or of a function.
    #[error("it stands inside of the {op} `{node}`, which is not looked into")]
    Inside {
        /// The node that the graph belongs to.
        node: String,
        /// Its operation.
        op: String,
    },
    /// Its shape is not known.
    #[error("{0}; a model simplified with fixed dimensions may state it")]
    Shape(Cause),
}

/// Where the reader lost a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("its shape depends on the {op} `{node}`, which {why}")]
pub struct Cause {
    /// The node.
    pub node: String,
    /// Its operation.
    pub op: String,
    /// What is not known there.
    pub why: Why,
}

/// What is not known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// No rule for its operation.
    #[error("is an operation that is not understood")]
    Operation,
    /// An operation of somebody else.
    #[error("is of `{domain}`, not of ONNX's own operations")]
    Domain {
        /// Whose.
        domain: String,
    },
    /// How many elements there are is only known when the model runs.
    #[error("has a shape that depends on the values it reads")]
    Values,
    /// A parameter that is computed.
    #[error("reads {what} from `{input}`, which is not computed from constants and sizes")]
    Constant {
        /// What it is.
        what: &'static str,
        /// The input.
        input: String,
    },
    /// A number that the types or limits of this reader do not hold.
    #[error("computes a number that is out of range")]
    Range,
    /// An output that no rule is for.
    #[error("has further outputs, which are not inferred")]
    Output,
    /// An input without a maker.
    #[error("reads `{input}`, which nothing before it makes")]
    Orphan {
        /// The input.
        input: String,
    },
    /// An input of the model.
    #[error("has no stated shape")]
    Stated,
    /// Two branches, and either may be taken.
    #[error("has branches with outputs of different shapes")]
    Branches,
    /// A branch that may not be taken.
    #[error("has a branch that contradicts itself: {fault}")]
    Branch {
        /// The error there.
        fault: String,
    },
    /// A graph of a loop.
    #[error("holds a graph that is not looked into")]
    Graph,
}

/// What ends the look at a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stop {
    /// The model is legal as far as one can see, but a shape is not known.
    Unknown(Unknown),
    /// The model is malformed.
    Fault(Fault),
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
    #[error("index {given} of {size}")]
    Index { given: i64, size: u64 },
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
    #[error("the equation {given} does not describe its inputs")]
    Equation { given: String },
    #[error("a branch has {given} outputs, the node {expected}")]
    Outputs { given: usize, expected: usize },
    #[error(transparent)]
    Problem(#[from] ProblemError),
}
