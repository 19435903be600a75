//! What is fetched before it is read: by loops that look ahead, by loops that are told to.

use std::collections::{BTreeMap, BTreeSet};

use convgen_ir::nest::{AxisId, Fetch, Loop, Mode, Nest, Role, visit_loops};

use super::{
    Builder, Item, Level, Moving, Op, Place, PrefetchScope, Step, Stream, StreamInfo, Terms,
    VectorType,
};
use crate::target::CACHE_LINE;
use crate::vir::{BuildError, Outside};

impl PrefetchScope {
    /// The innermost task loop around a scope, if it looks ahead: the next task is its next
    /// iteration.
    pub(super) fn outside(nest: &Nest, outside: &Outside) -> Option<PrefetchScope> {
        let mut tasks = None;
        visit_loops(&nest.body, &mut |l| {
            if l.mode == Mode::Parallel {
                tasks = Some((l.axis, l.ahead));
            }
        });
        let (axis, ahead) = tasks?;
        let around = outside.variables.last().is_some_and(|(last, _)| *last == axis);
        let by = ahead.filter(|_| around)?.into();
        Some(PrefetchScope { axis, by, between: vec![] })
    }
}

impl<'n> Builder<'n> {
    /// The lines that a loop fetches early in an iteration, into the cache that its own data leave
    /// alone.
    pub(super) fn fetched(&mut self, fetch: &'n Fetch) -> Result<Vec<Step>, BuildError> {
        let offset = self.offset(&fetch.from)?;
        let (outer, inner, constant) = self.resolve(&offset, None)?;
        let first = self.place_at(fetch.from.buffer, outer, inner, constant)?;
        let bytes = self.elem_bytes(fetch.from.buffer).saturating_mul(fetch.count.into());
        let lines = bytes.saturating_add(LINE - 1).div_euclid(LINE);
        let places = (0..lines.min(MOST_FETCHED)).filter_map(|line| first.line_behind(line));
        Ok(places.map(|place| Step::Prefetch(place, Level::L2)).collect())
    }

    /// The loop that looks ahead, seen from inside of `l`.
    pub(super) fn prefetch_within(&self, l: &Loop) -> Option<PrefetchScope> {
        if let Some(by) = l.ahead {
            return Some(PrefetchScope { axis: l.axis, by: by.into(), between: vec![] });
        }
        let mut prefetch = self.prefetch.clone()?;
        prefetch.between.push((l.axis, l.hi.fixed()?.checked_sub(l.lo)?));
        Some(prefetch)
    }

    /// What a loop around reads some iterations later, fetched a line or two an iteration of a loop
    /// inside of it, which walks along the lines: a tile of pixels, along their channels. If loops
    /// between the two pass the same lines several times, each pass fetches its share: a panel of
    /// weights, for tiles of pixels.
    pub(super) fn interleave_prefetch(
        &mut self,
        body: &[Item],
        (inner, trips): (AxisId, i64),
        prefetch: &PrefetchScope,
    ) -> Vec<Step> {
        let mut first: BTreeMap<Stream, i64> = BTreeMap::new();
        for (place, _) in loads(body, &self.types) {
            let least = first.entry(place.stream).or_insert(place.displacement);
            *least = place.displacement.min(*least);
        }
        let mut lines = Vec::new();
        for (stream, displacement) in first {
            let info = &self.streams[stream];
            let steps = (self.stride(info, prefetch.axis), self.stride(info, inner));
            let (Some(block), Some(step)) = steps else { continue };
            let Moving::Pointer(buffer) = info.what else { continue };
            let between = prefetch.between.iter().copied();
            let (moving, passing): (Vec<_>, Vec<_>) =
                between.partition(|(axis, _)| self.stride(info, *axis).is_some());
            let passes = passing.iter().try_fold(1_i64, |all, (_, trips)| all.checked_mul(*trips));
            let Some(passes) = passes else { continue };
            let bytes = LINE.checked_mul(trips).and_then(|bytes| bytes.checked_mul(passes));
            // One line an iteration, of all passes; none if some loop is empty.
            let Some(share) = bytes.filter(|bytes| *bytes > 0) else { continue };
            let walked = match moving.is_empty() {
                true => block,
                // A part of a block; what is local is near.
                false if passes > 1 && self.nest.buffer(buffer).role == Role::Packed => {
                    step.saturating_mul(trips)
                }
                false => continue,
            };
            let each = walked.saturating_add(share.saturating_sub(1)).div_euclid(share);
            let worth = if passes > 1 { i64::MAX } else { WORTH_A_PREFETCH };
            let near = (1..worth).contains(&step) && (1..=MOST_LINES).contains(&each);
            let ahead = block.saturating_mul(prefetch.by);
            let start = ahead.saturating_add(displacement);
            if !near || !(i32::MIN.into()..=FURTHEST_FETCHED).contains(&start) {
                continue;
            }
            let elements = each.saturating_mul(LINE).div_euclid(self.elem_bytes(buffer));
            let mut terms: Terms =
                info.inner.iter().filter(|(a, _)| *a != inner).copied().collect();
            let mut step = elements;
            for (axis, trips) in [(inner, trips)].into_iter().chain(passing.into_iter().rev()) {
                terms.push((axis, step));
                step = step.saturating_mul(trips);
            }
            let outside = info.outer.clone();
            let stream = self.stream(Moving::Pointer(buffer), outside, terms);
            let level = if ahead <= SPREAD_NEAR { Level::L1 } else { Level::L2 };
            let first = Place { stream, displacement: start };
            let places = (0..each).filter_map(|line| first.line_behind(line));
            lines.extend(places.map(|place| Step::Prefetch(place, level)));
        }
        lines
    }

