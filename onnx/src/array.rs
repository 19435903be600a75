//! Small tensors whose elements are known: which elements an operation takes.

use super::scalar::Scalar;
use super::value::MAX_CONSTANT;

/// The steps in memory from an element to the next, of each axis.
pub(super) fn strides(shape: &[u64]) -> Vec<i64> {
    let mut strides = vec![1_i64; shape.len()];
    for axis in (1..shape.len()).rev() {
        let size = i64::try_from(shape[axis]).unwrap_or(i64::MAX);
        strides[axis - 1] = strides[axis].saturating_mul(size);
    }
    strides
}

/// The places of the elements of a shape, the last axis changing first, with these steps; nothing
/// if there are too many.
pub(super) fn places(shape: &[u64], steps: &[i64]) -> Option<Vec<i64>> {
    if shape.contains(&0) {
        return Some(Vec::new());
    }
    let mut all = vec![0_i64];
    for (size, step) in shape.iter().zip(steps) {
        if (all.len() as u64).checked_mul(*size)? > MAX_CONSTANT as u64 {
            return None;
        }
        let next = |place: &i64| {
            let place = *place;
            (0..*size as i64).map(move |k| place.saturating_add(k.saturating_mul(*step)))
        };
        all = all.iter().flat_map(next).collect();
    }
    Some(all)
}

/// The elements at places that are counted from an offset.
pub(super) fn take(data: &[Scalar], offset: i64, places: &[i64]) -> Option<Vec<Scalar>> {
    let at = |place: &i64| data.get(usize::try_from(offset.checked_add(*place)?).ok()?).cloned();
    places.iter().map(at).collect()
}

/// The steps through a tensor that is repeated to fill a shape of more axes or larger ones.
pub(super) fn repeated(from: &[u64], rank: usize) -> Vec<i64> {
    let own = strides(from);
    let missing = rank.saturating_sub(from.len());
    let step = |axis: usize| match axis.checked_sub(missing) {
        Some(axis) if from[axis] != 1 => own[axis],
        Some(_) | None => 0,
    };
    (0..rank).map(step).collect()
}
