//! What is known of a value of the graph: its shape, and for small constants what it holds.
//!
//! Promises: a size and an element that are not known say why, and the others stay known. What a
//! value holds is shared, not copied, and has at most [`MAX_CONSTANT`] elements.

use std::sync::Arc;

use convgen_ir::problem::MAX_SIZE;

use super::elem::{Elem, F32, INT64};
use super::fault::{Fault, Unknown};
use super::proto::Tensor;
use super::scalar::{Dim, Scalar};

/// The most dimensions a tensor has here; no operation that is understood needs more than six.
pub(super) const MAX_RANK: usize = 16;
/// The most elements of a constant that is kept: shapes, scales and axes have a few.
pub(super) const MAX_CONSTANT: usize = 1 << 12;

/// The sizes, or why not even their number is known.
pub(super) type Shape = Result<Vec<Dim>, Unknown>;
/// Elements in the order of memory.
pub(super) type Data = Arc<[Scalar]>;

/// A value of the graph.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) shape: Shape,
    pub(super) elem: Elem,
    /// As many elements as the shape says, if they are known.
    pub(super) data: Option<Data>,
}

impl Value {
    /// A value of a shape that an operation made, which is checked here.
    pub(super) fn of(shape: Vec<Dim>) -> Result<Value, Fault> {
        Ok(Value { shape: Ok(checked(shape)?), elem: Elem::Unstated, data: None })
    }

    /// The same for a shape that is wholly known.
    pub(super) fn sized(shape: Vec<u64>) -> Result<Value, Fault> {
        Value::of(shape.into_iter().map(Ok).collect())
    }

    pub(super) fn unknown(reason: Unknown) -> Value {
        Value { shape: Err(reason), elem: Elem::Unstated, data: None }
    }

    /// A list of sizes.
    pub(super) fn list(sizes: Vec<Scalar>) -> Value {
        let shape = Ok(vec![Ok(sizes.len() as u64)]);
        Value { shape, elem: INT64, data: None }.holding(Some(sizes))
    }

    /// The value with elements of that type, unless it says one itself.
    pub(super) fn typed(mut self, elem: Elem) -> Value {
        if self.elem == Elem::Unstated {
            self.elem = elem;
        }
        self
    }

    /// The value with these elements, if there are as many as its shape says, and not too many.
    pub(super) fn holding(mut self, data: Option<Vec<Scalar>>) -> Value {
        let count = self.count();
        self.data = data
            .filter(|data| data.len() <= MAX_CONSTANT && count == Some(data.len() as u64))
            .map(Data::from);
        self
    }

    /// The value with the elements of another, of which there must be as many.
    pub(super) fn sharing(mut self, other: &Value) -> Value {
        let count = self.count();
        self.data = other.data.clone().filter(|data| count == Some(data.len() as u64));
        self.typed(other.elem)
    }

    /// The value of a tensor in the file.
    pub(super) fn constant(tensor: &Tensor) -> Result<Value, Fault> {
        let size = |given: &i64| u64::try_from(*given).map_err(|_| Fault::Size { given: *given });
        let shape = tensor.dims.iter().map(size).collect::<Result<Vec<_>, _>>()?;
        let value = Value::sized(shape)?.typed(Elem::from_number(tensor.data_type));
        let data = match value.count() {
            Some(count) if count <= MAX_CONSTANT as u64 => data(tensor, value.elem),
            Some(_) | None => None,
        };
        Ok(value.holding(data))
    }

    /// How many elements it has, if that is known and no more than 64 bits count.
    pub(super) fn count(&self) -> Option<u64> {
        elements(self.shape.as_deref().ok()?)
    }

    /// Whether it is known to have no elements, as optional inputs of old models have.
    pub(super) fn is_empty(&self) -> bool {
        self.count() == Some(0)
    }
}

