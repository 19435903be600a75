//! `split a by f tail=t`
//!
//! ```text
//! for a in 0..E { S(a) }
//! ->
//! for a.o in 0..ceil(E/f) { for a.i in 0..f where a.o*f+a.i < E { S(a.o*f+a.i) } }
//! ```
//! The guard is left out where `f` divides `E`. `tail=cut` writes `cut` for `where`. `tail=pad`
//! drops the guard: loads of the caller's data become `pad` loads and stores to the output stand in
//! an `if`, so the iterations beyond `E` compute on zeros and leave no trace.
//!
//! Precondition: every loop over `a` is serial, starts at zero and has a known length of at least
//! `f`; `pad` only on a spatial axis.

use convgen_ir::PaddingMode;
use convgen_ir::nest::{
    Affine, AxisKind, Dim, Expr, Guard, Loop, Mode, Nest, Role, Stmt, substitute, visit_exprs_mut,
};
use convgen_ir::schedule::Tail;

use super::{Refusal, axis_with_loop, mode_name, replace_loops};

pub(super) fn apply(nest: &mut Nest, name: &str, by: u32, tail: Tail) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, name)?;
    let kind = nest.axis(axis).kind;
    if tail == Tail::Pad && kind == AxisKind::Reduction {
        let reason = "adding zeros would change the signs of zero sums";
        return Err(Refusal::Reduction { axis: name.to_string(), reason });
    }
    let [outer, inner] = [format!("{name}.o"), format!("{name}.i")];
    for axis in [&outer, &inner] {
        if nest.find_axis(axis).is_some() {
            return Err(Refusal::AxisExists { axis: axis.clone() });
        }
    }
    let outer = nest.add_axis(outer, kind);
    let inner = nest.add_axis(inner, kind);
    let by = i64::from(by);
    let index = &Affine::term(outer, by) + &Affine::axis(inner);

    let mut body = std::mem::take(&mut nest.body);
    let result = replace_loops(&mut body, axis, &mut |l| {
        let extent = checked_extent(&l, name, by)?;
        let mut guards: Vec<Guard> =
            l.guards.iter().map(|g| g.map(|sum| sum.substitute(axis, &index))).collect();
        if extent % by != 0 {
            guards.push(Guard::Below(index.clone(), extent));
        }
        let mut inner_body = l.body;
        substitute(&mut inner_body, axis, &index);
        let cut = tail == Tail::Cut && !guards.is_empty();
        // The outer loop skips tiles in which no iteration would run: those whose first is beyond.
        let first_is_least = |g: &&Guard| match g {
            Guard::Below(sum, _) => sum.coefficient(inner) > 0,
            Guard::AtLeast(..) => false,
        };
        let first_of_tile =
            guards.iter().filter(first_is_least).map(|g| g.map(|sum| sum.without(inner)));
        let outer_guards = first_of_tile.filter(|g| beyond_range(g, outer, extent, by)).collect();
        if tail == Tail::Pad && !guards.is_empty() {
            pad(nest, &mut inner_body, &guards);
            guards.clear();
        }
        let inner_loop = Loop { guards, cut, ..Loop::new(inner, Dim::Fixed(by), inner_body) };
        let tiles = Dim::Fixed(extent.div_euclid(by) + i64::from(extent % by != 0));
        let body = vec![Stmt::Loop(inner_loop)];
        Ok(Stmt::Loop(Loop { guards: outer_guards, ..Loop::new(outer, tiles, body) }))
    });
    nest.body = body;
    result
}

fn checked_extent(l: &Loop, name: &str, by: i64) -> Result<i64, Refusal> {
    let axis = || name.to_string();
    if l.mode != Mode::Serial {
        return Err(Refusal::HasMode { axis: axis(), mode: mode_name(l.mode) });
    }
    if l.lo != 0 {
        return Err(Refusal::Start { axis: axis() });
    }
    let Some(extent) = l.trip_count() else { return Err(Refusal::BatchLength { axis: axis() }) };
    if by < 1 || by > extent {
        return Err(Refusal::TileSize { by: by as u32, extent });
    }
    Ok(extent)
}

/// Whether the guard on a tile's first element says more than the range of the tile loop does.
fn beyond_range(guard: &Guard, outer: convgen_ir::nest::AxisId, extent: i64, by: i64) -> bool {
    let own = Guard::Below(Affine::term(outer, by), extent);
    *guard != own
}

/// Makes iterations beyond the guards harmless.
fn pad(nest: &Nest, block: &mut Vec<Stmt>, guards: &[Guard]) {
    pad_loads(nest, block, |access| {
        let axes = guards.iter().flat_map(|g| g.sum().terms());
        axes.into_iter().any(|(axis, _)| access.index.iter().any(|index| index.mentions(*axis)))
    });
    guard_stores(nest, block, guards);
}

/// Turns plain loads of the caller's data into `pad` loads where the predicate holds.
pub(super) fn pad_loads(
    nest: &Nest,
    block: &mut [Stmt],
    affected: impl Fn(&convgen_ir::nest::Access) -> bool,
) {
    visit_exprs_mut(block, &mut |expr| {
        if let Expr::Load(access) = expr
            && is_callers(nest.buffer(access.buffer).role)
            && affected(access)
        {
            *expr = Expr::Pad(PaddingMode::Zeros, access.clone());
        }
    });
}

fn is_callers(role: Role) -> bool {
    match role {
        Role::Input
        | Role::Gradient
        | Role::Weights
        | Role::Bias
        | Role::Scale
        | Role::Residual => true,
        Role::Output | Role::Packed | Role::Scratch | Role::Reg => false,
    }
}

fn guard_stores(nest: &Nest, block: &mut Vec<Stmt>, guards: &[Guard]) {
    for stmt in std::mem::take(block) {
        block.push(match stmt {
            Stmt::Loop(mut l) => {
                guard_stores(nest, &mut l.body, guards);
                Stmt::Loop(l)
            }
            Stmt::If(conditions, mut body) => {
                guard_stores(nest, &mut body, guards);
                Stmt::If(conditions, body)
            }
            Stmt::MicroKernel(mut body) => {
                guard_stores(nest, &mut body, guards);
                Stmt::MicroKernel(body)
            }
            Stmt::Store(dst, value) if nest.buffer(dst.buffer).role == Role::Output => {
                Stmt::If(guards.to_vec(), vec![Stmt::Store(dst, value)])
            }
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => stmt,
        });
    }
}
