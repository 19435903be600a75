//! The schedules of the two halves of a separable convolution whose tasks are the same rows.
//!
//! Each half keeps the default choices of its problem, lanes and register tile, and has an order
//! that suits its task. Only the size of a task is common to both: rows of which the tensor between
//! the halves stays close to the core until it is read. Where that would leave cores idle, or cut
//! what should be whole, the weights that pass through the cache for each task or the vectors of
//! pixels, tasks also share the output channels, and each does the depthwise half again. Where no
//! near cache holds the tensors around them, the pointwise half fetches what the depthwise half of
//! the next task reads: 3x3 over 96 channels of 112x112, then 24, takes 0.82 ms without and 0.66
//! with.

use convgen_ir::elem::Layout;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::{Directive, Schedule, Tail};
use convgen_ir::separable::Separable;

use super::caution::Caution;
use super::plan::{LaneAxis, LoopClass, LoopOrder, Plan, weight_bytes};
use super::{Picker, TASKS_A_CORE, divisor};
use crate::error::Error;
use crate::lower::Outlined;
use crate::stages;
pub use crate::stages::SeparablePlan;
use crate::target::Target;

/// Parts of the second-level cache, of eight, that the tensor between the halves may fill in one
/// task, with what is fetched for the next one. From one row to this many the time is the same to
/// some percent; 28 rows cost up to 15 % of it (96 to 24 channels of 112x112), since input, output
/// and panels pass through it as well.
const PARTS_FOR_MIDDLE: u64 = 1;

/// As [`PARTS_FOR_MIDDLE`], where the cache does not hold the weights of the pointwise half, and
/// each task reads them all from beyond it: 1024 to 1024 channels of 7x7, 1.08 ms an image by tasks
/// of a row, 0.65 by one.
const PARTS_BESIDE_FAR_WEIGHTS: u64 = 4;

/// Multiply-adds of the pointwise half in a task, at least, for one of the depthwise half that
/// other tasks do too.
const REPEATED: u64 = 8;

/// Multiply-adds of a pointwise convolution that take as long as one of a depthwise one where lanes
/// are pixels: 26 to 35 GFLOP/s at 7x7 and 14x14, and 162.
const DEPTHWISE_TIME: u64 = 6;

/// Parts of the second-level cache, of eight, up to which it keeps what a call reads and writes,
/// beside the rest, until the next one. 96 to 24 channels of 56x56, six parts of 2 MiB: 0.205 ms
/// without fetching, 0.175 with; 48 to 48, five parts, 0.107 and 0.106.
const PARTS_KEPT: u64 = 5;

/// The default pick: legal, unless one row of the tensor between the halves does not fit the
/// scratch.
pub fn plan(separable: &Separable, target: &Target) -> SeparablePlan {
    match first_legal(separable, target, |plan, _| Ok(plan)) {
        Ok(plan) => plan,
        // None is legal; the first one says why.
        Err(_) => careful(separable, target, Caution::NONE),
    }
}

