//! Which elements of a buffer a block certainly writes.
//!
//! Used to show that scratch, register tiles and packed weights are defined before they are read,
//! and that the output is written everywhere. Sound, not complete: a store whose indices are no
//! mixed-radix number of its loop variables counts as writing nothing.

use crate::bounds::{Context, Range};
use crate::nest::{Access, Affine, AxisId, BufferId, Dim, Expr, Guard, Loop, Nest, Stmt, Stripe};
use crate::padding::PaddingMode;

/// Values along one dimension: `lo..=hi`, and the same again `count - 1` times, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    lo: i64,
    hi: i64,
    step: i64,
    count: i64,
}

impl Span {
    /// The span of the whole batch dimension.
    const BATCH: Span = Span { lo: 0, hi: i64::MAX, step: 0, count: 1 };

    /// The same values as one run, if they are one.
    fn normal(self) -> Span {
        match self.joined_runs() {
            Some(hi) => Span { hi, step: 0, count: 1, ..self },
            None => self,
        }
    }

    /// The last value, if there are several runs and they touch.
    fn joined_runs(self) -> Option<i64> {
        let length = self.hi.checked_sub(self.lo)?.checked_add(1)?;
        let moved = self.step.checked_mul(self.count.checked_sub(1)?)?;
        (self.count > 1 && length >= self.step).then(|| self.hi.checked_add(moved))?
    }

    fn contains(self, other: Span) -> bool {
        (self.step, self.count) == (other.step, other.count)
            && self.lo <= other.lo
            && self.hi >= other.hi
    }

    /// The union, if the runs repeat alike and touch.
    fn joined(self, other: Span) -> Option<Span> {
        let touching = (self.step, self.count) == (other.step, other.count)
            && self.lo <= other.hi.saturating_add(1)
            && other.lo <= self.hi.saturating_add(1);
        let (lo, hi) = (self.lo.min(other.lo), self.hi.max(other.hi));
        touching.then(|| Span { lo, hi, ..self }.normal())
    }
}

/// The number along a stripe of an index that lies on it: the `q` of `from + by*q`.
pub(super) fn along(index: &Affine, stripe: Stripe) -> Option<Affine> {
    let quotient = |number: i64| match number.checked_rem(stripe.by) {
        Some(0) => number.checked_div(stripe.by),
        Some(_) | None => None,
    };
    let constant = quotient(index.constant.checked_sub(stripe.from)?)?;
    let terms = index.terms().iter().map(|(axis, c)| Some((*axis, quotient(*c)?)));
    let terms: Vec<(AxisId, i64)> = terms.collect::<Option<_>>()?;
    (!index.overflows()).then(|| Affine::from_terms(constant, terms))
}

/// A set of elements: a union of boxes. Along a dimension of which only a stripe counts, elements
/// are numbered along the stripe. Boxes that come when [`WORK`] is used up are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Region {
    boxes: Vec<Vec<Span>>,
    stripes: Vec<Stripe>,
    /// Boxes that were compared with another.
    compared: u64,
}

/// Comparisons of boxes for one set: some tenths of a second. Stores in the order of their elements
/// need one or two each.
pub(super) const WORK: u64 = 1 << 23;

impl Region {
    /// Nothing yet of a buffer.
    pub(crate) fn of(nest: &Nest, buffer: BufferId) -> Region {
        let stripes = nest.buffer(buffer).stripes.clone();
        Region { boxes: vec![], stripes, compared: 0 }
    }

    /// Whether boxes may have been left out.
    pub(super) fn is_exhausted(&self) -> bool {
        self.compared > WORK
    }

    /// Adds what a statement certainly writes to the buffer, given the variables bound around it.
    pub(crate) fn add_writes(&mut self, stmt: &Stmt, buffer: BufferId) {
        let stripes = self.stripes.clone();
        let inner = Context::default();
        let mut walk = WriteBoxes { buffer, stripes, inner, guards: vec![], found: vec![] };
        walk.stmt(stmt);
        for span in walk.found {
            self.add(span);
        }
    }

    /// Whether every element of the buffer is in the set.
    pub(crate) fn covers(&self, nest: &Nest, buffer: BufferId) -> bool {
        let buffer = nest.buffer(buffer);
        let whole = |(dim, (span, extent)): (usize, (&Span, &Dim))| match extent {
            Dim::Fixed(extent) => {
                let end = buffer.stripe(dim).count(*extent);
                span.count == 1 && span.lo <= 0 && reaches(*span, end)
            }
            Dim::Batch => *span == Span::BATCH,
        };
        self.boxes.iter().any(|spans| spans.iter().zip(&buffer.shape).enumerate().all(whole))
    }

