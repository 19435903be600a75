//! Epilogue operations written in the language: `x` -> `let` statements and a value.
//!
//! The statements use nothing but the language's operations, so an expanded epilogue has one exact
//! meaning, to the bit, on every machine. Promised for all of them: a NaN stays a NaN, an infinity
//! goes to its limit, results saturate without overshooting. The error bounds stated below were
//! measured against [`EpilogueOp::apply`] for every 61st f32, every fourth between 0.001 and 90, in
//! units of the last place (ulp) of the result; the tests hold twice as much. Not promised:
//! exactness beyond that, or denormal results where an exponential underflows (they become zero).
//!
//! `max(bound, x)` and `min(bound, x)` have the bound on the left: that way round they keep a NaN.

use crate::epilogue::EpilogueOp;
use crate::nest::{BinaryOp, Expr, Nest, Stmt, UnaryOp};

/// Writes `op` applied to `x` as statements after `out` and returns the value that results.
///
/// New locals get names that no local, axis or buffer of the nest has. `extra` is the element of
/// the operation's further operand.
///
/// # Panics
///
/// If `extra` is missing for an operation that takes it.
pub fn expand(
    op: &EpilogueOp,
    nest: &mut Nest,
    x: Expr,
    extra: Option<Expr>,
    out: &mut Vec<Stmt>,
) -> Expr {
    let extra = || extra.expect("an operation with a further operand is given its element");
    let w = &mut Expansion { nest, out };
    match *op {
        EpilogueOp::Relu => max(0.0, x),
        EpilogueOp::Clamp { lo, hi } => min(hi, max(lo, x)),
        EpilogueOp::LeakyRelu { slope } => leaky_relu(w, x, slope),
        EpilogueOp::Sigmoid => sigmoid(w, x),
        EpilogueOp::Tanh => tanh(w, x),
        EpilogueOp::Silu => silu(w, x),
        EpilogueOp::HardSwish => hard_swish(w, x),
        EpilogueOp::GeluErf => gelu_erf(w, x),
        EpilogueOp::GeluTanh => gelu_tanh(w, x),
        EpilogueOp::AddResidual => add(x, extra()),
        EpilogueOp::ScaleChannel => mul(x, extra()),
    }
}

/// `x < 0 ? x * slope : x`. 2 operations, 0.5 ulp.
fn leaky_relu(w: &mut Expansion, x: Expr, slope: f32) -> Expr {
    let x = w.share("x", x);
    Expr::select(x.clone(), Expr::f32(0.0), mul(x.clone(), Expr::f32(slope)), x)
}

/// `c * (min(6, c + 3) / 6)` with `c = max(-3, x)`. 5 operations, 2.5 ulp.
///
/// With `x` clamped and not the sum, minus infinity gives zero; with the sixth taken before the
/// product, `6 / 6` rounds to one and large `x` come out unchanged.
fn hard_swish(w: &mut Expansion, x: Expr) -> Expr {
    const ONE_SIXTH: f32 = 1.0 / 6.0;
    let c = w.bind("c", max(-3.0, x));
    let gate = min(6.0, add(c.clone(), Expr::f32(3.0)));
    mul(c, mul(gate, Expr::f32(ONE_SIXTH)))
}

/// `1 / (1 + exp(-x))`. 15 operations, 2.5 ulp; zero instead of denormals below -88.3.
fn sigmoid(w: &mut Expansion, x: Expr) -> Expr {
    let d = one_plus_exp_neg(w, max(-EXP_OVERFLOW, x));
    div(Expr::f32(1.0), d)
}

/// `x / (1 + exp(-x))`. 15 operations, 2.4 ulp above -88.3; below that zero, off by less than
/// 3.8e-37.
///
/// The dividend is the clamped `x`, so minus infinity gives zero and not NaN.
fn silu(w: &mut Expansion, x: Expr) -> Expr {
    let c = w.bind("c", max(-EXP_OVERFLOW, x));
    let d = one_plus_exp_neg(w, c.clone());
    div(c, d)
}

