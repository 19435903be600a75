//! How often loops and branches run, on the average, guards included.

use convgen_ir::nest::{Affine, AxisId, Guard};

/// Points of the loops that guards mention which are looked at to tell how many satisfy them.
const MOST_POINTS: i64 = 1024;

/// The ranges of the loop variables in scope.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(Vec<(AxisId, i64, i64)>);

impl Ranges {
    /// Enters a loop over `lo..hi`.
    pub(super) fn enter(&mut self, axis: AxisId, lo: i64, hi: i64) {
        self.0.push((axis, lo, hi));
    }

    /// Leaves the loop entered last.
    pub(super) fn leave(&mut self) {
        self.0.pop();
    }

    fn of(&self, axis: AxisId) -> (i64, i64) {
        let found = self.0.iter().rev().find(|(a, _, _)| *a == axis);
        found.map_or((0, 1), |(_, lo, hi)| (*lo, (*hi).max(lo + 1)))
    }

    /// The part of the points at which all guards hold: counted, or sampled at a step that is
    /// coprime to powers of two.
    pub(super) fn fraction(&self, guards: &[Guard]) -> f64 {
        if guards.is_empty() {
            return 1.0;
        }
        let mut axes: Vec<AxisId> = guards
            .iter()
            .flat_map(|guard| guard.sum().terms().iter().map(|(axis, _)| *axis))
            .collect();
        axes.sort_unstable();
        axes.dedup();
        let ranges: Vec<(i64, i64)> = axes.iter().map(|axis| self.of(*axis)).collect();
        let points = ranges.iter().fold(1i64, |n, (lo, hi)| n.saturating_mul(hi - lo));
        let step = (points / MOST_POINTS).max(1) | 1;
        let (mut seen, mut held) = (0u32, 0u32);
        let mut values = vec![0; axes.len()];
        for point in (0..points).step_by(step as usize) {
            let mut rest = point;
            for (value, (lo, hi)) in values.iter_mut().zip(&ranges).rev() {
                *value = lo + rest % (hi - lo);
                rest /= hi - lo;
            }
            let at = |sum: &Affine| {
                let terms = sum.terms().iter();
                let place = |axis| axes.binary_search(axis).map_or(0, |i| values[i]);
                terms.fold(sum.constant, |sum, (axis, c)| sum + c * place(axis))
            };
            seen += 1;
            held += u32::from(guards.iter().all(|guard| guard.holds(at(guard.sum()))));
        }
        f64::from(held) / f64::from(seen.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_counted() {
        let mut ranges = Ranges::default();
        ranges.enter(AxisId(0), 0, 5);
        ranges.enter(AxisId(1), 0, 4);
        let sum = Affine::from_terms(0, [(AxisId(0), 4), (AxisId(1), 1)]);
        assert_eq!(ranges.fraction(&[]), 1.0);
        assert_eq!(ranges.fraction(&[Guard::Below(sum.clone(), 18)]), 0.9);
        assert_eq!(ranges.fraction(&[Guard::AtLeast(sum, 18)]), 0.1);
    }
}
