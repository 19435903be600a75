//! Sums of loop variables that the passes make of others: exact, or none. A rewrite that would need
//! a number beyond 64 bits is not carried out; whether the nest is legal is the verifier's
//! business.

use convgen_ir::nest::{Affine, AxisId};
use smallvec::SmallVec;

/// `a * factor + b`
pub(super) fn scaled_plus(a: &Affine, factor: i64, b: &Affine) -> Option<Affine> {
    let constant = a.constant.checked_mul(factor)?.checked_add(b.constant)?;
    let scaled = a.terms().iter().map(|(axis, c)| Some((*axis, c.checked_mul(factor)?)));
    let mut terms: SmallVec<[(AxisId, i64); 6]> = scaled.collect::<Option<_>>()?;
    for (axis, coefficient) in b.terms() {
        match terms.iter_mut().find(|(other, _)| other == axis) {
            Some((_, sum)) => *sum = sum.checked_add(*coefficient)?,
            None => terms.push((*axis, *coefficient)),
        }
    }
    Some(Affine::from_terms(constant, terms))
}

/// A sum with a variable replaced by another sum.
pub(super) fn substituted(sum: &Affine, axis: AxisId, with: &Affine) -> Option<Affine> {
    scaled_plus(with, sum.coefficient(axis), &sum.without(axis))
}
