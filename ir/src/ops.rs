//! The executable meaning of the scalar operations.
//!
//! IEEE-754 binary32, round to nearest even, denormals kept, one rounding an operation. Every
//! function gives the same bits on every machine; which NaN comes out of an operation on NaNs is
//! left open. Loads, padding and evaluation order are the interpreter's business, not ours.

use crate::nest::{BinaryOp, UnaryOp};

/// What an operation on one value computes.
#[inline]
pub fn unary(op: UnaryOp, x: f32) -> f32 {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Round => x.round_ties_even(),
        UnaryOp::Pow2 => pow2(x),
    }
}

/// What an operation on two values computes.
#[inline]
pub fn binary(op: BinaryOp, a: f32, b: f32) -> f32 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max => select(b, a, a, b),
        BinaryOp::Min => select(a, b, a, b),
    }
}

/// `a < b ? then : otherwise`: a NaN on either side of the comparison gives `otherwise`.
#[inline]
pub fn select(a: f32, b: f32, then: f32, otherwise: f32) -> f32 {
    if a < b { then } else { otherwise }
}

/// `a * b + c`, rounded once: the bits of [`f32::mul_add`].
///
/// Without the fma instruction in the build, `mul_add` is a call, and a slow one where libm cannot
/// use the instruction either; this is inline and needs none. The product is exact in f64. The sum
/// is not always, but rounding is monotone: unless the sum lies halfway between two f32, it lies on
/// the same side of every halfway point as the exact value, and rounding it again does no harm.
/// Normal f32 have their halfway points where the low 29 bits read `100...0`.
#[inline]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    const BELOW_F32: u64 = (1 << 29) - 1;
    const HALFWAY: u64 = 1 << 28;
    let product = f64::from(a) * f64::from(b);
    let sum = product + f64::from(c);
    if sum.to_bits() & BELOW_F32 != HALFWAY && sum.abs() >= f64::from(f32::MIN_POSITIVE) {
        return sum as f32;
    }
    round_to_odd(product, f64::from(c)) as f32
}

