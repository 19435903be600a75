//! What is known of a value of the graph: its shape, and for small constants what it holds.

use std::sync::Arc;

use convgen_ir::problem::MAX_SIZE;

use super::fault::{Fault, Stop, Unknown};
use super::proto::Tensor;

/// The most dimensions a tensor has here; no operation that is understood needs more than six.
pub(super) const MAX_RANK: usize = 16;
/// The most elements of a constant that is kept: shapes, scales and axes have a few.
pub(super) const MAX_CONSTANT: usize = 1 << 12;

/// The types of `TensorProto.DataType` that are told apart.
pub(super) const FLOAT: i32 = 1;
pub(super) const INT64: i32 = 7;

/// A shape, or why it is not known.
pub(super) type Shape = Result<Vec<u64>, Unknown>;

/// A value of the graph.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) shape: Shape,
    /// `TensorProto.DataType`, 0 if the file does not say.
    pub(super) elem: i32,
    pub(super) data: Option<Data>,
}

/// What a small constant holds, in the order of memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
}

impl Value {
    /// A value of a shape that an operation made, which is checked here.
    pub(super) fn of(shape: Vec<u64>) -> Result<Value, Fault> {
        Ok(Value { shape: Ok(checked(shape)?), elem: 0, data: None })
    }

    pub(super) fn unknown(reason: Unknown) -> Value {
        Value { shape: Err(reason), elem: 0, data: None }
    }

    /// A list of whole numbers.
    pub(super) fn ints(shape: Vec<u64>, values: Vec<i64>) -> Value {
        let data = (values.len() <= MAX_CONSTANT).then_some(Data::Ints(values));
        Value { shape: Ok(shape), elem: INT64, data }
    }

    /// The value of a tensor in the file.
    pub(super) fn constant(tensor: &Tensor) -> Result<Value, Fault> {
        let size = |given: &i64| u64::try_from(*given).map_err(|_| Fault::Size { given: *given });
        let shape = checked(tensor.dims.iter().map(size).collect::<Result<_, _>>()?)?;
        let data = match elements(&shape) {
            Some(count) if count <= MAX_CONSTANT as u64 => data(tensor, count as usize),
            Some(_) | None => None,
        };
        Ok(Value { shape: Ok(shape), elem: tensor.data_type, data })
    }

    /// The shape, if it is known.
    pub(super) fn shape(&self) -> Result<&[u64], Stop> {
        self.shape.as_deref().map_err(|unknown| Stop::Unknown(unknown.clone()))
    }

    /// The whole numbers it holds.
    pub(super) fn as_ints(&self, what: &'static str) -> Result<&[i64], Stop> {
        match &self.data {
            Some(Data::Ints(values)) => Ok(values),
            Some(Data::Floats(_)) | None => Err(Stop::unknown(format!("{what} is no constant"))),
        }
    }

    /// The numbers it holds.
    pub(super) fn as_floats(&self, what: &'static str) -> Result<&[f32], Stop> {
        match &self.data {
            Some(Data::Floats(values)) => Ok(values),
            Some(Data::Ints(_)) | None => Err(Stop::unknown(format!("{what} is no constant"))),
        }
    }
}

/// The shape, if its rank and its sizes are within the limits.
fn checked(shape: Vec<u64>) -> Result<Vec<u64>, Fault> {
    if shape.len() > MAX_RANK {
        return Err(Fault::Rank { what: "a value", given: shape.len(), expected: "at most 16" });
    }
    match shape.iter().find(|size| **size > MAX_SIZE) {
        Some(given) => Err(Fault::TooLarge { given: *given, limit: MAX_SIZE }),
        None => Ok(shape),
    }
}

/// The number of elements, or nothing if it overflows.
pub(super) fn elements(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().copied().try_fold(1, u64::checked_mul)
}

/// The elements, if they are of a type that shapes are made of and there are as many as the shape
/// says.
fn data(tensor: &Tensor, count: usize) -> Option<Data> {
    let raw = tensor.raw_data.as_deref().filter(|raw| !raw.is_empty());
    let data = match (tensor.data_type, raw) {
        (INT64, Some(raw)) => {
            let (values, _) = raw.as_chunks();
            Data::Ints(values.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
        }
        (INT64, None) => Data::Ints(tensor.int64_data.clone()),
        (FLOAT, Some(raw)) => {
            let (values, _) = raw.as_chunks();
            Data::Floats(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
        (FLOAT, None) => Data::Floats(tensor.float_data.clone()),
        (_, _) => return None,
    };
    let len = match &data {
        Data::Ints(values) => values.len(),
        Data::Floats(values) => values.len(),
    };
    (len == count).then_some(data)
}

/// A reason for many values.
pub(super) fn reason(text: String) -> Arc<str> {
    text.into()
}
