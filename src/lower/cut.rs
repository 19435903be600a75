//! Carries out `cut`: splits an outer loop so that inner loops lose their guards.
//!
//! ```text
//! for v in 0..V { unroll u in 0..f cut v*f+u < E { S } }
//! ->
//! for v in 0..V where v*f+f-1 < E { unroll u in 0..f { S } }
//! for v in 0..V where v*f+f-1 >= E and v*f < E { unroll u in 0..r { S } }      r = E mod f
//! ```
//! The loop that is split is the innermost one outside `u` that the guard mentions. A parallel `v`
//! stays one loop, the body of the innermost parallel loop becomes two `if`s. Where the guard's
//! other terms are no multiples of `f`, the second part keeps it (`where`). A loop `u` that does
//! not begin at zero keeps its guard too.

use convgen_ir::nest::{
    Affine, AxisId, Dim, Guard, Loop, MAX_STATEMENTS, Mode, Nest, Oversize, Stmt, count_statements,
    visit_loops_mut,
};

use super::sums;

/// # Errors
/// If the nest would have more statements than a nest may.
pub(super) fn run(nest: &mut Nest) -> Result<(), Oversize> {
    let body = std::mem::take(&mut nest.body);
    let held = count_statements(&body).saturating_add(count_statements(&nest.pack));
    let mut budget = Budget { left: MAX_STATEMENTS.checked_sub(held) };
    nest.body = block(body, &mut vec![], &mut budget);
    budget.left.map(drop).ok_or(Oversize::STATEMENTS)
}

/// The statements that may still be added; nothing once they were too many.
struct Budget {
    left: Option<usize>,
}

impl Budget {
    /// Takes what a copy of a block adds; whether there was as much.
    fn take(&mut self, block: &[Stmt]) -> bool {
        self.left = self.left.and_then(|left| left.checked_sub(count_statements(block)));
        self.left.is_some()
    }
}

fn block(stmts: Vec<Stmt>, around: &mut Vec<AxisId>, budget: &mut Budget) -> Vec<Stmt> {
    let mut result = Vec::new();
    for stmt in stmts {
        match stmt {
            Stmt::Loop(l) => {
                let axis = l.axis;
                for part in split_at(l, around, budget) {
                    around.push(axis);
                    result.push(inner(part, around, budget));
                    around.pop();
                }
            }
            Stmt::If(guards, body) => result.push(Stmt::If(guards, block(body, around, budget))),
            Stmt::MicroKernel(body) => {
                result.push(Stmt::MicroKernel(block(body, around, budget)));
            }
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => result.push(stmt),
        }
    }
    result
}

fn inner(stmt: Stmt, around: &mut Vec<AxisId>, budget: &mut Budget) -> Stmt {
    match stmt {
        Stmt::Loop(mut l) => {
            l.body = block(l.body, around, budget);
            Stmt::Loop(l)
        }
        Stmt::If(..)
        | Stmt::MicroKernel(_)
        | Stmt::Declare(_)
        | Stmt::Let(..)
        | Stmt::Store(..) => stmt,
    }
}

/// A guard to be removed, and the loop it is on.
struct Cut {
    axis: AxisId,
    trips: i64,
    guard: Guard,
    /// The guard in the last iteration.
    last: Guard,
}

impl Cut {
    /// None of a loop that does not begin at zero, or if a number exceeds 64 bits.
    fn of(l: &Loop, guard: &Guard) -> Option<Cut> {
        let trips = l.hi.fixed().filter(|trips| l.lo == 0 && *trips >= 1)?;
        let last = Affine::constant(trips.checked_sub(1)?);
        let last = sums::substituted(guard.sum(), l.axis, &last)?;
        let last = guard.map(|_| last);
        Some(Cut { axis: l.axis, trips, guard: guard.clone(), last })
    }

    /// `E mod f`, if every tile but one at the most is whole: the other terms are multiples of `f`.
    fn remainder(&self) -> Option<i64> {
        let Guard::Below(sum, limit) = &self.guard else { return None };
        let others = sum.without(self.axis);
        let multiples = others.terms().iter().all(|(_, c)| c.checked_rem(self.trips) == Some(0));
        let remainder = limit.checked_sub(others.constant)?.checked_rem_euclid(self.trips)?;
        (sum.coefficient(self.axis) == 1 && multiples).then_some(remainder)
    }
}