/// `min(1, max(-1, x * P(s) / Q(s)))` with `s = min(8.5^2, x^2)`. 14 operations, 5.3 ulp.
///
/// One rational function for all `x`: near zero it tends to `x` exactly, since both polynomials
/// start with one; beyond 8.5 it is a straight line. Rounding may carry it past one, hence the last
/// clamp.
fn tanh(w: &mut Expansion, x: Expr) -> Expr {
    let x = w.share("x", x);
    let s = w.bind("s", min(TANH_LINEAR * TANH_LINEAR, mul(x.clone(), x.clone())));
    let p = mul(x, horner(&TANH_P, &s));
    let q = horner(&TANH_Q, &s);
    min(1.0, max(-1.0, div(p, q)))
}

/// `max(0, x) - a * Phi(-a)` with `a = |x|` and `Phi(-a) = exp(-a^2 / 2) * P(a) / Q(a)`, the normal
/// distribution. 30 operations, 6.3 ulp; zero below -13.24.
///
/// The tail is never the difference of near-equal numbers, so it is as accurate as the rest. The
/// exponent comes from `a * a` unrounded, by fma.
fn gelu_erf(w: &mut Expansion, x: Expr) -> Expr {
    let x = w.share("x", x);
    let a = w.bind("a", min(PHI_ZERO, Expr::unary(UnaryOp::Abs, x.clone())));
    let square = mul(a.clone(), a.clone());
    let n = w.bind("n", round(mul(square, Expr::f32(-0.5 * LOG2_E))));
    let r = Expr::fma(a.clone(), a.clone(), mul(n.clone(), Expr::f32(2.0 * LN_2_HI)));
    let r = w.bind("r", Expr::fma(n.clone(), Expr::f32(2.0 * LN_2_LO), r));
    let e = mul(horner(&exp_of_multiple(-0.5), &r), pow2(n));
    let p = mul(a.clone(), horner(&PHI_P, &a));
    let q = horner(&PHI_Q, &a);
    let tail = w.bind("t", div(mul(e, p), q));
    sub(max(0.0, x), tail)
}

/// `x / (1 + 2^y)` with `y = x * (Y1 + Y3 x^2)`: the tanh form, solved for one exponential. 16
/// operations, 2.5 ulp above -1, 14 ulp above -4, 154 ulp above -10.04; below that zero.
///
/// Unlike the other tails this one loses digits: the error of the rounded exponent grows with it.
/// The absolute error for negative `x` stays below 4.2e-8. Measured against `x / (1 + exp(-2 u))`
/// in f64, because `1 + tanh(u)` cancels there.
fn gelu_tanh(w: &mut Expansion, x: Expr) -> Expr {
    let c = w.bind("c", max(-GELU_TANH_OVERFLOW, x));
    let square = mul(c.clone(), c.clone());
    let y = mul(c.clone(), Expr::fma(square, Expr::f32(GELU_TANH_Y3), Expr::f32(GELU_TANH_Y1)));
    let y = w.bind("y", max(POW2_ZERO, y));
    let n = w.bind("n", round(y.clone()));
    let r = w.bind("r", sub(y, n.clone()));
    let p = horner(&EXP2, &r);
    div(c, Expr::fma(p, pow2(n), Expr::f32(1.0)))
}

/// `1 + exp(-c)` for `c >= -EXP_OVERFLOW`.
///
/// `-c = n ln 2 - r` with `|r| <= ln 2 / 2`; `n ln 2` is taken off in two parts, the first exactly.
fn one_plus_exp_neg(w: &mut Expansion, c: Expr) -> Expr {
    let t = w.bind("t", min(EXP_UNDERFLOW, c));
    let n = w.bind("n", round(mul(t.clone(), Expr::f32(-LOG2_E))));
    let r = Expr::fma(n.clone(), Expr::f32(LN_2_HI), t);
    let r = w.bind("r", Expr::fma(n.clone(), Expr::f32(LN_2_LO), r));
    let p = horner(&exp_of_multiple(-1.0), &r);
    Expr::fma(p, pow2(n), Expr::f32(1.0))
}

/// 1 / ln 2.
const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// ln 2 cut to 16 bits: times an `n` of 8 bits it is exact.
const LN_2_HI: f32 = 0.69314575;

/// ln 2 - [`LN_2_HI`].
const LN_2_LO: f32 = 1.4286068e-6;