    /// The same in bytes, for hints: a number beyond 64 bits is as far as one that just fits.
    fn stride(&self, info: &StreamInfo, axis: AxisId) -> Option<i64> {
        let (coefficient, unit) = self.coefficient(info, axis)?;
        Some(coefficient.saturating_mul(unit))
    }
}

/// Bytes of a cache line, as offsets count.
#[expect(clippy::cast_possible_wrap, reason = "64")]
const LINE: i64 = CACHE_LINE as i64;

/// Bytes ahead up to which what is fetched may lie in the first cache until it is read.
const NEAR: i64 = 8192;

/// Bytes of a block ahead up to which it may lie in the first cache beside what is being read.
const SPREAD_NEAR: i64 = 32 << 10;

/// Bytes from one iteration to the next from which on what is read is worth a prefetch each time.
const WORTH_A_PREFETCH: i64 = LINE / 2;

/// Lines that a loop fetches in one iteration because it is told to, at most: the rest would wait
/// for them.
const MOST_FETCHED: i64 = 16;

/// Lines fetched early in an iteration of a loop that walks along them, at most.
const MOST_LINES: i64 = 2;

/// The furthest line that an instruction names, less those.
const FURTHEST_FETCHED: i64 = i32::MAX as i64 - MOST_LINES * LINE;

impl Place {
    /// The place so many lines behind, if an instruction can name it.
    fn line_behind(self, lines: i64) -> Option<Place> {
        let displacement = self.displacement.checked_add(lines.checked_mul(LINE)?)?;
        i32::try_from(displacement).ok().map(|_| Place { displacement, ..self })
    }
}

/// The places and bytes of the loads that stand directly in a loop.
fn loads(body: &[Item], types: &[VectorType]) -> impl Iterator<Item = (Place, i64)> {
    let bytes = |value: &usize| types[*value].lane_bytes();
    let lines = body.iter().flat_map(|item| match item {
        Item::Line(steps) => steps.as_slice(),
        Item::Loop { .. } => &[],
    });
    lines.filter_map(move |step| match step {
        Step::Define(value, Op::Load(place, mask)) => {
            Some((*place, mask.lanes.saturating_mul(bytes(value))))
        }
        Step::Define(value, Op::Broadcast(place, elements)) => {
            Some((*place, i64::from(*elements).saturating_mul(bytes(value))))
        }
        Step::Define(..)
        | Step::Prefetch(..)
        | Step::Write(..)
        | Step::Accumulate(..)
        | Step::Store(..)
        | Step::Gather(..)
        | Step::Scatter(..) => None,
    })
}

/// The lines of memory that the loads which stand directly in a loop touch so many iterations
/// later, if the pointers begin at one.
pub(super) fn lines_ahead(
    body: &[Item],
    types: &[VectorType],
    strides: &[(Stream, i64)],
    ahead: i64,
) -> Vec<Step> {
    let mut lines = BTreeSet::new();
    for (place, bytes) in loads(body, types) {
        let Some((_, stride)) = strides.iter().find(|(stream, _)| *stream == place.stream) else {
            continue;
        };
        if stride.abs() >= WORTH_A_PREFETCH {
            let first = stride.saturating_mul(ahead).saturating_add(place.displacement);
            let last = first.saturating_add(bytes.saturating_sub(1));
            let touched = first.div_euclid(LINE)..=last.div_euclid(LINE);
            let level =
                if stride.abs().saturating_mul(ahead) <= NEAR { Level::L1 } else { Level::L2 };
            lines.extend(touched.map(|line| (place.stream, line, level)));
        }
    }
    let place = |(stream, line, level): (Stream, i64, Level)| {
        let place = Place { stream, displacement: 0 }.line_behind(line)?;
        Some(Step::Prefetch(place, level))
    };
    lines.into_iter().filter_map(place).collect()
}
