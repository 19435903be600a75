//! The same elements under another shape or in another order.

use super::generate::target_scalars;
use crate::array::{places, strides, take};
use crate::fault::{Fault, Stop, Unknown};
use crate::node::{Node, same_rank};
use crate::scalar::{Dim, Scalar, known};
use crate::value::{MAX_RANK, Value, elements, shown};

/// Two dimensions: the sizes before an axis, and those from it on.
pub(super) fn flatten(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let axis = match node.int("axis", 1) {
        // The end of the shape is an axis here.
        end if end == dims.len() as i64 => dims.len(),
        axis => Node::axis(axis, dims.len())?,
    };
    let value = Value::of(vec![product(&dims[..axis]), product(&dims[axis..])])?;
    Ok(value.sharing(node.input(0)?))
}

/// The number of elements; one that is too large is refused as a size.
fn product(dims: &[Dim]) -> Dim {
    match dims.iter().find_map(|dim| dim.as_ref().err()) {
        Some(_) if dims.contains(&Ok(0)) => Ok(0),
        Some(unknown) => Err(unknown.clone()),
        None => Ok(elements(dims).unwrap_or(u64::MAX)),
    }
}

/// A size of the shape that a `Reshape` asks for.
enum Asked {
    Size(Dim),
    /// The input's size there.
    Same(usize),
    /// What is left.
    Rest,
}

/// The shape that is asked for; one size may be left to the number of elements.
pub(super) fn reshape(node: &Node) -> Result<Value, Stop> {
    let to = match node.ints("shape") {
        Some(shape) => shape.iter().map(|size| Scalar::Int(*size)).collect(),
        None => target_scalars(node, 1, "the shape")?,
    };
    let asked = to.iter().enumerate().take(MAX_RANK + 1).map(|(i, size)| asked(node, i, size));
    let asked = asked.collect::<Result<Vec<Asked>, Stop>>()?;
    let shape = match node.dims(0) {
        Ok(dims) => resolved(dims, &asked).ok_or_else(|| misfit(dims, &to))?,
        Err(Stop::Unknown(unknown)) => without_input(&asked, &unknown),
        Err(fault) => return Err(fault),
    };
    Ok(Value::of(shape)?.sharing(node.input(0)?))
}

fn asked(node: &Node, index: usize, size: &Scalar) -> Result<Asked, Stop> {
    Ok(match size {
        Scalar::Int(-1) => Asked::Rest,
        Scalar::Int(0) if !node.is_set("allowzero") => Asked::Same(index),
        Scalar::Int(size) => {
            Asked::Size(Ok(u64::try_from(*size).map_err(|_| Fault::Size { given: *size })?))
        }
        Scalar::Float(_) => return Err(Stop::Unknown(node.not_constant(1, "the shape"))),
        Scalar::Unknown(unknown) => Asked::Size(Err(unknown.clone())),
    })
}

fn misfit(dims: &[Dim], to: &[Scalar]) -> Fault {
    let shown_size = |size: &Scalar| size.number().map_or(0, |size| size as i64);
    Fault::Elements { from: shown(dims), to: to.iter().map(shown_size).take(MAX_RANK).collect() }
}

/// The sizes that do not depend on an input of which nothing is known.
fn without_input(asked: &[Asked], unknown: &Unknown) -> Vec<Dim> {
    let size = |asked: &Asked| match asked {
        Asked::Size(dim) => dim.clone(),
        Asked::Same(_) | Asked::Rest => Err(unknown.clone()),
    };
    asked.iter().map(size).collect()
}

/// The shape for the elements of the input; nothing if they do not fit. Sizes that stay the same
/// cancel out, known or not; one other that is not known follows from the number of elements.
fn resolved(dims: &[Dim], asked: &[Asked]) -> Option<Vec<Dim>> {
    let mut shape = Vec::new();
    let (mut given, mut open, mut rest) = (Vec::new(), Vec::new(), None);
    for (i, asked) in asked.iter().enumerate() {
        shape.push(match asked {
            Asked::Same(same) => dims.get(*same)?.clone(),
            Asked::Size(size) => {
                given.push(size.clone());
                open.extend(size.is_err().then_some(i));
                size.clone()
            }
            Asked::Rest if rest.is_some() => return None,
            Asked::Rest => {
                rest = Some(i);
                open.push(i);
                Ok(1)
            }
        });
    }
    let is_same = |i: usize| asked.iter().any(|asked| matches!(asked, Asked::Same(j) if *j == i));
    let left: Vec<Dim> =
        (0..dims.len()).filter(|i| !is_same(*i)).map(|i| dims[i].clone()).collect();
    let unknown = left.iter().chain(&given).find_map(|dim| dim.as_ref().err());
    let divisor = elements(&given.iter().filter(|dim| dim.is_ok()).cloned().collect::<Vec<Dim>>())?;
    match (elements(&left), open.as_slice()) {
        (Some(count), []) => return (count == divisor).then_some(shape),
        (Some(count), [one]) if divisor > 0 && count % divisor == 0 => {
            shape[*one] = Ok(count / divisor);
        }
        (Some(_), [_]) => return None,
        // A product that is no 64-bit number is no shape.
        (Some(_) | None, _) => {
            let unknown = unknown?;
            rest.into_iter().for_each(|rest| shape[rest] = Err(unknown.clone()));
        }
    }
    Some(shape)
}

