//! Operations element by element, and those that keep the shape of their first input.

use super::numbers::{Binary, Unary};
use crate::array::{places, repeated};
use crate::elem::{Elem, UINT8};
use crate::fault::{Fault, Stop, Unknown, Why};
use crate::node::Node;
use crate::scalar::{Dim, Scalar, known};
use crate::value::{Value, shown};

/// Whether the output has the shape of the first input.
pub(super) fn keeps_shape(op: &str) -> bool {
    matches!(
        op,
        "Abs"
            | "Acos"
            | "Acosh"
            | "Asin"
            | "Asinh"
            | "Atan"
            | "Atanh"
            | "Bernoulli"
            | "BitwiseNot"
            | "Ceil"
            | "Celu"
            | "Clip"
            | "Cos"
            | "Cosh"
            | "CumSum"
            | "CumProd"
            | "DequantizeLinear"
            | "Elu"
            | "Erf"
            | "Exp"
            | "EyeLike"
            | "Floor"
            | "Gelu"
            | "GroupNormalization"
            | "HardSigmoid"
            | "HardSwish"
            | "Hardmax"
            | "InstanceNormalization"
            | "IsInf"
            | "IsNaN"
            | "LRN"
            | "LeakyRelu"
            | "Log"
            | "LogSoftmax"
            | "LpNormalization"
            | "MeanVarianceNormalization"
            | "Mish"
            | "Neg"
            | "Not"
            | "PRelu"
            | "QuantizeLinear"
            | "RMSNormalization"
            | "RandomNormalLike"
            | "RandomUniformLike"
            | "Reciprocal"
            | "Relu"
            | "ReverseSequence"
            | "RotaryEmbedding"
            | "Round"
            | "Scatter"
            | "ScatterElements"
            | "Selu"
            | "Shrink"
            | "Sigmoid"
            | "Sign"
            | "Sin"
            | "Sinh"
            | "Softmax"
            | "Softplus"
            | "Softsign"
            | "Sqrt"
            | "Swish"
            | "Tan"
            | "Tanh"
            | "TensorScatter"
            | "ThresholdedRelu"
            | "Trilu"
    )
}

