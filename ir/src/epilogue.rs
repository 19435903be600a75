//! What may happen to an output element between its last multiply-add and its store.
//!
//! An epilogue is a chain of [`EpilogueOp`]s applied in order to `sum + bias`. This file fixes each
//! operation's text name, its meaning over the reals, evaluated in f64, and what becomes of an error
//! in it; the f32 order and rounding of a compiled epilogue is the nest's business.
//!
//! Two definitions decide every NaN and every tie: `max(a, b) = a > b ? a : b` and
//! `min(a, b) = a < b ? a : b` (what the machine's maxps and minps do). `relu` is `max(0, x)` and
//! `clamp` is `min(hi, max(lo, x))`, so a NaN stays a NaN.
//!
//! At an infinity every operation takes its limit: a gate that is closed, as in `silu` of minus
//! infinity, gives zero.

pub mod expand;

use std::borrow::Borrow;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::every;

/// One operation of an epilogue. Parameters are compared and hashed by their bits.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
pub enum EpilogueOp {
    /// `max(0, x)`.
    Relu,
    /// `min(hi, max(lo, x))`; both finite, `lo <= hi`.
    Clamp {
        /// The lower bound.
        lo: f32,
        /// The upper bound.
        hi: f32,
    },
    /// `x > 0 ? x : slope * x`; the slope is finite.
    LeakyRelu {
        /// The factor of the negative side.
        slope: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * min(6, max(0, x + 3)) / 6`.
    HardSwish,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    GeluErf,
    /// `x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2`.
    GeluTanh,
    /// `x + residual`, a tensor of the output's shape and layout.
    AddResidual,
    /// `x * scale`, one factor an output channel.
    ScaleChannel,
}

/// The further buffer an operation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtraArg {
    /// A tensor of the output's shape and layout.
    Residual,
    /// One value an output channel.
    ChannelScale,
}

/// Why a text or a parameter is no epilogue operation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EpilogueError {
    /// No operation has this name.
    #[error("unknown epilogue operation `{given}`, expected one of {}", signatures())]
    UnknownOp {
        /// The text found.
        given: String,
    },
    /// The number of parameters is wrong.
    #[error("`{op}` takes {expected} parameters, {given} given")]
    ParameterCount {
        /// The operation.
        op: String,
        /// How many it takes.
        expected: usize,
        /// How many there are.
        given: usize,
    },
    /// A parameter is no number.
    #[error("`{op}` has the parameter `{given}`, which is no number")]
    NotANumber {
        /// The operation.
        op: String,
        /// The text found.
        given: String,
    },
    /// A parameter is NaN or infinite.
    #[error("`{op}` has the parameter {given}, which is not finite")]
    NotFinite {
        /// The operation.
        op: &'static str,
        /// The value found.
        given: f32,
    },
    /// The bounds of a clamp are the wrong way round.
    #[error("clamp has bounds {lo} > {hi}")]
    EmptyRange {
        /// The lower bound.
        lo: f32,
        /// The upper bound.
        hi: f32,
    },
}

/// The relative error of an operation that is not exact, at most: the largest that [`expand`]
/// documents is that of gelu by tanh, in units of the last place.
pub const LARGEST_ERROR: f64 = 300.0 * f32::EPSILON as f64;

/// Another name of `clamp(0,6)`.
const RELU6: (&str, EpilogueOp) = ("relu6", EpilogueOp::Clamp { lo: 0.0, hi: 6.0 });

impl EpilogueOp {
    /// Every operation; those with parameters, with some of no importance.
    pub const ALL: [EpilogueOp; 11] = every!(EpilogueOp {
        Relu,
        Clamp { lo: -1.0, hi: 2.5 },
        LeakyRelu { slope: 0.1 },
        Sigmoid,
        Tanh,
        Silu,
        HardSwish,
        GeluErf,
        GeluTanh,
        AddResidual,
        ScaleChannel,
    });

    /// A checked [`EpilogueOp::Clamp`].
    pub fn clamp(lo: f32, hi: f32) -> Result<Self, EpilogueError> {
        let op = EpilogueOp::Clamp { lo, hi };
        op.validate()?;
        Ok(op)
    }

    /// A checked [`EpilogueOp::LeakyRelu`].
    pub fn leaky_relu(slope: f32) -> Result<Self, EpilogueError> {
        let op = EpilogueOp::LeakyRelu { slope };
        op.validate()?;
        Ok(op)
    }

    /// Checks the parameters: all finite, bounds in order.
    pub fn validate(&self) -> Result<(), EpilogueError> {
        let op = self.name();
        for (_, given) in self.parameters() {
            if !given.is_finite() {
                return Err(EpilogueError::NotFinite { op, given });
            }
        }
        if let EpilogueOp::Clamp { lo, hi } = *self
            && lo > hi
        {
            return Err(EpilogueError::EmptyRange { lo, hi });
        }
        Ok(())
    }

    /// The name without parameters.
    pub fn name(&self) -> &'static str {
        match self {
            EpilogueOp::Relu => "relu",
            EpilogueOp::Clamp { .. } => "clamp",
            EpilogueOp::LeakyRelu { .. } => "leaky_relu",
            EpilogueOp::Sigmoid => "sigmoid",
            EpilogueOp::Tanh => "tanh",
            EpilogueOp::Silu => "silu",
            EpilogueOp::HardSwish => "hardswish",
            EpilogueOp::GeluErf => "gelu",
            EpilogueOp::GeluTanh => "gelu_tanh",
            EpilogueOp::AddResidual => "add",
            EpilogueOp::ScaleChannel => "scale",
        }
    }

    /// The buffer the operation reads besides the sum.
    pub fn takes_extra(&self) -> Option<ExtraArg> {
        match self {
            EpilogueOp::AddResidual => Some(ExtraArg::Residual),
            EpilogueOp::ScaleChannel => Some(ExtraArg::ChannelScale),
            EpilogueOp::Relu
            | EpilogueOp::Clamp { .. }
            | EpilogueOp::LeakyRelu { .. }
            | EpilogueOp::Sigmoid
            | EpilogueOp::Tanh
            | EpilogueOp::Silu
            | EpilogueOp::HardSwish
            | EpilogueOp::GeluErf
            | EpilogueOp::GeluTanh => None,
        }
    }

    /// The meaning of the operation on one element. `extra` is the element of
    /// [`Self::takes_extra`]'s buffer; operations without one ignore it.
    pub fn apply(&self, x: f64, extra: f64) -> f64 {
        match *self {
            EpilogueOp::Relu => max(0.0, x),
            EpilogueOp::Clamp { lo, hi } => min(f64::from(hi), max(f64::from(lo), x)),
            EpilogueOp::LeakyRelu { slope } => {
                if x > 0.0 {
                    x
                } else {
                    f64::from(slope) * x
                }
            }
            EpilogueOp::Sigmoid => sigmoid(x),
            EpilogueOp::Tanh => x.tanh(),
            EpilogueOp::Silu => gated(x, sigmoid(x)),
            EpilogueOp::HardSwish => gated(x, min(6.0, max(0.0, x + 3.0))) / 6.0,
            EpilogueOp::GeluErf => gated(x, 0.5 * erfc(-x * FRAC_1_SQRT_2)),
            EpilogueOp::GeluTanh => {
                let inner = (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
                gated(x, 0.5 * (1.0 + inner.tanh()))
            }
            EpilogueOp::AddResidual => x + extra,
            EpilogueOp::ScaleChannel => x * extra,
        }
    }

    /// The steepest slope, or somewhat more: how many times larger an error of the argument becomes
    /// at most. `extra` is as in [`Self::apply`].
    pub fn steepest(&self, extra: f64) -> f64 {
        match self {
            EpilogueOp::Relu
            | EpilogueOp::Clamp { .. }
            | EpilogueOp::Sigmoid
            | EpilogueOp::Tanh
            | EpilogueOp::AddResidual => 1.0,
            EpilogueOp::LeakyRelu { slope } => f64::from(slope.abs()).max(1.0),
            // 1.10 of `silu`, 1.13 of the others.
            EpilogueOp::Silu | EpilogueOp::GeluErf | EpilogueOp::GeluTanh => 1.2,
            // At 3.
            EpilogueOp::HardSwish => 1.5,
            EpilogueOp::ScaleChannel => extra.abs(),
        }
    }

    /// Whether it rounds nothing where the argument and what it reads are small integers.
    pub fn is_exact(&self) -> bool {
        match self {
            EpilogueOp::Relu
            | EpilogueOp::Clamp { .. }
            | EpilogueOp::AddResidual
            | EpilogueOp::ScaleChannel => true,
            // Exact if the slope is a power of two.
            EpilogueOp::LeakyRelu { slope } => slope.to_bits() & 0x007f_ffff == 0,
            EpilogueOp::Sigmoid
            | EpilogueOp::Tanh
            | EpilogueOp::Silu
            | EpilogueOp::HardSwish
            | EpilogueOp::GeluErf
            | EpilogueOp::GeluTanh => false,
        }
    }

    /// The parameters in the order of the text, with their names.
    fn parameters(&self) -> Vec<(&'static str, f32)> {
        match *self {
            EpilogueOp::Clamp { lo, hi } => vec![("lo", lo), ("hi", hi)],
            EpilogueOp::LeakyRelu { slope } => vec![("slope", slope)],
            EpilogueOp::Relu
            | EpilogueOp::Sigmoid
            | EpilogueOp::Tanh
            | EpilogueOp::Silu
            | EpilogueOp::HardSwish
            | EpilogueOp::GeluErf
            | EpilogueOp::GeluTanh
            | EpilogueOp::AddResidual
            | EpilogueOp::ScaleChannel => Vec::new(),
        }
    }

    /// The same operation with other parameters, as many as it has.
    fn with_parameters(self, given: &[f32]) -> Self {
        match self {
            EpilogueOp::Clamp { .. } => EpilogueOp::Clamp { lo: given[0], hi: given[1] },
            EpilogueOp::LeakyRelu { .. } => EpilogueOp::LeakyRelu { slope: given[0] },
            EpilogueOp::Relu
            | EpilogueOp::Sigmoid
            | EpilogueOp::Tanh
            | EpilogueOp::Silu
            | EpilogueOp::HardSwish
            | EpilogueOp::GeluErf
            | EpilogueOp::GeluTanh
            | EpilogueOp::AddResidual
            | EpilogueOp::ScaleChannel => self,
        }
    }
}

/// What a text of an operation looks like: every name, with the names of the parameters.
fn signatures() -> String {
    let signature = |op: &EpilogueOp| {
        let parameters: Vec<&str> = op.parameters().iter().map(|(name, _)| *name).collect();
        call(op.name(), &parameters)
    };
    let all = EpilogueOp::ALL.iter().map(signature).chain([RELU6.0.to_owned()]);
    all.collect::<Vec<_>>().join(" ")
}

/// `name(a,b)`, or the name alone if nothing is given to it.
fn call(name: &str, parameters: &[impl Borrow<str>]) -> String {
    if parameters.is_empty() {
        name.to_owned()
    } else {
        format!("{name}({})", parameters.join(","))
    }
}

impl PartialEq for EpilogueOp {
    fn eq(&self, other: &Self) -> bool {
        let bits = |op: &Self| op.parameters().iter().map(|p| p.1.to_bits()).collect::<Vec<_>>();
        self.name() == other.name() && bits(self) == bits(other)
    }
}

impl Eq for EpilogueOp {}

impl Hash for EpilogueOp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
        for (_, parameter) in self.parameters() {
            parameter.to_bits().hash(state);
        }
    }
}

impl fmt::Display for EpilogueOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<String> = self.parameters().iter().map(|p| p.1.to_string()).collect();
        f.write_str(&call(self.name(), &parameters))
    }
}

impl FromStr for EpilogueOp {
    type Err = EpilogueError;

    fn from_str(text: &str) -> Result<Self, EpilogueError> {
        let text = text.trim();
        let (name, parameters) = split_call(text);
        if name == RELU6.0 {
            return expect_parameters(name, &parameters, 0).map(|_| RELU6.1);
        }
        let found = EpilogueOp::ALL.into_iter().find(|op| op.name() == name);
        let op = found.ok_or_else(|| EpilogueError::UnknownOp { given: text.to_owned() })?;
        let given = expect_parameters(name, &parameters, op.parameters().len())?;
        let op = op.with_parameters(&given);
        op.validate()?;
        Ok(op)
    }
}

impl TryFrom<String> for EpilogueOp {
    type Error = EpilogueError;

    fn try_from(text: String) -> Result<Self, EpilogueError> {
        text.parse()
    }
}

impl From<EpilogueOp> for String {
    fn from(op: EpilogueOp) -> Self {
        op.to_string()
    }
}

/// `name(a,b)` -> `(name, [a, b])`; a text without a closed parameter list is all name, which no
/// operation has.
fn split_call(text: &str) -> (&str, Vec<&str>) {
    match text.strip_suffix(')').and_then(|open| open.split_once('(')) {
        Some((name, list)) => (name.trim_end(), list.split(',').map(str::trim).collect()),
        None => (text, Vec::new()),
    }
}

fn expect_parameters(op: &str, texts: &[&str], expected: usize) -> Result<Vec<f32>, EpilogueError> {
    if texts.len() != expected {
        let given = texts.len();
        return Err(EpilogueError::ParameterCount { op: op.to_owned(), expected, given });
    }
    let number = |text: &&str| {
        text.parse()
            .map_err(|_| EpilogueError::NotANumber { op: op.to_owned(), given: (*text).to_owned() })
    };
    texts.iter().map(number).collect()
}

fn max(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

fn min(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// `x * gate`, zero where the gate is closed even if x is infinite.
fn gated(x: f64, gate: f64) -> f64 {
    if gate == 0.0 { 0.0 } else { x * gate }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Where the series of erf hands over to the continued fraction of erfc: below, the series takes at
/// most about sixty terms; above, the fraction converges within [`FRACTION_DEPTH`].
const SERIES_LIMIT: f64 = 2.0;

/// Depth at which the continued fraction of erfc has converged to f64 for every argument above
/// [`SERIES_LIMIT`].
const FRACTION_DEPTH: u32 = 120;

/// The complementary error function, to a few units in the last place of f64 (of 1.0 below
/// [`SERIES_LIMIT`]).
fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        x
    } else if x.abs() < SERIES_LIMIT {
        1.0 - erf_series(x)
    } else if x > 0.0 {
        erfc_fraction(x)
    } else {
        2.0 - erfc_fraction(-x)
    }
}

/// `erf x = 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!`: all terms have one sign, so
/// nothing cancels.
fn erf_series(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    let mut odd = 1.0;
    while term.abs() > f64::EPSILON / 8.0 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// `erfc x = exp(-x^2)/sqrt(pi) * 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + ...))))`, evaluated from the
/// inside out.
fn erfc_fraction(x: f64) -> f64 {
    let tail = (1..=FRACTION_DEPTH).rev().fold(x, |tail, k| x + 0.5 * f64::from(k) / tail);
    0.5 * FRAC_2_SQRT_PI * (-x * x).exp() / tail
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    use EpilogueOp::{
        AddResidual, Clamp, GeluErf, GeluTanh, HardSwish, LeakyRelu, Relu, ScaleChannel, Sigmoid,
        Silu, Tanh,
    };

    #[test]
    fn text_round_trips() {
        let text = EpilogueOp::ALL.map(|op| op.to_string()).join(" ");
        assert_eq!(
            text,
            "relu clamp(-1,2.5) leaky_relu(0.1) sigmoid tanh silu hardswish gelu gelu_tanh add scale"
        );
        for op in EpilogueOp::ALL {
            assert_eq!(op.to_string().parse(), Ok(op));
        }
        assert_eq!("relu6".parse(), Ok(EpilogueOp::Clamp { lo: 0.0, hi: 6.0 }));
        assert_eq!(" clamp( -1 , 1e3 ) ".parse(), Ok(EpilogueOp::Clamp { lo: -1.0, hi: 1000.0 }));
    }

    #[test]
    fn refusals_carry_the_numbers() {
        let message = |text: &str| text.parse::<EpilogueOp>().unwrap_err().to_string();
        assert_eq!(message("clamp(3,2)"), "clamp has bounds 3 > 2");
        assert_eq!(message("clamp(3)"), "`clamp` takes 2 parameters, 1 given");
        assert_eq!(message("relu(3)"), "`relu` takes 0 parameters, 1 given");
        assert_eq!(
            message("leaky_relu(x)"),
            "`leaky_relu` has the parameter `x`, which is no number"
        );
        assert_eq!(
            message("leaky_relu(inf)"),
            "`leaky_relu` has the parameter inf, which is not finite"
        );
        assert_eq!(
            message("mish"),
            "unknown epilogue operation `mish`, expected one of relu clamp(lo,hi) leaky_relu(slope) \
             sigmoid tanh silu hardswish gelu gelu_tanh add scale relu6"
        );
        assert!(EpilogueOp::clamp(f32::NAN, 1.0).is_err());
    }

    #[test]
    fn equality_is_by_bits() {
        assert_ne!(EpilogueOp::LeakyRelu { slope: 0.0 }, EpilogueOp::LeakyRelu { slope: -0.0 });
        assert_eq!(
            EpilogueOp::LeakyRelu { slope: f32::NAN },
            EpilogueOp::LeakyRelu { slope: f32::NAN }
        );
    }

    #[test]
    fn the_grammar_and_the_book_name_every_operation() {
        let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/problems.md");
        let (grammar, book) = (include_str!("lib.rs"), std::fs::read_to_string(book).unwrap());
        for op in EpilogueOp::ALL {
            let names = |text: &str, quote| {
                [format!("{quote}{}{quote}", op.name()), format!("{quote}{}(", op.name())]
                    .iter()
                    .any(|quoted| text.contains(quoted))
            };
            assert!(names(grammar, '"') && names(&book, '`'), "{op}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        for op in EpilogueOp::ALL {
            assert!(op.apply(f64::NAN, 1.0).is_nan(), "{op}");
        }
    }

    #[test]
    fn infinities_go_to_their_limits() {
        let inf = f64::INFINITY;
        for op in EpilogueOp::ALL {
            let limits = match op {
                Clamp { lo, hi } => (lo.into(), hi.into()),
                LeakyRelu { .. } | AddResidual | ScaleChannel => (-inf, inf),
                Relu | Silu | HardSwish | GeluErf | GeluTanh => (0.0, inf),
                Sigmoid => (0.0, 1.0),
                Tanh => (-1.0, 1.0),
            };
            assert_eq!((op.apply(-inf, 1.0), op.apply(inf, 1.0)), limits, "{op}");
        }
    }

    #[test]
    fn no_slope_is_steeper() {
        const STEP: f64 = 1.0 / 1024.0;
        for op in EpilogueOp::ALL {
            for extra in [-3.0, 0.5] {
                let steps = (-20_000..20_000).map(|i| f64::from(i) * STEP);
                let rise = |x: f64| op.apply(x + STEP, extra) - op.apply(x, extra);
                let steepest = steps.map(|x| rise(x).abs() / STEP).fold(0.0, f64::max);
                assert!(steepest <= op.steepest(extra) + 1e-9, "{op}: {steepest}");
            }
        }
    }

    #[test]
    fn values_at_known_points() {
        let close = |op: EpilogueOp, x: f64, expected: f64| {
            let got = op.apply(x, 3.0);
            assert!((got - expected).abs() <= 2e-15, "{op} of {x}: {got}, expected {expected}");
        };
        close(EpilogueOp::Relu, -2.0, 0.0);
        close(EpilogueOp::Relu, 2.0, 2.0);
        close(EpilogueOp::Clamp { lo: 0.0, hi: 6.0 }, 7.0, 6.0);
        close(EpilogueOp::LeakyRelu { slope: 0.5 }, -3.0, -1.5);
        close(EpilogueOp::Sigmoid, 0.0, 0.5);
        close(EpilogueOp::Sigmoid, 1.0, 0.7310585786300049);
        close(EpilogueOp::Tanh, 1.0, 0.7615941559557649);
        close(EpilogueOp::Silu, 1.0, 0.7310585786300049);
        close(EpilogueOp::HardSwish, 1.0, 4.0 / 6.0);
        close(EpilogueOp::HardSwish, -4.0, 0.0);
        close(EpilogueOp::GeluErf, 1.0, 0.8413447460685429);
        close(EpilogueOp::GeluTanh, 1.0, 0.8411919906082768);
        close(EpilogueOp::AddResidual, 1.0, 4.0);
        close(EpilogueOp::ScaleChannel, 2.0, 6.0);
    }

    #[test]
    fn the_error_function_is_accurate() {
        let table = [
            (0.1, 0.8875370839817152),
            (0.5, 0.4795001221869535),
            (1.0, 0.15729920705028513),
            (1.5, 0.033894853524689274),
            (1.9999, 0.004679802092970608),
            (2.0, 0.004677734981047265),
            (2.5, 0.0004069520174449589),
            (3.0, 2.2090496998585438e-05),
            (5.0, 1.5374597944280351e-12),
            (10.0, 2.088487583762545e-45),
        ];
        for (x, expected) in table {
            let got = erfc(x);
            let tolerance = if x < SERIES_LIMIT { 1e-15 } else { 1e-14 * expected };
            assert!((got - expected).abs() <= tolerance, "erfc({x}) = {got:e}, not {expected:e}");
            assert!((erfc(-x) - (2.0 - expected)).abs() <= 1e-15, "erfc(-{x})");
        }
        assert_eq!((erfc(0.0), erfc(30.0), erfc(-30.0)), (1.0, 0.0, 2.0));
    }
}
