//! `spill sums at l over r`, `spill sums at l`
//!
//! ```text
//! for l { for s { reg acc[t]; for t { acc[t] = I }
//!                 for r { for q { acc[t] = U } }
//!                 for t { F(acc[t]) } } }
//! ->
//! for l { scratch sums[s,t]; for s { for t { sums[s,t] = I } }
//!         for r { for s { reg acc[t]; for t { acc[t] = sums[s,t] }
//!                         for q { acc[t] = U }
//!                         for t { sums[s,t] = acc[t] } } }
//!         for s.w { for t.w { F(sums[s.w,t.w]) } } }
//! ```
//! `s` and `r` stand for any number of loops; `r` ends with the one that is named. Without one,
//! each tile is summed at once and only the output is written from scratch. All tiles of `l` go
//! over one block of the reduction before any goes on to the next, so what the block reads stays in
//! a cache. The loops that write the output are copies with names of their own, for directives of
//! their own. Each sum still adds in the order of `r` and `q`: no bit changes. The whole of the
//! scratch is defined, on `pad` loads where a guard of a tile would leave out some of it.
//!
//! Precondition: inside `l` stand spatial loops of known length around a register tile, whose sum
//! begins with the loops `r`. A guard of `r` that some `s` decides becomes one of that `s`.

use convgen_ir::nest::{
    Access, Affine, AxisId, BufferId, Dim, Expr, Loop, Mode, Nest, Role, Stmt, map_affines,
    visit_accesses_mut, visit_loops_mut,
};

use super::accumulate::{Parts, around, prefixed, spatial_chain};
use super::split::pad_loads;
use super::{Refusal, axis_with_loop, reduction_axis, replace_loops};

/// What is put behind the names of the loops that write the output.
const WRITTEN: &str = "w";

pub(super) fn apply(nest: &mut Nest, at: &str, over: Option<&str>) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, at)?;
    let last = over.map(|over| reduction_axis(nest, over)).transpose()?;
    let mut body = std::mem::take(&mut nest.body);
    let mut spilled = false;
    let result = replace_loops(&mut body, axis, &mut |l| {
        if std::mem::replace(&mut spilled, true) {
            // A second one would need names of its own.
            return Err(Refusal::Repeated { axis: at.to_string() });
        }
        let body = spill(nest, &l, at, last)?;
        Ok(Stmt::Loop(l.with_body(body)))
    });
    nest.body = body;
    result
}

fn spill(nest: &mut Nest, l: &Loop, at: &str, last: Option<AxisId>) -> Result<Vec<Stmt>, Refusal> {
    let refusal = || Refusal::NoAccumulator { axis: at.to_string() };
    let (tiles, leaf) = spatial_chain(nest, l).ok_or_else(refusal)?;
    let parts = Parts::of(nest, leaf).ok_or_else(refusal)?;
    let blocks = match last {
        Some(last) => blocks(parts.reduce, last).ok_or_else(refusal)?,
        None => vec![],
    };
    let mut summed = tiles.clone();
    let blocks: Vec<Loop> = blocks.into_iter().map(|b| leave_to_tiles(b, &mut summed)).collect();
    let (acc, sums) = (parts.acc, sums(nest, &tiles, parts.acc));
    let spilled = |mut block: Vec<Stmt>| {
        to_scratch(&mut block, acc, sums, &tiles);
        block
    };

    let load = |access: &Access| {
        let place = in_scratch(&access.index, sums, &tiles);
        Stmt::Store(access.clone(), Expr::Load(place))
    };
    let store = |access: &Access| {
        let place = in_scratch(&access.index, sums, &tiles);
        Stmt::Store(place, Expr::Load(access.clone()))
    };
    let mut body = vec![Stmt::Declare(sums)];
    let mut tile = vec![Stmt::Declare(acc)];
    let mut init = parts.init.to_vec();
    unguard_all(nest, &tiles, &mut init);
    // Tiles that a guard leaves out are never summed, but no less of the scratch.
    if !blocks.is_empty() || tiles.iter().any(|tile| !tile.guards.is_empty()) {
        let whole: Vec<Loop> = tiles
            .iter()
            .map(|tile| Loop { ahead: None, ..tile.with_body(vec![]) }.unguarded())
            .collect();
        body.extend(around(&whole, spilled(init.clone())));
    }
    let stored = match blocks.last() {
        Some(block) => {
            tile.extend(stores_of(parts.init, acc, &load));
            tile.extend(block.body.iter().cloned());
            stores_of(parts.init, acc, &store)
        }
        None => {
            let stored = stores_of(&init, acc, &store);
            tile.extend(init);
            tile.push(Stmt::Loop(parts.reduce.clone()));
            stored
        }
    };
    tile.extend(stored);
    body.extend(around(&blocks, around(&summed, tile)));

    let mut written = around(&tiles, spilled(parts.finish.to_vec()));
    rename_loops(nest, &mut written)?;
    body.extend(written);
    Ok(body)
}