    /// Whether every element below the ends, one a dimension, is in the set.
    pub(crate) fn covers_below(&self, ends: &[i64]) -> bool {
        let below =
            |(span, end): (&Span, &i64)| span.count == 1 && span.lo <= 0 && reaches(*span, *end);
        self.boxes.iter().any(|spans| spans.iter().zip(ends).all(below))
    }

    /// Adds a box and joins boxes that touch along one dimension and agree on the others.
    fn add(&mut self, mut spans: Vec<Span>) {
        while !self.is_exhausted() {
            self.compared = self.compared.saturating_add(self.boxes.len() as u64);
            let mut found = self.boxes.iter().enumerate();
            let found = found.find_map(|(i, other)| Some((i, joined(other, &spans)?)));
            let Some((i, union)) = found else {
                self.boxes.push(spans);
                return;
            };
            self.boxes.swap_remove(i);
            spans = union;
        }
    }
}

/// Whether a run goes on to the last value below an end.
fn reaches(span: Span, end: i64) -> bool {
    span.hi.checked_add(1).is_none_or(|next| next >= end)
}

/// The union of two boxes, if it is a box.
fn joined(a: &[Span], b: &[Span]) -> Option<Vec<Span>> {
    let inside = |x: &[Span], y: &[Span]| x.iter().zip(y).all(|(p, q)| q.contains(*p));
    if inside(a, b) {
        return Some(b.to_vec());
    }
    if inside(b, a) {
        return Some(a.to_vec());
    }
    let differing: Vec<usize> = (0..a.len()).filter(|d| a[*d] != b[*d]).collect();
    let [d] = differing[..] else { return None };
    let mut union = a.to_vec();
    union[d] = a[d].joined(b[d])?;
    Some(union)
}

/// One past the largest index that a block reads a local buffer at, in each dimension; what is
/// beyond need not be written.
pub(super) fn read_ends(
    nest: &Nest,
    buffer: BufferId,
    block: &[Stmt],
    around: &Context,
) -> Vec<i64> {
    let mut ends = vec![1; nest.buffer(buffer).shape.len()];
    extend_ends(nest, buffer, block, around, &mut ends);
    ends
}

fn extend_ends(nest: &Nest, buffer: BufferId, block: &[Stmt], around: &Context, ends: &mut [i64]) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                let mut inside = around.clone();
                inside.enter(l);
                extend_ends(nest, buffer, &l.body, &inside, ends);
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => {
                extend_ends(nest, buffer, body, around, ends)
            }
            Stmt::Declare(_) => {}
            Stmt::Let(_, value) | Stmt::Store(_, value) => value.visit(&mut |expr| {
                let (access, anywhere) = match expr {
                    Expr::Load(access) | Expr::Pad(PaddingMode::Zeros, access) => (access, false),
                    // An index before the first element may stand for one behind it.
                    Expr::Pad(
                        PaddingMode::Reflect | PaddingMode::Replicate | PaddingMode::Circular,
                        access,
                    ) => (access, true),
                    Expr::Const(_)
                    | Expr::Local(_)
                    | Expr::Unary(..)
                    | Expr::Binary(..)
                    | Expr::Fma(..)
                    | Expr::Select { .. } => return,
                };
                if access.buffer != buffer {
                    return;
                }
                let shape = &nest.buffer(buffer).shape;
                for ((end, index), dim) in ends.iter_mut().zip(&access.index).zip(shape) {
                    let whole = dim.fixed().unwrap_or(i64::MAX);
                    let last = around.interval(index).filter(|_| !anywhere);
                    let past = last.and_then(|(_, hi)| i64::try_from(hi).ok()?.checked_add(1));
                    *end = (*end).max(past.unwrap_or(whole).min(whole));
                }
            }),
        }
    }
}

/// Whether some statement of a block stores to a buffer.
fn stores(block: &[Stmt], buffer: BufferId) -> bool {
    block.iter().any(|stmt| match stmt {
        Stmt::Loop(Loop { body, .. }) | Stmt::If(_, body) | Stmt::MicroKernel(body) => {
            stores(body, buffer)
        }
        Stmt::Store(dst, _) => dst.buffer == buffer,
        Stmt::Declare(_) | Stmt::Let(..) => false,
    })
}

