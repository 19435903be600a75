//! The errors of the library: one variant a stage, each with the numbers it is about.

use convgen_ir::interpret::InterpretError;
use convgen_ir::parse::ParseError;
use convgen_ir::problem::ProblemError;
use convgen_ir::verify::VerifyError;

use crate::algorithm::{PartsError, SizesError, Unsupported};
use crate::fusion::FusionError;
use crate::target::TargetError;
use crate::transform::TransformError;

/// Why a kernel was not compiled or not run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The problem is not a convolution.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The algorithm does not compute the problem.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The sizes of a schedule do not fit the algorithm or the problem.
    #[error(transparent)]
    Sizes(#[from] SizesError),
    /// The machine is not supported.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The schedule does not apply.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// Two nests are not made one.
    #[error(transparent)]
    Fusion(#[from] FusionError),
    /// The scheduled nest is not legal on the target.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A text of a nest does not parse.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The data of an oracle does not fit the nest.
    #[error(transparent)]
    Interpret(#[from] InterpretError),
    /// Cranelift refused the code or could not make it executable.
    #[error("code generation: {message}")]
    Codegen {
        /// Cranelift's own words.
        message: String,
    },
    /// More code than a kernel may have.
    #[error(
        "the code has {given} {what}, the limit is {limit}: unroll less, or take a smaller register tile"
    )]
    CodeSize {
        /// What there is too much of.
        what: &'static str,
        /// How much of it.
        given: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// The caller's data does not fit the kernel.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<PartsError> for Error {
    fn from(error: PartsError) -> Error {
        match error {
            PartsError::Unsupported(unsupported) => unsupported.into(),
            PartsError::Sizes(sizes) => sizes.into(),
        }
    }
}

/// Why the data of a call does not fit the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A slice of the wrong length.
    #[error("{what} has {given} elements, {expected} are needed")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        given: usize,
        /// The length that fits.
        expected: usize,
    },
    /// More images than a call can count the tasks of.
    #[error("a call of {given} images has more tasks than can be counted")]
    Images {
        /// Images of the call.
        given: usize,
    },
    /// An input that is no whole number of images.
    #[error("the input has {given} elements, which is no multiple of the {image} of one image")]
    Batch {
        /// Its length.
        given: usize,
        /// Elements of one image.
        image: usize,
    },
    /// A bias that the problem does not have, or the lack of one that it has.
    #[error("the problem has {expected} bias, the call {given}")]
    Bias {
        /// What the problem has.
        expected: &'static str,
        /// What the call has.
        given: &'static str,
    },
    /// Too few or too many residuals and scales.
    #[error("the epilogue takes {expected} extra arguments, the call has {given}")]
    Extras {
        /// Arguments of the call.
        given: usize,
        /// Arguments of the epilogue.
        expected: usize,
    },
    /// Weights that were packed by another kernel.
    #[error("the weights were packed for `{given}`, this kernel is `{expected}`")]
    Packed {
        /// The kernel that packed them.
        given: String,
        /// The kernel that was called.
        expected: String,
    },
}
