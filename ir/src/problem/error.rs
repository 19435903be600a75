//! Why a description is no legal convolution: the field and the numbers.

use super::MAX_RANK;
use super::words::PADDING_MODE;
use crate::epilogue::EpilogueError;
use crate::padding::PaddingMode;

/// Why a description is no legal convolution.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProblemError {
    /// No spatial axis, or too many.
    #[error("{given} spatial axes, expected 1 to {MAX_RANK}")]
    Rank {
        /// How many there are.
        given: usize,
    },
    /// A per-axis setter was given neither one value nor one an axis.
    #[error("{field} has {given} values, expected 1 or {rank}")]
    AxisValues {
        /// Which setter.
        field: &'static str,
        /// How many values it was given.
        given: usize,
        /// How many axes there are.
        rank: usize,
    },
    /// A field that must be positive is zero.
    #[error("{field} is 0, expected at least 1")]
    Zero {
        /// Which field.
        field: &'static str,
    },
    /// A field exceeds [`MAX_SIZE`](super::MAX_SIZE).
    #[error("{field} is {given}, expected at most {limit}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// Its value.
        given: u64,
        /// The limit.
        limit: u64,
    },
    /// A padding exceeds [`MAX_PADDING`](super::MAX_PADDING) in absolute value.
    #[error("{field} is {given}, expected {} to {limit}", -limit)]
    PaddingTooLarge {
        /// Which field.
        field: &'static str,
        /// Its value.
        given: i64,
        /// The limit on its absolute value.
        limit: i64,
    },
    /// Padding that is made of the input is more than the input has.
    #[error("{field} is {given}, expected at most {limit}: {mode} padding of {input} positions")]
    PaddingBeyondInput {
        /// Which field.
        field: &'static str,
        /// Its value.
        given: i64,
        /// The mode.
        mode: PaddingMode,
        /// The input size.
        input: u64,
        /// The most padding that the mode finds.
        limit: u64,
    },
    /// The adjoint of padding that is made of the input.
    #[error(
        "{direction} has zero padding only: several positions of {mode} padding add up to one of the input, \
         which is no convolution"
    )]
    Folded {
        /// The mode.
        mode: PaddingMode,
        /// The direction.
        direction: &'static str,
    },
    /// The groups do not divide a channel count.
    #[error("{field} is {channels}, which g {groups} does not divide")]
    GroupsDoNotDivide {
        /// Which channel count.
        field: &'static str,
        /// Its value.
        channels: u64,
        /// The number of groups.
        groups: u64,
    },
    /// The dilated kernel is larger than the padded input.
    #[error(
        "{field} is {kernel} with dilation {dilation}, an extent of {extent}, but {input} input positions \
         with padding {pad_before}:{pad_after} are {padded}"
    )]
    KernelTooLarge {
        /// Which kernel size.
        field: &'static str,
        /// Its value.
        kernel: u64,
        /// Its dilation.
        dilation: u64,
        /// The positions it spans.
        extent: u64,
        /// The input size.
        input: u64,
        /// Positions added before.
        pad_before: i64,
        /// Positions added after.
        pad_after: i64,
        /// The positions available.
        padded: i128,
    },
    /// A tensor has too many elements.
    #[error("{tensor} of shape {shape:?} has too many elements, expected fewer than {limit}")]
    TooManyElements {
        /// Which tensor.
        tensor: &'static str,
        /// Its dimensions.
        shape: Vec<u64>,
        /// The limit on their product.
        limit: u64,
    },
    /// The formula has too many multiply-adds.
    #[error("{factors:?} are too many multiply-adds, expected fewer than {limit}")]
    TooManyMacs {
        /// The factors of the count.
        factors: Vec<u64>,
        /// The limit on their product.
        limit: u64,
    },
    /// A gradient with a bias or an epilogue.
    #[error("{direction} is a plain sum and has no {field}")]
    Gradient {
        /// The direction.
        direction: &'static str,
        /// What it was given.
        field: &'static str,
    },
    /// An epilogue of too many operations.
    #[error("the epilogue has {given} operations, at most {limit} are fused")]
    LongEpilogue {
        /// How many it has.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// An epilogue operation has bad parameters.
    #[error(transparent)]
    Epilogue(#[from] EpilogueError),
}

impl ProblemError {
    /// The descriptor's word for the field to blame, if it is one field.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            ProblemError::Zero { field }
            | ProblemError::TooLarge { field, .. }
            | ProblemError::PaddingTooLarge { field, .. }
            | ProblemError::PaddingBeyondInput { field, .. }
            | ProblemError::GroupsDoNotDivide { field, .. }
            | ProblemError::KernelTooLarge { field, .. }
            | ProblemError::Gradient { field, .. } => Some(field),
            ProblemError::Folded { .. } => Some(PADDING_MODE),
            ProblemError::Rank { .. }
            | ProblemError::AxisValues { .. }
            | ProblemError::TooManyElements { .. }
            | ProblemError::TooManyMacs { .. }
            | ProblemError::LongEpilogue { .. }
            | ProblemError::Epilogue(_) => None,
        }
    }
}