struct WriteBoxes {
    buffer: BufferId,
    stripes: Vec<Stripe>,
    inner: Context,
    guards: Vec<Guard>,
    found: Vec<Vec<Span>>,
}

impl WriteBoxes {
    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            // Most loops write other buffers, and what is known inside costs more than a look.
            Stmt::Loop(Loop { body, .. }) | Stmt::If(_, body) | Stmt::MicroKernel(body)
                if !stores(body, self.buffer) => {}
            Stmt::Loop(l) => {
                self.scoped(&l.guards, |walk| {
                    walk.inner.enter(l);
                    l.body.iter().for_each(|stmt| walk.stmt(stmt));
                });
            }
            Stmt::If(guards, body) => self.scoped(guards, |walk| {
                walk.inner.assume(guards);
                body.iter().for_each(|stmt| walk.stmt(stmt));
            }),
            Stmt::MicroKernel(body) => body.iter().for_each(|stmt| self.stmt(stmt)),
            Stmt::Declare(_) | Stmt::Let(..) => {}
            Stmt::Store(dst, _) if dst.buffer == self.buffer => self.found.extend(self.spans(dst)),
            Stmt::Store(..) => {}
        }
    }

    fn scoped(&mut self, guards: &[Guard], f: impl FnOnce(&mut WriteBoxes)) {
        let (inner, depth) = (self.inner.clone(), self.guards.len());
        self.guards.extend_from_slice(guards);
        f(self);
        self.inner = inner;
        self.guards.truncate(depth);
    }

    /// The box that all iterations of the loops around a store write together.
    fn spans(&self, dst: &Access) -> Option<Vec<Span>> {
        let mut seen: Vec<AxisId> = Vec::new();
        for index in &dst.index {
            for (axis, _) in index.terms() {
                if seen.contains(axis) {
                    return None;
                }
                seen.push(*axis);
            }
        }
        // A loop over the batch may not run at all; then nothing of a fixed size is written.
        let may_be_empty =
            |axis| self.inner.range(axis) == Some(Range::Batch) && !seen.contains(&axis);
        if self.inner.axes().any(may_be_empty) {
            return None;
        }
        let open: Vec<&Guard> = self.guards.iter().filter(|g| !self.implied(g)).collect();
        let mut used = vec![false; open.len()];
        let spans = dst.index.iter().enumerate().map(|(dim, index)| match self.stripes.get(dim) {
            Some(stripe) => self.span(&along(index, *stripe)?, &open, &mut used),
            None => self.span(index, &open, &mut used),
        });
        let spans = spans.collect();
        used.iter().all(|used| *used).then_some(spans).flatten()
    }

    /// Whether the ranges alone, already narrowed by guards on single variables, imply the guard.
    fn implied(&self, guard: &Guard) -> bool {
        let Some((lo, hi)) = self.inner.interval(guard.sum()) else { return false };
        match guard {
            Guard::Below(_, limit) => hi < i128::from(*limit),
            Guard::AtLeast(_, limit) => lo >= i128::from(*limit),
        }
    }

    /// The values one index takes.
    fn span(&self, index: &Affine, open: &[&Guard], used: &mut [bool]) -> Option<Span> {
        if let Some(axis) = index.as_axis()
            && self.inner.range(axis) == Some(Range::Batch)
        {
            return Some(Span::BATCH);
        }
        let mut terms = index.terms().to_vec();
        terms.sort_by_key(|(_, coefficient)| std::cmp::Reverse(*coefficient));
        // Either one run, or a run that the largest terms repeat.
        (0..=terms.len()).find_map(|split| {
            let mut tried = used.to_vec();
            let outer = self.values(&terms[..split], open, &mut tried)?;
            let inner = self.values(&terms[split..], open, &mut tried)?;
            inner.is_dense().then_some(())?;
            used.copy_from_slice(&tried);
            let start = outer.first.checked_add(index.constant)?;
            let count = outer.count()?;
            let step = if count > 1 { outer.step } else { 0 };
            let [lo, hi] = [inner.first, inner.last].map(|end| start.checked_add(end));
            Some(Span { lo: lo?, hi: hi?, step, count }.normal())
        })
    }

    /// The values of a sum: built from the largest coefficient down, as an arithmetic progression,
    /// and clipped by the guards on each partial sum. A guard on the smallest terms alone makes one
    /// digit of them.
    fn values(
        &self,
        terms: &[(AxisId, i64)],
        open: &[&Guard],
        used: &mut [bool],
    ) -> Option<Progression> {
        let guarded = |part: &[(AxisId, i64)]| {
            let part = Affine::from_terms(0, part.iter().copied());
            open.iter().any(|guard| multiple_of(&part, guard.sum()).is_some())
        };
        let digit = (1..terms.len()).find(|first| guarded(&terms[*first..]));
        let mut values = Progression { first: 0, last: 0, step: 1 };
        let mut partial = Affine::constant(0);
        for (axis, coefficient) in &terms[..digit.unwrap_or(terms.len())] {
            let Some(Range::Known(lo, hi)) = self.inner.range(*axis) else { return None };
            values = values.plus(*coefficient, lo, hi)?;
            partial = &partial + &Affine::term(*axis, *coefficient);
            values = clipped_by(values, &partial, open, used)?;
        }
        let Some(first) = digit else { return Some(values) };
        let inner = self.values(&terms[first..], open, used)?;
        let values = inner.is_dense().then(|| values.plus(1, inner.first, inner.last))??;
        let whole = Affine::from_terms(0, terms.iter().copied());
        clipped_by(values, &whole, open, used)
    }
}

