//! `accumulate output at l`
//!
//! ```text
//! for l { for t { reg acc; acc = I(t); for r { acc = U(t,r,acc) }; F(t,acc) } }
//! ->
//! for l { reg acc[t]; for t { acc[t] = I(t) }
//!         for r { for t { acc[t] = U(t,r,acc[t]) } }
//!         for t { F(t,acc[t]) } }
//! ```
//! `t` and `r` stand for any number of loops, perfectly nested. Each sum still adds in the order of
//! `r`: no bit changes. Where a guard of `t` stays to run time (`where`), `I` runs without it, on
//! `pad` loads, so that the whole tile is defined.
//!
//! Precondition: between `l` and the sum stand spatial loops of known length only, starting at
//! zero; no guard of a reduction depends on them.

use convgen_ir::nest::{
    Affine, AxisId, AxisKind, BufferId, Dim, Loop, Nest, Role, Stmt, visit_accesses_mut,
};

use super::split::pad_loads;
use super::{Refusal, axis_with_loop, replace_loops};

pub(super) fn apply(nest: &mut Nest, at: &str) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, at)?;
    let mut shape: Option<(BufferId, Vec<Dim>)> = None;
    let mut body = std::mem::take(&mut nest.body);
    let result = replace_loops(&mut body, axis, &mut |l| {
        let refusal = || Refusal::NoAccumulator { axis: at.to_string() };
        let (tile, leaf) = spatial_chain(nest, &l).ok_or_else(refusal)?;
        let parts = Parts::of(nest, leaf).ok_or_else(refusal)?;
        if let Some(reduction) = guarded_by(parts.reduce, &tile) {
            return Err(Refusal::GuardOrder { axis: nest.axis(reduction).name.clone() });
        }
        let dims: Vec<Dim> = tile.iter().map(|t| t.hi).collect();
        match &shape {
            Some((acc, first)) if *acc != parts.acc || *first != dims => return Err(refusal()),
            Some(_) | None => shape = Some((parts.acc, dims)),
        }
        let body = distribute(nest, &tile, &parts);
        Ok(Stmt::Loop(l.with_body(body)))
    });
    nest.body = body;
    result?;
    if let Some((acc, mut dims)) = shape {
        let buffer = &mut nest.buffers[acc.0 as usize];
        dims.append(&mut buffer.shape);
        buffer.shape = dims;
    }
    Ok(())
}

/// The spatial loops below `l`, without their bodies, and the block inside the last of them.
pub(super) fn spatial_chain<'n>(nest: &Nest, l: &'n Loop) -> Option<(Vec<Loop>, &'n [Stmt])> {
    let mut tile = Vec::new();
    let mut block = l.body.as_slice();
    while let [Stmt::Loop(t)] = block {
        let usable = nest.axis(t.axis).kind == AxisKind::Spatial && t.lo == 0;
        if !usable || t.trip_count().is_none() {
            return None;
        }
        tile.push(t.with_body(vec![]));
        block = &t.body;
    }
    Some((tile, block))
}

/// The first reduction, from the outside, whose guards depend on the tile.
fn guarded_by(reduce: &Loop, tile: &[Loop]) -> Option<AxisId> {
    let depends = reduce.guards.iter().any(|g| tile.iter().any(|t| g.sum().mentions(t.axis)));
    match (depends, reduce.body.as_slice()) {
        (true, _) => Some(reduce.axis),
        (false, [Stmt::Loop(inner)]) => guarded_by(inner, tile),
        (false, _) => None,
    }
}

/// The leaf of an unaccumulated nest.
pub(super) struct Parts<'n> {
    pub(super) acc: BufferId,
    pub(super) init: &'n [Stmt],
    pub(super) reduce: &'n Loop,
    pub(super) finish: &'n [Stmt],
}

impl<'n> Parts<'n> {
    pub(super) fn of(nest: &Nest, leaf: &'n [Stmt]) -> Option<Parts<'n>> {
        let [Stmt::Declare(acc), rest @ ..] = leaf else { return None };
        if nest.buffer(*acc).role != Role::Reg {
            return None;
        }
        let at = rest.iter().position(|stmt| match stmt {
            Stmt::Loop(l) => nest.axis(l.axis).kind == AxisKind::Reduction,
            Stmt::If(..)
            | Stmt::MicroKernel(_)
            | Stmt::Declare(_)
            | Stmt::Let(..)
            | Stmt::Store(..) => false,
        })?;
        let Stmt::Loop(reduce) = &rest[at] else { return None };
        Some(Parts { acc: *acc, init: &rest[..at], reduce, finish: &rest[at + 1..] })
    }
}

fn distribute(nest: &Nest, tile: &[Loop], parts: &Parts) -> Vec<Stmt> {
    let at_tile = |mut block: Vec<Stmt>| {
        prefix_indices(&mut block, parts.acc, tile);
        block
    };
    let mut init_tile = tile.to_vec();
    let mut init = at_tile(parts.init.to_vec());
    for t in &mut init_tile {
        if !t.cut && !t.guards.is_empty() {
            pad_loads(nest, &mut init, |access| {
                access.index.iter().any(|index| index.mentions(t.axis))
            });
            t.guards.clear();
        }
    }
    let mut body = vec![Stmt::Declare(parts.acc)];
    body.extend(around(&init_tile, init));
    body.push(Stmt::Loop(inside_reduction(nest, parts.reduce, tile, &at_tile)));
    body.extend(around(tile, at_tile(parts.finish.to_vec())));
    body
}

/// Puts the tile's loops inside the innermost reduction loop.
fn inside_reduction(
    nest: &Nest,
    reduce: &Loop,
    tile: &[Loop],
    at_tile: &impl Fn(Vec<Stmt>) -> Vec<Stmt>,
) -> Loop {
    let body = match reduce.body.as_slice() {
        [Stmt::Loop(inner)] if nest.axis(inner.axis).kind == AxisKind::Reduction => {
            vec![Stmt::Loop(inside_reduction(nest, inner, tile, at_tile))]
        }
        update => around(tile, at_tile(update.to_vec())),
    };
    reduce.with_body(body)
}

/// The loops around a block, the first one outermost.
pub(super) fn around(loops: &[Loop], body: Vec<Stmt>) -> Vec<Stmt> {
    loops.iter().rev().fold(body, |body, l| vec![Stmt::Loop(l.with_body(body))])
}

/// `i` becomes `t,i`.
pub(super) fn prefixed(tile: &[Loop], index: &[Affine]) -> Vec<Affine> {
    tile.iter().map(|t| Affine::axis(t.axis)).chain(index.iter().cloned()).collect()
}

/// `acc[i]` becomes `acc[t,i]`.
fn prefix_indices(block: &mut [Stmt], acc: BufferId, tile: &[Loop]) {
    visit_accesses_mut(block, &mut |access| {
        if access.buffer == acc {
            access.index = prefixed(tile, &access.index);
        }
    });
}
