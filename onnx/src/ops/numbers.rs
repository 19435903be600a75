//! Numbers as the operations compute them, by the rules of the element type.
//!
//! Promises: a result that is not exactly the one of the operation is none: whole numbers that
//! overflow, division by zero.

use crate::elem::Elem;
use crate::scalar::Scalar;

/// An operation on one number.
#[derive(Clone, Copy)]
pub(super) enum Unary {
    Abs,
    Neg,
    Ceil,
    Floor,
    Round,
    Sqrt,
    Reciprocal,
    Sign,
    Relu,
    Not,
}

impl Unary {
    pub(super) fn from_name(op: &str) -> Option<Unary> {
        Some(match op {
            "Abs" => Unary::Abs,
            "Neg" => Unary::Neg,
            "Ceil" => Unary::Ceil,
            "Floor" => Unary::Floor,
            "Round" => Unary::Round,
            "Sqrt" => Unary::Sqrt,
            "Reciprocal" => Unary::Reciprocal,
            "Sign" => Unary::Sign,
            "Relu" => Unary::Relu,
            "Not" => Unary::Not,
            _ => return None,
        })
    }

    pub(super) fn of(self, x: &Scalar, elem: Elem) -> Option<Scalar> {
        match x {
            Scalar::Int(x) => Scalar::whole(self.of_whole(*x)?, elem),
            Scalar::Float(x) => Scalar::float(self.of_float(*x)?, elem),
            Scalar::Unknown(_) => Some(x.clone()),
        }
    }

    fn of_whole(self, x: i64) -> Option<i64> {
        match self {
            Unary::Abs => x.checked_abs(),
            Unary::Neg => x.checked_neg(),
            Unary::Sign => Some(x.signum()),
            Unary::Relu => Some(x.max(0)),
            Unary::Not => Some(i64::from(x == 0)),
            Unary::Ceil | Unary::Floor | Unary::Round => Some(x),
            Unary::Sqrt | Unary::Reciprocal => None,
        }
    }

    fn of_float(self, x: f64) -> Option<f64> {
        Some(match self {
            Unary::Abs => x.abs(),
            Unary::Neg => -x,
            Unary::Ceil => x.ceil(),
            Unary::Floor => x.floor(),
            Unary::Round => x.round_ties_even(),
            Unary::Sqrt => x.sqrt(),
            Unary::Reciprocal => 1.0 / x,
            Unary::Sign if x == 0.0 => 0.0,
            Unary::Sign => x.signum(),
            Unary::Relu => x.max(0.0),
            Unary::Not => return None,
        })
    }
}

/// An operation on two numbers.
#[derive(Clone, Copy)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// With the sign of the divisor.
    Mod,
    /// With the sign of what is divided.
    Rem,
    Pow,
    Max,
    Min,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

impl Binary {
    pub(super) fn from_name(op: &str) -> Option<Binary> {
        Some(match op {
            "Add" | "Sum" => Binary::Add,
            "Sub" => Binary::Sub,
            "Mul" => Binary::Mul,
            "Div" => Binary::Div,
            "Mod" => Binary::Mod,
            "Pow" => Binary::Pow,
            "Max" => Binary::Max,
            "Min" => Binary::Min,
            "Equal" => Binary::Equal,
            "Less" => Binary::Less,
            "LessOrEqual" => Binary::LessOrEqual,
            "Greater" => Binary::Greater,
            "GreaterOrEqual" => Binary::GreaterOrEqual,
            "And" => Binary::And,
            "Or" => Binary::Or,
            "Xor" => Binary::Xor,
            _ => return None,
        })
    }

    /// Of two numbers, or of none if one is not known.
    pub(super) fn of(self, a: &Scalar, b: &Scalar, elem: Elem) -> Option<Scalar> {
        match (a, b) {
            (Scalar::Unknown(_), _) => Some(a.clone()),
            (_, Scalar::Unknown(_)) => Some(b.clone()),
            (Scalar::Int(a), Scalar::Int(b)) => Scalar::whole(self.of_whole(*a, *b)?, elem),
            (Scalar::Int(_) | Scalar::Float(_), Scalar::Int(_) | Scalar::Float(_)) => {
                Scalar::float(self.of_float(a.number()?, b.number()?)?, elem)
            }
        }
    }

    fn of_whole(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Binary::Add => a.checked_add(b),
            Binary::Sub => a.checked_sub(b),
            Binary::Mul => a.checked_mul(b),
            Binary::Div => a.checked_div(b),
            Binary::Mod => {
                let rest = a.checked_rem(b)?;
                Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
            }
            Binary::Rem => a.checked_rem(b),
            Binary::Pow => a.checked_pow(u32::try_from(b).ok()?),
            Binary::Max => Some(a.max(b)),
            Binary::Min => Some(a.min(b)),
            Binary::Equal => Some(i64::from(a == b)),
            Binary::Less => Some(i64::from(a < b)),
            Binary::LessOrEqual => Some(i64::from(a <= b)),
            Binary::Greater => Some(i64::from(a > b)),
            Binary::GreaterOrEqual => Some(i64::from(a >= b)),
            Binary::And => Some(a & b),
            Binary::Or => Some(a | b),
            Binary::Xor => Some(a ^ b),
        }
    }

    fn of_float(self, a: f64, b: f64) -> Option<f64> {
        let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
        Some(match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Rem => a % b,
            Binary::Pow => a.powf(b),
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
            Binary::Equal => truth(a == b),
            Binary::Less => truth(a < b),
            Binary::LessOrEqual => truth(a <= b),
            Binary::Greater => truth(a > b),
            Binary::GreaterOrEqual => truth(a >= b),
            Binary::Mod | Binary::And | Binary::Or | Binary::Xor => return None,
        })
    }
}
