//! Removes what the ranges of the loops already say.
//!
//! ```text
//! for a in 0..8 where a*2 < 5 { S }   ->  for a in 0..3 { S }
//! for a in 0..8 where a < 9 { S }     ->  for a in 0..8 { S }
//! if a >= 9 { S }                     ->                         (inside for a in 0..8)
//! ```
//! A guard on the loop's own variable alone narrows the loop; one that always holds goes; a
//! statement that is never reached goes with it.

use convgen_ir::bounds::{Context, Range};
use convgen_ir::nest::{Affine, Dim, Guard, Loop, Nest, Stmt};

use super::sums;

pub(super) fn run(nest: &mut Nest) {
    nest.pack = block(std::mem::take(&mut nest.pack), &Context::default());
    nest.body = block(std::mem::take(&mut nest.body), &Context::default());
}

fn block(stmts: Vec<Stmt>, context: &Context) -> Vec<Stmt> {
    let mut kept = Vec::with_capacity(stmts.len());
    for stmt in stmts {
        match stmt {
            Stmt::Loop(l) => kept.extend(loop_(l, context).map(Stmt::Loop)),
            Stmt::If(mut guards, body) => {
                if guards.iter().any(|guard| context.never(guard)) {
                    continue;
                }
                guards.retain(|guard| !context.always(guard));
                let mut inside = context.clone();
                inside.assume(&guards);
                let body = block(body, &inside);
                match guards.is_empty() {
                    true => kept.extend(body),
                    false => kept.push(Stmt::If(guards, body)),
                }
            }
            // What is a micro-kernel is decided at the end.
            Stmt::MicroKernel(body) => kept.extend(block(body, context)),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => kept.push(stmt),
        }
    }
    kept
}

/// The loop without superfluous guards; none if it never runs.
fn loop_(l: Loop, context: &Context) -> Option<Loop> {
    let l = narrowed(l, context)?;
    let mut unguarded = context.clone();
    unguarded.enter(&Loop::new(l.axis, l.hi, vec![]));
    unguarded.assume(&[Guard::AtLeast(Affine::axis(l.axis), l.lo)]);
    if l.guards.iter().any(|guard| unguarded.never(guard)) {
        return None;
    }
    let guards: Vec<Guard> = l.guards.iter().filter(|g| !unguarded.always(g)).cloned().collect();
    let cut = l.cut && !guards.is_empty();
    let kept = Loop { guards, cut, ..l };
    let mut inside = context.clone();
    inside.enter(&kept);
    let body = block(kept.body, &inside);
    (!body.is_empty()).then_some(Loop { body, ..kept })
}

/// The loop over the range that its guards on its own variable leave.
fn narrowed(mut l: Loop, context: &Context) -> Option<Loop> {
    let Dim::Fixed(_) = l.hi else { return Some(l) };
    // A variable with one value is as good as a number.
    let fixed = |guard: &Guard| {
        guard.map(|sum| {
            sum.terms().iter().fold(sum.clone(), |sum, (axis, _)| match context.range(*axis) {
                Some(Range::Known(lo, hi)) if lo == hi && *axis != l.axis => {
                    let number = Affine::constant(lo);
                    sums::substituted(&sum, *axis, &number).unwrap_or(sum)
                }
                Some(_) | None => sum,
            })
        })
    };
    let guards: Vec<Guard> = l.guards.iter().map(fixed).collect();
    let own: Vec<Guard> = guards
        .iter()
        .filter(|g| g.sum().terms().iter().all(|(axis, _)| *axis == l.axis))
        .cloned()
        .collect();
    let mut alone = Context::default();
    alone.enter(&Loop { guards: own, ..l.with_body(vec![]) });
    let Some(Range::Known(lo, hi)) = alone.range(l.axis) else { return Some(l) };
    let Some(end) = hi.checked_add(1) else { return Some(l) };
    (l.lo, l.hi) = (lo, Dim::Fixed(end));
    (lo <= hi).then_some(l)
}