/// At `c` of minus this, `n` is 128 and `exp(-c)` infinite: any between 127.5 ln 2 and 128.5 ln 2
/// would do.
const EXP_OVERFLOW: f32 = 89.0;

/// At `c` of this, `n` is -127 and `exp(-c)` zero: any between 126.5 ln 2 and 127.5 ln 2 would do.
const EXP_UNDERFLOW: f32 = 88.0;

/// The exponent at which `pow2` is zero.
const POW2_ZERO: f32 = -127.0;

/// Minimax of `exp(r)` for `|r| <= ln 2 / 2`, lowest power first: relative error 3.1e-9.
const EXP: [f32; 7] = [1.0, 1.0, 0.49999994, 0.16666521, 0.041668274, 0.008368686, 0.0013820136];

/// Minimax of `2^r` for `|r| <= 1/2`, lowest power first: relative error 3.0e-9.
const EXP2: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.24022648,
    0.055503596,
    0.009618503,
    0.0013390997,
    0.00015327803,
];

/// From here on tanh is approximated by a straight line through zero: it is within 8.3e-8 of one.
const TANH_LINEAR: f32 = 8.5;

/// Numerator of `tanh(x) / x` in powers of `x^2`, minimax with [`TANH_Q`] up to 8.5: relative error
/// 1.4e-8.
const TANH_P: [f32; 5] = [1.0, 0.1341589, 0.0035370872, 2.1298281e-5, 1.4328653e-8];

/// Denominator to [`TANH_P`].
const TANH_Q: [f32; 5] = [1.0, 0.46749216, 0.026034595, 0.00033537354, 8.1707327e-7];

/// Where `exp(-a^2 / 2)` is zero: `n` is -127 between the square roots of 2 * 126.5 ln 2 and of
/// 2 * 127.5 ln 2, and below that `pow2` has no meaning.
const PHI_ZERO: f32 = 13.27;

/// Numerator of `Phi(-a) * exp(a^2 / 2)` in powers of `a`, minimax with [`PHI_Q`] up to 13.3:
/// relative error 2.3e-8.
const PHI_P: [f32; 5] = [0.5, 0.43501145, 0.18079354, 0.03980713, 0.00399262];

/// Denominator to [`PHI_P`].
const PHI_Q: [f32; 6] = [1.0, 1.6679077, 1.1923814, 0.46302146, 0.09978925, 0.010007867];

/// -2 sqrt(2 / pi) / ln 2: the exponent of two in `exp(-2 sqrt(2 / pi) x)`.
const GELU_TANH_Y1: f32 = -2.3022082;

/// 0.044715 times [`GELU_TANH_Y1`].
const GELU_TANH_Y3: f32 = -0.10294324;

/// At minus this the exponent rounds to 128, where `pow2` is infinite; beyond 128.5 it has no
/// meaning.
const GELU_TANH_OVERFLOW: f32 = 10.06;

/// [`EXP`] for `exp(factor * r)`; the factor is a power of two, so nothing is rounded.
fn exp_of_multiple(factor: f32) -> [f32; 7] {
    let mut power = 1.0;
    EXP.map(|coefficient| {
        let scaled = coefficient * power;
        power *= factor;
        scaled
    })
}

/// The nest and block that receive an expansion.
struct Expansion<'a> {
    nest: &'a mut Nest,
    out: &'a mut Vec<Stmt>,
}

impl Expansion<'_> {
    /// Binds a value to a new local, `prefix` and the first number that makes it unique.
    fn bind(&mut self, prefix: &str, value: Expr) -> Expr {
        let name = (0..).map(|i| format!("{prefix}{i}")).find(|name| self.is_free(name));
        let local = self.nest.add_local(name.expect("there are more numbers than names"));
        self.out.push(Stmt::Let(local, value));
        Expr::Local(local)
    }

    /// The value itself if it can stand in several places at no cost, else a new local.
    fn share(&mut self, prefix: &str, value: Expr) -> Expr {
        match value {
            Expr::Const(_) | Expr::Local(_) => value,
            Expr::Load(_)
            | Expr::Pad(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Fma(..)
            | Expr::Select { .. } => self.bind(prefix, value),
        }
    }

    fn is_free(&self, name: &str) -> bool {
        !self.nest.locals.iter().any(|local| local == name)
            && self.nest.find_axis(name).is_none()
            && self.nest.find_buffer(name).is_none()
    }
}