/// The values of a partial sum for which all guards hold that are on that sum, or on a part of it
/// of which it is a multiple: `4*g.o + g.i < 5` is `8*g.o + 2*g.i < 10`.
fn clipped_by(
    mut values: Progression,
    partial: &Affine,
    open: &[&Guard],
    used: &mut [bool],
) -> Option<Progression> {
    for (guard, used) in open.iter().zip(used.iter_mut()) {
        if let Some((factor, rest)) = multiple_of(partial, guard.sum()) {
            values = values.clipped(guard, factor, rest)?;
            *used = true;
        }
    }
    Some(values)
}

/// The positive `factor` and the `rest` for which `sum = factor * part + rest`, if there are any.
fn multiple_of(sum: &Affine, part: &Affine) -> Option<(i64, i64)> {
    let (axis, coefficient) = part.terms().first()?;
    let factor = sum.coefficient(*axis).checked_div(*coefficient)?;
    let rest = (factor > 0).then(|| sum - &part.scaled(factor))?;
    rest.as_constant().map(|rest| (factor, rest))
}

/// `first, first + step, ..., last`.
#[derive(Clone, Copy)]
struct Progression {
    first: i64,
    last: i64,
    step: i64,
}

impl Progression {
    fn is_dense(self) -> bool {
        self.step == 1 || self.first == self.last
    }

    /// How many values it has.
    fn count(self) -> Option<i64> {
        self.last.checked_sub(self.first)?.checked_div(self.step)?.checked_add(1)
    }

    /// The value with that number, counted from zero; negative ones lie before the first.
    fn at(self, number: i64) -> Option<i64> {
        self.first.checked_add(number.checked_mul(self.step)?)
    }

    /// All sums with `coefficient * v`, `v` from `lo` to `hi`, if they are a progression.
    fn plus(self, coefficient: i64, lo: i64, hi: i64) -> Option<Progression> {
        if coefficient <= 0 || lo > hi {
            return None;
        }
        let single = self.first == self.last;
        let trips = hi.checked_sub(lo)?.checked_add(1)?;
        let fits = self.step.checked_rem(coefficient)? == 0
            && coefficient.checked_mul(trips)? >= self.step;
        (single || fits).then_some(())?;
        Some(Progression {
            first: self.first.checked_add(coefficient.checked_mul(lo)?)?,
            last: self.last.checked_add(coefficient.checked_mul(hi)?)?,
            step: coefficient,
        })
    }

    /// The values for which the guard holds, each value being `factor` times the guard's sum, plus
    /// `rest`, if there are any.
    fn clipped(self, guard: &Guard, factor: i64, rest: i64) -> Option<Progression> {
        let mut values = self;
        let end = |limit: i64| limit.checked_mul(factor)?.checked_add(rest);
        match guard {
            Guard::Below(_, limit) => {
                let room = end(*limit)?.checked_sub(1)?.min(self.last).checked_sub(self.first)?;
                values.last = self.at(room.checked_div_euclid(self.step)?)?;
            }
            Guard::AtLeast(_, limit) => {
                let short = end(*limit)?.checked_sub(self.first)?.max(0);
                let past = short.checked_add(self.step.checked_sub(1)?)?;
                values.first = self.at(past.checked_div(self.step)?)?;
            }
        }
        (values.first <= values.last).then_some(values)
    }
}
