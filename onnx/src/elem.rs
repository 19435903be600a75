//! The types of elements.

use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    /// The model does not say.
    Unstated,
    /// True or false.
    Bool,
    /// Whole numbers of so many bits.
    Int {
        /// 8, 16, 32 or 64.
        bits: u8,
        /// Whether there are negative ones.
        signed: bool,
    },
    /// IEEE floats of 16, 32 or 64 bits.
    Float {
        /// 16, 32 or 64.
        bits: u8,
    },
    /// Another type of `TensorProto.DataType`.
    Other(i32),
}

/// The type that convolutions are computed in.
pub(super) const F32: Elem = Elem::Float { bits: 32 };
/// The type that sizes have.
pub(super) const INT64: Elem = Elem::Int { bits: 64, signed: true };
/// The type that quantised values have where nothing else is said.
pub(super) const UINT8: Elem = Elem::Int { bits: 8, signed: false };

impl Elem {
    /// The type of that number in `TensorProto.DataType`.
    pub(super) fn from_number(number: i32) -> Elem {
        match number {
            0 => Elem::Unstated,
            1 => F32,
            2 => UINT8,
            3 => Elem::Int { bits: 8, signed: true },
            4 => Elem::Int { bits: 16, signed: false },
            5 => Elem::Int { bits: 16, signed: true },
            6 => Elem::Int { bits: 32, signed: true },
            7 => INT64,
            9 => Elem::Bool,
            10 => Elem::Float { bits: 16 },
            11 => Elem::Float { bits: 64 },
            12 => Elem::Int { bits: 32, signed: false },
            13 => Elem::Int { bits: 64, signed: false },
            other => Elem::Other(other),
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Elem::Unstated => write!(f, "of no stated type"),
            Elem::Bool => write!(f, "of ONNX type 9"),
            Elem::Int { bits, signed: true } => write!(f, "{bits}-bit integers"),
            Elem::Int { bits, signed: false } => write!(f, "unsigned {bits}-bit integers"),
            Elem::Float { bits } => write!(f, "{bits}-bit floats"),
            Elem::Other(number) => write!(f, "of ONNX type {number}"),
        }
    }
}
