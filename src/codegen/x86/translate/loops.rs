//! Loops of a scope: unrolled, as lanes, or as loops whose pointers move.

use std::collections::{BTreeMap, BTreeSet};

use convgen_ir::nest::{
    Affine, AxisId, Dim, Fetch, Guard, Loop, Mode, Nest, Role, Stmt, has_conditions, visit_loops,
};

use super::{
    Item, Lanes, Level, Mask, Moving, Op, OuterLanes, Place, PrefetchScope, Step, Stream,
    StreamInfo, Terms, Translator, Trips,
};
use crate::codegen::exact;
use crate::codegen::x86::{Argument, Outside, Unfit, fit, unfit};

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

impl<'n> Translator<'n> {
    pub(super) fn loop_(&mut self, l: &'n Loop) -> Result<(), Unfit> {
        let outside = self.known.clone();
        self.known.enter(&l.with_body(vec![]).unguarded());
        let open: Vec<Guard> =
            l.guards.iter().filter(|guard| !self.known.always(guard)).cloned().collect();
        self.known.assume(&l.guards);
        let Some(hi) = l.hi.fixed() else {
            if l.mode != Mode::Serial {
                return unfit("a loop over the batch is no serial one");
            }
            self.bounded_loop(l, &open)?;
            self.known = outside;
            return Ok(());
        };
        let trips = fit(hi.checked_sub(l.lo))?;
        match l.mode {
            Mode::Parallel => return unfit("a task loop is inside the scope"),
            Mode::Serial if !open.is_empty() => self.bounded_loop(l, &open)?,
            Mode::Unroll | Mode::Vector if !open.is_empty() => {
                return unfit("an unrolled loop has a guard");
            }
            Mode::Serial if trips > 1 => {
                self.lows.insert(l.axis, l.lo);
                self.runtime_loop(l, Trips::Fixed(trips))?;
            }
            Mode::Serial | Mode::Unroll => self.unrolled(l, hi)?,
            Mode::Vector => match l.body.as_slice() {
                [Stmt::Loop(inner)] => self.two_vectors(l, inner)?,
                body => {
                    let width = fit(usize::try_from(self.width).ok())?;
                    for start in (l.lo..hi).step_by(width) {
                        let lanes = self.width.min(hi.saturating_sub(start));
                        let mask = Mask { first: 0, lanes, limit: None };
                        let lanes = Lanes { axis: l.axis, start, mask, outer: None };
                        self.block(body, Some(lanes))?;
                    }
                }
            },
        }
        self.known = outside;
        Ok(())
    }

    /// A vector loop in a vector loop: the lanes of both in one register.
    fn two_vectors(&mut self, l: &'n Loop, inner: &'n Loop) -> Result<(), Unfit> {
        let (Some(trips), Some(repeat)) = (l.trip_count(), inner.trip_count()) else {
            return unfit("a vector loop is over the batch");
        };
        self.known.enter(&inner.with_body(vec![]).unguarded());
        if !inner.guards.iter().all(|guard| self.known.always(guard)) {
            return unfit("an unrolled loop has a guard");
        }
        let both = trips.saturating_mul(repeat);
        if both > self.width {
            return unfit("two vector loops have more lanes than a register");
        }
        let mask = Mask { first: 0, lanes: both, limit: None };
        let outer = OuterLanes { axis: l.axis, start: l.lo, trips, inner: repeat };
        let lanes = Lanes { axis: inner.axis, start: inner.lo, mask, outer: Some(outer) };
        self.block(&inner.body, Some(lanes))
    }

    fn unrolled(&mut self, l: &'n Loop, hi: i64) -> Result<(), Unfit> {
        let conditional = has_conditions(&l.body);
        for value in l.lo..hi {
            let around = conditional.then(|| self.known.clone());
            if conditional {
                let next = Dim::Fixed(value.saturating_add(1));
                self.known.enter(&Loop { lo: value, ..Loop::new(l.axis, next, vec![]) });
            }
            self.variables.push((l.axis, Some(value)));
            self.block(&l.body, None)?;
            self.variables.pop();
            if let Some(around) = around {
                self.known = around;
            }
        }
        Ok(())
    }

    /// A loop whose ends depend on others: on those outside alone, and the surrounding code
    /// computes them, or on loops of the scope too. Its variable counts from the true zero.
    fn bounded_loop(&mut self, l: &'n Loop, open: &[Guard]) -> Result<(), Unfit> {
        let mut bounds = Loop { lo: l.lo, ..Loop::new(l.axis, l.hi, vec![]) };
        for guard in open {
            let (outer, inner, constant) = self.resolve(guard.sum(), None)?;
            let step = guard.sum().coefficient(l.axis);
            if step <= 0 {
                return unfit("a condition does not narrow the loop");
            }
            if !inner.is_empty() {
                return self.loop_within(l, open);
            }
            let terms = outer.into_iter().chain([(l.axis, step)]);
            let bound = guard.map(|_| Affine::from_terms(constant, terms));
            // The surrounding code must be able to compute it: it has no place for a test.
            if exact::ExactBound::of(&bound, l.axis, self.around).is_none() {
                return unfit("a condition exceeds 64 bits");
            }
            bounds.guards.push(bound);
        }
        self.lows.insert(l.axis, 0);
        let first = self.argument(Argument::First(bounds.clone()));
        let end = self.argument(Argument::End(bounds));
        self.runtime_loop(l, Trips::Between { first, end })
    }

