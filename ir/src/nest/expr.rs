//! Values: constants, operations, and what they are made of.

use super::{Access, LocalId};
use crate::elem::ElemType;
use crate::every;
use crate::padding::PaddingMode;

/// A constant of an element type.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// A 32-bit float.
    F32(f32),
}

impl Scalar {
    /// The type of the constant.
    pub fn elem(self) -> ElemType {
        match self {
            Scalar::F32(_) => ElemType::F32,
        }
    }
}

impl PartialEq for Scalar {
    /// Bitwise: `0.0` and `-0.0` are different constants.
    fn eq(&self, other: &Scalar) -> bool {
        match (self, other) {
            (Scalar::F32(a), Scalar::F32(b)) => a.to_bits() == b.to_bits(),
        }
    }
}

/// Operations on one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// The sign flipped, also that of zeros and NaNs.
    Neg,
    /// The sign cleared.
    Abs,
    /// To the nearest integer, ties to even.
    Round,
    /// Two to the power of the integer part, by exponent bits: see the language reference.
    Pow2,
}

impl UnaryOp {
    /// Every operation.
    pub const ALL: [UnaryOp; 4] = every!(UnaryOp { Neg, Abs, Round, Pow2 });

    /// The function name in the text.
    pub fn name(self) -> &'static str {
        match self {
            UnaryOp::Neg => "neg",
            UnaryOp::Abs => "abs",
            UnaryOp::Round => "round",
            UnaryOp::Pow2 => "pow2",
        }
    }
}

/// Operations on two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a + b`, rounded once.
    Add,
    /// `a - b`, rounded once.
    Sub,
    /// `a * b`, rounded once.
    Mul,
    /// `a / b`, rounded once.
    Div,
    /// `a > b ? a : b`.
    Max,
    /// `a < b ? a : b`.
    Min,
}

impl BinaryOp {
    /// Every operation.
    pub const ALL: [BinaryOp; 6] = every!(BinaryOp { Add, Sub, Mul, Div, Max, Min });

    /// The function name in the text.
    pub fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Max => "max",
            BinaryOp::Min => "min",
        }
    }
}

/// The value of a statement: a tree of operations, each rounded on its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant.
    Const(Scalar),
    /// A value bound by `let`.
    Local(LocalId),
    /// An element that the verifier proves to exist.
    Load(Access),
    /// An element also where an index lies outside the buffer: what the mode finds there.
    Pad(PaddingMode, Access),
    /// An operation on one value.
    Unary(UnaryOp, Box<Expr>),
    /// An operation on two values.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a * b + c`, rounded once.
    Fma(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `a < b ? then : otherwise`.
    Select {
        /// Left of the comparison.
        a: Box<Expr>,
        /// Right of the comparison.
        b: Box<Expr>,
        /// The value where `a < b`.
        then: Box<Expr>,
        /// The value elsewhere, NaNs included.
        otherwise: Box<Expr>,
    },
}

impl Expr {
    /// A 32-bit constant.
    pub fn f32(value: f32) -> Expr {
        Expr::Const(Scalar::F32(value))
    }

    /// An operation on one value.
    pub fn unary(op: UnaryOp, x: Expr) -> Expr {
        Expr::Unary(op, Box::new(x))
    }

    /// An operation on two values.
    pub fn binary(op: BinaryOp, a: Expr, b: Expr) -> Expr {
        Expr::Binary(op, Box::new(a), Box::new(b))
    }

    /// `a * b + c`, rounded once.
    pub fn fma(a: Expr, b: Expr, c: Expr) -> Expr {
        Expr::Fma(Box::new(a), Box::new(b), Box::new(c))
    }

    /// `a < b ? then : otherwise`.
    pub fn select(a: Expr, b: Expr, then: Expr, otherwise: Expr) -> Expr {
        let [a, b, then, otherwise] = [a, b, then, otherwise].map(Box::new);
        Expr::Select { a, b, then, otherwise }
    }

    /// The operands, left to right.
    pub fn operands(&self) -> impl Iterator<Item = &Expr> {
        let operands: [Option<&Expr>; 4] = match self {
            Expr::Const(_) | Expr::Local(_) | Expr::Load(_) | Expr::Pad(..) => [None; 4],
            Expr::Unary(_, x) => [Some(x), None, None, None],
            Expr::Binary(_, a, b) => [Some(a), Some(b), None, None],
            Expr::Fma(a, b, c) => [Some(a), Some(b), Some(c), None],
            Expr::Select { a, b, then, otherwise } => [a, b, then, otherwise].map(|x| Some(&**x)),
        };
        operands.into_iter().flatten()
    }

    /// Visits this value and all its operands, operands first.
    pub fn visit_mut(&mut self, f: &mut impl FnMut(&mut Expr)) {
        match self {
            Expr::Const(_) | Expr::Local(_) | Expr::Load(_) | Expr::Pad(..) => {}
            Expr::Unary(_, x) => x.visit_mut(f),
            Expr::Binary(_, a, b) => {
                a.visit_mut(f);
                b.visit_mut(f);
            }
            Expr::Fma(a, b, c) => {
                a.visit_mut(f);
                b.visit_mut(f);
                c.visit_mut(f);
            }
            Expr::Select { a, b, then, otherwise } => {
                for x in [a, b, then, otherwise] {
                    x.visit_mut(f);
                }
            }
        }
        f(self);
    }

    /// Visits this value and all its operands, operands first.
    pub fn visit(&self, f: &mut impl FnMut(&Expr)) {
        for x in self.operands() {
            x.visit(f);
        }
        f(self);
    }
}