/// `a + b`, where an inexact sum becomes whichever f64 neighbour has an odd last bit.
///
/// Such a sum rounds to f32, denormals included, as the exact one would: an odd last bit is never a
/// halfway point, and f64 has more than twice the digits of f32 and two.
fn round_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let b_of_sum = sum - a;
    let error = (a - (sum - b_of_sum)) + (b - b_of_sum);
    // Beside infinities the error is a NaN, and the sum needs no rounding.
    let exact = error == 0.0 || error.is_nan();
    if exact || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let away_from_zero = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away_from_zero { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// Two to the power of an integer, built from exponent bits.
///
/// Exact for integers in `-126..=127`, zero for -127, infinity for 128. Elsewhere it is whatever
/// the bits say, the same everywhere: fractions are cut off, integers saturate, NaN counts as zero.
#[inline]
fn pow2(x: f32) -> f32 {
    const EXPONENT_BIAS: i32 = 127;
    const MANTISSA_BITS: u32 = 23;
    f32::from_bits(((x as i32).wrapping_add(EXPONENT_BIAS) as u32) << MANTISSA_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values at which rounding, comparison or the exponent range has an edge.
    const EDGES: [u32; 18] = [
        0x0000_0000, // 0
        0x0000_0001, // the least denormal
        0x0000_0002,
        0x0000_0fff,
        0x0040_0000,
        0x007f_ffff, // the greatest denormal
        0x0080_0000, // the least normal
        0x0080_0001,
        0x3380_0000, // half a last place of 1
        0x3380_0001,
        0x3400_0000, // a last place of 1
        0x3f7f_ffff,
        0x3f80_0000, // 1
        0x3f80_0001,
        0x7f7f_ffff, // the greatest finite
        0x7f80_0000, // infinity
        0x7f80_0001, // signalling NaN
        0x7fc0_0000, // NaN
    ];

    fn edges() -> impl Iterator<Item = f32> + Clone {
        EDGES.iter().flat_map(|bits| [f32::from_bits(*bits), -f32::from_bits(*bits)])
    }

    /// Marsaglia's xorshift64*.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn assert_fma_matches_mul_add(a: f32, b: f32, c: f32) {
        let (got, want) = (fma(a, b, c), a.mul_add(b, c));
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "fma({a:e}, {b:e}, {c:e}) = {got:e}, want {want:e}"
        );
    }

    #[test]
    fn fma_of_edges_is_mul_add() {
        for a in edges() {
            for b in edges() {
                edges().for_each(|c| assert_fma_matches_mul_add(a, b, c));
            }
        }
    }

    #[test]
    fn fma_of_random_bits_is_mul_add() {
        let state = &mut 0x9e37_79b9_7f4a_7c15;
        for _ in 0..4_000_000 {
            let [a, b, c] = [(); 3].map(|()| f32::from_bits(random(state) as u32));
            assert_fma_matches_mul_add(a, b, c);
        }
    }

    /// Sums that nearly cancel, and products that end near half a last place of `c`.
    #[test]
    fn fma_of_nearly_halfway_sums_is_mul_add() {
        let state = &mut 0x0123_4567_89ab_cdef;
        for i in 0..8_000_000 {
            let (r, t) = (random(state), random(state));
            // Few bits in `b`, so that the product often ends exactly halfway.
            let a = f32::from_bits(r as u32 & 0xff80_0fff);
            let b = f32::from_bits((r >> 32) as u32 & 0xffc0_0003);
            let product = (a * b).to_bits();
            let c = if i % 2 == 0 {
                f32::from_bits(product ^ 0x8000_0000 ^ (t as u32 & 3))
            } else {
                let exponent = (product >> 23 & 0xff) + 22 + (t as u32 & 3);
                f32::from_bits((t >> 32) as u32 & 0x807f_ffff | exponent.min(254) << 23)
            };
            assert_fma_matches_mul_add(a, b, c);
        }
    }

    #[test]
    fn fma_of_denormal_sums_is_mul_add() {
        let state = &mut 0xfeed_f00d_dead_beef;
        for _ in 0..4_000_000 {
            let (r, t) = (random(state), random(state));
            // The product is about half the least denormal, give or take a bit far below.
            let a = f32::from_bits(r as u32 & 0x8000_0fff | 60 << 23);
            let b = f32::from_bits((r >> 32) as u32 & 0x8000_0001 | (43 + (t as u32 & 3)) << 23);
            assert_fma_matches_mul_add(a, b, f32::from_bits((t >> 32) as u32 & 0x80ff_ffff));
        }
    }

    #[test]
    fn fma_rounds_once_where_f64_would_round_twice() {
        let naive = |a: f32, b: f32, c: f32| (f64::from(a) * f64::from(b) + f64::from(c)) as f32;
        let (up, down) = (1.0 + 2f32.powi(-15), 1.0 - 2f32.powi(-15)); // up * down = 1 - 2^-30
        // A hair less than half a last place above an odd `c`, normal and denormal.
        for (scale, c) in [(2f32.powi(-12), 0x3f80_0001), (2f32.powi(-75), 0x0040_0001)] {
            let (a, b) = (up * scale, down * scale);
            assert_eq!(fma(a, b, f32::from_bits(c)).to_bits(), c);
            assert_eq!(naive(a, b, f32::from_bits(c)).to_bits(), c + 1);
        }
    }

    #[test]
    fn comparisons_with_nan_take_the_right_operand() {
        for (op, name) in [(BinaryOp::Max, "max"), (BinaryOp::Min, "min")] {
            assert!(binary(op, 0.0, f32::NAN).is_nan(), "{name}");
            assert_eq!(binary(op, f32::NAN, 1.0), 1.0, "{name}");
            assert_eq!(binary(op, 0.0, -0.0).to_bits(), (-0.0f32).to_bits(), "{name}");
            assert_eq!(binary(op, -0.0, 0.0).to_bits(), 0, "{name}");
        }
        assert_eq!(binary(BinaryOp::Max, 1.0, 2.0), 2.0);
        assert_eq!(binary(BinaryOp::Min, 1.0, 2.0), 1.0);
        assert_eq!(select(f32::NAN, 1.0, 2.0, 3.0), 3.0);
        assert_eq!(select(1.0, f32::NAN, 2.0, 3.0), 3.0);
        assert_eq!(select(0.0, 1.0, 2.0, 3.0), 2.0);
        assert_eq!(select(1.0, 1.0, 2.0, 3.0), 3.0);
    }

    #[test]
    fn signs_are_bits() {
        for x in edges() {
            assert_eq!(unary(UnaryOp::Neg, x).to_bits(), x.to_bits() ^ 0x8000_0000);
            assert_eq!(unary(UnaryOp::Abs, x).to_bits(), x.to_bits() & 0x7fff_ffff);
        }
    }

    #[test]
    fn round_takes_ties_to_even() {
        for (x, want) in [(0.5f32, 0.0f32), (1.5, 2.0), (2.5, 2.0), (-0.5, -0.0), (-1.5, -2.0)] {
            assert_eq!(unary(UnaryOp::Round, x).to_bits(), want.to_bits(), "{x}");
        }
        assert_eq!(unary(UnaryOp::Round, f32::INFINITY), f32::INFINITY);
        assert!(unary(UnaryOp::Round, f32::NAN).is_nan());
    }

    #[test]
    fn pow2_of_integers_is_exact() {
        for n in -126..=127 {
            assert_eq!(f64::from(unary(UnaryOp::Pow2, n as f32)), 2f64.powi(n), "{n}");
        }
        assert_eq!(unary(UnaryOp::Pow2, -127.0).to_bits(), 0);
        assert_eq!(unary(UnaryOp::Pow2, 128.0), f32::INFINITY);
    }

    #[test]
    fn pow2_of_anything_else_is_defined() {
        for (x, bits) in [
            (f32::NAN, 0x3f80_0000),
            (0.9, 0x3f80_0000),
            (-0.9, 0x3f80_0000),
            (1.9, 0x4000_0000),
            (-128.0, 0xff80_0000),
            (129.0, 0x8000_0000),
            (f32::INFINITY, 0x3f00_0000), // i32::MAX + 127 wraps to 126 above i32::MIN
            (f32::NEG_INFINITY, 0x3f80_0000), // i32::MIN + 127
        ] {
            assert_eq!(unary(UnaryOp::Pow2, x).to_bits(), bits, "{x}");
        }
    }
}
