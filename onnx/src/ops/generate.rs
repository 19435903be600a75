//! Constants, shapes as values, and tensors made of a shape.

use crate::elem::{Elem, F32, INT64};
use crate::fault::{Fault, Stop, Why};
use crate::node::{Node, few, size};
use crate::scalar::{Dim, Scalar};
use crate::value::{MAX_CONSTANT, MAX_RANK, Value};

/// The elements of an input that is a shape: those that are not known say so, if it is at least
/// known how many there are.
pub(super) fn target_scalars(
    node: &Node,
    index: usize,
    what: &'static str,
) -> Result<Vec<Scalar>, Stop> {
    let input = node.input(index)?;
    match (&input.data, input.count()) {
        (Some(data), _) => {
            few(what, data.len())?;
            Ok(data.to_vec())
        }
        (None, Some(count)) if count <= MAX_RANK as u64 => {
            let missing = Scalar::Unknown(node.not_constant(index, what));
            Ok(vec![missing; count as usize])
        }
        (None, _) => Err(Stop::Unknown(node.not_constant(index, what))),
    }
}

/// The same as sizes.
pub(super) fn target(node: &Node, index: usize, what: &'static str) -> Result<Vec<Dim>, Stop> {
    let dim = |scalar: &Scalar| match scalar {
        Scalar::Int(given) => Ok(Ok(size((*given).into())?)),
        Scalar::Float(_) => Ok(Err(node.not_constant(index, what))),
        Scalar::Unknown(unknown) => Ok(Err(unknown.clone())),
    };
    target_scalars(node, index, what)?.iter().map(dim).collect()
}

/// The sizes of the input, or some of them.
pub(super) fn shape_of(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let bound = |given: i64| {
        let from_end = if given < 0 { given.saturating_add(dims.len() as i64) } else { given };
        usize::try_from(from_end).unwrap_or(0).min(dims.len())
    };
    let (start, end) = (bound(node.int("start", 0)), bound(node.int("end", i64::MAX)));
    let some = dims.get(start..end).unwrap_or_default();
    Ok(Value::list(some.iter().map(Scalar::of_dim).collect()))
}

/// The number of elements of the input.
pub(super) fn size_of(node: &Node) -> Result<Value, Stop> {
    let missing = node.dims(0)?.iter().find_map(|dim| dim.as_ref().err());
    let count = match (node.input(0)?.count(), missing) {
        (Some(count), _) => Ok(count),
        (None, Some(unknown)) => Err(unknown.clone()),
        (None, None) => Err(node.unknown(Why::Range)),
    };
    let value = Value::of(Vec::new())?.typed(INT64);
    Ok(value.holding(Some(vec![Scalar::of_dim(&count)])))
}

/// What an attribute holds.
pub(super) fn constant(node: &Node) -> Result<Value, Stop> {
    if let Some(tensor) = node.tensor("value")? {
        return Ok(Value::constant(&tensor)?);
    }
    let list = |len: usize, elem, data: &mut dyn Iterator<Item = Scalar>| {
        let value = Value::sized(vec![len as u64])?.typed(elem);
        let data = (len <= MAX_CONSTANT).then(|| data.collect());
        Ok(value.holding(data))
    };
    if let Some(ints) = node.ints("value_ints") {
        return list(ints.len(), INT64, &mut ints.iter().map(|x| Scalar::Int(*x)));
    }
    if let Some(floats) = node.floats("value_floats") {
        return list(floats.len(), F32, &mut floats.iter().map(|x| Scalar::Float((*x).into())));
    }
    let one = |elem, data| Ok(Value::of(Vec::new())?.typed(elem).holding(Some(vec![data])));
    if let Some(i) = node.attribute("value_int").and_then(|attribute| attribute.i) {
        return one(INT64, Scalar::Int(i));
    }
    if let Some(f) = node.attribute("value_float").and_then(|attribute| attribute.f) {
        return one(F32, Scalar::Float(f.into()));
    }
    // A text or a sparse tensor.
    Err(node.stop(Why::Values))
}

