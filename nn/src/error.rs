//! Why a layer, a loss or a network is refused.

use convgen_ir::problem::ProblemError;

use convgen::{Error, RunError};

/// What does not fit, with its numbers.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NetworkError {
    /// A kernel was not compiled.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// A specification has what a layer cannot differentiate.
    #[error("a layer is a forward convolution without an epilogue, this one has {given}")]
    NotPlain {
        /// What it has.
        given: String,
    },
    /// A window of a pooling layer.
    #[error(
        "windows of {kernel} at a stride of {stride} do not fit {rows} rows of {columns} columns"
    )]
    Window {
        /// The size of a window.
        kernel: usize,
        /// The distance of neighbours.
        stride: usize,
        /// Rows of the input.
        rows: usize,
        /// Columns of the input.
        columns: usize,
    },
    /// A layer that does not read what the one before it writes.
    #[error("layer `{name}` reads {expected} elements, the one before it writes {given}")]
    Layers {
        /// The layer.
        name: String,
        /// What is written.
        given: usize,
        /// What is read.
        expected: usize,
    },
    /// A class that the loss does not have.
    #[error("label {given} of image {image} is none of {classes} classes")]
    Label {
        /// The image.
        image: usize,
        /// Its label.
        given: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A parameter that the network does not have, or one that was not given.
    #[error("the network has no parameter `{name}`")]
    NoParameter {
        /// Its name.
        name: String,
    },
    /// A network without layers.
    #[error("the network has no layers")]
    Empty,
}

impl From<RunError> for NetworkError {
    fn from(error: RunError) -> NetworkError {
        NetworkError::Kernel(error.into())
    }
}

impl From<ProblemError> for NetworkError {
    fn from(error: ProblemError) -> NetworkError {
        NetworkError::Kernel(error.into())
    }
}
