//! Elements chosen by indices or by what they are.

use crate::array::take;
use crate::elem::INT64;
use crate::fault::{Fault, Stop, Why};
use crate::node::{Node, at_least};
use crate::scalar::{Dim, Scalar, known};
use crate::value::{MAX_CONSTANT, Value, shown};

/// Slices of one axis, by number.
pub(super) fn gather(node: &Node) -> Result<Value, Stop> {
    let (from, by) = (node.dims(0)?, node.dims(1)?);
    let axis = Node::axis(node.int("axis", 0), from.len())?;
    let value = Value::of([&from[..axis], by, &from[axis + 1..]].concat())?;
    let (Some(data), Some(indices), Some(from)) = (node.data(0), node.data(1), known(from)) else {
        return Ok(value);
    };
    if !value.count().is_some_and(|count| (1..=MAX_CONSTANT as u64).contains(&count)) {
        return Ok(value);
    }
    let outer: u64 = from[..axis].iter().product();
    let inner: u64 = from[axis + 1..].iter().product();
    let mut all = Vec::new();
    for block in 0..outer {
        for index in indices.iter() {
            let first = block * from[axis];
            match index {
                Scalar::Int(index) => {
                    let place = first + Node::axis(*index, from[axis] as usize)? as u64;
                    let places: Vec<i64> = (0..inner as i64).collect();
                    let part = take(data, (place * inner) as i64, &places).unwrap_or_default();
                    all.extend(part);
                }
                // No index at all, or one that is not known.
                Scalar::Float(_) => return Ok(value),
                Scalar::Unknown(_) => all.extend(vec![index.clone(); inner as usize]),
            }
        }
    }
    Ok(value.holding(Some(all)))
}

/// One element for each index.
pub(super) fn gather_elements(node: &Node) -> Result<Value, Stop> {
    at_least(node.dims(0)?, 1)?;
    Ok(Value::of(node.dims(1)?.to_vec())?)
}

/// Slices at the coordinates that the last axis of the indices holds.
pub(super) fn gather_nd(node: &Node) -> Result<Value, Stop> {
    let (from, by) = (node.dims(0)?, node.dims(1)?);
    let batch = usize::try_from(node.int("batch_dims", 0)).unwrap_or(usize::MAX);
    let (last, outer) = by.split_last().ok_or(Fault::Rank {
        what: "the indices",
        given: 0,
        expected: "1 or more",
    })?;
    let length = last.clone().map_err(Stop::Unknown)?;
    let used = batch.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
    let rest = from.get(used..).ok_or(Fault::Axis { given: used as i64, rank: from.len() })?;
    Ok(Value::of([outer, rest].concat())?)
}

/// The input with some elements replaced.
pub(super) fn scatter_nd(node: &Node) -> Result<Value, Stop> {
    let value = Value::of(node.dims(0)?.to_vec())?;
    let data = scattered(node);
    Ok(value.holding(data))
}

/// The elements, where each coordinate is that of one.
fn scattered(node: &Node) -> Option<Vec<Scalar>> {
    let (from, by) = (known(node.dims(0).ok()?)?, known(node.dims(1).ok()?)?);
    let is_plain = node.word("reduction").is_none_or(|word| word == "none");
    let rank = from.len();
    if !is_plain || rank == 0 || by.last() != Some(&(rank as u64)) {
        return None;
    }
    let mut data = node.data(0)?.to_vec();
    let (indices, updates) = (node.data(1)?, node.data(2)?);
    let steps = crate::array::strides(&from);
    for (index, update) in indices.chunks_exact(rank).zip(updates.iter()) {
        let mut place = 0_i64;
        for ((index, size), step) in index.iter().zip(&from).zip(&steps) {
            let Scalar::Int(index) = index else { return None };
            let axis = Node::axis(*index, *size as usize).ok()?;
            place += axis as i64 * step;
        }
        *data.get_mut(usize::try_from(place).ok()?)? = update.clone();
    }
    Some(data)
}

/// The coordinates of what is not zero: one row an axis, one column an element.
pub(super) fn non_zero(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let rank = Ok(dims.len() as u64);
    let number = |scalar: &Scalar| scalar.number().map(|number| number != 0.0);
    let data = node.data(0).map(|data| data.iter().map(number).collect::<Option<Vec<bool>>>());
    let (Some(Some(holds)), Some(shape)) = (data, known(dims)) else {
        let value = Value::of(vec![rank, Err(node.unknown(Why::Values))])?;
        return Ok(value.typed(INT64));
    };
    let found: Vec<u64> = (0..).zip(&holds).filter(|(_, holds)| **holds).map(|(i, _)| i).collect();
    let steps = crate::array::strides(&shape);
    let row = |axis: usize| {
        let (step, size) = (steps[axis] as u64, shape[axis]);
        found.iter().map(move |place| Scalar::Int((place / step.max(1) % size.max(1)) as i64))
    };
    let all = (0..shape.len()).flat_map(row).take(MAX_CONSTANT + 1).collect();
    let value = Value::of(vec![rank, Ok(found.len() as u64)])?;
    Ok(value.typed(INT64).holding(Some(all)))
}

/// Rows of a batch, a class and a box, as many as are found.
pub(super) fn non_max_suppression(node: &Node) -> Result<Value, Stop> {
    Ok(Value::of(vec![Err(node.unknown(Why::Values)), Ok(3)])?.typed(INT64))
}

/// Slices of an axis, or elements in a list, as many as are found.
pub(super) fn some_elements(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let found: Dim = Err(node.unknown(Why::Values));
    let Some(axis) = node.attribute("axis").and_then(|attribute| attribute.i) else {
        return Ok(Value::of(vec![found])?);
    };
    let mut shape = dims.to_vec();
    shape[Node::axis(axis, dims.len())?] = found;
    Ok(Value::of(shape)?)
}

/// A new axis, on which one element is set.
pub(super) fn one_hot(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let depth = match node.parameter(1, "the depth") {
        Ok([one]) => match one.number() {
            Some(depth) => Ok(crate::node::size(depth as i128)?),
            None => Err(node.not_constant(1, "the depth")),
        },
        Ok(other) => {
            return Err(
                Fault::Mismatch { left: vec![other.len() as u64], right: shown(&[Ok(1)]) }.into()
            );
        }
        Err(Stop::Unknown(unknown)) => Err(unknown),
        Err(fault) => return Err(fault),
    };
    let mut shape = dims.to_vec();
    shape.insert(Node::axis(node.int("axis", -1), dims.len() + 1)?, depth);
    let elem = node.input(2)?.elem;
    Ok(Value::of(shape)?.typed(elem))
}
