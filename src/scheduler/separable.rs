//! The schedules of the two halves of a separable convolution whose tasks are the same rows.
//!
//! Each half keeps the default choices of its problem, lanes and register tile, and has an order that suits
//! its task. Only the size of a task is common to both: rows of which the tensor between the halves stays
//! close to the core until it is read. Where no near cache holds the tensors around them, the pointwise half
//! fetches what the depthwise half of the next task reads: 3x3 over 96 channels of 112x112, then 24, takes
//! 0.82 ms without and 0.66 with.

use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;
use convgen_ir::separable::Separable;

use super::plan::{Order, Plan, weight_bytes};
use super::{Picker, TASKS_A_CORE, divisor};
use crate::target::Target;

/// Parts of the second-level cache, of eight, that the tensor between the halves may fill in one task, with what
/// is fetched for the next one. From one row to this many the time is the same to some percent; 28 rows cost up
/// to 15 % of it (96 to 24 channels of 112x112), since input, output and panels pass through it as well.
const PARTS_FOR_MIDDLE: u64 = 1;

/// As [`PARTS_FOR_MIDDLE`], where the cache does not hold the weights of the pointwise half, and each task reads
/// them all from beyond it: 1024 to 1024 channels of 7x7, 1.08 ms an image by tasks of a row, 0.65 by one.
const PARTS_BESIDE_FAR_WEIGHTS: u64 = 4;

/// Parts of the second-level cache, of eight, up to which it keeps what a call reads and writes, beside the rest,
/// until the next one. 96 to 24 channels of 56x56, six parts of 2 MiB: 0.205 ms without fetching, 0.175 with; 48 to
/// 48, five parts, 0.107 and 0.106.
const PARTS_KEPT: u64 = 5;

/// How a separable convolution is computed in one nest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeparablePlan {
    /// Indices of the first spatial axis of the output that are one task: a divisor of its length.
    pub rows: u64,
    /// The schedule of the depthwise half.
    pub depthwise: Schedule,
    /// The schedule of the pointwise half.
    pub pointwise: Schedule,
    /// Whether what the next task reads is fetched while the pointwise half of one multiplies.
    pub fetch: bool,
}

/// The default pick.
pub fn plan(separable: &Separable, target: &Target) -> SeparablePlan {
    plan_by(separable, target, rows(separable, target))
}

/// As [`plan`], with tasks of that many rows at most.
pub fn plan_by(separable: &Separable, target: &Target, most: u64) -> SeparablePlan {
    let [depthwise, pointwise] = [separable.depthwise(), separable.pointwise()];
    let rows = divisor(pointwise.spatial()[0].output(), most);
    let half = |problem| Picker::in_blocks(problem, target, rows).plan();
    let fetch = reads_far(separable, target);
    let mut second = half(pointwise);
    if fetch && second.lanes.share_pixels() && weights_are_kept(pointwise, target, 4) {
        // Each tile of pixels reads all weights. The output is then written from front to back, and can be
        // fetched before it is.
        second = Plan { order: Order::PIXELS, ..second }.canonical(pointwise, target);
    }
    SeparablePlan {
        rows,
        depthwise: half(depthwise).schedule(depthwise, target),
        pointwise: second.schedule(pointwise, target),
        fetch,
    }
}

/// Whether the weights of the pointwise half fill no more than such a part of the second-level cache.
fn weights_are_kept(pointwise: &ConvProblem, target: &Target, part: u64) -> bool {
    weight_bytes(pointwise) <= target.caches().l2 as u64 / part
}

/// Whether no near cache keeps what the pair reads and writes, and hints are carried out.
fn reads_far(separable: &Separable, target: &Target) -> bool {
    let [first, second] = [separable.depthwise(), separable.pointwise()];
    let elements = |shape: Vec<u64>| shape.iter().product::<u64>() * first.elem().bytes() as u64;
    let [read, written] = [first.input_shape(1), second.output_shape(1)].map(elements);
    let bytes = (read + written) * first.batch().max(1);
    target.isa().vectors().is_some() && bytes > target.caches().l2 as u64 * PARTS_KEPT / 8
}

/// As many rows as the cache has room for, if there are tasks enough for the cores.
fn rows(separable: &Separable, target: &Target) -> u64 {
    let middle = separable.depthwise();
    let extent = middle.spatial()[0].output();
    let images = middle.batch().max(1);
    let read = middle.input_shape(1).iter().product::<u64>() / extent;
    let read = if reads_far(separable, target) { read } else { 0 };
    let elements = separable.middle_len() / images / extent + read;
    let bytes = elements * middle.elem().bytes() as u64;
    let (parts, tasks_a_core) = match weights_are_kept(separable.pointwise(), target, 2) {
        true => (PARTS_FOR_MIDDLE, TASKS_A_CORE),
        false => (PARTS_BESIDE_FAR_WEIGHTS, 1),
    };
    let fitting = target.caches().l2 as u64 * parts / 8 / bytes;
    let tasks = (tasks_a_core * target.cores() as u64).div_ceil(images);
    fitting.min(extent / tasks).max(1)
}
