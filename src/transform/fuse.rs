//! `fuse a b`
//!
//! ```text
//! for a in 0..A { for b in 0..B { .. x[..,a,b,..] .. } }  ->  for a_b in 0..A*B { .. x[..,a_b,..] .. }
//! ```
//! with `x`'s two dimensions, of extents `A` and `B`, made one of `A*B`: the same memory, since
//! buffers are row-major. No bit changes.
//!
//! Precondition: the loops are serial, directly nested, unguarded and start at zero; each buffer is
//! indexed by both `a` and `b` in neighbouring dimensions of these extents, at every access, or by
//! neither; both axes are spatial, or both are reductions.

use convgen_ir::nest::{
    Access, Affine, AxisId, AxisKind, BufferId, Dim, Loop, Mode, Nest, Stmt, visit_accesses,
    visit_accesses_mut,
};

use super::{Refusal, axis_with_loop, mode_name, replace_loops};

pub(super) fn apply(nest: &mut Nest, outer: &str, inner: &str) -> Result<(), Refusal> {
    let a = axis_with_loop(nest, outer)?;
    let b = axis_with_loop(nest, inner)?;
    let extents = extents(nest, a, b, [outer, inner])?;
    for (this, other, name) in [(a, b, outer), (b, a, inner)] {
        let kinds = [nest.axis(this).kind, nest.axis(other).kind];
        if kinds == [AxisKind::Reduction, AxisKind::Spatial] {
            let reason = "the other loop is spatial";
            return Err(Refusal::Reduction { axis: name.to_string(), reason });
        }
    }
    let collapsed = collapsible(nest, a, b, extents, [outer, inner])?;
    let name = format!("{outer}_{inner}");
    if nest.find_axis(&name).is_some() {
        return Err(Refusal::AxisExists { axis: name });
    }
    let fused = nest.add_axis(name, nest.axis(a).kind);
    let length = Dim::Fixed(extents[0] * extents[1]);
    replace_loops(&mut nest.body, a, &mut |l| match <[Stmt; 1]>::try_from(l.body) {
        Ok([Stmt::Loop(inner)]) => Ok(Stmt::Loop(Loop::new(fused, length, inner.body))),
        Ok(_) | Err(_) => Err(not_nested([outer, inner])),
    })?;
    for (buffer, dim) in &collapsed {
        let shape = &mut nest.buffers[buffer.0 as usize].shape;
        shape.splice(*dim..dim + 2, [length]);
    }
    visit_accesses_mut(&mut nest.body, &mut |access| {
        if let Some((_, dim)) = collapsed.iter().find(|(buffer, _)| *buffer == access.buffer) {
            let uses = access.index[*dim].mentions(a) || access.index[dim + 1].mentions(b);
            let index = if uses { Affine::axis(fused) } else { Affine::default() };
            access.index.splice(*dim..dim + 2, [index]);
        }
    });
    Ok(())
}

/// The lengths of both loops.
fn extents(nest: &Nest, a: AxisId, b: AxisId, names: [&str; 2]) -> Result<[i64; 2], Refusal> {
    let mut found = None;
    let mut refusal = None;
    convgen_ir::nest::visit_loops(&nest.body, &mut |l| {
        if l.axis != a {
            return;
        }
        match checked(l, b, names) {
            Ok(extents) => found = Some(extents),
            Err(reason) => refusal = Some(reason),
        }
    });
    match (refusal, found) {
        (Some(refusal), _) => Err(refusal),
        (None, Some(extents)) => Ok(extents),
        (None, None) => Err(not_nested(names)),
    }
}

fn checked(l: &Loop, b: AxisId, names: [&str; 2]) -> Result<[i64; 2], Refusal> {
    let [Stmt::Loop(inner)] = l.body.as_slice() else { return Err(not_nested(names)) };
    if inner.axis != b {
        return Err(not_nested(names));
    }
    for (l, name) in [(l, names[0]), (inner, names[1])] {
        let axis = name.to_string();
        if l.mode != Mode::Serial {
            return Err(Refusal::HasMode { axis, mode: mode_name(l.mode) });
        }
        if l.lo != 0 {
            return Err(Refusal::Start { axis });
        }
        if !l.guards.is_empty() {
            return Err(Refusal::Guarded { axis });
        }
    }
    match (l.trip_count(), inner.trip_count()) {
        (Some(a), Some(b)) => Ok([a, b]),
        (None, _) => Err(Refusal::BatchLength { axis: names[0].to_string() }),
        (_, None) => Err(Refusal::BatchLength { axis: names[1].to_string() }),
    }
}

fn not_nested(names: [&str; 2]) -> Refusal {
    Refusal::NotNested { axes: format!("`{}`, `{}`", names[0], names[1]) }
}

/// The buffers that both variables index, each with the dimension of `a`.
fn collapsible(
    nest: &Nest,
    a: AxisId,
    b: AxisId,
    extents: [i64; 2],
    names: [&str; 2],
) -> Result<Vec<(BufferId, usize)>, Refusal> {
    let mut collapsed: Vec<(BufferId, usize)> = Vec::new();
    let mut refused = None;
    let mut accesses: Vec<&Access> = Vec::new();
    let mut pack_accesses: Vec<BufferId> = Vec::new();
    visit_accesses(&nest.body, &mut |access, _| accesses.push(access));
    let [a, b] = [(a, extents[0]), (b, extents[1])];
    for access in &accesses {
        let mentions = |(axis, _): (AxisId, i64)| access.index.iter().any(|i| i.mentions(axis));
        if !mentions(a) && !mentions(b) {
            continue;
        }
        match dimension(nest, access, a, b) {
            Some(dim) if !collapsed.contains(&(access.buffer, dim)) => {
                collapsed.push((access.buffer, dim));
            }
            Some(_) => {}
            None => refused = Some(access.buffer),
        }
    }
    // A buffer must be collapsed at one place, by all its accesses; those of the pack block stay.
    visit_accesses(&nest.pack, &mut |access, _| pack_accesses.push(access.buffer));
    for (buffer, dim) in &collapsed {
        let mut all = accesses.iter().filter(|access| access.buffer == *buffer);
        let alike = all.all(|access| dimension(nest, access, a, b) == Some(*dim));
        if !alike || pack_accesses.contains(buffer) {
            refused = Some(*buffer);
        }
    }
    match refused {
        None => Ok(collapsed),
        Some(buffer) => Err(Refusal::NotCollapsible {
            buffer: nest.buffer(buffer).name.clone(),
            outer: names[0].to_string(),
            inner: names[1].to_string(),
        }),
    }
}

/// Where `x[..,a,b,..]` has its `a`, if it has that form. A variable of a loop of length one does
/// not occur in indices; it stands for the zero there.
fn dimension(nest: &Nest, access: &Access, a: (AxisId, i64), b: (AxisId, i64)) -> Option<usize> {
    let shape = &nest.buffer(access.buffer).shape;
    let is = |d: usize, (axis, extent): (AxisId, i64)| {
        let index = &access.index[d];
        let whole = index.as_axis() == Some(axis) || (extent == 1 && *index == Affine::default());
        whole && shape[d] == Dim::Fixed(extent)
    };
    let others = |d: usize| {
        let mut rest = access.index.iter().enumerate().filter(|(i, _)| *i != d && *i != d + 1);
        rest.all(|(_, index)| !index.mentions(a.0) && !index.mentions(b.0))
    };
    (0..shape.len().saturating_sub(1)).find(|d| is(*d, a) && is(d + 1, b) && others(*d))
}