/// Splits a loop until no loop inside it has a cut guard that this loop decides.
fn split_at(l: Loop, around: &[AxisId], budget: &mut Budget) -> Vec<Stmt> {
    let Some(cut) = find_cut(&l, around) else { return vec![Stmt::Loop(l)] };
    if !budget.take(&l.body) {
        return vec![Stmt::Loop(l)];
    }
    let last = cut.last.clone();
    let first = match cut.remainder() {
        // No tile is incomplete: one that starts inside ends inside.
        Some(0) if l.mode != Mode::Parallel => {
            let mut whole = l;
            drop_guard(&mut whole.body, &cut);
            whole.guards.push(last);
            return split_at(whole, around, budget);
        }
        // A multiple of `f` that starts an incomplete tile is `E - r`: say so as a bound.
        Some(rest) => {
            cut.guard.map(|sum| sum.without(cut.axis).plus(rest.saturating_sub(1).max(0)))
        }
        None => cut.guard.map(|sum| sum.without(cut.axis)),
    };
    let (Guard::Below(end, limit), Guard::Below(..)) = (&last, &first) else {
        // Only `<` guards come from splits; others are left to run time.
        return vec![Stmt::Loop(uncut(l, cut.axis))];
    };
    let beyond = Guard::AtLeast(end.clone(), *limit);
    if l.mode == Mode::Parallel {
        let l = branched(l, &cut, [vec![last], vec![beyond, first]]);
        return split_at(l, around, budget);
    }
    let [whole, rest] = parts(&l.body, &cut);
    let with = |guards: Vec<Guard>, body| {
        let mut part = l.with_body(body);
        part.guards.extend(guards);
        part
    };
    let mut parts = split_at(with(vec![last], whole), around, budget);
    parts.extend(split_at(with(vec![beyond, first], rest), around, budget));
    parts
}

/// The body without the guard, and the body of the remainder, empty if there is none.
fn parts(body: &[Stmt], cut: &Cut) -> [Vec<Stmt>; 2] {
    let (mut whole, mut rest) = (body.to_vec(), body.to_vec());
    drop_guard(&mut whole, cut);
    if cut.remainder() == Some(0) {
        return [whole, vec![]];
    }
    shorten(&mut rest, cut);
    [whole, rest]
}

/// Both parts as branches inside the innermost of the parallel loops, which stay alone in their
/// blocks.
fn branched(mut l: Loop, cut: &Cut, guards: [Vec<Guard>; 2]) -> Loop {
    l.body = match <[Stmt; 1]>::try_from(std::mem::take(&mut l.body)) {
        Ok([Stmt::Loop(next)]) if next.mode == Mode::Parallel => {
            vec![Stmt::Loop(branched(next, cut, guards))]
        }
        body => {
            let body = body.map_or_else(|body| body, Vec::from);
            let branches = guards.into_iter().zip(parts(&body, cut));
            let written = branches.filter(|(_, body)| !body.is_empty());
            written.map(|(guards, body)| Stmt::If(guards, body)).collect()
        }
    };
    l
}

/// The first cut guard inside a loop whose innermost other variable is this loop's.
fn find_cut(l: &Loop, around: &[AxisId]) -> Option<Cut> {
    fn search(block: &[Stmt], chain: &mut Vec<AxisId>, outer: AxisId) -> Option<Cut> {
        for stmt in block {
            let found = match stmt {
                Stmt::Loop(u) => {
                    let decides = |g: &&Guard| {
                        let others = chain.iter().rev().find(|axis| g.sum().mentions(**axis));
                        others == Some(&outer) && g.sum().mentions(u.axis)
                    };
                    if u.cut
                        && let Some(guard) = u.guards.iter().find(decides)
                        && let Some(cut) = Cut::of(u, guard)
                    {
                        return Some(cut);
                    }
                    chain.push(u.axis);
                    let found = search(&u.body, chain, outer);
                    chain.pop();
                    found
                }
                Stmt::If(_, body) | Stmt::MicroKernel(body) => search(body, chain, outer),
                Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
    let mut chain: Vec<AxisId> = around.iter().copied().chain([l.axis]).collect();
    search(&l.body, &mut chain, l.axis)
}

fn drop_guard(block: &mut [Stmt], cut: &Cut) {
    visit_loops_mut(block, &mut |u| {
        if u.axis == cut.axis {
            u.guards.retain(|guard| *guard != cut.guard);
            u.cut &= !u.guards.is_empty();
        }
    });
}

/// Leaves the guards of an axis to run time.
fn uncut(mut l: Loop, axis: AxisId) -> Loop {
    visit_loops_mut(&mut l.body, &mut |u| u.cut &= u.axis != axis);
    l
}

/// The second part: the loops run to the remainder.
fn shorten(block: &mut [Stmt], cut: &Cut) {
    let remainder = cut.remainder();
    visit_loops_mut(block, &mut |u| {
        if u.axis == cut.axis && u.guards.contains(&cut.guard) {
            if let Some(remainder) = remainder {
                u.hi = Dim::Fixed(remainder);
                u.guards.retain(|guard| *guard != cut.guard);
            }
            u.cut &= remainder.is_some() && !u.guards.is_empty();
        }
    });
}