    /// A loop whose ends move with loops of the scope: `rest + v >= limit` is `v >= limit - rest`.
    fn loop_within(&mut self, l: &'n Loop, open: &[Guard]) -> Result<(), Unfit> {
        let Some(hi) = l.hi.fixed() else { return unfit("a loop over the batch has a guard") };
        let (mut at_least, mut below) = (vec![], vec![]);
        for guard in open {
            if guard.sum().coefficient(l.axis) != 1 {
                return unfit("a condition narrows the loop by a fraction");
            }
            let (limit, ends) = match guard {
                Guard::AtLeast(_, limit) => (limit, &mut at_least),
                Guard::Below(_, limit) => (limit, &mut below),
            };
            let end = fit(exact::minus(*limit, &guard.sum().without(l.axis)))?;
            if !exact::fits(&end, &self.known) {
                return unfit("a condition exceeds 64 bits");
            }
            let (outer, inner, constant) = self.resolve(&end, None)?;
            ends.push(self.stream(Moving::Number(constant), outer, inner));
        }
        self.lows.insert(l.axis, 0);
        self.runtime_loop(l, Trips::Within { lo: l.lo, hi, at_least, below })
    }

    /// A loop that stays a loop. Its variable counts from zero; its first value, if it is a number,
    /// is a displacement.
    fn runtime_loop(&mut self, l: &'n Loop, trips: Trips) -> Result<(), Unfit> {
        self.end_line();
        let before = std::mem::take(&mut self.finished);
        self.variables.push((l.axis, None));
        let around = self.prefetch.clone();
        self.prefetch = self.prefetch_within(l);
        self.block(&l.body, None)?;
        self.prefetch = around;
        let mut fetched = Vec::new();
        for fetch in &l.fetch {
            fetched.extend(self.fetched(fetch)?);
        }
        self.variables.pop();
        self.end_line();
        let mut body = std::mem::replace(&mut self.finished, before);
        if let (Some(prefetch), Trips::Fixed(trips)) = (self.prefetch.clone(), &trips) {
            let lines = self.interleave_prefetch(&body, (l.axis, *trips), &prefetch);
            body.insert(0, Item::Line(lines));
        }
        if !fetched.is_empty() {
            body.insert(0, Item::Line(fetched));
        }
        let strides = self.strides(l.axis)?;
        if let Some(ahead) = l.ahead {
            let lines = lines_ahead(&body, &strides, i64::from(ahead));
            body.insert(0, Item::Line(lines));
        }
        self.finished.push(Item::Loop { trips, strides, body });
        Ok(())
    }

    /// The lines that a loop fetches early in an iteration, into the cache that its own data leave
    /// alone.
    fn fetched(&mut self, fetch: &'n Fetch) -> Result<Vec<Step>, Unfit> {
        let offset = self.offset(&fetch.from)?;
        let (outer, inner, constant) = self.resolve(&offset, None)?;
        let first = self.place_at(fetch.from.buffer, outer, inner, constant)?;
        let bytes = self.elem_bytes(fetch.from.buffer).saturating_mul(fetch.count.into());
        let lines = bytes.saturating_add(LINE - 1).div_euclid(LINE);
        let places = (0..lines.min(MOST_FETCHED)).filter_map(|line| first.line_behind(line));
        Ok(places.map(|place| Step::Prefetch(place, Level::L2)).collect())
    }

    /// By how many bytes each stream moves with a loop.
    fn strides(&self, axis: AxisId) -> Result<Vec<(Stream, i64)>, Unfit> {
        let mut strides = Vec::new();
        for (stream, info) in self.streams.iter().enumerate() {
            if let Some((coefficient, unit)) = self.coefficient(info, axis) {
                strides.push((stream, fit(coefficient.checked_mul(unit))?));
            }
        }
        Ok(strides)
    }

    /// By how many units of how many bytes a stream moves with a loop, or with one outside of the
    /// scope.
    fn coefficient(&self, info: &StreamInfo, axis: AxisId) -> Option<(i64, i64)> {
        let terms = info.inner.iter().chain(&info.outer);
        let (_, coefficient) = terms.copied().find(|(other, _)| *other == axis)?;
        let unit = match info.what {
            Moving::Pointer(buffer) => self.elem_bytes(buffer),
            Moving::Number(_) => 1,
        };
        Some((coefficient, unit))
    }

    /// The same in bytes, for hints: a number beyond 64 bits is as far as one that just fits.
    fn stride(&self, info: &StreamInfo, axis: AxisId) -> Option<i64> {
        let (coefficient, unit) = self.coefficient(info, axis)?;
        Some(coefficient.saturating_mul(unit))
    }

    /// The loop that looks ahead, seen from inside of `l`.
    fn prefetch_within(&self, l: &Loop) -> Option<PrefetchScope> {
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
    fn interleave_prefetch(
        &mut self,
        body: &[Item],
        (inner, trips): (AxisId, i64),
        prefetch: &PrefetchScope,
    ) -> Vec<Step> {
        let mut first: BTreeMap<Stream, i64> = BTreeMap::new();
        for (place, _) in loads(body) {
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
}

/// Bytes of a cache line.
const LINE: i64 = 64;

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
fn loads(body: &[Item]) -> impl Iterator<Item = (Place, i64)> {
    let lines = body.iter().flat_map(|item| match item {
        Item::Line(steps) => steps.as_slice(),
        Item::Loop { .. } => &[],
    });
    lines.filter_map(|step| match step {
        Step::Define(_, Op::Load(place, mask)) => Some((*place, mask.lanes.saturating_mul(4))),
        Step::Define(_, Op::Broadcast(place, elements)) => {
            Some((*place, i64::from(*elements).saturating_mul(4)))
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
fn lines_ahead(body: &[Item], strides: &[(Stream, i64)], ahead: i64) -> Vec<Step> {
    let mut lines = BTreeSet::new();
    for (place, bytes) in loads(body) {
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