/// Whether the output has the shape of all inputs together.
pub(super) fn is_broadcast(op: &str) -> bool {
    Binary::from_name(op).is_some()
        || matches!(op, "Where" | "Mean" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor")
}

/// An output of the first input's shape.
pub(super) fn unary(node: &Node) -> Result<Value, Stop> {
    let input = node.input(0)?;
    let value = Value::of(node.dims(0)?.to_vec())?.typed(elem_of(node));
    let elem = value.elem;
    let (Some(data), Some(op)) = (&input.data, Unary::from_name(&node.proto.op_type)) else {
        return Ok(value);
    };
    let missing = node.unknown(Why::Range);
    let computed = data.iter().map(|x| or_out_of_range(op.of(x, elem), &missing)).collect();
    Ok(value.holding(Some(computed)))
}

/// The values, and which of them are kept.
pub(super) fn dropout(node: &Node) -> Result<Vec<Value>, Stop> {
    let values = Value::of(node.dims(0)?.to_vec())?;
    Ok(vec![values.clone(), values.typed(Elem::Bool)])
}

/// The type of such an output, where it is not that of the first input.
fn elem_of(node: &Node) -> Elem {
    let of = |index: usize| node.optional(index).map_or(Elem::Unstated, |value| value.elem);
    let stated = |name| i32::try_from(node.int(name, 0)).map_or(Elem::Unstated, Elem::from_number);
    match node.proto.op_type.as_str() {
        "IsInf" | "IsNaN" => Elem::Bool,
        "QuantizeLinear" => match (of(2), stated("output_dtype")) {
            (Elem::Unstated, Elem::Unstated) => UINT8,
            (Elem::Unstated, stated) => stated,
            (zero_point, _) => zero_point,
        },
        "DequantizeLinear" => of(1),
        "Bernoulli" | "EyeLike" | "RandomNormalLike" | "RandomUniformLike" => {
            match stated("dtype") {
                Elem::Unstated => of(0),
                stated => stated,
            }
        }
        _ => of(0),
    }
}

/// What an operation makes, or that the type does not hold it.
fn or_out_of_range(made: Option<Scalar>, missing: &Unknown) -> Scalar {
    made.unwrap_or_else(|| Scalar::Unknown(missing.clone()))
}

/// An output of the shape of all inputs.
pub(super) fn broadcast_op(node: &Node) -> Result<Value, Stop> {
    if node.is_set("broadcast") {
        // Before version 7 the second input was repeated to the shape of the first.
        return Ok(Value::of(node.dims(0)?.to_vec())?);
    }
    let all: Vec<usize> = (0..node.inputs.len().max(1)).collect();
    let value = broadcast_inputs(node, &all)?;
    let op = node.proto.op_type.as_str();
    let (elem, data) = match Binary::from_name(op) {
        Some(Binary::Mod) if node.is_set("fmod") => (of_first(node), combined(node, Binary::Rem)),
        Some(op) => (result_of(node, op), combined(node, op)),
        None if op == "Where" => (node.input(1)?.elem, chosen(node, &value)),
        None => (of_first(node), None),
    };
    Ok(value.typed(elem).holding(data))
}

fn of_first(node: &Node) -> Elem {
    node.optional(0).map_or(Elem::Unstated, |value| value.elem)
}

fn result_of(node: &Node, op: Binary) -> Elem {
    match op {
        Binary::Equal
        | Binary::Less
        | Binary::LessOrEqual
        | Binary::Greater
        | Binary::GreaterOrEqual => Elem::Bool,
        Binary::Add
        | Binary::Sub
        | Binary::Mul
        | Binary::Div
        | Binary::Mod
        | Binary::Rem
        | Binary::Pow
        | Binary::Max
        | Binary::Min
        | Binary::And
        | Binary::Or
        | Binary::Xor => of_first(node),
    }
}

/// An output of the shape of these inputs.
pub(super) fn broadcast_inputs(node: &Node, inputs: &[usize]) -> Result<Value, Stop> {
    let mut shape: Vec<Dim> = Vec::new();
    for index in inputs {
        shape = broadcast(&shape, node.dims(*index)?)?;
    }
    Ok(Value::of(shape)?)
}

/// Shapes aligned at their last dimensions; a size of 1 is repeated. A size that is not known is
/// that of the other, if that is not 1.
pub(super) fn broadcast(left: &[Dim], right: &[Dim]) -> Result<Vec<Dim>, Fault> {
    let rank = left.len().max(right.len());
    let size = |shape: &[Dim], i: usize| match (i + shape.len()).checked_sub(rank) {
        Some(at) => shape[at].clone(),
        None => Ok(1),
    };
    let together = |i: usize| match (size(left, i), size(right, i)) {
        (Ok(1), other) | (other, Ok(1)) => Ok(other),
        (Ok(a), Ok(b)) if a != b => Err(Fault::Mismatch { left: shown(left), right: shown(right) }),
        (Ok(size), _) | (Err(_), Ok(size)) => Ok(Ok(size)),
        (Err(unknown), Err(_)) => Ok(Err(unknown)),
    };
    (0..rank).map(together).collect()
}

/// The elements of two or more inputs, combined from the left.
fn combined(node: &Node, op: Binary) -> Option<Vec<Scalar>> {
    let first = node.input(0).ok()?;
    let mut so_far = (known(first.shape.as_deref().ok()?)?, first.data.clone()?.to_vec());
    let (elem, missing) = (result_of(node, op), node.unknown(Why::Range));
    for input in &node.inputs[1..] {
        let input = (*input)?;
        let (a, shape_of_b) = (&so_far, known(input.shape.as_deref().ok()?)?);
        let b = (shape_of_b, input.data.clone()?.to_vec());
        let dims = |shape: &[u64]| shape.iter().copied().map(Ok).collect::<Vec<Dim>>();
        let shape = known(&broadcast(&dims(&a.0), &dims(&b.0)).ok()?)?;
        let (left, right) = (spread(&a.0, &a.1, &shape)?, spread(&b.0, &b.1, &shape)?);
        let pairs = left.iter().zip(&right);
        let made = pairs.map(|(a, b)| or_out_of_range(op.of(a, b, elem), &missing)).collect();
        so_far = (shape, made);
    }
    Some(so_far.1)
}

/// The elements of the second or the third input, as the first says.
fn chosen(node: &Node, output: &Value) -> Option<Vec<Scalar>> {
    let shape = known(output.shape.as_deref().ok()?)?;
    let of = |index: usize| {
        let value = node.optional(index)?;
        spread(&known(value.shape.as_deref().ok()?)?, value.data.as_ref()?, &shape)
    };
    let (condition, yes, no) = (of(0)?, of(1)?, of(2)?);
    let choose = |((condition, yes), no): ((&Scalar, &Scalar), &Scalar)| match condition {
        Scalar::Int(0) => no.clone(),
        Scalar::Int(_) => yes.clone(),
        Scalar::Unknown(_) if yes == no => yes.clone(),
        Scalar::Float(_) | Scalar::Unknown(_) => condition.clone(),
    };
    Some(condition.iter().zip(&yes).zip(&no).map(choose).collect())
}

/// Elements repeated to fill a shape.
pub(super) fn spread(from: &[u64], data: &[Scalar], to: &[u64]) -> Option<Vec<Scalar>> {
    crate::array::take(data, 0, &places(to, &repeated(from, to.len()))?)
}

/// The elements in another type.
pub(super) fn cast(node: &Node) -> Result<Value, Stop> {
    let input = node.input(0)?;
    let number = match node.optional(1) {
        Some(like) => like.elem,
        None => i32::try_from(node.int("to", 0)).map_or(Elem::Unstated, Elem::from_number),
    };
    let value = Value::of(node.dims(0)?.to_vec())?;
    let to_elem = |x: &Scalar| match x {
        Scalar::Int(x) => Scalar::whole(*x, number),
        Scalar::Float(x) => Scalar::float(*x, number),
        Scalar::Unknown(_) => Some(x.clone()),
    };
    let missing = node.unknown(Why::Range);
    let each = |x: &Scalar| or_out_of_range(to_elem(x), &missing);
    let data = input.data.as_ref().map(|data| data.iter().map(each).collect());
    Ok(Value { elem: number, ..value }.holding(data))
}
