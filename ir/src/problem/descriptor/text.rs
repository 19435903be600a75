//! Words of a line with their places, for blame; shared with the reader of benchdnn's lines.

use std::str::FromStr;

use super::error::{DescriptorError, DescriptorErrorKind, error};
use crate::problem::{ConvProblem, ConvSpec};

/// A piece of the text and the byte where it begins.
#[derive(Clone, Copy)]
pub(crate) struct Word<'a> {
    pub(crate) at: usize,
    pub(crate) text: &'a str,
}

/// Where each field was given, for blame.
#[derive(Default)]
pub(crate) struct Given<'a>(Vec<(&'a str, usize)>);

impl<'a> Given<'a> {
    /// Notes a field; a second time is an error.
    pub(crate) fn note(&mut self, field: &'a str, at: usize) -> Result<(), DescriptorError> {
        if self.has(field) {
            return Err(error(at, DescriptorErrorKind::Repeated { field: field.to_owned() }));
        }
        self.0.push((field, at));
        Ok(())
    }

    /// Whether the field was given.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.iter().any(|(seen, _)| *seen == field)
    }

    /// Where the field was given, or the beginning of the text.
    pub(crate) fn at(&self, field: &str) -> usize {
        self.0.iter().find(|(seen, _)| *seen == field).map_or(0, |(_, at)| *at)
    }

    /// Builds the problem; a refusal is blamed on the word of its field.
    pub(crate) fn build(&self, spec: ConvSpec) -> Result<ConvProblem, DescriptorError> {
        ConvProblem::new(spec)
            .map_err(|refusal| error(refusal.field().map_or(0, |f| self.at(f)), refusal.into()))
    }
}

/// The number that follows a field's letters.
pub(crate) fn number<T: FromStr>(field: &str, word: Word<'_>) -> Result<T, DescriptorError> {
    word.text.parse().map_err(|_| {
        let (field, given) = (field.to_owned(), word.text.to_owned());
        error(word.at, DescriptorErrorKind::BadNumber { field, given })
    })
}

/// The pieces between the bars.
pub(super) fn segments(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    text.split('|').map(move |text| {
        let word = Word { at, text };
        at += text.len() + 1;
        word
    })
}

/// The pieces between white space.
pub(crate) fn words(text: &str, base: usize) -> impl Iterator<Item = Word<'_>> {
    text.split_whitespace().map(move |word| {
        let offset = word.as_ptr().addr() - text.as_ptr().addr();
        Word { at: base + offset, text: word }
    })
}
