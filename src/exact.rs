//! Integers of the emitters: what fits is computed, what does not fit is said, nothing is cut.
//!
//! Rule V10 bounds every index, and the offset of a plain access, term by term. It does not bound
//! what is made of them here: an index that padding folds first times its stride, a limit minus a
//! sum. So there are two ways to write a sum into code. **Modulo 2^64**:
//! instructions that add and multiply wrap, so the parts that are known here may wrap too, and the
//! result is exact wherever the true one fits, as the indices, offsets and addresses do that are
//! reached. **Exactly**, where something is decided here by a part, or where the code divides or
//! compares one: then a number beyond 64 bits is `None`.

use smallvec::SmallVec;

use convgen_ir::bounds::Context;
use convgen_ir::elem::ElemType;
use convgen_ir::nest::{Access, Affine, AxisId, Guard};

/// Bytes of an element.
#[expect(clippy::cast_possible_wrap, reason = "an element has a few bytes")]
pub(crate) fn size_of(elem: ElemType) -> i64 {
    elem.bytes() as i64
}

/// Bytes of so many elements, modulo 2^64.
pub(crate) fn bytes(elements: i64, elem: ElemType) -> i64 {
    elements.wrapping_mul(size_of(elem))
}

/// The flat offset of an access in elements; none if a part of it exceeds 64 bits.
pub(crate) fn offset(access: &Access, strides: &[i64]) -> Option<Affine> {
    let mut exact = true;
    let offset = Offset::new(access, strides).sum(|part| {
        exact &= i64::try_from(part).is_ok();
        modulo(part)
    });
    exact.then_some(offset)
}

/// The flat offset of an access in elements, each part modulo 2^64.
pub(crate) fn offset_modulo(access: &Access, strides: &[i64]) -> Affine {
    Offset::new(access, strides).sum(modulo)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is the number modulo 2^64")]
fn modulo(number: i128) -> i64 {
    number as i64
}

/// A sum of products of 64 bits by a stride, of which V10 leaves 40: far from the ends of 128 bits.
struct Offset {
    constant: i128,
    terms: SmallVec<[(AxisId, i128); 6]>,
}

impl Offset {
    fn new(access: &Access, strides: &[i64]) -> Offset {
        let mut offset = Offset { constant: 0, terms: SmallVec::new() };
        for (index, stride) in access.index.iter().zip(strides) {
            let scaled = |number: i64| i128::from(number).wrapping_mul(i128::from(*stride));
            offset.constant = offset.constant.wrapping_add(scaled(index.constant));
            for (axis, coefficient) in index.terms() {
                match offset.terms.iter_mut().find(|(other, _)| other == axis) {
                    Some((_, sum)) => *sum = sum.wrapping_add(scaled(*coefficient)),
                    None => offset.terms.push((*axis, scaled(*coefficient))),
                }
            }
        }
        offset
    }

    fn sum(&self, mut part: impl FnMut(i128) -> i64) -> Affine {
        let constant = part(self.constant);
        Affine::from_terms(constant, self.terms.iter().map(|(axis, sum)| (*axis, part(*sum))))
    }
}

/// A number minus a sum; none if a part of it exceeds 64 bits.
pub(crate) fn minus(number: i64, sum: &Affine) -> Option<Affine> {
    let constant = number.checked_sub(sum.constant)?;
    let negated = sum.terms().iter().map(|(axis, c)| Some((*axis, c.checked_neg()?)));
    let terms: Option<SmallVec<[(AxisId, i64); 6]>> = negated.collect();
    Some(Affine::from_terms(constant, terms?))
}

/// Whether the code can compute a sum of known range without a wrap that matters: the result fits
/// 64 bits.
pub(crate) fn fits(sum: &Affine, known: &Context) -> bool {
    let ends = known.interval(sum);
    ends.is_some_and(|(lo, hi)| i64::try_from(lo).is_ok() && i64::try_from(hi).is_ok())
}

/// A guard `rest + step * v` of positive step as a bound of its loop's variable `v`: the first
/// value that reaches the limit is the numerator by the step, rounded up.
pub(crate) struct ExactBound {
    /// `limit - rest + step - 1`
    pub(crate) numerator: Affine,
    /// The coefficient of the variable.
    pub(crate) step: i64,
}

impl ExactBound {
    /// None where the step is not positive, or where 64 bits do not hold the numerator: such a
    /// guard is tested in each iteration.
    pub(crate) fn of(guard: &Guard, axis: AxisId, known: &Context) -> Option<ExactBound> {
        let (Guard::Below(sum, limit) | Guard::AtLeast(sum, limit)) = guard;
        let step = sum.coefficient(axis);
        if step <= 0 {
            return None;
        }
        let most = limit.checked_add(step.checked_sub(1)?)?;
        let numerator = minus(most, &sum.without(axis))?;
        fits(&numerator, known).then_some(ExactBound { numerator, step })
    }
}
