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
    /// Those that were read, to tell what is given twice from what is unknown.
    read: Vec<(Size, String)>,
    rewrites: Schedule,
}

impl Sizes {
    /// Sizes stand before the rewrites.
    pub(crate) fn of(schedule: &Schedule) -> Sizes {
        let left: Vec<_> =
            schedule.sizes().map(|(of, axis, by)| (of, axis.to_string(), by)).collect();
        let rewrites = schedule.directives[left.len()..].iter().cloned().collect();
        Sizes { left, read: vec![], rewrites }
    }

    /// A size, if it is given.
    pub(crate) fn take(&mut self, of: Size, axis: &str) -> Result<Option<u64>, String> {
        let found = self.left.iter().position(|(size, name, _)| *size == of && name == axis);
        let Some((_, _, by)) = found.map(|at| self.left.remove(at)) else { return Ok(None) };
        self.read.push((of, axis.to_string()));
        match by {
            0 => Err(format!("`{} {axis}` is 0", of.name())),
            by => Ok(Some(u64::from(by))),
        }
    }

    /// A size that must be given.
    pub(crate) fn need(&mut self, of: Size, axis: &str) -> Result<u64, String> {
        if let Some(by) = self.take(of, axis)? {
            return Ok(by);
        }
        let wanted = |directive: &&Directive| {
            let Directive::Size { of: size, axis: name, .. } = directive else { return false };
            *size == of && name == axis
        };
        let name = of.name();
        Err(match self.rewrites.directives.iter().find(wanted) {
            Some(size) => format!("`{size}` stands behind a rewrite, sizes stand before all"),
            None => format!("it begins with no sizes that say `{name} {axis} by ..`"),
        })
    }

    /// The rewrites; an error if a size was not read.
    pub(crate) fn rewrites(self) -> Result<Schedule, String> {
        let Some((of, axis, by)) = self.left.into_iter().next() else { return Ok(self.rewrites) };
        let twice = self.read.contains(&(of, axis.clone()));
        let size = Directive::Size { of, axis, by };
        Err(match twice {
            true => format!("`{size}` is given twice"),
            false => format!("`{size}` is none of its sizes"),
        })
    }
}

/// The directive of a size.
pub(crate) fn size(of: Size, axis: impl Into<String>, by: u64) -> Directive {
    // Larger ones are refused when they are read back.
    Directive::Size { of, axis: axis.into(), by: u32::try_from(by).unwrap_or(u32::MAX) }
}
