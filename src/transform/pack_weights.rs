//! `pack weights`
//!
//! ```text
//! .. weights[e(v)] ..
//! ->
//! pack { for v { panels[v] = weights[e(v)] } }      // once a set of weights
//! .. panels[v] ..
//! ```
//! `v` are the loop variables of the index, in the order of the loops: the nest then reads the
//! panels from front to back. Elements beyond a tail are zero. No bit of the result changes.
//!
//! Precondition: the nest reads the weights and has not packed them yet.

use convgen_ir::PaddingMode;
use convgen_ir::nest::{
    Access, Affine, AxisId, Buffer, Dim, Expr, Loop, Nest, Role, Stmt, visit_exprs,
    visit_exprs_mut, visit_loops,
};

use super::{Refusal, loops_around_load, span};

pub(super) fn apply(nest: &mut Nest) -> Result<(), Refusal> {
    if nest.find_role(Role::Packed).is_some() {
        return Err(Refusal::AlreadyPacked);
    }
    let Some(source) = first_load(nest) else { return Err(Refusal::AlreadyPacked) };
    let around = loops_around_load(&nest.body, Role::Weights, nest).unwrap_or_default();
    let used: Vec<&Loop> = around
        .into_iter()
        .filter(|l| source.index.iter().any(|index| index.mentions(l.axis)))
        .collect();
    let axes: Vec<AxisId> = used.iter().map(|l| l.axis).collect();
    let ends: Vec<Dim> = axes.iter().map(|axis| end(nest, *axis)).collect();
    let whole: Vec<Loop> =
        axes.iter().zip(&ends).map(|(axis, end)| Loop::new(*axis, *end, vec![])).collect();
    let outside = source.index.iter().zip(&nest.buffer(source.buffer).shape).any(|(index, dim)| {
        let (lo, hi) = span(index, &whole.iter().collect::<Vec<_>>());
        lo + index.constant < 0 || dim.fixed().is_none_or(|extent| hi + index.constant >= extent)
    });
    let elem = nest.buffer(source.buffer).elem;
    let packed = nest.add_buffer(Buffer::new("panels", Role::Packed, elem, ends));
    let panel =
        Access { buffer: packed, index: axes.into_iter().map(Affine::axis).collect::<Vec<_>>() };
    let value = if outside {
        Expr::Pad(PaddingMode::Zeros, source.clone())
    } else {
        Expr::Load(source.clone())
    };
    let copy = vec![Stmt::Store(panel.clone(), value)];
    nest.pack = whole.into_iter().rev().fold(copy, |body, l| vec![Stmt::Loop(l.with_body(body))]);
    visit_exprs_mut(&mut nest.body, &mut |expr| {
        if let Expr::Load(access) | Expr::Pad(_, access) = expr
            && *access == source
        {
            *expr = Expr::Load(panel.clone());
        }
    });
    Ok(())
}

/// One past the last value of an axis over which several loops may run side by side.
fn end(nest: &Nest, axis: AxisId) -> Dim {
    let mut end = 0;
    visit_loops(&nest.body, &mut |l| match l.hi {
        Dim::Fixed(hi) if l.axis == axis => end = end.max(hi),
        Dim::Fixed(_) | Dim::Batch => {}
    });
    Dim::Fixed(end)
}

fn first_load(nest: &Nest) -> Option<Access> {
    let mut found: Option<Access> = None;
    visit_exprs(&nest.body, &mut |expr| {
        if let Expr::Load(access) | Expr::Pad(_, access) = expr
            && nest.buffer(access.buffer).role == Role::Weights
        {
            found.get_or_insert_with(|| access.clone());
        }
    });
    found
}
