//! Why a line is no descriptor: the word to blame, and what is wrong with it.

use crate::epilogue::EpilogueError;
use crate::problem::{MAX_SIZE, ProblemError};

/// Why a line is no descriptor, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("column {}: {kind}", .at + 1)]
pub struct DescriptorError {
    /// The byte offset of the word to blame.
    pub at: usize,
    /// What is wrong with it.
    pub kind: DescriptorErrorKind,
}

/// What is wrong with a descriptor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DescriptorErrorKind {
    /// Nothing there.
    #[error("empty descriptor")]
    Empty,
    /// A word the grammar does not have, or not for this kind.
    #[error("unknown word `{word}`")]
    UnknownWord {
        /// The word.
        word: String,
    },
    /// A word without a readable number.
    #[error("`{field}` needs a number, found `{given}`")]
    BadNumber {
        /// The field.
        field: String,
        /// The text in the number's place.
        given: String,
    },
    /// A field given twice.
    #[error("`{field}` is given twice")]
    Repeated {
        /// The field.
        field: String,
    },
    /// A field without a default is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// The stated output size is not what comes out.
    #[error("`{field}` is stated as {stated}, but {actual} comes out")]
    Output {
        /// The field.
        field: &'static str,
        /// The size stated.
        stated: u64,
        /// The size computed.
        actual: u64,
    },
    /// A line of benchdnn states an output of nothing.
    #[error("`{field}` is stated as 0, which no convolution has")]
    ZeroOutput {
        /// The field.
        field: &'static str,
    },
    /// A field of a line of benchdnn exceeds [`MAX_SIZE`].
    #[error("`{field}` is {given}, expected at most {}", MAX_SIZE)]
    SizeTooLarge {
        /// The field.
        field: String,
        /// Its value.
        given: u64,
    },
    /// A name without its closing quote.
    #[error("the name has no closing quote")]
    UnclosedName,
    /// Text after the name.
    #[error("`{text}` follows the name")]
    AfterName {
        /// The text.
        text: String,
    },
    /// An option of benchdnn, which sets what a descriptor here says itself.
    #[error("`{option}` is an option of benchdnn, not a problem")]
    Option {
        /// The option.
        option: String,
    },
    /// An operation of the epilogue is wrong.
    #[error(transparent)]
    Epilogue(#[from] EpilogueError),
    /// The words are readable but describe no legal problem.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

pub(crate) fn error(at: usize, kind: DescriptorErrorKind) -> DescriptorError {
    DescriptorError { at, kind }
}