/// What becomes of the first pick that is legal and accepted. Each does without something that
/// those before it have.
///
/// # Errors
/// If none is: why the first one is not.
pub(crate) fn first_legal<T>(
    separable: &Separable,
    target: &Target,
    mut accept: impl FnMut(SeparablePlan, Outlined) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut refused = None;
    for caution in Caution::ALL {
        let plan = careful(separable, target, caution);
        let nest = stages::lower_separable_for(target, separable, &plan);
        match nest.and_then(|nest| accept(plan, nest)) {
            Ok(accepted) => return Ok(accepted),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let plan = row_by_row(separable, target);
    let nest = stages::lower_separable_for(target, separable, &plan);
    nest.and_then(|nest| accept(plan, nest)).map_err(|error| refused.unwrap_or(error))
}

/// The pick that does without some things.
fn careful(separable: &Separable, target: &Target, caution: Caution) -> SeparablePlan {
    let wanted = Wanted::new(separable, target);
    let rows = wanted.rows(separable, target);
    let parts = wanted.parts(separable, rows).min(wanted.most_parts);
    plan_with(separable, target, [rows, parts], caution)
}

/// The plainest pick: tasks of one row.
fn row_by_row(separable: &Separable, target: &Target) -> SeparablePlan {
    plan_with(separable, target, [1, 1], Caution::MOST)
}

/// As [`plan`], with tasks of that many rows at most, which share the output channels in at most so
/// many parts.
pub fn plan_by(separable: &Separable, target: &Target, rows: u64, parts: u64) -> SeparablePlan {
    plan_with(separable, target, [rows, parts], Caution::NONE)
}

fn plan_with(
    separable: &Separable,
    target: &Target,
    [rows, parts]: [u64; 2],
    caution: Caution,
) -> SeparablePlan {
    let [depthwise, pointwise] = [separable.depthwise(), separable.pointwise()];
    let rows = divisor(pointwise.spatial()[0].output(), rows);
    let half = |problem| Picker::in_blocks(problem, target, rows).careful(caution);
    let fetch = exceeds_l2(separable, target);
    let mut second = half(pointwise);
    if fetch && second.lanes.share_pixels() && weights_are_kept(pointwise, target, 4) {
        // Each tile of pixels reads all weights. The output is then written from front to back, and
        // can be fetched before it is.
        second = Plan { order: LoopOrder::PIXELS, ..second }.canonical(pointwise, target);
    }
    let panels = panels(&second, pointwise, target);
    let in_part = panels.div_ceil(parts.clamp(1, panels));
    let parts = panels.div_ceil(in_part);
    SeparablePlan {
        rows,
        parts,
        depthwise: half(depthwise).schedule(depthwise, target),
        pointwise: shared(second.schedule(pointwise, target), panels, in_part),
        fetch: fetch && parts == 1,
    }
}

/// Panels of output channels, if a task does one after the other and nothing besides.
fn panels(plan: &Plan, pointwise: &ConvProblem, target: &Target) -> u64 {
    let channels = pointwise.out_channels();
    match (plan.order.0[0], plan.lanes, plan.copy) {
        (LoopClass::Channels, LaneAxis::OutChannels, None) => {
            channels.div_ceil(plan.lane_extent(pointwise, target))
        }
        (LoopClass::Channels, LaneAxis::Columns, None) => channels.div_ceil(plan.rows),
        (_, _, _) => 1,
    }
}

/// The same schedule, whose panels of output channels are shared by tasks that have so many of
/// them. The next panel is then not fetched early, which costs nothing that could be measured.
fn shared(mut schedule: Schedule, panels: u64, in_part: u64) -> Schedule {
    if in_part < panels {
        let (axis, by, tail) = ("oc.o".to_owned(), in_part as u32, Tail::Guard);
        schedule.directives.push(Directive::Split { axis, by, tail });
        let tasks = ["g", "oc.o.o"].map(|axis| Directive::Parallel { axis: axis.to_owned() });
        schedule.directives.extend(tasks);
    }
    schedule
}

/// Whether the weights of the pointwise half fill no more than such a part of the second-level
/// cache.
fn weights_are_kept(pointwise: &ConvProblem, target: &Target, part: u64) -> bool {
    weight_bytes(pointwise) <= target.caches().l2 as u64 / part
}

/// Whether no near cache keeps what the pair reads and writes, and hints are carried out.
fn exceeds_l2(separable: &Separable, target: &Target) -> bool {
    let [first, second] = [separable.depthwise(), separable.pointwise()];
    let elements = |shape: Vec<u64>| shape.iter().product::<u64>() * first.elem().bytes() as u64;
    let [read, written] = [first.input_shape(1), second.output_shape(1)].map(elements);
    let bytes = (read + written) * first.batch().max(1);
    target.has_prefetch() && bytes > target.caches().l2 as u64 * PARTS_KEPT / 8
}

/// The tasks that suit a pair.
struct Wanted {
    /// Whether the second-level cache keeps the weights of the pointwise half beside the rest.
    keeps_weights: bool,
    /// Tasks of an image that there should be: several a core, or one where more of them would each
    /// read weights from far, or have vectors of few pixels.
    tasks: u64,
    /// Tasks that may share the output channels of the same rows, more than one only where tasks of
    /// few rows are slow.
    most_parts: u64,
}

impl Wanted {
    fn new(separable: &Separable, target: &Target) -> Wanted {
        let [depthwise, pointwise] = [separable.depthwise(), separable.pointwise()];
        let (cores, images) = (target.cores() as u64, depthwise.batch().max(1));
        let keeps_weights = weights_are_kept(pointwise, target, 2);
        if keeps_weights && pointwise.layout() == Layout::ChannelsLast {
            let tasks = (TASKS_A_CORE * cores).div_ceil(images);
            return Wanted { keeps_weights, tasks, most_parts: 1 };
        }
        let tasks = cores.div_ceil(images);
        let cheap = pointwise.out_channels() / (REPEATED * depthwise.taps());
        Wanted { keeps_weights, tasks, most_parts: cheap.clamp(1, tasks) }
    }

    /// Parts of the output channels for tasks enough of so many rows.
    fn parts(&self, separable: &Separable, rows: u64) -> u64 {
        self.tasks.div_ceil(separable.depthwise().spatial()[0].output() / rows)
    }

    /// As many rows as the cache has room for, if there are tasks enough for the cores.
    fn rows(&self, separable: &Separable, target: &Target) -> u64 {
        let middle = separable.depthwise();
        let extent = middle.spatial()[0].output();
        let written = middle.output_shape(1).iter().product::<u64>() / extent;
        let read = middle.input_shape(1).iter().product::<u64>() / extent;
        let read = if exceeds_l2(separable, target) { read } else { 0 };
        let elements = written + read;
        let bytes = elements * middle.elem().bytes() as u64;
        let eighths = if self.keeps_weights { PARTS_FOR_MIDDLE } else { PARTS_BESIDE_FAR_WEIGHTS };
        let fitting = target.caches().l2 as u64 * eighths / 8 / bytes;
        let most = fitting.min(extent / self.tasks.div_ceil(self.most_parts)).max(1);
        match (middle.layout(), self.keeps_weights) {
            (Layout::ChannelsFirst, true) => self.rows_of_whole_vectors(separable, target, most),
            (_, _) => divisor(extent, most),
        }
    }

    /// The rows, at most so many, that take least time: as lanes their pixels fill vectors well or
    /// badly, and for tasks enough the depthwise half may have to be repeated.
    fn rows_of_whole_vectors(&self, separable: &Separable, target: &Target, most: u64) -> u64 {
        let [depthwise, pointwise] = [separable.depthwise(), separable.pointwise()];
        let columns: u64 = depthwise.spatial()[1..].iter().map(|s| s.output()).product();
        let (extent, channels) = (depthwise.spatial()[0].output(), pointwise.out_channels());
        let time = |rows: &u64| {
            let pixels = rows * columns;
            let lanes = Picker::in_blocks(pointwise, target, *rows).plan().lanes;
            let products = match lanes == LaneAxis::Columns {
                true => channels * target.operations_for(pixels),
                false => pixels * target.operations_for(channels),
            };
            let macs = self.parts(separable, *rows) * depthwise.taps() * DEPTHWISE_TIME;
            extent / rows * (products + macs * target.operations_for(pixels))
        };
        let possible = (1..=most).rev().filter(|rows| extent.is_multiple_of(*rows));
        possible.min_by_key(time).unwrap_or(1)
    }
}
