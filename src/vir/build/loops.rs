//! Loops of a scope: unrolled, as lanes, or as loops whose pointers move.

use convgen_ir::nest::{Affine, AxisId, Guard, Loop, Mode, Stmt, has_conditions};

use super::prefetch::lines_ahead;
use super::{Builder, Item, Lanes, Mask, Moving, OuterLanes, Stream, StreamInfo, Trips};
use crate::exact;
use crate::vir::{Argument, BuildError, fit, refuse};

impl<'n> Builder<'n> {
    pub(super) fn loop_(&mut self, l: &'n Loop) -> Result<(), BuildError> {
        let outside = self.known.clone();
        self.known.enter(&l.with_body(vec![]).unguarded());
        let open: Vec<Guard> =
            l.guards.iter().filter(|guard| !self.known.always(guard)).cloned().collect();
        self.known.assume(&l.guards);
        let Some(hi) = l.hi.fixed() else {
            if l.mode != Mode::Serial {
                return refuse("a loop over the batch is no serial one");
            }
            self.bounded_loop(l, &open)?;
            self.known = outside;
            return Ok(());
        };
        let trips = fit(hi.checked_sub(l.lo))?;
        match l.mode {
            Mode::Parallel => return refuse("a task loop is inside the scope"),
            Mode::Serial if !open.is_empty() => self.bounded_loop(l, &open)?,
            Mode::Unroll | Mode::Vector if !open.is_empty() => {
                return refuse("an unrolled loop has a guard");
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
    fn two_vectors(&mut self, l: &'n Loop, inner: &'n Loop) -> Result<(), BuildError> {
        let (Some(trips), Some(repeat)) = (l.trip_count(), inner.trip_count()) else {
            return refuse("a vector loop is over the batch");
        };
        self.known.enter(&inner.with_body(vec![]).unguarded());
        if !inner.guards.iter().all(|guard| self.known.always(guard)) {
            return refuse("an unrolled loop has a guard");
        }
        let both = trips.saturating_mul(repeat);
        if both > self.width {
            return refuse("two vector loops have more lanes than a register");
        }
        let mask = Mask { first: 0, lanes: both, limit: None };
        let outer = OuterLanes { axis: l.axis, start: l.lo, trips, inner: repeat };
        let lanes = Lanes { axis: inner.axis, start: inner.lo, mask, outer: Some(outer) };
        self.block(&inner.body, Some(lanes))
    }

    fn unrolled(&mut self, l: &'n Loop, hi: i64) -> Result<(), BuildError> {
        let conditional = has_conditions(&l.body);
        for value in l.lo..hi {
            let around = conditional.then(|| self.known.clone());
            if conditional {
                self.known.enter(&Loop::iterations(l.axis, value, 1));
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
    fn bounded_loop(&mut self, l: &'n Loop, open: &[Guard]) -> Result<(), BuildError> {
        let mut bounds = Loop { lo: l.lo, ..Loop::new(l.axis, l.hi, vec![]) };
        for guard in open {
            let (outer, inner, constant) = self.resolve(guard.sum(), None)?;
            let step = guard.sum().coefficient(l.axis);
            if step <= 0 {
                return refuse("a condition does not narrow the loop");
            }
            if !inner.is_empty() {
                return self.loop_within(l, open);
            }
            let terms = outer.into_iter().chain([(l.axis, step)]);
            let bound = guard.map(|_| Affine::from_terms(constant, terms));
            // The surrounding code must be able to compute it: it has no place for a test.
            if exact::ExactBound::of(&bound, l.axis, self.around).is_none() {
                return refuse("a condition exceeds 64 bits");
            }
            bounds.guards.push(bound);
        }
        self.lows.insert(l.axis, 0);
        let first = self.argument(Argument::First(bounds.clone()));
        let end = self.argument(Argument::End(bounds));
        self.runtime_loop(l, Trips::Between { first, end })
    }

    /// A loop whose ends move with loops of the scope: `rest + v >= limit` is `v >= limit - rest`.
    fn loop_within(&mut self, l: &'n Loop, open: &[Guard]) -> Result<(), BuildError> {
        let Some(hi) = l.hi.fixed() else { return refuse("a loop over the batch has a guard") };
        let (mut at_least, mut below) = (vec![], vec![]);
        for guard in open {
            if guard.sum().coefficient(l.axis) != 1 {
                return refuse("a condition narrows the loop by a fraction");
            }
            let (limit, ends) = match guard {
                Guard::AtLeast(_, limit) => (limit, &mut at_least),
                Guard::Below(_, limit) => (limit, &mut below),
            };
            let end = fit(exact::minus(*limit, &guard.sum().without(l.axis)))?;
            if !exact::fits(&end, &self.known) {
                return refuse("a condition exceeds 64 bits");
            }
            let (outer, inner, constant) = self.resolve(&end, None)?;
            ends.push(self.stream(Moving::Number(constant), outer, inner));
        }
        self.lows.insert(l.axis, 0);
        self.runtime_loop(l, Trips::Within { lo: l.lo, hi, at_least, below })
    }

    /// A loop that stays a loop. Its variable counts from zero; its first value, if it is a number,
    /// is a displacement.
    fn runtime_loop(&mut self, l: &'n Loop, trips: Trips) -> Result<(), BuildError> {
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
        self.count(strides.len())?;
        if let Some(ahead) = l.ahead {
            let lines = lines_ahead(&body, &self.types, &strides, i64::from(ahead));
            body.insert(0, Item::Line(lines));
        }
        self.finished.push(Item::Loop { trips, strides, body });
        Ok(())
    }

    /// By how many bytes each stream moves with a loop.
    fn strides(&self, axis: AxisId) -> Result<Vec<(Stream, i64)>, BuildError> {
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
    pub(super) fn coefficient(&self, info: &StreamInfo, axis: AxisId) -> Option<(i64, i64)> {
        let terms = info.inner.iter().chain(&info.outer);
        let (_, coefficient) = terms.copied().find(|(other, _)| *other == axis)?;
        let unit = match info.what {
            Moving::Pointer(buffer) => self.elem_bytes(buffer),
            Moving::Number(_) => 1,
        };
        Some((coefficient, unit))
    }
}