/// One number all over a shape.
pub(super) fn constant_of_shape(node: &Node) -> Result<Value, Stop> {
    let value = Value::of(target(node, 0, "the shape")?)?;
    let filling = match node.tensor("value")? {
        Some(tensor) => Value::constant(&tensor)?,
        None => Value::sized(vec![1])?.typed(F32).holding(Some(vec![Scalar::Float(0.0)])),
    };
    let count = value.count().filter(|count| *count <= MAX_CONSTANT as u64);
    let data = match (count, filling.data.as_deref()) {
        (Some(count), Some([one])) => Some(vec![one.clone(); count as usize]),
        (_, _) => None,
    };
    Ok(value.typed(filling.elem).holding(data))
}

/// Numbers at equal distances.
pub(super) fn range(node: &Node) -> Result<Value, Stop> {
    let elem = node.input(0)?.elem;
    let given =
        [bound(node, 0, "the start")?, bound(node, 1, "the limit")?, bound(node, 2, "the step")?];
    let count = match &given {
        [Scalar::Int(start), Scalar::Int(limit), Scalar::Int(step)] => {
            whole_steps((*start).into(), (*limit).into(), (*step).into())
        }
        [Scalar::Float(start), Scalar::Float(limit), Scalar::Float(step)] => {
            let steps = ((limit - start) / step).ceil();
            // Not a number, if the step is zero.
            (steps < 1e18).then_some(steps.max(0.0) as u64)
        }
        [Scalar::Unknown(_) | Scalar::Int(_) | Scalar::Float(_), _, _] => None,
    };
    let unknown = given.iter().find_map(|scalar| match scalar {
        Scalar::Unknown(unknown) => Some(unknown.clone()),
        Scalar::Int(_) | Scalar::Float(_) => None,
    });
    let dim = count.ok_or_else(|| unknown.unwrap_or_else(|| node.unknown(Why::Range)));
    let data = count.and_then(|count| in_steps(&given, count, elem));
    Ok(Value::of(vec![dim])?.typed(elem).holding(data))
}

/// One number of an input, or why it is not known.
fn bound(node: &Node, index: usize, what: &'static str) -> Result<Scalar, Stop> {
    match node.parameter(index, what) {
        Ok([one]) => Ok(one.clone()),
        Ok(other) => Err(Fault::Count { name: what, given: other.len(), expected: 1 }.into()),
        Err(Stop::Unknown(unknown)) => Ok(Scalar::Unknown(unknown)),
        Err(fault) => Err(fault),
    }
}

/// The whole numbers of a range, if there are few.
fn in_steps(given: &[Scalar; 3], count: u64, elem: Elem) -> Option<Vec<Scalar>> {
    let ([Scalar::Int(start), _, Scalar::Int(step)], 0..=LIMIT) = (given, count) else {
        return None;
    };
    let number = |i: i64| Scalar::whole(start.checked_add(i.checked_mul(*step)?)?, elem);
    (0..count as i64).map(number).collect()
}

const LIMIT: u64 = MAX_CONSTANT as u64;

/// The number of steps from a start to a limit, which is left out.
fn whole_steps(start: i128, limit: i128, step: i128) -> Option<u64> {
    let span = if step > 0 { limit - start } else { start - limit };
    if step == 0 {
        return None;
    }
    u64::try_from((span.max(0) + step.abs() - 1) / step.abs()).ok()
}

/// A tensor of the shape that an attribute states.
pub(super) fn random(node: &Node) -> Result<Value, Stop> {
    let given = node.ints("shape").ok_or(Fault::MissingAttribute { name: "shape" })?;
    let shape = given.iter().map(|s| size((*s).into())).collect::<Result<_, _>>()?;
    Ok(Value::sized(shape)?.typed(dtype(node)))
}

/// Samples of each row.
pub(super) fn multinomial(node: &Node) -> Result<Value, Stop> {
    let rows = node.dims(0)?.first().cloned().unwrap_or(Ok(1));
    let samples = size(node.int("sample_size", 1).into())?;
    Ok(Value::of(vec![rows, Ok(samples)])?.typed(Elem::Int { bits: 32, signed: true }))
}

fn dtype(node: &Node) -> Elem {
    i32::try_from(node.int("dtype", 1)).map_or(Elem::Unstated, Elem::from_number)
}
