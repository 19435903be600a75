//! `reorder a b c`
//!
//! ```text
//! for c { for a { for x { for b { S } } } }  ->  for a { for b { for x { for c { S } } } }
//! ```
//! The named loops change places among themselves; loops between them stay where they are. Moving a
//! reduction axis past another changes the order of a sum; everything else keeps every bit.
//!
//! Precondition: the loops stand directly in one another, and no guard comes to depend on a loop
//! inside it.

use std::collections::HashSet;

use convgen_ir::nest::{AxisId, Loop, Mode, Nest, Stmt};

use super::{Refusal, axis_with_loop, mode_name};

pub(super) fn apply(nest: &mut Nest, names: &[String]) -> Result<(), Refusal> {
    let axes: Vec<AxisId> =
        names.iter().map(|name| axis_with_loop(nest, name)).collect::<Result<_, _>>()?;
    for (i, axis) in axes.iter().enumerate() {
        if axes[..i].contains(axis) {
            return Err(Refusal::Repeated { axis: names[i].clone() });
        }
    }
    let mut body = std::mem::take(&mut nest.body);
    let mut done = 0;
    let result = permute_everywhere(nest, &mut body, &axes, &mut done);
    nest.body = body;
    result?;
    if done == 0 {
        Err(Refusal::NotNested { axes: format!("`{}`", names.join("`, `")) })
    } else {
        Ok(())
    }
}

/// Permutes every chain that holds all of the axes, and counts them.
fn permute_everywhere(
    nest: &Nest,
    block: &mut [Stmt],
    axes: &[AxisId],
    done: &mut usize,
) -> Result<(), Refusal> {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) if axes.contains(&l.axis) && chain_holds(l, axes) => {
                permute(nest, l, axes)?;
                *done += 1;
            }
            Stmt::Loop(l) => permute_everywhere(nest, &mut l.body, axes, done)?,
            Stmt::If(_, body) | Stmt::MicroKernel(body) => {
                permute_everywhere(nest, body, axes, done)?
            }
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
    Ok(())
}

fn chain_holds(first: &Loop, axes: &[AxisId]) -> bool {
    let mut missing: HashSet<AxisId> = axes.iter().copied().collect();
    missing.remove(&first.axis);
    let mut block = &first.body;
    while let ([Stmt::Loop(l)], false) = (block.as_slice(), missing.is_empty()) {
        missing.remove(&l.axis);
        block = &l.body;
    }
    missing.is_empty()
}

/// Takes the chain apart, permutes the named loops among their places, puts it together again.
fn permute(nest: &Nest, first: &mut Loop, axes: &[AxisId]) -> Result<(), Refusal> {
    let mut chain: Vec<Loop> = Vec::new();
    let mut current = first.clone();
    let mut missing = axes.len();
    let innermost = loop {
        missing -= usize::from(axes.contains(&current.axis));
        let body = std::mem::take(&mut current.body);
        chain.push(current);
        match <[Stmt; 1]>::try_from(body) {
            Ok([Stmt::Loop(next)]) if missing > 0 => current = next,
            Ok([stmt]) => break vec![stmt],
            Err(body) => break body,
        }
    };
    let places: Vec<usize> = (0..chain.len()).filter(|i| axes.contains(&chain[*i].axis)).collect();
    let old = chain.clone();
    for (place, axis) in places.into_iter().zip(axes) {
        if let Some(l) = old.iter().find(|l| l.axis == *axis) {
            chain[place] = l.clone();
        }
    }
    check_order(nest, &chain)?;
    let body =
        chain.into_iter().rev().fold(innermost, |body, l| vec![Stmt::Loop(l.with_body(body))]);
    if let Ok([Stmt::Loop(l)]) = <[Stmt; 1]>::try_from(body) {
        *first = l;
    }
    Ok(())
}

fn check_order(nest: &Nest, chain: &[Loop]) -> Result<(), Refusal> {
    for (i, l) in chain.iter().enumerate() {
        let axis = || nest.axis(l.axis).name.clone();
        let inner = &chain[i + 1..];
        let depends = |other: &Loop| l.guards.iter().any(|g| g.sum().mentions(other.axis));
        if inner.iter().any(depends) {
            return Err(Refusal::GuardOrder { axis: axis() });
        }
        // A task loop or a vector would lose its place.
        if l.mode == Mode::Vector && !inner.is_empty() {
            return Err(Refusal::HasMode { axis: axis(), mode: mode_name(l.mode) });
        }
    }
    Ok(())
}
