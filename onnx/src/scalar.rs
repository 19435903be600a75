//! Elements and sizes, each known or not, and what a number becomes in a type.

use super::elem::Elem;
use super::fault::Unknown;

/// A size, or why it is not known.
pub(super) type Dim = Result<u64, Unknown>;

/// An element.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    /// A whole number, or 0 and 1 for false and true.
    Int(i64),
    Float(f64),
    /// Why it is not known.
    Unknown(Unknown),
}

/// The first float that is no 64-bit number.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

impl Scalar {
    /// The number, a whole one as a float.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Scalar::Int(value) => Some(*value as f64),
            Scalar::Float(value) => Some(*value),
            Scalar::Unknown(_) => None,
        }
    }

    /// The element that is a size.
    pub(super) fn of_dim(dim: &Dim) -> Scalar {
        match dim {
            Ok(size) => Scalar::Int(i64::try_from(*size).unwrap_or(i64::MAX)),
            Err(unknown) => Scalar::Unknown(unknown.clone()),
        }
    }

    /// The number as one of that type; nothing where it has none, or where this code does not round
    /// as the type does.
    pub(super) fn float(number: f64, elem: Elem) -> Option<Scalar> {
        match elem {
            Elem::Unstated | Elem::Other(_) => None,
            Elem::Bool => Some(Scalar::Int(i64::from(number != 0.0))),
            Elem::Int { .. } if number.abs() < TWO_TO_63 => Scalar::whole(number as i64, elem),
            Elem::Int { .. } => None,
            Elem::Float { bits: 64 } => Some(Scalar::Float(number)),
            Elem::Float { bits: 32 } => Some(Scalar::Float(f64::from(number as f32))),
            // Every whole number of so few bits is a 16-bit float.
            Elem::Float { .. } => {
                (number.abs() <= 2048.0 && number.fract() == 0.0).then_some(Scalar::Float(number))
            }
        }
    }

    /// The same for a whole number, all of whose bits count.
    pub(super) fn whole(number: i64, elem: Elem) -> Option<Scalar> {
        match elem {
            Elem::Int { bits: 64, signed: true } => Some(Scalar::Int(number)),
            Elem::Int { bits: 64, signed: false } => (number >= 0).then_some(Scalar::Int(number)),
            Elem::Int { bits, signed } => {
                let (least, most) = match signed {
                    true => (-1_i64 << (bits - 1), (1_i64 << (bits - 1)) - 1),
                    false => (0, (1_i64 << bits) - 1),
                };
                (least..=most).contains(&number).then_some(Scalar::Int(number))
            }
            Elem::Bool => Some(Scalar::Int(i64::from(number != 0))),
            Elem::Float { .. } => Scalar::float(number as f64, elem),
            Elem::Unstated | Elem::Other(_) => None,
        }
    }
}

/// The sizes, if all are known.
pub(super) fn known(dims: &[Dim]) -> Option<Vec<u64>> {
    dims.iter().map(|dim| dim.as_ref().ok().copied()).collect()
}
