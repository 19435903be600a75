//! What is known about loop variables at a point of the nest, and what follows from it.
//!
//! Promises soundness only: a proof found here holds for every iteration; a true fact may go
//! unproved. Arithmetic is exact: in 128 bits, and what does not fit these has no bounds.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::nest::{Affine, AxisId, Dim, Guard, Loop};

/// The ranges of the variables in scope and the guards that hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    ranges: Vec<(AxisId, Range)>,
    guards: Vec<Guard>,
}

/// The values a variable takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// From the first to the last, both included.
    Known(i64, i64),
    /// `0..N`.
    Batch,
}

/// How far a sum goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The smallest value.
    pub lo: i128,
    /// The largest value.
    pub hi: i128,
    /// The largest absolute value that any of its numbers, or of the sums of some of its terms, can
    /// have: what carries out the sum term by term needs integers of that size.
    pub reach: i128,
}

impl Context {
    /// Enters a loop: its variable is in range and its guards hold.
    pub fn enter(&mut self, l: &Loop) {
        let range = match l.hi {
            Dim::Fixed(hi) => Range::Known(l.lo, hi.saturating_sub(1)),
            Dim::Batch => Range::Batch,
        };
        self.ranges.push((l.axis, range));
        self.assume(&l.guards);
    }

    /// Leaves the loop that was entered last, if it has no guards: these cannot be taken back.
    pub fn leave(&mut self) {
        self.ranges.pop();
    }

    /// Enters a block that runs only if the guards hold.
    pub fn assume(&mut self, guards: &[Guard]) {
        for guard in guards {
            self.tighten(guard);
            self.guards.push(guard.clone());
        }
    }

    /// Narrows the range of a variable that a guard bounds alone.
    fn tighten(&mut self, guard: &Guard) {
        let [(axis, coefficient)] = guard.sum().terms() else { return };
        if *coefficient <= 0 || guard.sum().overflows() {
            return;
        }
        for (a, range) in &mut self.ranges {
            if let (true, Range::Known(lo, hi)) = (a == axis, &mut *range) {
                match guard {
                    Guard::Below(sum, limit) => {
                        *hi = (*hi).min(last_below(*limit, sum.constant, *coefficient));
                    }
                    Guard::AtLeast(sum, limit) => {
                        *lo = (*lo).max(first_at_least(*limit, sum.constant, *coefficient));
                    }
                }
            }
        }
    }

    /// The number of conditions that hold: what a proof may look at.
    pub fn conditions(&self) -> usize {
        self.guards.len()
    }

    /// The range of a variable in scope.
    pub fn range(&self, axis: AxisId) -> Option<Range> {
        self.ranges.iter().rev().find(|(a, _)| *a == axis).map(|(_, range)| *range)
    }

