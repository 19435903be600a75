//! Makes vectors of loops that copy or clear neighbouring elements of scratch.
//!
//! ```text
//! for w in 0..229 { for c in 0..3 { rows[h,w,c] = 0.0 } }
//! ->
//! for w in 0..687 { rows[h,w] = 0.0 }                   rows, and what it is a copy of, as [..,w*3+c]
//! ->
//! for w.o in 0..10 { vector w.i in 0..64 { rows[h,w.o*64+w.i] = 0.0 } }
//! vector w in 0..47 { rows[h,640+w] = 0.0 }
//! ```
//! Short last dimensions are joined with those before them, in scratch that is copied from the
//! input, and in the input itself, also where it is fetched; where loops then walk over the joined
//! dimension, they are one. A dimension of an input that is loaded as padding keeps its bounds, so
//! it is not joined. No bit changes.

use std::collections::BTreeSet;

use convgen_ir::bounds::Context;
use convgen_ir::nest::{
    Access, Affine, AxisId, AxisKind, BufferId, Dim, Expr, Loop, Mode, Nest, Role, Stmt,
    map_affines, visit_accesses, visit_accesses_mut, visit_exprs, visit_loops, visit_loops_mut,
};

use super::sums;

/// Elements that one vector loop copies: some registers at any width.
const STRIP: i64 = 64;

/// Elements of the last dimension from which on it is long enough by itself.
const LONG: i64 = 16;

pub(super) fn run(nest: &mut Nest) {
    for id in short_copies(nest) {
        join_last_dimensions(nest, id);
    }
    let mut body = std::mem::take(&mut nest.body);
    vectors(nest, &mut body);
    nest.body = body;
}

/// Scratch with a short last dimension that is copied from the input, and that input, if all their
/// dimensions before can be joined with it.
fn short_copies(nest: &Nest) -> BTreeSet<BufferId> {
    let mut found = BTreeSet::new();
    visit_loops(&nest.body, &mut |l| {
        if let [Stmt::Store(to, Expr::Load(from))] = l.body.as_slice()
            && is_whole_row(nest, l, to)
            && is_whole_row(nest, l, from)
            && nest.buffer(to.buffer).role == Role::Scratch
            && nest.buffer(from.buffer).role == Role::Input
        {
            found.extend([to.buffer, from.buffer]);
        }
    });
    let mut strays = BTreeSet::new();
    leave_rows(nest, &nest.body, &Context::default(), &mut strays);
    if found.is_disjoint(&strays) { found } else { BTreeSet::new() }
}

/// Buffers with an access that is padding, or whose last index is not proved to be inside: joined
/// with the dimension before, it would be another element.
fn leave_rows(nest: &Nest, block: &[Stmt], context: &Context, found: &mut BTreeSet<BufferId>) {
    for stmt in block {
        match stmt {
            Stmt::Loop(l) => {
                let mut inside = context.clone();
                inside.enter(l);
                leave_rows(nest, &l.body, &inside, found);
            }
            Stmt::If(guards, body) => {
                let mut inside = context.clone();
                inside.assume(guards);
                leave_rows(nest, body, &inside, found);
            }
            Stmt::MicroKernel(body) => leave_rows(nest, body, context, found),
            Stmt::Declare(_) => {}
            Stmt::Let(..) | Stmt::Store(..) => {
                let stmt = std::slice::from_ref(stmt);
                visit_accesses(stmt, &mut |access, _| {
                    let shape = &nest.buffer(access.buffer).shape;
                    let last = access.index.last().zip(shape.last());
                    if last.is_none_or(|(index, dim)| !context.inside(index, *dim)) {
                        found.insert(access.buffer);
                    }
                });
                visit_exprs(stmt, &mut |expr| {
                    if let Expr::Pad(_, access) = expr {
                        found.insert(access.buffer);
                    }
                });
            }
        }
    }
}

/// Whether a loop walks over all of a short last dimension that has another before it.
fn is_whole_row(nest: &Nest, l: &Loop, access: &Access) -> bool {
    let shape = &nest.buffer(access.buffer).shape;
    let ([.., Dim::Fixed(_), Dim::Fixed(length)], Some(last)) = (&shape[..], access.index.last())
    else {
        return false;
    };
    let (whole, walked) = (Loop::new(l.axis, Dim::Fixed(*length), vec![]), Affine::axis(l.axis));
    *length < LONG && *last == walked && l.with_body(vec![]) == Loop { mode: l.mode, ..whole }
}

fn join_last_dimensions(nest: &mut Nest, id: BufferId) {
    let [.., Dim::Fixed(before), Dim::Fixed(length)] = nest.buffer(id).shape[..] else { return };
    let Some(both) = before.checked_mul(length) else { return };
    let mut body = nest.body.clone();
    let mut exact = true;
    let mut join = |access: &mut Access| {
        if access.buffer == id
            && let (Some(last), Some(before)) = (access.index.pop(), access.index.pop())
        {
            let index = sums::scaled_plus(&before, length, &last);
            exact &= index.is_some();
            access.index.extend(index);
        }
    };
    visit_accesses_mut(&mut body, &mut |access| join(access));
    visit_loops_mut(&mut body, &mut |l| {
        l.fetch.iter_mut().for_each(|fetch| join(&mut fetch.from));
    });
    if exact {
        nest.body = body;
        let shape = &mut nest.buffer_mut(id).shape;
        shape.truncate(shape.len().saturating_sub(2));
        shape.push(Dim::Fixed(both));
    }
}

