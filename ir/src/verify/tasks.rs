//! V6: parallel loops write different elements.

use super::{Check, Checker, Fault, Place, VerifyError};
use crate::bounds::Context;
use crate::nest::{Access, Affine, AxisId, Loop, MAX_LEVELS, Nest, Role, Stmt, count_statements};

impl Checker<'_> {
    /// V6: two tasks never write one element of the output.
    pub(super) fn tasks_are_disjoint(&self) -> Check {
        let chain: Vec<&Loop> = self.nest.task_loops().collect();
        let outer: Vec<AxisId> = chain.iter().map(|l| l.axis).collect();
        let mut stores = Vec::new();
        // What is known in a block or at a store is copied for each.
        let statements = count_statements(&self.nest.body).saturating_mul(MAX_LEVELS);
        self.spend(statements, || "showing that tasks write different elements".to_string())?;
        collect_stores(self.nest, &self.nest.body, &Context::default(), &mut stores);
        for (depth, l) in chain.iter().enumerate() {
            if l.trip_count() == Some(1) {
                continue;
            }
            let separates = |dim: usize| separated(&stores, dim, l, &outer[..=depth]);
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
        u32::try_from(count_statements(&self.nest.pack)).unwrap_or(u32::MAX)
    }
}

/// Every store to the output with what is known at that point.
fn collect_stores(
    nest: &Nest,
    block: &[Stmt],
    context: &Context,
    found: &mut Vec<(Access, Context)>,
) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                let mut inside = context.clone();
                inside.enter(l);
                collect_stores(nest, &l.body, &inside, found);
            }
            Stmt::If(guards, body) => {
                let mut inside = context.clone();
                inside.assume(guards);
                collect_stores(nest, body, &inside, found);
            }
            Stmt::MicroKernel(body) => collect_stores(nest, body, context, found),
            Stmt::Declare(_) | Stmt::Let(..) => {}
            Stmt::Store(dst, _) if nest.buffer(dst.buffer).role == Role::Output => {
                found.push((dst.clone(), context.clone()));
            }
            Stmt::Store(..) => {}
        }
    }
}

/// Whether, in dimension `dim`, all stores agree on the terms of the task variables and the last of
/// these, that of loop `l`, steps further than everything inside it reaches.
fn separated(stores: &[(Access, Context)], dim: usize, l: &Loop, tasks: &[AxisId]) -> bool {
    let outer = |sum: &Affine| sum.part(|a| tasks.contains(&a));
    let first = outer(&stores[0].0.index[dim]);
    let step = i128::from(first.coefficient(l.axis)).abs();
    let mut reach: Option<(i128, i128)> = None;
    for (store, context) in stores {
        let sum = &store.index[dim];
        if outer(sum) != first {
            return false;
        }
        let inner = sum - &first;
        let (Some(lo), Some(hi)) = (context.lower(&inner), context.upper(&inner)) else {
            return false;
        };
        reach = Some(joined(reach, (lo, hi)));
    }
    length(reach).is_some_and(|length| length < step) || residues_differ(stores, dim, l, tasks)
}

/// Whether, in dimension `dim`, two values of the last task variable, that of loop `l`, leave
/// different residues: what steps further than it does steps by multiples of a number, below which
/// what steps less far stays apart. So do the phases of a dilation, and sets of them. The variable
/// takes all values of its loop: what a condition around one store leaves of them says nothing
/// about the other stores.
fn residues_differ(stores: &[(Access, Context)], dim: usize, l: &Loop, tasks: &[AxisId]) -> bool {
    let first = &stores[0].0.index[dim];
    let step = i128::from(first.coefficient(l.axis)).abs();
    let Some(trips) = l.trip_count() else { return false };
    let mut modulus: i128 = 0;
    let mut reach: Option<(i128, i128)> = None;
    for (store, context) in stores {
        let sum = &store.index[dim];
        let inner = sum.part(|a| !tasks.contains(&a));
        let near = inner.part(|a| i128::from(inner.coefficient(a)).abs() < step);
        let offset = i128::from(sum.constant).saturating_sub(first.constant.into());
        let far = inner.terms().iter().map(|(_, c)| i128::from(*c)).chain([offset]);
        modulus = far.filter(|c| c.abs() >= step).fold(modulus, gcd);
        let Some((lo, hi)) = context.interval(&near) else { return false };
        let moved = if offset.abs() < step { offset } else { 0 };
        reach = Some(joined(reach, (lo.saturating_add(moved), hi.saturating_add(moved))));
    }
    let Some(length) = length(reach) else { return false };
    let tasks = step.checked_mul(i128::from(trips).saturating_sub(1));
    let span = tasks.and_then(|tasks| tasks.checked_add(length));
    length < step && span.is_some_and(|span| span < modulus)
}

/// The least interval around two.
fn joined(a: Option<(i128, i128)>, b: (i128, i128)) -> (i128, i128) {
    a.map_or(b, |a| (a.0.min(b.0), a.1.max(b.1)))
}

/// How far the last value of an interval lies behind the first.
fn length(interval: Option<(i128, i128)>) -> Option<i128> {
    interval.and_then(|(lo, hi)| hi.checked_sub(lo))
}

fn gcd(a: i128, b: i128) -> i128 {
    match a.checked_rem(b) {
        Some(rest) => gcd(b, rest),
        None => a.abs(),
    }
}
