//! V6: parallel loops write different elements.

use super::{Check, Checker, Fault, Place, VerifyError};
use crate::bounds::{Context, Range};
use crate::nest::{Access, Affine, AxisId, Loop, Nest, Role, Stmt};

impl Checker<'_> {
    /// V6: two tasks never write one element of the output.
    pub(super) fn tasks_are_disjoint(&self) -> Check {
        let chain: Vec<&Loop> = self.nest.task_loops().collect();
        let outer: Vec<AxisId> = chain.iter().map(|l| l.axis).collect();
        let mut stores = Vec::new();
        let mut context = Context::default();
        collect_stores(self.nest, &self.nest.body, &mut context, &mut stores);
        for (depth, l) in chain.iter().enumerate() {
            if l.trip_count() == Some(1) {
                continue;
            }
            let separates = |dim: usize| separated(&stores, dim, &outer[..=depth]);
            let dims = stores.first().map_or(0, |(dst, _)| dst.index.len());
            if !stores.is_empty() && !(0..dims).any(separates) {
                let (axis, access) = (self.axis_name(l.axis), self.text(&stores[0].0));
                let fault = Fault::TaskOverlap { axis, access };
                return Err(VerifyError { place: Place::Stmt(self.first_body_stmt()), fault });
            }
        }
        Ok(())
    }

    fn first_body_stmt(&self) -> u32 {
        count_stmts(&self.nest.pack)
    }
}

/// Statements of a block, in it and below it.
fn count_stmts(block: &[Stmt]) -> u32 {
    block
        .iter()
        .map(|stmt| match stmt {
            Stmt::Loop(l) => 1 + count_stmts(&l.body),
            Stmt::If(_, body) => 1 + count_stmts(body),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => 1,
        })
        .sum()
}

/// Every store to the output with what is known at that point.
fn collect_stores(
    nest: &Nest,
    block: &[Stmt],
    context: &mut Context,
    found: &mut Vec<(Access, Context)>,
) {
    for stmt in block {
        let outside = context.clone();
        match stmt {
            Stmt::Loop(l) => {
                context.enter(l);
                collect_stores(nest, &l.body, context, found);
            }
            Stmt::If(guards, body) => {
                context.assume(guards);
                collect_stores(nest, body, context, found);
            }
            Stmt::Declare(_) | Stmt::Let(..) => {}
            Stmt::Store(dst, _) if nest.buffer(dst.buffer).role == Role::Output => {
                found.push((dst.clone(), context.clone()));
            }
            Stmt::Store(..) => {}
        }
        *context = outside;
    }
}

/// Whether, in dimension `dim`, all stores agree on the terms of the task variables and the last of
/// these steps further than everything inside it reaches.
fn separated(stores: &[(Access, Context)], dim: usize, tasks: &[AxisId]) -> bool {
    let Some(axis) = tasks.last() else { return true };
    let index = |store: &(Access, Context)| store.0.index[dim].clone();
    let outer = |sum: &Affine| sum.part(|a| tasks.contains(&a));
    let first = outer(&index(&stores[0]));
    let step = i128::from(first.coefficient(*axis)).abs();
    let mut reach: Option<(i128, i128)> = None;
    for store in stores {
        let sum = index(store);
        if outer(&sum) != first {
            return false;
        }
        let inner = &sum - &first;
        let (Some(lo), Some(hi)) = (store.1.lower(&inner), store.1.upper(&inner)) else {
            return false;
        };
        reach = Some(reach.map_or((lo, hi), |(l, h)| (l.min(lo), h.max(hi))));
    }
    reach.is_some_and(|(lo, hi)| hi - lo < step) || residues_differ(stores, dim, *axis, tasks)
}

/// Whether, in dimension `dim`, two values of the last task variable leave different residues: what steps
/// further than it does steps by multiples of a number, below which what steps less far stays apart. So
/// do the phases of a dilation, and sets of them.
fn residues_differ(
    stores: &[(Access, Context)],
    dim: usize,
    axis: AxisId,
    tasks: &[AxisId],
) -> bool {
    let first = &stores[0].0.index[dim];
    let step = first.coefficient(axis).abs();
    let Some(Range::Known(from, to)) = stores[0].1.range(axis) else { return false };
    let mut modulus = 0;
    let mut reach: Option<(i128, i128)> = None;
    for (store, context) in stores {
        let sum = &store.index[dim];
        let inner = sum.part(|a| !tasks.contains(&a));
        let near = inner.part(|a| inner.coefficient(a).abs() < step);
        let offset = sum.constant - first.constant;
        let far = inner.terms().iter().map(|(_, c)| *c).chain([offset]);
        modulus = far.filter(|c| c.abs() >= step).fold(modulus, gcd);
        let near = near.plus(if offset.abs() < step { offset } else { 0 });
        let Some((lo, hi)) = context.interval(&near) else { return false };
        reach = Some(reach.map_or((lo, hi), |(l, h)| (l.min(lo), h.max(hi))));
    }
    let Some((lo, hi)) = reach else { return false };
    let tasks = i128::from(step) * (i128::from(to) - i128::from(from));
    hi - lo < i128::from(step) && tasks + (hi - lo) < i128::from(modulus)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}
