//! `skip padding at k`
//!
//! ```text
//! reduce k in 0..K { acc = fma(pad(input[i(k)]), w, acc) }
//! ->
//! reduce k in 0..K where i(k) >= 0 and i(k) < E { acc = fma(pad(input[i(k)]), w, acc) }
//! ```
//! for every dimension `E` whose index mentions `k` and may be outside. Where the index depends on
//! a loop inside of `k` too, the innermost such loop gets the condition, around its body:
//! ```text
//! reduce k in 0..K { unroll o in 0..O { if o+k >= 0 and o+k < E { acc[o] = fma(pad(input[o+k]), w, acc[o]) } } }
//! ```
//! A tap outside is no operation any more: bits change where its weight is infinite or a NaN, and
//! in the sign of a zero sum.
//!
//! Precondition: `k` is a reduction axis with padding, which is zeros; the loop does nothing but
//! add products of which a padded load of the input is a factor; no index depends on the lanes of a
//! vector inside it.

use convgen_ir::nest::{
    Access, AxisId, Dim, Expr, Guard, Loop, Mode, Nest, Role, Stmt, visit_loops,
};

use super::{Refusal, expect_zeros, loops_around_load, reduction_axis, replace_loops, span};

pub(super) fn apply(nest: &mut Nest, at: &str) -> Result<(), Refusal> {
    let axis = reduction_axis(nest, at)?;
    expect_zeros(nest, axis, at)?;
    let refusal = || Refusal::NoPadding { axis: at.to_string() };
    let around = loops_around_load(&nest.body, Role::Input, nest).unwrap_or_default();
    let around: Vec<Loop> = around.into_iter().map(|l| l.with_body(vec![])).collect();
    let mut body = std::mem::take(&mut nest.body);
    let result = replace_loops(&mut body, axis, &mut |mut l| {
        let mut sources = Vec::new();
        let mut inside = Vec::new();
        if !only_sums(nest, &l.body, &mut sources, &mut inside) || sources.is_empty() {
            return Err(refusal());
        }
        let mut guards = conditions(nest, axis, &sources, &around);
        guards.retain(|guard| !l.guards.contains(guard));
        if guards.is_empty() {
            return Err(refusal());
        }
        let depends = |guard: &Guard| inside.iter().any(|inner| guard.sum().mentions(*inner));
        let (inner, own): (Vec<Guard>, Vec<Guard>) = guards.into_iter().partition(depends);
        l.guards.extend(own);
        match inner.is_empty() || guard_body(&mut l.body, &inner) {
            true => Ok(Stmt::Loop(l)),
            false => Err(Refusal::GuardOrder { axis: at.to_string() }),
        }
    });
    nest.body = body;
    result
}

/// Puts conditions around the body of the innermost loop that they mention; false if it is a
/// vector.
fn guard_body(block: &mut [Stmt], guards: &[Guard]) -> bool {
    let [Stmt::Loop(l)] = block else { return false };
    let mentioned = |block: &[Stmt]| {
        let mut found = false;
        visit_loops(block, &mut |l| found |= guards.iter().any(|g| g.sum().mentions(l.axis)));
        found
    };
    if mentioned(&l.body) {
        return guard_body(&mut l.body, guards);
    }
    if l.mode != Mode::Vector {
        l.body = vec![Stmt::If(guards.to_vec(), std::mem::take(&mut l.body))];
    }
    l.mode != Mode::Vector
}

/// Whether a block only adds products with padded loads of the input. Lists these and its loops.
fn only_sums(
    nest: &Nest,
    block: &[Stmt],
    sources: &mut Vec<Access>,
    inside: &mut Vec<AxisId>,
) -> bool {
    block.iter().all(|stmt| match stmt {
        Stmt::Loop(l) => {
            inside.push(l.axis);
            only_sums(nest, &l.body, sources, inside)
        }
        Stmt::Store(dst, Expr::Fma(a, b, c)) => {
            let padded = |x: &Expr| match x {
                Expr::Pad(_, access) if nest.buffer(access.buffer).role == Role::Input => {
                    Some(access.clone())
                }
                Expr::Pad(..)
                | Expr::Load(_)
                | Expr::Const(_)
                | Expr::Local(_)
                | Expr::Unary(..)
                | Expr::Binary(..)
                | Expr::Fma(..)
                | Expr::Select { .. } => None,
            };
            let source = padded(a).or_else(|| padded(b));
            sources.extend(source.clone());
            source.is_some() && matches!(&**c, Expr::Load(access) if access == dst)
        }
        Stmt::Store(..)
        | Stmt::If(..)
        | Stmt::MicroKernel(_)
        | Stmt::Declare(_)
        | Stmt::Let(..) => false,
    })
}

/// The conditions that a loop over the axis decides and that do not hold by the ranges alone.
fn conditions(nest: &Nest, axis: AxisId, sources: &[Access], around: &[Loop]) -> Vec<Guard> {
    let around: Vec<&Loop> = around.iter().collect();
    let mut guards: Vec<Guard> = Vec::new();
    for source in sources {
        for (index, dim) in source.index.iter().zip(&nest.buffer(source.buffer).shape) {
            let Dim::Fixed(extent) = dim else { continue };
            if !index.mentions(axis) {
                continue;
            }
            let (lo, hi) = span(index, &around);
            let ends = [
                (lo + index.constant < 0, Guard::AtLeast(index.clone(), 0)),
                (hi + index.constant >= *extent, Guard::Below(index.clone(), *extent)),
            ];
            for (open, guard) in ends {
                if open && !guards.contains(&guard) {
                    guards.push(guard);
                }
            }
        }
    }
    guards
}
