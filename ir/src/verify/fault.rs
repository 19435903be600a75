//! What the verifier says: the rule, the place, the text and the numbers.

use std::fmt;

use crate::elem::ElemType;
use crate::nest::Oversize;
use crate::nest::{BufferId, Dim};

/// The rules of the verifier; see the [module documentation](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each rule is stated in the table of the module")]
pub enum Rule {
    V1,
    V2,
    V3,
    V4,
    V5,
    V6,
    V7,
    V8,
    V9,
    V10,
    V11,
    V12,
    V13,
}

/// Where in a nest a rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A buffer of the table.
    Buffer(BufferId),
    /// A statement, counted in preorder from zero: the pack block first, then the body.
    Stmt(u32),
    /// The nest as a whole.
    Nest,
}

/// A broken rule, with the text and the numbers that break it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: Fault,
}

/// What is wrong. Texts are in the syntax of the language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names every field")]
pub enum Fault {
    #[error("`{name}` is not bound here")]
    Unbound { name: String },
    #[error("`{name}` is bound again inside its own scope")]
    Rebound { name: String },
    #[error("`{name}` is a buffer of the nest's own that no statement declares")]
    Undeclared { name: String },
    #[error("there is no {what} with the number {id}: the nest has {count}")]
    UnknownId { what: &'static str, id: u32, count: usize },
    #[error("`{access}` has {given} indices, `{buffer}` has {expected} dimensions")]
    Rank { access: String, buffer: String, given: usize, expected: usize },
    #[error("`{access}` is {use_}, but {reason}")]
    Role { access: String, use_: &'static str, reason: &'static str },
    #[error("index {dim} of `{access}` is not provably in 0..{extent}: `{index}` spans {span}")]
    OutOfBounds { access: String, dim: usize, index: String, extent: Dim, span: String },
    #[error("a nest has {expected} `{role}`, this one {given}")]
    RoleCount { role: &'static str, given: usize, expected: &'static str },
    #[error("`N` {reason}")]
    Batch { reason: &'static str },
    #[error("parallel loop `{axis}` {reason}")]
    Parallel { axis: String, reason: &'static str },
    #[error("tasks of `{axis}` may write the same element: `{access}`")]
    TaskOverlap { axis: String, access: String },
    #[error("vector loop `{axis}` {reason}")]
    Vector { axis: String, reason: &'static str },
    #[error("lanes of `{axis}` depend on each other: `{access}`")]
    LaneOverlap { axis: String, access: String },
    #[error("unrolled code has {given} lane operations, the limit is {limit}")]
    Unrolled { given: i64, limit: i64 },
    #[error("`{access}` moves with `{axis}`, which is neither unrolled nor a vector")]
    DynamicRegister { access: String, axis: String },
    #[error("register tile `{name}` needs {given} bytes, the budget is {limit}")]
    RegisterBudget { name: String, given: i64, limit: i64 },
    #[error("unrolled code has {given} operations, the limit is {limit}")]
    Operations { given: i64, limit: i64 },
    #[error("unrolled code has {given} branches, the limit is {limit}")]
    Branches { given: i64, limit: i64 },
    #[error("{what} takes more than {limit} steps")]
    Work { what: String, limit: u64 },
    #[error("{what} is {given}, which is not in {low}..={high}")]
    Size { what: String, given: i128, low: i128, high: i128 },
    #[error("a number of `{sum}` does not fit 64 bits")]
    Overflow { sum: String },
    #[error(transparent)]
    Oversize(Oversize),
    #[error("`{name}` is read before every element of it is provably written")]
    Undefined { name: String },
    #[error("not every element of `{name}` is provably written")]
    Incomplete { name: String },
    #[error("the stripes of `{name}`: {reason}")]
    Stripe { name: String, reason: &'static str },
    #[error("the stripes of {given} nests are no partition of the output")]
    Parts { given: usize },
    #[error("`{access}` is not provably on the stripes of the output")]
    OffStripe { access: String },
    #[error("operands of types {left} and {right}")]
    Type { left: ElemType, right: ElemType },
}

impl Fault {
    /// The rule that is broken.
    pub fn rule(&self) -> Rule {
        match self {
            Fault::Unbound { .. }
            | Fault::Rebound { .. }
            | Fault::Undeclared { .. }
            | Fault::UnknownId { .. } => Rule::V1,
            Fault::Rank { .. } => Rule::V2,
            Fault::Role { .. } | Fault::RoleCount { .. } => Rule::V3,
            Fault::OutOfBounds { .. } => Rule::V4,
            Fault::Batch { .. } => Rule::V5,
            Fault::Parallel { .. } | Fault::TaskOverlap { .. } => Rule::V6,
            Fault::Vector { .. } | Fault::LaneOverlap { .. } => Rule::V7,
            Fault::Unrolled { .. }
            | Fault::Operations { .. }
            | Fault::Branches { .. }
            | Fault::Work { .. } => Rule::V8,
            Fault::DynamicRegister { .. } | Fault::RegisterBudget { .. } => Rule::V9,
            Fault::Size { .. } | Fault::Overflow { .. } | Fault::Oversize(_) => Rule::V10,
            Fault::Undefined { .. } => Rule::V11,
            Fault::Incomplete { .. }
            | Fault::Stripe { .. }
            | Fault::OffStripe { .. }
            | Fault::Parts { .. } => Rule::V12,
            Fault::Type { .. } => Rule::V13,
        }
    }
}

impl From<Oversize> for VerifyError {
    fn from(size: Oversize) -> VerifyError {
        let place = u32::try_from(size.at).map_or(Place::Nest, Place::Stmt);
        VerifyError { place, fault: Fault::Oversize(size) }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault.rule(), self.fault)
    }
}

impl std::error::Error for VerifyError {}
