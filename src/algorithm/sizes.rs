//! The sizes that the schedule of an algorithm of transformed tiles begins with.
//!
//! Promises: each size that is read was given once and is not zero; one that is missing, given
//! twice or of another algorithm is refused by its own words. What follows the sizes is a schedule
//! of rewrites.

use convgen_ir::schedule::{Directive, Schedule, Size};

use super::Algorithm;

/// Why the sizes of a schedule do not fit an algorithm or a problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schedule of {algorithm}: {reason}")]
pub struct SizesError {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// What is wrong.
    pub reason: String,
}

/// The sizes of a schedule that were not read yet.
pub(crate) struct Sizes {
    left: Vec<(Size, String, u32)>,
    rewrites: Schedule,
}

impl Sizes {
    /// Sizes stand before the rewrites.
    pub(crate) fn of(schedule: &Schedule) -> Sizes {
        let mut left = Vec::new();
        for directive in &schedule.directives {
            let Directive::Size { of, axis, by } = directive else { break };
            left.push((*of, axis.clone(), *by));
        }
        let rewrites = schedule.directives[left.len()..].iter().cloned().collect();
        Sizes { left, rewrites }
    }

    /// Whether none are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether one of a kind is given.
    pub(crate) fn has(&self, of: Size) -> bool {
        self.left.iter().any(|(size, _, _)| *size == of)
    }

    /// A size, if it is given.
    pub(crate) fn take(&mut self, of: Size, axis: &str) -> Result<Option<u64>, String> {
        let found = self.left.iter().position(|(size, name, _)| *size == of && name == axis);
        let Some((_, _, by)) = found.map(|at| self.left.remove(at)) else { return Ok(None) };
        match by {
            0 => Err(format!("`{} {axis}` is 0", of.name())),
            by => Ok(Some(u64::from(by))),
        }
    }

    /// A size that must be given.
    pub(crate) fn need(&mut self, of: Size, axis: &str) -> Result<u64, String> {
        let missing = || format!("it begins with no sizes that say `{} {axis} by ..`", of.name());
        self.take(of, axis)?.ok_or_else(missing)
    }

    /// The rewrites; an error if a size was not read.
    pub(crate) fn rewrites(self) -> Result<Schedule, String> {
        match self.left.first() {
            Some((of, axis, by)) => {
                let size = Directive::Size { of: *of, axis: axis.clone(), by: *by };
                Err(format!("`{size}` is given twice, or is none of its sizes"))
            }
            None => Ok(self.rewrites),
        }
    }
}

/// The directive of a size.
pub(crate) fn size(of: Size, axis: impl Into<String>, by: u64) -> Directive {
    // Larger ones are refused when they are read back.
    Directive::Size { of, axis: axis.into(), by: u32::try_from(by).unwrap_or(u32::MAX) }
}
