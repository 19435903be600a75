//! The matrices of minimal filtering, by the construction of Toom and Cook over exact rationals.
//!
//! For `m` outputs of `r` taps take `a = m + r - 1` points `p`, the last one infinity, and let
//! `M(x)` be the product of `x - p` over the finite ones, `M_i(x) = M(x) / (x - p_i)`,
//! `N_i = M_i(p_i)`. Then
//! ```text
//! y = A [ (G g) * (B d) ],    y_k = sum over j of d_(k+j) g_j,    0 <= k < m
//! ```
//! with `B` the coefficients of `M_i` (last row: of `M`), `G_ij = p_i^j / N_i` (last row: the last
//! tap) and `A_ki = p_i^k` (last column: the last output). Signs are moved from `G` to `B` so that
//! every scale of `G` is positive. All entries of `A` and `B` are dyadic: only `G` is rounded to
//! single precision.
//!
//! A sum of stride `s` is the sum of `s` dense ones, over every `s`-th tap and the inputs that
//! these meet: its points are those of its phases, side by side. Four outputs of three taps at
//! stride 2 take `(4 + 2 - 1) + (4 + 1 - 1) = 9` products instead of 12, in two dimensions 81
//! instead of 144.

use std::ops::{Add, Mul};

/// The finite points, in the order in which they are taken: small and in pairs of opposite signs,
/// whose rows share their sums. Zero costs no product at all.
const POINTS: [Rational; 7] = [
    Rational::new(0, 1),
    Rational::new(1, 1),
    Rational::new(-1, 1),
    Rational::new(2, 1),
    Rational::new(-2, 1),
    Rational::new(1, 2),
    Rational::new(-1, 2),
];

/// Points of one phase of an axis at most: more make the transforms' constants so unequal that half
/// of the digits are lost.
pub(super) const MAX_POINTS: u64 = POINTS.len() as u64 + 1;

/// Outputs of one tap at a stride of 1: nothing to transform.
fn identity(outputs: usize) -> Transforms {
    let square: Matrix = (0..outputs).map(|i| unit(outputs, i)).collect();
    let weights = vec![vec![Rational::ONE]; outputs];
    Transforms { input: square.clone(), weights, output: square }
}

/// An exact fraction in lowest terms, with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rational {
    numerator: i64,
    denominator: i64,
}

impl Rational {
    pub(super) const ZERO: Rational = Rational::new(0, 1);
    pub(super) const ONE: Rational = Rational::new(1, 1);

    const fn new(numerator: i64, denominator: i64) -> Rational {
        Rational { numerator, denominator }
    }

    fn reduced(numerator: i64, denominator: i64) -> Rational {
        let (mut a, mut b) = (numerator.abs(), denominator.abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let by = if denominator < 0 { -a } else { a };
        Rational::new(numerator / by, denominator / by)
    }

    fn inverse(self) -> Rational {
        Rational::reduced(self.denominator, self.numerator)
    }

    fn power(self, exponent: usize) -> Rational {
        (0..exponent).fold(Rational::ONE, |power, _| power * self)
    }

    pub(super) fn negated(self) -> Rational {
        Rational::new(-self.numerator, self.denominator)
    }

    pub(super) fn is_negative(self) -> bool {
        self.numerator < 0
    }

    /// The nearest value in single precision.
    pub(super) fn to_f32(self) -> f32 {
        self.to_f64() as f32
    }

    pub(super) fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

impl Add for Rational {
    type Output = Rational;

    fn add(self, other: Rational) -> Rational {
        let numerator = self.numerator * other.denominator + other.numerator * self.denominator;
        Rational::reduced(numerator, self.denominator * other.denominator)
    }
}

impl Mul for Rational {
    type Output = Rational;

    fn mul(self, other: Rational) -> Rational {
        Rational::reduced(self.numerator * other.numerator, self.denominator * other.denominator)
    }
}

/// A matrix by rows: each row is one sum of the inputs.
pub(super) type Matrix = Vec<Vec<Rational>>;

/// The three transforms of one axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transforms {
    /// `B`, points by points.
    pub(super) input: Matrix,
    /// `G`, points by taps.
    pub(super) weights: Matrix,
    /// `A`, outputs by points.
    pub(super) output: Matrix,
}

impl Transforms {
    /// Those of `outputs` outputs of `taps` taps, `stride` inputs apart, all at least one; at most
    /// [`MAX_POINTS`] points for a phase.
    pub(super) fn new(outputs: u64, taps: u64, stride: u64) -> Transforms {
        let (outputs, taps, stride) = (outputs as usize, taps as usize, stride as usize);
        let window = (outputs - 1) * stride + taps;
        let mut all = Transforms { input: vec![], weights: vec![], output: vec![vec![]; outputs] };
        for phase in 0..stride.min(taps) {
            let dense = Transforms::dense(outputs, (taps - phase).div_ceil(stride));
            all.input.extend(dense.input.iter().map(|row| spread(row, window, phase, stride)));
            all.weights.extend(dense.weights.iter().map(|row| spread(row, taps, phase, stride)));
            all.output.iter_mut().zip(dense.output).for_each(|(row, more)| row.extend(more));
        }
        all
    }

