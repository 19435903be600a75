//! Tensors put together, taken apart and repeated.

use super::elementwise::{broadcast, spread};
use super::generate::target;
use crate::array::{places, strides, take};
use crate::fault::{Fault, Stop, Why};
use crate::node::{Node, same_rank, size};
use crate::scalar::{Dim, Scalar, known};
use crate::value::{MAX_CONSTANT, Value, shown};

/// The inputs after one another along an axis.
pub(super) fn concat(node: &Node) -> Result<Value, Stop> {
    let mut shape = node.dims(0)?.to_vec();
    let axis = Node::axis(node.int("axis", 1), shape.len())?;
    for index in 1..node.inputs.len() {
        let other = node.dims(index)?;
        let misfit = || Fault::Mismatch { left: shown(&shape), right: shown(other) };
        if other.len() != shape.len() {
            return Err(misfit().into());
        }
        let mut joined = Vec::new();
        for (i, pair) in shape.iter().zip(other).enumerate() {
            joined.push(match pair {
                (Ok(a), Ok(b)) if i == axis => Ok(a.saturating_add(*b)),
                (Ok(a), Ok(b)) if a != b => return Err(misfit().into()),
                (Err(unknown), _) | (_, Err(unknown)) if i == axis => Err(unknown.clone()),
                (Ok(size), _) | (Err(_), Ok(size)) => Ok(*size),
                (Err(unknown), Err(_)) => Err(unknown.clone()),
            });
        }
        shape = joined;
    }
    let value = Value::of(shape)?;
    let data = joined(node, axis, &value);
    Ok(value.holding(data))
}

/// The elements of all inputs; those of an input that is not computed are unknown.
fn joined(node: &Node, axis: usize, output: &Value) -> Option<Vec<Scalar>> {
    let shape = known(output.shape.as_deref().ok()?)?;
    if output.is_empty() {
        return Some(Vec::new());
    }
    if output.count()? > MAX_CONSTANT as u64
        || node.inputs.iter().flatten().all(|v| v.data.is_none())
    {
        return None;
    }
    let mut parts = Vec::new();
    for (index, input) in node.inputs.iter().enumerate() {
        let input = (*input)?;
        let count = usize::try_from(input.count()?).ok()?;
        let missing = Scalar::Unknown(node.not_constant(index, "elements"));
        let data = input.data.as_ref().map_or_else(|| vec![missing.clone(); count], |d| d.to_vec());
        parts.push(data);
    }
    let blocks = shape[..axis].iter().product::<u64>() as usize;
    let mut all = Vec::new();
    for block in 0..blocks {
        for part in &parts {
            let len = part.len() / blocks;
            all.extend_from_slice(part.get(block * len..(block + 1) * len)?);
        }
    }
    Some(all)
}

/// The parts of an input along an axis.
pub(super) fn split(node: &Node) -> Result<Vec<Value>, Stop> {
    let (input, dims) = (node.input(0)?, node.dims(0)?);
    let axis = Node::axis(node.int("axis", 0), dims.len())?;
    let count = node.proto.output.len();
    if count > MAX_CONSTANT {
        return Err(node.stop(Why::Range));
    }
    let sizes = part_sizes(node, &dims[axis], count)?;
    let mut offset = 0;
    let mut parts = Vec::new();
    for size in sizes {
        let mut shape = dims.to_vec();
        shape[axis] = size.clone();
        let part = Value::of(shape)?;
        let data = match (&input.data, &part.shape, known(dims)) {
            (Some(data), Ok(shape), Some(from)) => known(shape).and_then(|shape| {
                let steps = strides(&from);
                take(data, steps[axis].checked_mul(offset)?, &places(&shape, &steps)?)
            }),
            (_, _, _) => None,
        };
        offset = offset.saturating_add(size.map_or(0, |size| size as i64));
        parts.push(part.holding(data));
    }
    Ok(parts)
}

/// The sizes that are given, or equal ones, of which the last may be smaller.
fn part_sizes(node: &Node, whole: &Dim, count: usize) -> Result<Vec<Dim>, Stop> {
    // Not more than there are outputs, which stand in the file.
    let given: Option<Vec<Dim>> = match (node.ints("split"), node.optional(1)) {
        (Some(sizes), _) => {
            Some(sizes.iter().map(|s| Ok(Ok(size((*s).into())?))).collect::<Result<_, Fault>>()?)
        }
        (None, Some(_)) => Some(target(node, 1, "the sizes of the parts")?),
        (None, None) => None,
    };
    let Some(sizes) = given else {
        let Ok(whole) = whole else { return Ok(vec![whole.clone(); count]) };
        let part = whole.div_ceil((count as u64).max(1));
        let each = |i: u64| Ok(part.min(whole.saturating_sub(i.saturating_mul(part))));
        return Ok((0..count as u64).map(each).collect());
    };
    let sum = sizes
        .iter()
        .try_fold(0, |sum: u64, size| size.as_ref().ok().map(|size| sum.saturating_add(*size)));
    let is_wrong = matches!((sum, whole), (Some(sum), Ok(whole)) if sum != *whole);
    if sizes.len() != count || is_wrong {
        return Err(Fault::Mismatch {
            left: shown(&sizes),
            right: shown(std::slice::from_ref(whole)),
        }
        .into());
    }
    Ok(sizes)
}

/// Each axis repeated.
pub(super) fn tile(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let repeats = target(node, 1, "the numbers of copies")?;
    same_rank("repeats", repeats.len(), dims)?;
    let times =
        |(dim, repeats): (&Dim, &Dim)| -> Dim { Ok(dim.clone()?.saturating_mul(repeats.clone()?)) };
    let value = Value::of(dims.iter().zip(&repeats).map(times).collect())?;
    let data = tiled(node, dims, &repeats);
    Ok(value.holding(data))
}

/// Through a tensor with twice the axes: copies, then places.
fn tiled(node: &Node, dims: &[Dim], repeats: &[Dim]) -> Option<Vec<Scalar>> {
    let (data, shape, repeats) = (node.data(0)?, known(dims)?, known(repeats)?);
    let pairs = repeats.iter().zip(&shape).flat_map(|(copies, size)| [*copies, *size]);
    let steps = strides(&shape).into_iter().flat_map(|step| [0, step]);
    take(data, 0, &places(&pairs.collect::<Vec<u64>>(), &steps.collect::<Vec<i64>>())?)
}

/// Repeated to a shape, in which a 1 keeps the input's size.
pub(super) fn expand(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let to = target(node, 1, "the shape")?;
    let value = Value::of(broadcast(dims, &to)?)?;
    let spread_out = || {
        let shape = known(value.shape.as_deref().ok()?)?;
        spread(&known(dims)?, node.data(0)?, &shape)
    };
    let data = spread_out();
    Ok(value.holding(data))
}
