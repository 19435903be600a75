//! `rfactor q`
//!
//! ```text
//! reg acc; acc = I; for r { for q in 0..Q { acc = fma(a, b, acc) } }; F(acc)
//! ->
//! reg acc[Q]; for q in 0..Q { acc[q] = 0 }
//! for r { for q in 0..Q { acc[q] = fma(a, b, acc[q]) } }
//! let sum = I + acc[0] + acc[1] + ..; F(sum)
//! ```
//! Every iteration of `q` adds up a sum of its own, so its loop becomes a spatial one, whose
//! iterations may be lanes: few output channels fill a vector together with a few input channels.
//! The sums are added from left to right, after `I` unless that is zero. As where reductions are
//! reordered, bits change.
//!
//! Precondition: `q` is a serial loop without guards, from zero, of known length, at most 16, and
//! the innermost of a sum of products that begins with one value and is not in a tile yet.

use convgen_ir::nest::{
    Access, Affine, AxisId, AxisKind, BinaryOp, BufferId, Dim, Expr, LocalId, Loop, Mode, Nest,
    Scalar, Stmt, visit_exprs_mut,
};

use super::accumulate::Parts;
use super::{Refusal, mode_name, reduction_axis};

/// Sums that one becomes at most: the lanes of the widest vector.
const MOST_SUMS: i64 = 16;

pub(super) fn apply(nest: &mut Nest, name: &str) -> Result<(), Refusal> {
    let axis = reduction_axis(nest, name)?;
    let mut rewrite = Rewrite { name, axis, found: None };
    let body = std::mem::take(&mut nest.body);
    nest.body = rewrite.block(nest, &body)?;
    let Some((acc, sums)) = rewrite.found else { return Err(rewrite.no_sum()) };
    nest.buffer_mut(acc).shape = vec![Dim::Fixed(sums)];
    nest.axes[axis.0 as usize].kind = AxisKind::Spatial;
    Ok(())
}

struct Rewrite<'a> {
    name: &'a str,
    axis: AxisId,
    /// What holds the sum, and how many sums it becomes.
    found: Option<(BufferId, i64)>,
}

impl Rewrite<'_> {
    fn no_sum(&self) -> Refusal {
        Refusal::NoSum { axis: self.name.to_string() }
    }

    fn block(&mut self, nest: &mut Nest, block: &[Stmt]) -> Result<Vec<Stmt>, Refusal> {
        let mut result = Vec::with_capacity(block.len());
        for (i, stmt) in block.iter().enumerate() {
            let sum = Parts::of(nest, &block[i..]).filter(|parts| self.is_in(parts.reduce));
            if let Some(parts) = sum {
                result.extend(self.leaf(nest, &parts)?);
                return Ok(result);
            }
            result.push(match stmt {
                Stmt::Loop(l) if l.axis == self.axis => return Err(self.no_sum()),
                Stmt::Loop(l) => Stmt::Loop(l.with_body(self.block(nest, &l.body)?)),
                Stmt::If(guards, body) => Stmt::If(guards.clone(), self.block(nest, body)?),
                Stmt::MicroKernel(body) => Stmt::MicroKernel(self.block(nest, body)?),
                Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => stmt.clone(),
            });
        }
        Ok(result)
    }

    /// Whether the loop is one of those of a reduction.
    fn is_in(&self, reduce: &Loop) -> bool {
        reduce.axis == self.axis
            || matches!(reduce.body.as_slice(), [Stmt::Loop(inner)] if self.is_in(inner))
    }

    fn leaf(&mut self, nest: &mut Nest, parts: &Parts) -> Result<Vec<Stmt>, Refusal> {
        let acc = parts.acc;
        let whole = Access { buffer: acc, index: vec![] };
        let [Stmt::Store(begun, start)] = parts.init else { return Err(self.no_sum()) };
        if *begun != whole {
            return Err(self.no_sum());
        }
        let own = Access { buffer: acc, index: vec![Affine::axis(self.axis)] };
        let (reduce, sums) = self.reduction(parts.reduce, &whole, &own)?;
        match self.found {
            Some(found) if found != (acc, sums) => return Err(self.no_sum()),
            Some(_) | None => self.found = Some((acc, sums)),
        }
        let begin = vec![Stmt::Store(own, Expr::f32(0.0))];
        let sum = nest.add_local(nest.new_local_name("sum"));
        let mut finish = parts.finish.to_vec();
        let mut read = false;
        visit_exprs_mut(&mut finish, &mut |expr| {
            if matches!(expr, Expr::Load(access) if *access == whole) {
                *expr = Expr::Local(sum);
                read = true;
            }
        });
        let mut leaf = vec![
            Stmt::Declare(acc),
            Stmt::Loop(Loop::new(self.axis, Dim::Fixed(sums), begin)),
            Stmt::Loop(reduce),
        ];
        leaf.extend(read.then(|| total(sum, start, acc, sums)));
        leaf.extend(finish);
        Ok(leaf)
    }

    /// The loops of the sum, each iteration of the innermost with its own, and how many these are.
    fn reduction(&self, l: &Loop, whole: &Access, own: &Access) -> Result<(Loop, i64), Refusal> {
        if l.axis != self.axis {
            let [Stmt::Loop(inner)] = l.body.as_slice() else { return Err(self.no_sum()) };
            let (inner, sums) = self.reduction(inner, whole, own)?;
            return Ok((l.with_body(vec![Stmt::Loop(inner)]), sums));
        }
        let axis = || self.name.to_string();
        if l.mode != Mode::Serial {
            return Err(Refusal::HasMode { axis: axis(), mode: mode_name(l.mode) });
        }
        if l.lo != 0 {
            return Err(Refusal::Start { axis: axis() });
        }
        if !l.guards.is_empty() {
            return Err(Refusal::Guarded { axis: axis() });
        }
        let Some(sums) = l.trip_count() else {
            return Err(Refusal::BatchLength { axis: axis() });
        };
        if !(1..=MOST_SUMS).contains(&sums) {
            return Err(Refusal::Parts { axis: axis(), given: sums, limit: MOST_SUMS });
        }
        let [Stmt::Store(to, Expr::Fma(a, b, before))] = l.body.as_slice() else {
            return Err(self.no_sum());
        };
        if to != whole || **before != Expr::Load(whole.clone()) {
            return Err(self.no_sum());
        }
        let value = Expr::Fma(a.clone(), b.clone(), Box::new(Expr::Load(own.clone())));
        Ok((l.with_body(vec![Stmt::Store(own.clone(), value)]), sums))
    }
}

/// The value that the sums begin with and all of them, from left to right.
fn total(sum: LocalId, start: &Expr, acc: BufferId, sums: i64) -> Stmt {
    let parts = (0..sums)
        .map(|number| Expr::Load(Access { buffer: acc, index: vec![Affine::constant(number)] }));
    let is_zero = *start == Expr::Const(Scalar::F32(0.0));
    let start = (!is_zero).then(|| start.clone());
    let added = start.into_iter().chain(parts).reduce(|a, b| Expr::binary(BinaryOp::Add, a, b));
    Stmt::Let(sum, added.unwrap_or_else(|| Expr::f32(0.0)))
}
