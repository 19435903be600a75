//! The schedules of the two halves of a separable convolution whose tasks are the same rows.
//!
//! Each half keeps the default choices of its problem: lanes, register tile, order. Only the size of a
//! task is common to both: rows of which the tensor between the halves stays close to the core until
//! it is read.

use convgen_ir::schedule::Schedule;
use convgen_ir::separable::Separable;

use super::{Picker, TASKS_A_CORE};
use crate::target::Target;

/// Parts of the second-level cache, of eight, that the tensor between the halves may fill in one task. From
/// one row to this many the time is the same to some percent; 28 rows cost up to 15 %
/// of it (96 to 24 channels of 112x112), since input, output and panels pass through it as well.
const PARTS_FOR_MIDDLE: u64 = 1;

/// How a separable convolution is computed in one nest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeparablePlan {
    /// Indices of the first spatial axis of the output that are one task: a divisor of its length.
    pub rows: u64,
    /// The schedule of the depthwise half.
    pub depthwise: Schedule,
    /// The schedule of the pointwise half.
    pub pointwise: Schedule,
}

/// The default pick.
pub fn plan(separable: &Separable, target: &Target) -> SeparablePlan {
    plan_by(separable, target, rows(separable, target))
}

/// As [`plan`], with tasks of that many rows at most.
pub fn plan_by(separable: &Separable, target: &Target, most: u64) -> SeparablePlan {
    let extent = separable.pointwise().spatial()[0].output();
    let rows = divisor(extent, most);
    let schedule =
        |problem| Picker::in_blocks(problem, target, rows).plan().schedule(problem, target);
    SeparablePlan {
        rows,
        depthwise: schedule(separable.depthwise()),
        pointwise: schedule(separable.pointwise()),
    }
}

/// As many rows as the cache has room for, if there are tasks enough for the cores.
fn rows(separable: &Separable, target: &Target) -> u64 {
    let middle = separable.depthwise();
    let extent = middle.spatial()[0].output();
    let images = middle.batch().max(1);
    let elements = separable.middle_len() / images / extent;
    let bytes = elements * middle.elem().bytes() as u64;
    let fitting = target.caches().l2 as u64 * PARTS_FOR_MIDDLE / 8 / bytes;
    let tasks = (TASKS_A_CORE * target.cores() as u64).div_ceil(images);
    fitting.min(extent / tasks).max(1)
}

/// The largest divisor that is not larger.
fn divisor(extent: u64, most: u64) -> u64 {
    (1..=most.clamp(1, extent)).rev().find(|rows| extent.is_multiple_of(*rows)).unwrap_or(1)
}