/// The axes in another order.
pub(super) fn transpose(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let reversed: Vec<i64> = (0..dims.len() as i64).rev().collect();
    let order = node.ints("perm").unwrap_or(&reversed);
    same_rank("perm", order.len(), dims)?;
    let mut axes = Vec::new();
    for given in order {
        let axis = Node::axis(*given, dims.len())?;
        if axes.contains(&axis) {
            return Err(Fault::Axis { given: *given, rank: dims.len() }.into());
        }
        axes.push(axis);
    }
    let value = Value::of(axes.iter().map(|axis| dims[*axis].clone()).collect())?;
    let turned = || {
        let (data, from) = (node.data(0)?, known(dims)?);
        let steps = strides(&from);
        let steps: Vec<i64> = axes.iter().map(|axis| steps[*axis]).collect();
        let shape: Vec<u64> = axes.iter().map(|axis| from[*axis]).collect();
        take(data, 0, &places(&shape, &steps)?)
    };
    let data = turned();
    Ok(value.holding(data))
}

/// Without these axes of size 1, or without all that have it.
pub(super) fn squeeze(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let dropped: Vec<usize> = match node.axes(1, dims.len())? {
        Some(axes) => axes,
        None => match dims.iter().find_map(|dim| dim.as_ref().err()) {
            // Whether it is 1 decides the number of dimensions.
            Some(unknown) => return Err(Stop::Unknown(unknown.clone())),
            None => (0..dims.len()).filter(|i| dims[*i] == Ok(1)).collect(),
        },
    };
    if let Some(axis) = dropped.iter().find(|axis| matches!(dims[**axis], Ok(size) if size != 1)) {
        let given = shown(&dims[*axis..=*axis]).iter().sum::<u64>().to_string();
        return Err(Fault::Value { name: "axes", given, expected: "axes of size 1" }.into());
    }
    let kept = (0..dims.len()).filter(|i| !dropped.contains(i));
    let value = Value::of(kept.map(|i| dims[i].clone()).collect())?;
    Ok(value.sharing(node.input(0)?))
}

/// With new axes of size 1.
pub(super) fn unsqueeze(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let count = node.list_or("axes", 1)?.ok_or(Fault::MissingAttribute { name: "axes" })?.len();
    let rank = dims.len() + count;
    if rank > MAX_RANK {
        return Err(Fault::Rank { what: "the output", given: rank, expected: "at most 16" }.into());
    }
    let new = node.axes(1, rank)?.unwrap_or_default();
    let mut rest = dims.iter().cloned();
    let dim = |i: usize| if new.contains(&i) { None } else { rest.next() };
    let value = Value::of((0..rank).map(dim).map(|dim| dim.unwrap_or(Ok(1))).collect())?;
    Ok(value.sharing(node.input(0)?))
}

/// `DepthToSpace` and its inverse.
pub(super) fn blocks(node: &Node, to_space: bool) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let given = node.int("blocksize", 0);
    let wrong =
        || Fault::Value { name: "blocksize", given: given.to_string(), expected: "a divisor" };
    let block =
        u64::try_from(given).ok().filter(|block| (1..1 << 16).contains(block)).ok_or_else(wrong)?;
    let [n, c, h, w] = dims else {
        return Err(Fault::Rank { what: "the input", given: dims.len(), expected: "4" }.into());
    };
    let divided = |dim: &Dim, by: u64| match dim {
        Ok(size) if size % by != 0 => Err(wrong()),
        Ok(size) => Ok(Ok(size / by)),
        Err(unknown) => Ok(Err(unknown.clone())),
    };
    let times = |dim: &Dim, by: u64| dim.clone().map(|size| size.saturating_mul(by));
    let shape = match to_space {
        true => vec![n.clone(), divided(c, block * block)?, times(h, block), times(w, block)],
        false => vec![n.clone(), times(c, block * block), divided(h, block)?, divided(w, block)?],
    };
    Ok(Value::of(shape)?)
}