    /// Those of neighbouring taps and inputs.
    fn dense(outputs: usize, taps: usize) -> Transforms {
        if taps == 1 {
            return identity(outputs);
        }
        let points = &POINTS[..outputs + taps - 2];
        let whole = product(points);
        let mut transforms = Transforms { input: vec![], weights: vec![], output: vec![] };
        for (i, point) in points.iter().enumerate() {
            let others: Vec<Rational> =
                points.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, p)| *p).collect();
            let norm =
                others.iter().fold(Rational::ONE, |norm, other| norm * (*point + other.negated()));
            let sign = if norm.is_negative() { Rational::ONE.negated() } else { Rational::ONE };
            let mut row = product(&others);
            row.resize(points.len() + 1, Rational::ZERO);
            transforms.input.push(row.into_iter().map(|c| c * sign).collect());
            let scale = (norm * sign).inverse();
            transforms.weights.push((0..taps).map(|j| point.power(j) * scale).collect());
        }
        transforms.input.push(whole);
        transforms.weights.push(unit(taps, taps - 1));
        transforms.output = (0..outputs)
            .map(|k| {
                let last = if k + 1 == outputs { Rational::ONE } else { Rational::ZERO };
                points.iter().map(|p| p.power(k)).chain([last]).collect()
            })
            .collect();
        transforms
    }

    /// The most by which the transforms can enlarge what passes through them: the largest row sum
    /// of `|A| (|G| 1 * |B| 1)` for taps and inputs of modulus one.
    pub(super) fn growth(&self) -> f64 {
        let sum = |row: &Vec<Rational>| row.iter().map(|c| c.to_f64().abs()).sum::<f64>();
        let products: Vec<f64> = self.input.iter().map(sum).collect();
        // A tap of modulus one at the worst place, rather than one everywhere: the sum over taps is
        // in the norm.
        let weights =
            self.weights.iter().map(|row| row.iter().map(|c| c.to_f64().abs()).fold(0.0, f64::max));
        let scaled: Vec<f64> = products.iter().zip(weights).map(|(b, g)| b * g).collect();
        let out = |row: &Vec<Rational>| -> f64 {
            row.iter().zip(&scaled).map(|(c, x)| c.to_f64().abs() * x).sum()
        };
        self.output.iter().map(out).fold(0.0, f64::max)
    }
}

/// The coefficients of the product of `x - p`, the constant first.
fn product(points: &[Rational]) -> Vec<Rational> {
    points.iter().fold(vec![Rational::ONE], |polynomial, point| {
        let shifted = [Rational::ZERO].into_iter().chain(polynomial.iter().copied());
        let scaled = polynomial.iter().copied().chain([Rational::ZERO]);
        shifted.zip(scaled).map(|(high, low)| high + point.negated() * low).collect()
    })
}

/// A row whose entries lie `by` apart, from a place on.
fn spread(row: &[Rational], length: usize, from: usize, by: usize) -> Vec<Rational> {
    let mut wide = vec![Rational::ZERO; length];
    wide.iter_mut().skip(from).step_by(by).zip(row).for_each(|(place, entry)| *place = *entry);
    wide
}

fn unit(length: usize, at: usize) -> Vec<Rational> {
    (0..length).map(|i| if i == at { Rational::ONE } else { Rational::ZERO }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(matrix: &Matrix, vector: &[Rational]) -> Vec<Rational> {
        let dot = |row: &Vec<Rational>| {
            row.iter().zip(vector).fold(Rational::ZERO, |sum, (a, b)| sum + *a * *b)
        };
        matrix.iter().map(dot).collect()
    }

    /// Bilinear, so right for all inputs if it is right for each pair of unit vectors.
    fn check(outputs: usize, taps: usize, stride: usize) {
        let transforms = Transforms::new(outputs as u64, taps as u64, stride as u64);
        let window = (outputs - 1) * stride + taps;
        for input in 0..window {
            for tap in 0..taps {
                let d = times(&transforms.input, &unit(window, input));
                let g = times(&transforms.weights, &unit(taps, tap));
                let product: Vec<_> = d.iter().zip(&g).map(|(d, g)| *d * *g).collect();
                let y = times(&transforms.output, &product);
                let expected: Vec<_> = (0..outputs)
                    .map(|k| k * stride + tap == input)
                    .map(|meets| if meets { Rational::ONE } else { Rational::ZERO })
                    .collect();
                assert_eq!(y, expected, "{outputs} outputs of {taps} taps, {stride} apart");
            }
        }
    }

    #[test]
    fn every_size_computes_the_sum_exactly() {
        for stride in 1..=4 {
            for taps in 1..=MAX_POINTS as usize * stride {
                let dense = taps.div_ceil(stride);
                for outputs in 1..=(MAX_POINTS as usize + 1 - dense) {
                    check(outputs, taps, stride);
                }
            }
        }
    }

    #[test]
    fn strides_save_products() {
        let points = |outputs, taps, stride| Transforms::new(outputs, taps, stride).input.len();
        assert_eq!([points(4, 3, 2), points(6, 3, 2), points(4, 7, 2)], [9, 13, 13]);
        assert_eq!([points(4, 3, 3), points(4, 1, 2)], [12, 4]);
    }

    #[test]
    fn the_smallest_are_those_of_the_books() {
        let whole = |rows: [[i64; 4]; 4]| rows.map(|row| row.map(|c| Rational::new(c, 1)).to_vec());
        let transforms = Transforms::new(2, 3, 1);
        let books = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]];
        assert_eq!(transforms.input, whole(books).to_vec());
    }
}
