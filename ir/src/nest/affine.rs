//! Sums of loop variables, and the conditions on them.

use std::ops::{Add, Sub};

use smallvec::SmallVec;

use super::AxisId;

/// Most sums have few variables: no allocation for up to four.
type Terms = SmallVec<[(AxisId, i64); 4]>;

/// An integer that depends on loop variables: `constant + sum of coefficient * variable`.
///
/// Terms are sorted by axis and have no zero coefficients, so equal functions compare equal.
/// Arithmetic is exact or says that it is not: a sum that a number of more than 64 bits went into
/// [overflows](Affine::overflows), and so does every sum made of it. Such a sum has no bounds, and
/// the verifier refuses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affine {
    /// The part that depends on no variable.
    pub constant: i64,
    terms: Terms,
    overflows: bool,
}

impl Affine {
    /// A number.
    pub fn constant(constant: i64) -> Affine {
        Affine { constant, terms: Terms::new(), overflows: false }
    }

    /// A variable.
    pub fn axis(axis: AxisId) -> Affine {
        Affine::term(axis, 1)
    }

    /// A variable times a number.
    pub fn term(axis: AxisId, coefficient: i64) -> Affine {
        Affine::from_terms(0, [(axis, coefficient)])
    }

    /// A sum; coefficients of the same variable add up.
    pub fn from_terms(constant: i64, terms: impl IntoIterator<Item = (AxisId, i64)>) -> Affine {
        let mut terms: Terms = terms.into_iter().collect();
        let mut overflows = false;
        terms.sort_by_key(|(axis, _)| *axis);
        terms.dedup_by(|(axis, coefficient), (kept, sum)| {
            let same = axis == kept;
            if same {
                *sum = noting(sum.overflowing_add(*coefficient), &mut overflows);
            }
            same
        });
        terms.retain(|(_, coefficient)| *coefficient != 0);
        Affine { constant, terms, overflows }
    }

    /// Whether some number of it, or of a sum it was made of, does not fit 64 bits. Its numbers
    /// then mean nothing.
    pub fn overflows(&self) -> bool {
        self.overflows
    }

    /// `(variable, coefficient)`, sorted by variable, without zeros.
    pub fn terms(&self) -> &[(AxisId, i64)] {
        &self.terms
    }

    /// The coefficient of a variable, zero if it does not occur.
    pub fn coefficient(&self, axis: AxisId) -> i64 {
        self.terms.iter().find(|(a, _)| *a == axis).map_or(0, |(_, c)| *c)
    }

    /// Whether the variable occurs.
    pub fn mentions(&self, axis: AxisId) -> bool {
        self.coefficient(axis) != 0
    }

    /// The single variable with coefficient one and no constant, if that is all there is.
    pub fn as_axis(&self) -> Option<AxisId> {
        match (self.constant, self.terms.as_slice()) {
            (0, [(axis, 1)]) if !self.overflows => Some(*axis),
            _ => None,
        }
    }

    /// The number, if no variable occurs.
    pub fn as_constant(&self) -> Option<i64> {
        (self.terms.is_empty() && !self.overflows).then_some(self.constant)
    }

    /// This sum times a number.
    pub fn scaled(&self, factor: i64) -> Affine {
        let mut overflows = self.overflows;
        let mut times = |number: i64| noting(number.overflowing_mul(factor), &mut overflows);
        let constant = times(self.constant);
        let mut terms: Terms = self.terms.iter().map(|(a, c)| (*a, times(*c))).collect();
        terms.retain(|(_, coefficient)| *coefficient != 0);
        Affine { constant, terms, overflows }
    }

    /// This sum plus a number.
    pub fn plus(&self, constant: i64) -> Affine {
        let mut sum = self.clone();
        sum.constant = noting(self.constant.overflowing_add(constant), &mut sum.overflows);
        sum
    }

    /// This sum with a variable replaced by another sum.
    pub fn substitute(&self, axis: AxisId, with: &Affine) -> Affine {
        let coefficient = self.coefficient(axis);
        if coefficient == 0 {
            return self.clone();
        }
        &self.without(axis) + &with.scaled(coefficient)
    }

    /// This sum without the term of a variable.
    pub fn without(&self, axis: AxisId) -> Affine {
        Affine {
            constant: self.constant,
            terms: self.terms.iter().copied().filter(|(a, _)| *a != axis).collect(),
            overflows: self.overflows,
        }
    }

    /// The part made of the variables that satisfy the predicate, and of no constant.
    pub fn part(&self, mut keep: impl FnMut(AxisId) -> bool) -> Affine {
        Affine {
            constant: 0,
            terms: self.terms.iter().copied().filter(|(a, _)| keep(*a)).collect(),
            overflows: self.overflows,
        }
    }
}

/// The number, and a note if it was cut to 64 bits.
fn noting((number, overflowed): (i64, bool), overflows: &mut bool) -> i64 {
    *overflows |= overflowed;
    number
}

impl Add for &Affine {
    type Output = Affine;
    fn add(self, other: &Affine) -> Affine {
        let mut sum = self.plus(other.constant);
        sum.overflows |= other.overflows;
        for (axis, coefficient) in &other.terms {
            let place = sum.terms.iter().position(|(a, _)| a >= axis).unwrap_or(sum.terms.len());
            match sum.terms.get_mut(place) {
                Some((same, c)) if same == axis => {
                    *c = noting(c.overflowing_add(*coefficient), &mut sum.overflows);
                }
                Some(_) | None => sum.terms.insert(place, (*axis, *coefficient)),
            }
        }
        sum.terms.retain(|(_, coefficient)| *coefficient != 0);
        sum
    }
}

impl Sub for &Affine {
    type Output = Affine;
    fn sub(self, other: &Affine) -> Affine {
        self + &other.scaled(-1)
    }
}

/// A half-space: the condition under which an iteration runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// `sum < limit`
    Below(Affine, i64),
    /// `sum >= limit`
    AtLeast(Affine, i64),
}

impl Guard {
    /// The sum that is compared.
    pub fn sum(&self) -> &Affine {
        match self {
            Guard::Below(sum, _) | Guard::AtLeast(sum, _) => sum,
        }
    }

    /// The same condition on another sum.
    pub fn map(&self, f: impl FnOnce(&Affine) -> Affine) -> Guard {
        match self {
            Guard::Below(sum, limit) => Guard::Below(f(sum), *limit),
            Guard::AtLeast(sum, limit) => Guard::AtLeast(f(sum), *limit),
        }
    }

    /// Whether the condition holds for a value of the sum.
    pub fn holds(&self, value: i64) -> bool {
        match self {
            Guard::Below(_, limit) => value < *limit,
            Guard::AtLeast(_, limit) => value >= *limit,
        }
    }
}