/// A polynomial by Horner's rule, lowest power first.
fn horner(coefficients: &[f32], x: &Expr) -> Expr {
    let step = |sum, c: &f32| Expr::fma(sum, x.clone(), Expr::f32(*c));
    let (last, lower) = coefficients.split_last().expect("a polynomial has a coefficient");
    lower.iter().rev().fold(Expr::f32(*last), step)
}

fn max(bound: f32, x: Expr) -> Expr {
    Expr::binary(BinaryOp::Max, Expr::f32(bound), x)
}

fn min(bound: f32, x: Expr) -> Expr {
    Expr::binary(BinaryOp::Min, Expr::f32(bound), x)
}

fn add(a: Expr, b: Expr) -> Expr {
    Expr::binary(BinaryOp::Add, a, b)
}

fn sub(a: Expr, b: Expr) -> Expr {
    Expr::binary(BinaryOp::Sub, a, b)
}

fn mul(a: Expr, b: Expr) -> Expr {
    Expr::binary(BinaryOp::Mul, a, b)
}

fn div(a: Expr, b: Expr) -> Expr {
    Expr::binary(BinaryOp::Div, a, b)
}

fn round(x: Expr) -> Expr {
    Expr::unary(UnaryOp::Round, x)
}

fn pow2(n: Expr) -> Expr {
    Expr::unary(UnaryOp::Pow2, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elem::ElemType;
    use crate::epilogue::LARGEST_ERROR;
    use crate::nest::{Access, AxisKind, Buffer, BufferId, LocalId, Role, Scalar};
    use crate::ops;

    /// The value of a further operand in these tests.
    const EXTRA: f32 = 1.5;

    /// What is promised of an operation between two arguments: an error below `ulps` units in the
    /// last place, or below `floor`. About twice what is measured.
    struct Bound {
        from: f32,
        to: f32,
        ulps: f64,
        floor: f64,
    }

    fn bound(from: f32, to: f32, ulps: f64, floor: f64) -> Bound {
        Bound { from, to, ulps, floor }
    }

    /// Where `exp` overflows, sigmoid gives zero for a denormal.
    const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

    fn bounds(op: EpilogueOp) -> Vec<Bound> {
        const MIN: f32 = f32::MIN;
        const MAX: f32 = f32::MAX;
        match op {
            EpilogueOp::Relu | EpilogueOp::Clamp { .. } => vec![bound(MIN, MAX, 0.0, 0.0)],
            EpilogueOp::LeakyRelu { .. } => vec![bound(MIN, MAX, 0.5, 0.0)],
            EpilogueOp::Sigmoid => vec![bound(MIN, MAX, 4.0, FLUSHED)],
            EpilogueOp::Tanh => vec![bound(MIN, MAX, 10.0, 0.0)],
            EpilogueOp::Silu => vec![bound(-88.3, MAX, 4.0, 0.0), bound(MIN, -88.3, 0.0, 4e-37)],
            EpilogueOp::HardSwish => vec![bound(MIN, MAX, 4.0, 0.0)],
            EpilogueOp::GeluErf => vec![bound(MIN, MAX, 12.0, FLUSHED)],
            EpilogueOp::GeluTanh => vec![
                bound(-1.0, MAX, 5.0, 0.0),
                bound(-4.0, -1.0, 28.0, 0.0),
                // The f64 meaning itself cancels here: see `tail_of_gelu_tanh`.
                bound(MIN, -4.0, 300.0, 1e-15),
            ],
            EpilogueOp::AddResidual => vec![bound(MIN, MAX, 0.5001, 0.0)],
            EpilogueOp::ScaleChannel => vec![bound(MIN, MAX, 0.5, 0.0)],
        }
    }

    /// An expansion, ready to be evaluated: local 0 is the argument.
    struct Expansion {
        lets: Vec<Stmt>,
        result: Expr,
    }

    impl Expansion {
        fn new(op: &EpilogueOp) -> Expansion {
            let (mut nest, mut lets) = (empty_nest(), Vec::new());
            let x = Expr::Local(nest.add_local("x"));
            let result = expand(op, &mut nest, x, Some(Expr::f32(EXTRA)), &mut lets);
            Expansion { lets, result }
        }

        fn values(&self) -> impl Iterator<Item = &Expr> {
            let values = self.lets.iter().map(|stmt| match stmt {
                Stmt::Let(_, value) => value,
                Stmt::Loop(_)
                | Stmt::If(..)
                | Stmt::MicroKernel(_)
                | Stmt::Declare(_)
                | Stmt::Store(..) => {
                    panic!("an expansion consists of lets")
                }
            });
            values.chain([&self.result])
        }

        fn at(&self, x: f32) -> f32 {
            let mut locals = vec![x];
            for (i, value) in self.values().enumerate() {
                if let Some(Stmt::Let(LocalId(local), _)) = self.lets.get(i) {
                    assert_eq!(*local as usize, locals.len(), "locals are bound in order");
                }
                locals.push(evaluate(value, &locals));
            }
            locals[locals.len() - 1]
        }
    }

    fn empty_nest() -> Nest {
        Nest {
            name: "test".to_owned(),
            axes: vec![],
            buffers: vec![],
            locals: vec![],
            pack: vec![],
            body: vec![],
        }
    }

    fn evaluate(value: &Expr, locals: &[f32]) -> f32 {
        let of = |x: &Expr| evaluate(x, locals);
        match value {
            Expr::Const(Scalar::F32(constant)) => *constant,
            Expr::Local(local) => locals[local.0 as usize],
            Expr::Load(_) | Expr::Pad(..) => panic!("an expansion loads nothing"),
            Expr::Unary(op, x) => ops::unary(*op, of(x)),
            Expr::Binary(op, a, b) => ops::binary(*op, of(a), of(b)),
            Expr::Fma(a, b, c) => ops::fma(of(a), of(b), of(c)),
            Expr::Select { a, b, then, otherwise } => {
                ops::select(of(a), of(b), of(then), of(otherwise))
            }
        }
    }

    /// Finite values of all magnitudes, denormals and zeros included, and more of them where the
    /// functions bend.
    fn samples() -> impl Iterator<Item = f32> {
        let everywhere = (0..=f32::MAX.to_bits()).step_by(19_997).map(f32::from_bits);
        let bends = (0..320_000).map(|i| i as f32 * 3.1e-4 + 1e-6);
        let edges = [0, 1, 2, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff].map(f32::from_bits);
        everywhere.chain(bends).chain(edges).flat_map(|x| [x, -x])
    }

    /// The distance of neighbouring f32 around a value.
    fn ulp(value: f64) -> f64 {
        let exponent = (value.abs().to_bits() >> 52) as i32 - 1023;
        2f64.powi(exponent.max(f32::MIN_EXP - 1) - (f32::MANTISSA_DIGITS as i32 - 1))
    }

    fn error(got: f32, want: f64) -> f64 {
        let overflown = want as f32;
        if overflown.is_infinite() && got == overflown {
            0.0
        } else {
            (f64::from(got) - want).abs()
        }
    }

    #[test]
    fn errors_stay_within_bounds() {
        let of = |op: EpilogueOp| bounds(op).into_iter().map(move |bound| (op, bound));
        for (op, Bound { from, to, ulps, floor }) in EpilogueOp::ALL.into_iter().flat_map(of) {
            let expansion = Expansion::new(&op);
            assert!(ulps * f64::from(f32::EPSILON) <= LARGEST_ERROR, "{op}");
            for x in samples().filter(|x| (from..=to).contains(x)) {
                let (got, want) = (expansion.at(x), op.apply(f64::from(x), f64::from(EXTRA)));
                let error = error(got, want);
                assert!(
                    error <= floor || error <= ulps * ulp(want),
                    "{op} of {x:e} = {got:e}, want {want:e}: {} ulp",
                    error / ulp(want)
                );
            }
        }
    }

    #[test]
    fn tail_of_gelu_tanh() {
        let expansion = Expansion::new(&EpilogueOp::GeluTanh);
        let y = |x: f64| (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        for x in samples().filter(|x| (-10.04..-4.0).contains(x)) {
            let want = f64::from(x) / (1.0 + (-y(f64::from(x))).exp());
            let error = error(expansion.at(x), want) / ulp(want);
            assert!(error < 300.0, "gelu_tanh of {x:e}: {error} ulp");
        }
    }

    #[test]
    fn nan_stays_nan() {
        for op in EpilogueOp::ALL {
            assert!(Expansion::new(&op).at(f32::NAN).is_nan(), "{op}");
        }
    }

    #[test]
    fn infinities_go_to_their_limits() {
        for op in EpilogueOp::ALL {
            let expansion = Expansion::new(&op);
            for x in [-f32::INFINITY, f32::INFINITY] {
                let limit = op.apply(f64::from(x), f64::from(EXTRA)) as f32;
                assert_eq!(expansion.at(x), limit, "{op} of {x}");
            }
        }
    }

    #[test]
    fn results_saturate_without_overshooting() {
        let sigmoid = Expansion::new(&EpilogueOp::Sigmoid);
        let tanh = Expansion::new(&EpilogueOp::Tanh);
        for x in samples() {
            assert!((0.0..=1.0).contains(&sigmoid.at(x)), "sigmoid of {x:e}");
            assert!((-1.0..=1.0).contains(&tanh.at(x)), "tanh of {x:e}");
            assert_eq!(tanh.at(-x), -tanh.at(x), "tanh of {x:e}");
        }
        let identities =
            [EpilogueOp::Silu, EpilogueOp::HardSwish, EpilogueOp::GeluErf, EpilogueOp::GeluTanh]
                .map(|op| Expansion::new(&op));
        for x in samples().filter(|x| *x >= 20.0) {
            assert_eq!((sigmoid.at(x), tanh.at(x)), (1.0, 1.0), "sigmoid and tanh of {x:e}");
            assert_eq!(identities.each_ref().map(|identity| identity.at(x)), [x; 4]);
        }
    }

    #[test]
    fn zeros_keep_their_sign() {
        for op in EpilogueOp::ALL {
            let expansion = Expansion::new(&op);
            if !matches!(op, EpilogueOp::Sigmoid | EpilogueOp::AddResidual) {
                assert_eq!(expansion.at(0.0).to_bits(), 0, "{op}");
                assert_eq!(expansion.at(-0.0).to_bits(), (-0.0f32).to_bits(), "{op}");
            }
        }
        assert_eq!(Expansion::new(&EpilogueOp::Sigmoid).at(0.0), 0.5);
    }

    #[test]
    fn costs_are_as_documented() {
        let costs = EpilogueOp::ALL.map(|op| {
            let mut cost = 0;
            for value in Expansion::new(&op).values() {
                value.visit(&mut |x| cost += usize::from(x.operands().next().is_some()));
            }
            format!("{} {cost}", op.name())
        });
        assert_eq!(
            costs.join(", "),
            "relu 1, clamp 2, leaky_relu 2, sigmoid 15, tanh 14, silu 15, hardswish 5, gelu 30, \
             gelu_tanh 16, add 1, scale 1"
        );
    }

    #[test]
    fn the_argument_is_evaluated_once() {
        let argument = Expr::Load(Access { buffer: BufferId(0), index: vec![] });
        for op in EpilogueOp::ALL {
            let (mut nest, mut lets) = (empty_nest(), Vec::new());
            let result =
                expand(&op, &mut nest, argument.clone(), Some(Expr::f32(EXTRA)), &mut lets);
            let mut count = 0;
            for value in (Expansion { lets, result }).values() {
                value.visit(&mut |x| count += usize::from(*x == argument));
            }
            assert_eq!(count, 1, "{op}");
        }
    }

    #[test]
    fn names_are_new() {
        let mut nest = empty_nest();
        nest.add_axis("n0", AxisKind::Spatial);
        nest.add_buffer(Buffer {
            stripes: vec![],
            name: "t0".to_owned(),
            role: Role::Reg,
            elem: ElemType::F32,
            shape: vec![],
        });
        for _ in 0..2 {
            let x = Expr::Local(nest.add_local("x"));
            expand(&EpilogueOp::Silu, &mut nest, x, None, &mut Vec::new());
        }
        assert_eq!(nest.locals.join(" "), "x c0 t1 n1 r0 x c1 t2 n2 r1");
    }
}
