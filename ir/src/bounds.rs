//! What is known about loop variables at a point of the nest, and what follows from it.
//!
//! Promises soundness only: a proof found here holds for every iteration; a true fact may go
//! unproved. Sums are evaluated in 128 bits, so nothing overflows.

use crate::nest::{Affine, AxisId, Dim, Guard, Loop};

/// The ranges of the variables in scope and the guards that hold.
#[derive(Clone, Debug, Default)]
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

impl Context {
    /// Enters a loop: its variable is in range and its guards hold.
    pub fn enter(&mut self, l: &Loop) {
        let range = match l.hi {
            Dim::Fixed(hi) => Range::Known(l.lo, hi - 1),
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
        let (axis, coefficient, constant) = (*axis, *coefficient, guard.sum().constant);
        if coefficient <= 0 {
            return;
        }
        for (a, range) in &mut self.ranges {
            if let (true, Range::Known(lo, hi)) = (*a == axis, &mut *range) {
                match guard {
                    Guard::Below(_, limit) => {
                        *hi = (*hi).min((limit - 1 - constant).div_euclid(coefficient));
                    }
                    Guard::AtLeast(_, limit) => {
                        *lo = (*lo).max(-(constant - limit).div_euclid(coefficient));
                    }
                }
            }
        }
    }

    /// The range of a variable in scope.
    pub fn range(&self, axis: AxisId) -> Option<Range> {
        self.ranges.iter().rev().find(|(a, _)| *a == axis).map(|(_, range)| *range)
    }

    /// The variables in scope, outermost first.
    pub fn axes(&self) -> impl Iterator<Item = AxisId> + '_ {
        self.ranges.iter().map(|(axis, _)| *axis)
    }

    /// The smallest and largest value of a sum, guards aside; none if it depends on the batch.
    pub fn interval(&self, sum: &Affine) -> Option<(i128, i128)> {
        let mut interval = (i128::from(sum.constant), i128::from(sum.constant));
        for (axis, coefficient) in sum.terms() {
            let Some(Range::Known(lo, hi)) = self.range(*axis) else { return None };
            let ends = [lo, hi].map(|end| i128::from(end) * i128::from(*coefficient));
            interval.0 += ends[0].min(ends[1]);
            interval.1 += ends[0].max(ends[1]);
        }
        Some(interval)
    }

    /// An upper bound of a sum, guards included.
    pub fn upper(&self, sum: &Affine) -> Option<i128> {
        let plain = self.interval(sum).map(|(_, hi)| hi);
        let guarded = self.guards.iter().flat_map(|guard| match guard {
            Guard::Below(g, limit) => self.bounds_by(sum, g, i128::from(*limit) - 1, false),
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

    /// Bounds of a sum `k*g + rest` where `g` is known to be at least (`lower`) or at most `end`: one
    /// for each positive factor `k` by which some variable occurs more often in the sum than in `g`.
    fn bounds_by(&self, sum: &Affine, g: &Affine, end: i128, lower: bool) -> Vec<i128> {
        let mut factors: Vec<i64> = g
            .terms()
            .iter()
            .map(|(axis, c)| (sum.coefficient(*axis), *c))
            .filter(|(in_sum, in_g)| in_sum % in_g == 0 && in_sum / in_g > 0)
            .map(|(in_sum, in_g)| in_sum / in_g)
            .collect();
        factors.dedup();
        let bound = |k: i64| {
            let (lo, hi) = self.interval(&(sum - &g.scaled(k)))?;
            Some(i128::from(k) * end + if lower { lo } else { hi })
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
