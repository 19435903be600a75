//! Sums, products, extremes and their places along axes.

use super::numbers::Binary;
use crate::array::{places, strides, take};
use crate::elem::INT64;
use crate::fault::{Stop, Why};
use crate::node::{Node, size};
use crate::scalar::{Dim, Scalar, known};
use crate::value::Value;

/// Whether an operation reduces axes.
pub(super) fn is_reduction(op: &str) -> bool {
    matches!(
        op,
        "ReduceL1"
            | "ReduceL2"
            | "ReduceLogSum"
            | "ReduceLogSumExp"
            | "ReduceMax"
            | "ReduceMean"
            | "ReduceMin"
            | "ReduceProd"
            | "ReduceSum"
            | "ReduceSumSquare"
    )
}

/// The axes that are given become 1 or go; all do, if none is given.
pub(super) fn reduce(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let given = match node.optional(1).filter(|axes| axes.is_empty()) {
        Some(_) => None,
        None => node.axes(1, dims.len())?.filter(|axes| !axes.is_empty()),
    };
    let axes: Vec<usize> = match given {
        Some(axes) => axes,
        None if node.is_set("noop_with_empty_axes") => return Ok(node.input(0)?.clone()),
        None => (0..dims.len()).collect(),
    };
    let keep = node.int("keepdims", 1) != 0;
    let value = Value::of(without(dims, &axes, keep))?.typed(node.input(0)?.elem);
    let data = reduced(node, dims, &axes);
    Ok(value.holding(data))
}

fn without(dims: &[Dim], axes: &[usize], keep: bool) -> Vec<Dim> {
    let left = (0..dims.len()).filter(|i| keep || !axes.contains(i));
    left.map(|i| if axes.contains(&i) { Ok(1) } else { dims[i].clone() }).collect()
}

/// The elements, for the operations that shapes are made with.
fn reduced(node: &Node, dims: &[Dim], axes: &[usize]) -> Option<Vec<Scalar>> {
    // With what no elements give.
    let (op, empty) = match node.proto.op_type.as_str() {
        "ReduceProd" => (Binary::Mul, Some(1)),
        "ReduceSum" => (Binary::Add, Some(0)),
        "ReduceMax" => (Binary::Max, None),
        "ReduceMin" => (Binary::Min, None),
        _ => return None,
    };
    let (data, shape, elem) = (node.data(0)?, known(dims)?, node.input(0).ok()?.elem);
    let steps = strides(&shape);
    let of = |reduced: bool| {
        let some: Vec<usize> = (0..shape.len()).filter(|i| axes.contains(i) == reduced).collect();
        let sizes: Vec<u64> = some.iter().map(|i| shape[*i]).collect();
        places(&sizes, &some.iter().map(|i| steps[*i]).collect::<Vec<i64>>())
    };
    let (kept, inner) = (of(false)?, of(true)?);
    let missing = Scalar::Unknown(node.unknown(Why::Range));
    let one = |place: &i64| {
        let parts = take(data, *place, &inner)?;
        let mut rest = parts.into_iter();
        let first = rest.next().or_else(|| Scalar::whole(empty?, elem))?;
        Some(rest.fold(first, |sum, x| op.of(&sum, &x, elem).unwrap_or_else(|| missing.clone())))
    };
    kept.iter().map(one).collect()
}

/// The places of extremes on an axis.
pub(super) fn arg(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let axis = Node::axis(node.int("axis", 0), dims.len())?;
    let keep = node.int("keepdims", 1) != 0;
    Ok(Value::of(without(dims, &[axis], keep))?.typed(INT64))
}

/// The largest of an axis, and their places.
pub(super) fn top_k(node: &Node) -> Result<Vec<Value>, Stop> {
    let mut shape = node.dims(0)?.to_vec();
    let axis = Node::axis(node.int("axis", -1), shape.len())?;
    let count = match node.attribute("k").and_then(|attribute| attribute.i) {
        Some(count) => Ok(size(count.into())?),
        None => match node.scalar(1, "the number of elements") {
            Ok(count) => Ok(size(count.into())?),
            Err(Stop::Unknown(unknown)) => Err(unknown),
            Err(fault) => return Err(fault),
        },
    };
    shape[axis] = count;
    let values = Value::of(shape)?;
    Ok(vec![values.clone(), values.typed(INT64)])
}
