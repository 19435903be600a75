//! `Slice`: bounds below zero count from the end; what is outside is left out.

use super::generate::target_scalars;
use crate::array::{places, strides, take};
use crate::fault::{Fault, Stop, Unknown};
use crate::node::Node;
use crate::scalar::{Dim, Scalar, known};
use crate::value::Value;

/// Every `step`th element from `start` to `end`, of some axes.
pub(super) fn slice(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let bounds = Bounds::of(node, dims.len())?;
    let mut shape = dims.to_vec();
    let mut spans = Some(vec![None; dims.len()]);
    for (i, axis) in bounds.axes.iter().enumerate() {
        let span = bounds.span(i, &dims[*axis])?;
        shape[*axis] = span.clone().map(|span| span.count);
        match (&mut spans, span) {
            (Some(spans), Ok(span)) => spans[*axis] = Some(span),
            (_, _) => spans = None,
        }
    }
    let value = Value::of(shape)?;
    let data = spans.and_then(|spans| picked(node, dims, &value, &spans));
    Ok(value.holding(data))
}

/// What a `Slice` takes, one entry for each of its axes.
struct Bounds {
    axes: Vec<usize>,
    starts: Vec<Scalar>,
    ends: Vec<Scalar>,
    steps: Vec<Scalar>,
}

impl Bounds {
    fn of(node: &Node, rank: usize) -> Result<Bounds, Stop> {
        let list = |name: &'static str, index: usize| match (node.ints(name), node.optional(index))
        {
            (Some(values), _) => {
                crate::node::few(name, values.len())?;
                Ok(Some(values.iter().map(|x| Scalar::Int(*x)).collect()))
            }
            (None, Some(_)) => target_scalars(node, index, name).map(Some),
            (None, None) => Ok::<Option<Vec<Scalar>>, Stop>(None),
        };
        let starts = list("starts", 1)?.ok_or(Fault::MissingInput { index: 1 })?;
        let ends = list("ends", 2)?.ok_or(Fault::MissingInput { index: 2 })?;
        let count = starts.len();
        let steps = list("steps", 4)?.unwrap_or_else(|| vec![Scalar::Int(1); count]);
        let axes = match node.axes(3, rank)? {
            Some(axes) => axes,
            None if count <= rank => (0..count).collect(),
            None => return Err(Fault::Axis { given: count as i64 - 1, rank }.into()),
        };
        for (name, given) in [("ends", ends.len()), ("axes", axes.len()), ("steps", steps.len())] {
            if given != count {
                return Err(Fault::Count { name, given, expected: count }.into());
            }
        }
        Ok(Bounds { axes, starts, ends, steps })
    }

    /// What is taken of an axis of that size.
    fn span(&self, i: usize, dim: &Dim) -> Result<Result<Span, Unknown>, Stop> {
        match (&self.starts[i], &self.ends[i], &self.steps[i], dim) {
            (Scalar::Int(start), Scalar::Int(end), Scalar::Int(step), Ok(size)) => {
                Ok(Ok(Span::new(*start, *end, *step, *size)?))
            }
            (Scalar::Unknown(unknown), _, _, _)
            | (_, Scalar::Unknown(unknown), _, _)
            | (_, _, Scalar::Unknown(unknown), _)
            | (_, _, _, Err(unknown)) => Ok(Err(unknown.clone())),
            (_, _, _, Ok(_)) => {
                let (name, given) = ("starts", "a float".to_owned());
                Err(Fault::Value { name, given, expected: "whole numbers" }.into())
            }
        }
    }
}

/// The positions that a slice takes of one axis.
#[derive(Clone)]
struct Span {
    start: i64,
    step: i64,
    count: u64,
}

impl Span {
    fn new(start: i64, end: i64, step: i64, size: u64) -> Result<Span, Fault> {
        if step == 0 {
            return Err(Fault::Value { name: "steps", given: "0".to_owned(), expected: "not 0" });
        }
        let (size, by) = (i128::from(size), i128::from(step));
        let (least, most) = if by > 0 { (0, size) } else { (-1, size - 1) };
        let bound = |given: i64| {
            let given = i128::from(given);
            (if given < 0 { given + size } else { given }).clamp(least, most)
        };
        // Only what was given counts from the end, not the bound before the first position.
        let start = if by > 0 { bound(start) } else { bound(start).max(0) };
        let span = if by > 0 { bound(end) - start } else { start - bound(end) };
        let count = if span <= 0 { 0 } else { (span + by.abs() - 1) / by.abs() };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        Ok(Span { start: i64::try_from(start).unwrap_or(0), step, count })
    }
}

/// The elements that are taken.
fn picked(
    node: &Node,
    dims: &[Dim],
    output: &Value,
    spans: &[Option<Span>],
) -> Option<Vec<Scalar>> {
    let (data, from) = (node.data(0)?, known(dims)?);
    let shape = known(output.shape.as_deref().ok()?)?;
    let mut steps = strides(&from);
    let mut offset = 0_i64;
    for (own, span) in steps.iter_mut().zip(spans) {
        if let Some(span) = span {
            offset = offset.checked_add(own.checked_mul(span.start)?)?;
            *own = own.saturating_mul(span.step);
        }
    }
    take(data, offset, &places(&shape, &steps)?)
}