/// The shape, if its rank and its sizes are within the limits.
fn checked(shape: Vec<Dim>) -> Result<Vec<Dim>, Fault> {
    if shape.len() > MAX_RANK {
        return Err(Fault::Rank { what: "a value", given: shape.len(), expected: "at most 16" });
    }
    match shape.iter().flatten().find(|size| **size > MAX_SIZE) {
        Some(given) => Err(Fault::TooLarge { given: *given, limit: MAX_SIZE }),
        None => Ok(shape),
    }
}

/// The number of elements, or nothing if a size is not known or it overflows.
pub(super) fn elements(shape: &[Dim]) -> Option<u64> {
    if shape.contains(&Ok(0)) {
        return Some(0);
    }
    shape.iter().try_fold(1_u64, |count, dim| count.checked_mul(*dim.as_ref().ok()?))
}

/// The sizes that are known, zero for others: for error messages.
pub(super) fn shown(shape: &[Dim]) -> Vec<u64> {
    shape.iter().map(|dim| dim.clone().unwrap_or(0)).collect()
}

/// The elements, if they are of a type that shapes are made of.
fn data(tensor: &Tensor, elem: Elem) -> Option<Vec<Scalar>> {
    let raw = tensor.raw_data.as_deref().filter(|raw| !raw.is_empty());
    match (elem, raw) {
        (Elem::Float { bits: 32 }, Some(raw)) => {
            Some(items(raw, |bytes| Scalar::Float(f64::from(f32::from_le_bytes(bytes)))))
        }
        (Elem::Float { bits: 64 }, Some(raw)) => {
            Some(items(raw, |bytes| Scalar::Float(f64::from_le_bytes(bytes))))
        }
        (INT64, Some(raw)) => Some(items(raw, |bytes| Scalar::Int(i64::from_le_bytes(bytes)))),
        (Elem::Int { bits: 64, signed: false }, Some(raw)) => {
            let all = items(raw, |bytes| Scalar::Int(i64::from_le_bytes(bytes)));
            // Numbers that only an unsigned type holds are of no use for a shape.
            all.iter().all(|number| matches!(number, Scalar::Int(0..))).then_some(all)
        }
        (Elem::Int { bits: 32, signed: true }, Some(raw)) => {
            Some(items(raw, |bytes| Scalar::Int(i64::from(i32::from_le_bytes(bytes)))))
        }
        (Elem::Int { bits: 32, signed: false }, Some(raw)) => {
            Some(items(raw, |bytes| Scalar::Int(i64::from(u32::from_le_bytes(bytes)))))
        }
        (Elem::Int { bits: 8, signed: true }, Some(raw)) => {
            Some(items(raw, |[byte]: [u8; 1]| Scalar::Int(i64::from(byte as i8))))
        }
        (Elem::Int { bits: 8, signed: false } | Elem::Bool, Some(raw)) => {
            Some(items(raw, |[byte]: [u8; 1]| Scalar::Int(i64::from(byte))))
        }
        (F32, None) => {
            Some(tensor.float_data.iter().map(|x| Scalar::Float(f64::from(*x))).collect())
        }
        (Elem::Float { bits: 64 }, None) => {
            Some(tensor.double_data.iter().map(|x| Scalar::Float(*x)).collect())
        }
        (INT64, None) => Some(tensor.int64_data.iter().map(|x| Scalar::Int(*x)).collect()),
        (Elem::Int { bits: 8 | 32, signed: true } | Elem::Bool, None) => {
            Some(tensor.int32_data.iter().map(|x| Scalar::Int(i64::from(*x))).collect())
        }
        (Elem::Unstated | Elem::Int { .. } | Elem::Float { .. } | Elem::Other(_), _) => None,
    }
}

fn items<const N: usize>(raw: &[u8], item: impl Fn([u8; N]) -> Scalar) -> Vec<Scalar> {
    let (values, _) = raw.as_chunks::<N>();
    values.iter().map(|bytes| item(*bytes)).collect()
}