    /// The variables in scope, outermost first.
    pub fn axes(&self) -> impl Iterator<Item = AxisId> + '_ {
        self.ranges.iter().map(|(axis, _)| *axis)
    }

    /// The smallest and largest value of a sum, guards aside; none if it depends on the batch, or
    /// overflows.
    pub fn interval(&self, sum: &Affine) -> Option<(i128, i128)> {
        self.extent(sum).map(|extent| (extent.lo, extent.hi))
    }

    /// How far a sum goes, guards aside. None as for [`interval`](Context::interval).
    pub fn extent(&self, sum: &Affine) -> Option<Extent> {
        let constant = i128::from(sum.constant);
        let mut extent = Extent { lo: constant, hi: constant, reach: constant.abs() };
        for (axis, coefficient) in sum.terms() {
            let [first, last] = self.term_ends(*axis, *coefficient)?;
            extent.lo = extent.lo.checked_add(first.min(last))?;
            extent.hi = extent.hi.checked_add(first.max(last))?;
            let most = i128::from(*coefficient).abs().max(first.abs()).max(last.abs());
            extent.reach = extent.reach.checked_add(most)?;
        }
        (!sum.overflows()).then_some(extent)
    }

    /// A term at the first and at the last value of its variable.
    fn term_ends(&self, axis: AxisId, coefficient: i64) -> Option<[i128; 2]> {
        let Some(Range::Known(lo, hi)) = self.range(axis) else { return None };
        let end = |end: i64| i128::from(end).checked_mul(coefficient.into());
        Some([end(lo)?, end(hi)?])
    }

    /// An upper bound of a sum, guards included.
    pub fn upper(&self, sum: &Affine) -> Option<i128> {
        let plain = self.interval(sum).map(|(_, hi)| hi);
        let guarded = self.guards.iter().flat_map(|guard| match guard {
            Guard::Below(g, limit) => {
                self.bounds_by(sum, g, i128::from(*limit).saturating_sub(1), false)
            }
            Guard::AtLeast(..) => vec![],
        });
        plain.into_iter().chain(guarded).min()
    }

    /// A lower bound of a sum, guards included.
    pub fn lower(&self, sum: &Affine) -> Option<i128> {
        let plain = self.interval(sum).map(|(lo, _)| lo);
        let guarded = self.guards.iter().flat_map(|guard| match guard {
            Guard::AtLeast(g, limit) => self.bounds_by(sum, g, i128::from(*limit), true),
            Guard::Below(..) => vec![],
        });
        plain.into_iter().chain(guarded).max()
    }

    /// Bounds of a sum `k*g + rest` where `g` is known to be at least (`lower`) or at most `end`:
    /// one for each positive factor `k` by which some variable occurs more often in the sum than in
    /// `g`.
    fn bounds_by(&self, sum: &Affine, g: &Affine, end: i128, lower: bool) -> Vec<i128> {
        let mut factors: Vec<i64> = g
            .terms()
            .iter()
            .map(|(axis, c)| (sum.coefficient(*axis), *c))
            .filter(|(in_sum, in_g)| in_sum.checked_rem(*in_g) == Some(0))
            .filter_map(|(in_sum, in_g)| in_sum.checked_div(in_g))
            .filter(|factor| *factor > 0)
            .collect();
        factors.dedup();
        let bound = |k: i64| {
            let (lo, hi) = self.interval(&(sum - &g.scaled(k)))?;
            i128::from(k).checked_mul(end)?.checked_add(if lower { lo } else { hi })
        };
        factors.into_iter().filter_map(bound).collect()
    }

    /// Whether the guard holds wherever this point is reached.
    pub fn always(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Below(sum, limit) => self.upper(sum).is_some_and(|hi| hi < i128::from(*limit)),
            Guard::AtLeast(sum, limit) => {
                self.lower(sum).is_some_and(|lo| lo >= i128::from(*limit))
            }
        }
    }

    /// Whether this point can be shown never to be reached with the guard holding.
    pub fn never(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Below(sum, limit) => self.lower(sum).is_some_and(|lo| lo >= i128::from(*limit)),
            Guard::AtLeast(sum, limit) => self.upper(sum).is_some_and(|hi| hi < i128::from(*limit)),
        }
    }

    /// Whether an index provably lies in a dimension.
    pub fn inside(&self, index: &Affine, dim: Dim) -> bool {
        match dim {
            Dim::Fixed(extent) => {
                self.lower(index).is_some_and(|lo| lo >= 0)
                    && self.upper(index).is_some_and(|hi| hi < i128::from(extent))
            }
            // Only the batch variable itself is known to be below N.
            Dim::Batch => {
                index.as_axis().is_some_and(|axis| self.range(axis) == Some(Range::Batch))
            }
        }
    }
}

/// The largest `v` for which `coefficient*v + constant < limit`, the coefficient being positive;
/// the nearest `i64`.
fn last_below(limit: i64, constant: i64, coefficient: i64) -> i64 {
    let room = i128::from(limit).saturating_sub(constant.into()).saturating_sub(1);
    nearest(room.div_euclid(coefficient.into()))
}

/// The least `v` for which `coefficient*v + constant >= limit`, the coefficient being positive; the
/// nearest `i64`.
fn first_at_least(limit: i64, constant: i64, coefficient: i64) -> i64 {
    let excess = i128::from(constant).saturating_sub(limit.into());
    nearest(excess.div_euclid(coefficient.into()).saturating_neg())
}

/// Of an integer beyond 64 bits, the nearest that has these.
fn nearest(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loop_over(axis: AxisId, lo: i64, hi: i64) -> Loop {
        Loop { lo, ..Loop::new(axis, Dim::Fixed(hi), vec![]) }
    }

    /// A wrapped limit would widen the range, a saturated product would prove what is not so.
    #[test]
    fn numbers_at_the_ends_of_their_type_prove_nothing_wrong() {
        let axis = AxisId(0);
        let mut context = Context::default();
        context.enter(&loop_over(axis, -5, 5));
        let shifted = |constant: i64| Affine::from_terms(constant, [(axis, 1)]);
        for (constant, limit) in [(i64::MAX, i64::MIN), (i64::MIN, i64::MAX), (1, i64::MIN)] {
            let mut narrowed = context.clone();
            narrowed.assume(&[Guard::Below(shifted(constant), limit)]);
            narrowed.assume(&[Guard::AtLeast(shifted(limit), constant)]);
            let holds = |v: i64| {
                let sum = i128::from(v) + i128::from(constant);
                let other = i128::from(v) + i128::from(limit);
                sum < i128::from(limit) && other >= i128::from(constant)
            };
            let Some(Range::Known(lo, hi)) = narrowed.range(axis) else { panic!("in scope") };
            assert!((-5..5).all(|v| !holds(v) || (lo..=hi).contains(&v)), "{constant} {limit}");
        }
        let big = Affine::term(axis, i64::MAX);
        assert_eq!(context.interval(&big.scaled(2)), None);
        assert_eq!(context.interval(&(&big.scaled(2) - &big.scaled(2))), None);
        let reach = context.extent(&big).map(|extent| extent.reach);
        assert_eq!(reach, Some(5 * i128::from(i64::MAX)));
    }
}