/// The loops of the sum from the outside to the one over `last`.
fn blocks(reduce: &Loop, last: AxisId) -> Option<Vec<Loop>> {
    let mut result = vec![reduce.clone()];
    while result.last()?.axis != last {
        let [Stmt::Loop(inner)] = result.last()?.body.as_slice() else { return None };
        result.push(inner.clone());
    }
    Some(result)
}

/// A block without the guards that tiles decide: these become guards of the tiles' loops, since a
/// tile for which a block is left out stays as it is.
fn leave_to_tiles(block: Loop, tiles: &mut [Loop]) -> Loop {
    let mut left = block.with_body(block.body.clone());
    left.guards.clear();
    for guard in block.guards {
        match tiles.iter_mut().rfind(|tile| guard.sum().mentions(tile.axis)) {
            Some(tile) => tile.guards.push(guard),
            None => left.guards.push(guard),
        }
    }
    left
}

/// Scratch for the sums of all tiles.
fn sums(nest: &mut Nest, tiles: &[Loop], acc: BufferId) -> BufferId {
    let mut buffer = nest.buffer(acc).clone();
    buffer.role = Role::Scratch;
    buffer.name = nest.new_buffer_name("sums");
    let outer: Vec<Dim> = tiles.iter().map(|tile| tile.hi).collect();
    buffer.shape = [outer, buffer.shape].concat();
    nest.add_buffer(buffer)
}

/// The place in scratch of an element of the tile.
fn in_scratch(index: &[Affine], sums: BufferId, tiles: &[Loop]) -> Access {
    Access { buffer: sums, index: prefixed(tiles, index) }
}

/// `acc[t]` becomes `sums[s,t]`.
fn to_scratch(block: &mut [Stmt], acc: BufferId, sums: BufferId, tiles: &[Loop]) {
    visit_accesses_mut(block, &mut |access| {
        if access.buffer == acc {
            *access = in_scratch(&access.index, sums, tiles);
        }
    });
}

/// Lets all loops run to their ends, on loads that are zero beyond those of the caller's data.
fn unguard_all(nest: &Nest, tiles: &[Loop], block: &mut [Stmt]) {
    let mut guarded: Vec<AxisId> = Vec::new();
    let mut collect = |l: &Loop| {
        let axes = l.guards.iter().flat_map(|guard| guard.sum().terms());
        guarded.extend(axes.map(|(axis, _)| *axis));
    };
    tiles.iter().for_each(&mut collect);
    visit_loops_mut(block, &mut |l| {
        collect(l);
        l.guards.clear();
        l.cut = false;
    });
    pad_loads(nest, block, |access| {
        access.index.iter().any(|index| guarded.iter().any(|axis| index.mentions(*axis)))
    });
}

/// The loops around each store to the tile, with what `make` puts in its place.
fn stores_of(block: &[Stmt], acc: BufferId, make: &impl Fn(&Access) -> Stmt) -> Vec<Stmt> {
    let mut result = Vec::new();
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                let inner = stores_of(&l.body, acc, make);
                if !inner.is_empty() {
                    result.push(Stmt::Loop(l.with_body(inner)));
                }
            }
            Stmt::If(guards, body) => {
                let inner = stores_of(body, acc, make);
                if !inner.is_empty() {
                    result.push(Stmt::If(guards.clone(), inner));
                }
            }
            Stmt::MicroKernel(body) => result.extend(stores_of(body, acc, make)),
            Stmt::Store(access, _) if access.buffer == acc => result.push(make(access)),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
    result
}

/// Gives the loops of a block axes of their own.
fn rename_loops(nest: &mut Nest, block: &mut [Stmt]) -> Result<(), Refusal> {
    let mut renamed: Vec<(AxisId, AxisId)> = Vec::new();
    let mut taken = None;
    visit_loops_mut(block, &mut |l| {
        let axis = match renamed.iter().find(|(old, _)| *old == l.axis) {
            Some((_, new)) => *new,
            None => {
                let old = nest.axis(l.axis);
                let (name, kind) = (format!("{}.{WRITTEN}", old.name), old.kind);
                if nest.find_axis(&name).is_some() {
                    taken = Some(name.clone());
                }
                let new = nest.add_axis(name, kind);
                renamed.push((l.axis, new));
                new
            }
        };
        l.axis = axis;
        // Plain loops: how the tiles were summed is no matter here.
        l.cut = false;
        l.ahead = None;
        l.mode = Mode::Serial;
    });
    if let Some(axis) = taken {
        return Err(Refusal::AxisExists { axis });
    }
    map_affines(block, &mut |sum| {
        for (old, new) in &renamed {
            *sum = sum.substitute(*old, &Affine::axis(*new));
        }
    });
    Ok(())
}
