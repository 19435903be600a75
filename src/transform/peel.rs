//! `peel a`
//!
//! ```text
//! for a in 0..E { S }  ->  for a in 0..1 { S }; for a in 1..x { S }; for a in x..x+1 { S }; ..
//! ```
//! where in the middle loop no index that `a` decides is outside, and each iteration before and
//! after it is a loop of its own: there `a` is a number, so that unrolled code knows which of its
//! loads are padding. No bit changes: where the loop is a reduction, one sum goes on from loop to
//! loop.
//!
//! Precondition: the loop is serial and of known length; padding inside it is zeros; some padded
//! load has an index made of `a` and of loops inside alone, which is outside in some iterations,
//! but not in too many.

use convgen_ir::nest::{Access, AxisId, Dim, Loop, Mode, Nest, Stmt, visit_pads};

use super::{Refusal, axis_with_loop, expect_zeros, mode_name, span};

/// Loops that one loop may become: each is code of its own.
pub(crate) const MAX_PARTS: i64 = 8;

pub(super) fn apply(nest: &mut Nest, name: &str) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, name)?;
    expect_zeros(nest, axis, name)?;
    let body = std::mem::take(&mut nest.body);
    let mut peeled = 0;
    let result = block(nest, body, axis, name, &mut peeled);
    nest.body = result?;
    if peeled == 0 { Err(Refusal::NoPadding { axis: name.to_string() }) } else { Ok(()) }
}

/// The block with every loop over the axis in parts.
fn block(
    nest: &Nest,
    stmts: Vec<Stmt>,
    axis: AxisId,
    name: &str,
    peeled: &mut usize,
) -> Result<Vec<Stmt>, Refusal> {
    let mut result = Vec::new();
    for stmt in stmts {
        match stmt {
            Stmt::Loop(l) if l.axis == axis => {
                let parts = parts(nest, l, name)?;
                *peeled += usize::from(parts.len() > 1);
                result.extend(parts.into_iter().map(Stmt::Loop));
            }
            Stmt::Loop(mut l) => {
                l.body = block(nest, l.body, axis, name, peeled)?;
                result.push(Stmt::Loop(l));
            }
            Stmt::If(guards, body) => {
                result.push(Stmt::If(guards, block(nest, body, axis, name, peeled)?));
            }
            Stmt::MicroKernel(body) => {
                result.push(Stmt::MicroKernel(block(nest, body, axis, name, peeled)?));
            }
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => result.push(stmt),
        }
    }
    Ok(result)
}

fn parts(nest: &Nest, l: Loop, name: &str) -> Result<Vec<Loop>, Refusal> {
    let axis = || name.to_string();
    if l.mode != Mode::Serial {
        return Err(Refusal::HasMode { axis: axis(), mode: mode_name(l.mode) });
    }
    let Some(hi) = l.hi.fixed() else { return Err(Refusal::BatchLength { axis: axis() }) };
    let mut interior = Interior { axis: l.axis, first: l.lo, end: hi };
    interior.visit(nest, &l.body, &mut vec![]);
    let first = interior.first.clamp(l.lo, hi);
    let end = interior.end.clamp(first, hi);
    let (borders, middle) = ((first - l.lo) + (hi - end), i64::from(first < end));
    if borders + middle > MAX_PARTS {
        return Err(Refusal::Parts { axis: axis(), given: borders + middle, limit: MAX_PARTS });
    }
    let part = |lo: i64, hi: i64| Loop { lo, hi: Dim::Fixed(hi), ..l.clone() };
    let single = |at: i64| part(at, at + 1);
    let middle = (first < end).then(|| part(first, end));
    Ok((l.lo..first).map(single).chain(middle).chain((end..hi).map(single)).collect())
}

/// The iterations in which every index that the axis decides is inside.
struct Interior {
    axis: AxisId,
    first: i64,
    end: i64,
}

impl Interior {
    fn visit<'n>(&mut self, nest: &Nest, block: &'n [Stmt], inner: &mut Vec<&'n Loop>) {
        for stmt in block {
            match stmt {
                Stmt::Loop(l) => {
                    inner.push(l);
                    self.visit(nest, &l.body, inner);
                    inner.pop();
                }
                Stmt::If(_, body) | Stmt::MicroKernel(body) => self.visit(nest, body, inner),
                Stmt::Declare(_) => {}
                Stmt::Let(..) | Stmt::Store(..) => {
                    visit_pads(std::slice::from_ref(stmt), &mut |_, access| {
                        self.access(nest, access, inner);
                    });
                }
            }
        }
    }

    fn access(&mut self, nest: &Nest, access: &Access, inner: &[&Loop]) {
        for (index, dim) in access.index.iter().zip(&nest.buffer(access.buffer).shape) {
            let step = index.coefficient(self.axis);
            let decided = index
                .terms()
                .iter()
                .all(|(axis, _)| *axis == self.axis || inner.iter().any(|l| l.axis == *axis));
            let (Dim::Fixed(extent), true) = (dim, step > 0 && decided) else { continue };
            let (lo, hi) = span(&index.without(self.axis), inner);
            let (lo, hi) = (lo + index.constant, hi + index.constant);
            self.first = self.first.max((step - 1 - lo).div_euclid(step));
            self.end = self.end.min((extent - 1 - hi).div_euclid(step) + 1);
        }
    }
}