fn vectors(nest: &mut Nest, block: &mut Vec<Stmt>) {
    let mut result = Vec::with_capacity(block.len());
    for stmt in std::mem::take(block) {
        match stmt {
            Stmt::Loop(l) => result.extend(loop_(nest, l)),
            Stmt::If(guards, mut body) => {
                vectors(nest, &mut body);
                result.push(Stmt::If(guards, body));
            }
            Stmt::MicroKernel(mut body) => {
                vectors(nest, &mut body);
                result.push(Stmt::MicroKernel(body));
            }
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => result.push(stmt),
        }
    }
    *block = result;
}

fn loop_(nest: &mut Nest, l: Loop) -> Vec<Stmt> {
    let mut l = joined(l);
    match strip_length(nest, &l).and_then(|length| strips(nest, &l, length)) {
        Some(strips) => strips,
        None => {
            vectors(nest, &mut l.body);
            vec![Stmt::Loop(l)]
        }
    }
}

/// Two loops that walk over neighbours as one.
fn joined(outer: Loop) -> Loop {
    let [Stmt::Loop(inner)] = outer.body.as_slice() else { return outer };
    let (Some(rows), Some(length)) = (plain_trips(&outer), plain_trips(inner)) else {
        return outer;
    };
    let [Stmt::Store(to, value)] = inner.body.as_slice() else { return outer };
    let mut sums: Vec<&Affine> = to.index.iter().collect();
    match value {
        Expr::Load(from) => sums.extend(&from.index),
        Expr::Const(_) => {}
        Expr::Pad(..)
        | Expr::Local(_)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Fma(..)
        | Expr::Select { .. } => return outer,
    }
    let even = |sum: &&Affine| {
        let along = sum.coefficient(inner.axis).checked_mul(length);
        along == Some(sum.coefficient(outer.axis))
    };
    let Some(both) = rows.checked_mul(length).filter(|_| sums.iter().all(even)) else {
        return outer;
    };
    let mut body = inner.body.clone();
    // The inner variable now counts all of them.
    map_affines(&mut body, &mut |sum| *sum = sum.without(outer.axis));
    let counted = Affine::axis(outer.axis);
    map_affines(&mut body, &mut |sum| *sum = sum.substitute(inner.axis, &counted));
    Loop::new(outer.axis, Dim::Fixed(both), body)
}

/// The length of a serial loop from zero without guards.
fn plain_trips(l: &Loop) -> Option<i64> {
    let plain = l.mode == Mode::Serial && l.lo == 0 && l.guards.is_empty();
    if plain { l.hi.fixed() } else { None }
}

/// The length of a loop that copies or clears neighbours in scratch, if it is worth vectors.
fn strip_length(nest: &Nest, l: &Loop) -> Option<i64> {
    let length = plain_trips(l).filter(|length| *length > 1)?;
    let [Stmt::Store(to, value)] = l.body.as_slice() else { return None };
    let scratch = nest.buffer(to.buffer).role == Role::Scratch;
    let neighbours = match value {
        Expr::Const(_) => true,
        Expr::Load(from) => are_neighbours(from, l.axis),
        Expr::Pad(..)
        | Expr::Local(_)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Fma(..)
        | Expr::Select { .. } => false,
    };
    (scratch && neighbours && are_neighbours(to, l.axis)).then_some(length)
}

fn are_neighbours(access: &Access, axis: AxisId) -> bool {
    let Some((last, others)) = access.index.split_last() else { return false };
    last.coefficient(axis) == 1 && !others.iter().any(|index| index.mentions(axis))
}

/// The loop as a loop over strips, and what is left over; none if a number exceeds 64 bits.
fn strips(nest: &mut Nest, l: &Loop, length: i64) -> Option<Vec<Stmt>> {
    let (whole, rest) = (length / STRIP, length % STRIP);
    let vector = |axis, extent, start: &Affine| {
        let mut body = l.body.clone();
        let place = sums::scaled_plus(start, 1, &Affine::axis(axis))?;
        let mut exact = true;
        map_affines(&mut body, &mut |sum| match sums::substituted(sum, l.axis, &place) {
            Some(moved) => *sum = moved,
            None => exact = false,
        });
        let strip = Loop { mode: Mode::Vector, ..Loop::new(axis, Dim::Fixed(extent), body) };
        exact.then_some(Stmt::Loop(strip))
    };
    let mut result = Vec::new();
    if whole > 0 {
        let name = nest.axis(l.axis).name.clone();
        let outer = nest.new_axis_name(&format!("{name}.o"));
        let outer = nest.add_axis(outer, AxisKind::Spatial);
        let inner = nest.new_axis_name(&format!("{name}.i"));
        let inner = nest.add_axis(inner, AxisKind::Spatial);
        let body = vec![vector(inner, STRIP, &Affine::term(outer, STRIP))?];
        result.push(Stmt::Loop(Loop::new(outer, Dim::Fixed(whole), body)));
    }
    if rest > 0 {
        let name = nest.axis(l.axis).name.clone();
        let axis = nest.new_axis_name(&format!("{name}.rest"));
        let axis = nest.add_axis(axis, AxisKind::Spatial);
        let done = Affine::constant(length.saturating_sub(rest));
        result.push(vector(axis, rest, &done)?);
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use convgen_ir::parse::parse_nest;
    use convgen_ir::verify::Limits;

    #[test]
    fn an_index_beyond_its_row_is_still_refused() {
        let nest = |index: &str| {
            let text = format!(
                "nest x {{
                   input f32[N,4,3]
                   output f32[N,1]
                   for n in 0..N {{
                     scratch rows f32[4,3]
                     for w in 0..4 {{ for c in 0..3 {{ rows[w,c] = input[n,w,c] }} }}
                     output[n,0] = rows[{index}]
                   }}
                 }}"
            );
            crate::lower::lower(parse_nest(&text).unwrap().0, &Limits::INTERPRETER)
        };
        assert!(nest("1,1").is_ok());
        assert!(nest("0,4").unwrap_err().to_string().contains("V4"));
    }
}
