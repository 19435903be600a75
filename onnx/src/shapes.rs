//! The shapes that the operations between convolutions make.
//!
//! Promises: what is not listed here has outputs whose shape is unknown, with the operation's name
//! as the reason; nothing is guessed. Lists of whole numbers, of which exporters compute shapes,
//! are computed as far as a few operations go.

use super::conv;
use super::fault::{Fault, Stop};
use super::node::Node;
use super::value::{Data, MAX_CONSTANT, MAX_RANK, Value, elements};

/// The outputs of a node that is no convolution; further outputs, which no shape depends on, are
/// left out.
pub(super) fn outputs(node: &Node) -> Result<Vec<Value>, Stop> {
    let one = |value: Value| Ok(vec![value]);
    match node.proto.op_type.as_str() {
        "Abs"
        | "BatchNormalization"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "Dropout"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "GroupNormalization"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "InstanceNormalization"
        | "LRN"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "Mish"
        | "Neg"
        | "PRelu"
        | "Reciprocal"
        | "Relu"
        | "Round"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tanh"
        | "ThresholdedRelu" => one(Value::of(node.shape(0)?.to_vec())?),
        "Identity" => one(node.input(0)?.clone()),
        "Cast" => one(cast(node)?),
        "Add" | "Sub" | "Mul" | "Div" => one(arithmetic(node)?),
        "Max" | "Min" | "Mean" | "Sum" | "Pow" | "And" | "Or" | "Equal" | "Greater" | "Less"
        | "Where" => one(Value::of(broadcast_all(node)?)?),
        "MaxPool" | "AveragePool" | "LpPool" => one(conv::pool(node)?),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => one(global_pool(node)?),
        "Concat" => one(concat(node)?),
        "Pad" => one(pad(node)?),
        "Resize" | "Upsample" => one(resize(node)?),
        "Flatten" => one(flatten(node)?),
        "Reshape" => one(reshape(node)?),
        "Transpose" => one(transpose(node)?),
        "Squeeze" => one(squeeze(node)?),
        "Unsqueeze" => one(unsqueeze(node)?),
        "Split" => split(node),
        "Slice" => one(slice(node)?),
        "Gather" => one(gather(node)?),
        "Shape" => one(shape_of(node)?),
        "Constant" => one(constant(node)?),
        "ConstantOfShape" => one(constant_of_shape(node)?),
        "Gemm" => one(gemm(node)?),
        "MatMul" => one(matmul(node)?),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" => one(reduce(node)?),
        "DepthToSpace" => one(blocks(node, true)?),
        "SpaceToDepth" => one(blocks(node, false)?),
        other => Err(Stop::unknown(format!("the operation {} is not understood", quoted(other)))),
    }
}

/// A name from the file, fit to be shown.
pub(super) fn quoted(name: &str) -> String {
    let short: String = name.chars().take(100).flat_map(char::escape_debug).collect();
    format!("`{short}`")
}

/// Shapes aligned at their last dimensions; a size of 1 is repeated.
fn broadcast(left: &[u64], right: &[u64]) -> Result<Vec<u64>, Fault> {
    let rank = left.len().max(right.len());
    let size = |shape: &[u64], i: usize| match (i + shape.len()).checked_sub(rank) {
        Some(at) => shape[at],
        None => 1,
    };
    let mut shape = Vec::with_capacity(rank);
    for i in 0..rank {
        shape.push(match (size(left, i), size(right, i)) {
            (a, b) if a == b => a,
            (1, b) => b,
            (a, 1) => a,
            (_, _) => return Err(Fault::Mismatch { left: left.to_vec(), right: right.to_vec() }),
        });
    }
    Ok(shape)
}

fn broadcast_all(node: &Node) -> Result<Vec<u64>, Stop> {
    let mut shape = node.shape(0)?.to_vec();
    for index in 1..node.inputs.len() {
        shape = broadcast(&shape, node.shape(index)?)?;
    }
    Ok(shape)
}

/// Element by element; lists of whole numbers are computed.
fn arithmetic(node: &Node) -> Result<Value, Stop> {
    let mut value = Value::of(broadcast_all(node)?)?;
    let (left, right) = (node.input(0)?, node.input(1)?);
    if let (Some(Data::Ints(a)), Some(Data::Ints(b))) = (&left.data, &right.data) {
        let op = |a: i64, b: i64| match node.proto.op_type.as_str() {
            "Add" => a.checked_add(b),
            "Sub" => a.checked_sub(b),
            "Mul" => a.checked_mul(b),
            _ => a.checked_div(b),
        };
        let count = if a.is_empty() || b.is_empty() { 0 } else { a.len().max(b.len()) };
        let is_list = a.len() == count && b.len() == count || a.len() == 1 || b.len() == 1;
        let at = |values: &[i64], i: usize| values[if values.len() == 1 { 0 } else { i }];
        let all = (0..count).map(|i| op(at(a, i), at(b, i))).collect::<Option<Vec<i64>>>();
        value.data = if is_list { all.map(Data::Ints) } else { None };
    }
    Ok(value)
}

fn cast(node: &Node) -> Result<Value, Stop> {
    let mut value = node.input(0)?.clone();
    value.elem = i32::try_from(node.int("to", 0)).unwrap_or(0);
    // Other types are not what shapes are made of.
    if value.elem != super::value::INT64 || !matches!(value.data, Some(Data::Ints(_))) {
        value.data = None;
    }
    Ok(value)
}

fn global_pool(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    at_least(input, 2)?;
    let mut shape = input[..2].to_vec();
    shape.resize(input.len(), 1);
    Ok(Value::of(shape)?)
}

fn concat(node: &Node) -> Result<Value, Stop> {
    let mut shape = node.shape(0)?.to_vec();
    let axis = Node::axis(node.int("axis", 1), shape.len())?;
    for index in 1..node.inputs.len() {
        let other = node.shape(index)?;
        let fits = |i: usize| i == axis || other[i] == shape[i];
        if other.len() != shape.len() || !(0..shape.len()).all(fits) {
            return Err(Fault::Mismatch { left: shape, right: other.to_vec() }.into());
        }
        shape[axis] = shape[axis].saturating_add(other[axis]);
    }
    let mut value = Value::of(shape)?;
    value.data = joined(node);
    Ok(value)
}

/// The inputs after one another, if all are short lists of whole numbers.
fn joined(node: &Node) -> Option<Data> {
    let mut all = Vec::new();
    for input in &node.inputs {
        match (*input)?.data.as_ref()? {
            Data::Ints(values) if all.len() + values.len() <= MAX_CONSTANT => all.extend(values),
            Data::Ints(_) | Data::Floats(_) => return None,
        }
    }
    (node.shape(0).ok()?.len() == 1).then_some(Data::Ints(all))
}

fn pad(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let pads = match node.ints("pads").or(node.ints("paddings")) {
        Some(pads) => pads,
        None => node.input(1)?.as_ints("the padding")?,
    };
    let axes: Vec<usize> = match node.optional(3) {
        Some(axes) => {
            let axes = axes.as_ints("the list of axes")?.iter();
            axes.map(|axis| Node::axis(*axis, input.len())).collect::<Result<_, _>>()?
        }
        None => (0..input.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        let (given, expected) = (pads.len(), 2 * axes.len());
        return Err(Fault::Count { name: "pads", given, expected }.into());
    }
    let mut shape = input.to_vec();
    for (i, axis) in axes.iter().enumerate() {
        let padded =
            i128::from(shape[*axis]) + i128::from(pads[i]) + i128::from(pads[i + axes.len()]);
        shape[*axis] = size(padded)?;
    }
    Ok(Value::of(shape)?)
}

/// By factors, or to sizes; an input that is empty is not given.
fn resize(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    if node.ints("axes").is_some() {
        return Err(Stop::unknown("a Resize of some axes is not understood".to_owned()));
    }
    // Before version 11 the factors were the second input, or an attribute.
    let is_old = node.inputs.len() <= 2;
    let given =
        |index: usize| node.optional(index).filter(|value| value.shape.as_deref() != Ok(&[0]));
    if let Some(sizes) = given(3) {
        let sizes = sizes.as_ints("the list of sizes")?;
        let sizes =
            sizes.iter().map(|given| size((*given).into())).collect::<Result<Vec<u64>, _>>()?;
        same_rank("sizes", sizes.len(), input)?;
        return Ok(Value::of(sizes)?);
    }
    let factors = match (node.floats("scales"), given(if is_old { 1 } else { 2 })) {
        (Some(factors), _) => factors,
        (None, Some(value)) => value.as_floats("the list of factors")?,
        (None, None) => return Err(Fault::MissingInput { index: 2 }.into()),
    };
    same_rank("scales", factors.len(), input)?;
    let scaled = |(size, factor): (&u64, &f32)| {
        // To the whole number below; out of range becomes a size that is refused.
        let scaled = (*size as f64 * f64::from(*factor)).floor();
        if scaled >= 0.0 && factor.is_finite() {
            Ok(scaled as u64)
        } else {
            let given = factor.to_string();
            Err(Fault::Value { name: "scales", given, expected: "a positive number" })
        }
    };
    let shape = input.iter().zip(factors).map(scaled).collect::<Result<Vec<u64>, _>>()?;
    Ok(Value::of(shape)?)
}

fn flatten(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let axis = match node.int("axis", 1) {
        // The end of the shape is an axis here.
        end if end == input.len() as i64 => input.len(),
        axis => Node::axis(axis, input.len())?,
    };
    let product = |sizes: &[u64]| elements(sizes).unwrap_or(u64::MAX);
    Ok(Value::of(vec![product(&input[..axis]), product(&input[axis..])])?)
}

fn reshape(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let to = match node.ints("shape") {
        Some(shape) => shape,
        None => node.input(1)?.as_ints("the shape")?,
    };
    let misfit = || Fault::Elements {
        from: input.to_vec(),
        to: to.iter().copied().take(MAX_RANK).collect(),
    };
    let keep_zero = node.int("allowzero", 0) != 0;
    let mut shape = Vec::new();
    for (i, given) in to.iter().enumerate().take(MAX_RANK + 1) {
        shape.push(match *given {
            -1 => 1,
            0 if !keep_zero => *input.get(i).ok_or_else(misfit)?,
            given => u64::try_from(given).map_err(|_| misfit())?,
        });
    }
    let count = elements(input).ok_or_else(misfit)?;
    let known = elements(&shape).ok_or_else(misfit)?;
    match to.iter().filter(|given| **given == -1).count() {
        0 if known == count => {}
        1 if known > 0 && count % known == 0 => {
            if let Some(free) = to.iter().position(|given| *given == -1) {
                *shape.get_mut(free).ok_or_else(misfit)? = count / known;
            }
        }
        _ => return Err(misfit().into()),
    }
    let mut value = Value::of(shape)?;
    value.data = node.input(0)?.data.clone();
    Ok(value)
}

fn transpose(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let reversed: Vec<i64> = (0..input.len() as i64).rev().collect();
    let order = node.ints("perm").unwrap_or(&reversed);
    let mut seen = vec![false; input.len()];
    let mut shape = Vec::new();
    for given in order {
        let axis = Node::axis(*given, input.len())?;
        if std::mem::replace(&mut seen[axis], true) {
            return Err(Fault::Axis { given: *given, rank: input.len() }.into());
        }
        shape.push(input[axis]);
    }
    same_rank("perm", order.len(), input)?;
    Ok(Value::of(shape)?)
}

fn squeeze(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let axes = node.axes(1)?;
    let dropped: Vec<usize> = match axes {
        Some(axes) => {
            axes.iter().map(|axis| Node::axis(*axis, input.len())).collect::<Result<_, _>>()?
        }
        None => (0..input.len()).filter(|i| input[*i] == 1).collect(),
    };
    let kept = (0..input.len()).filter(|i| !dropped.contains(i));
    let mut value = Value::of(kept.map(|i| input[i]).collect())?;
    value.data = node.input(0)?.data.clone();
    Ok(value)
}

fn unsqueeze(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let axes = node.axes(1)?.ok_or(Fault::MissingAttribute { name: "axes" })?;
    let rank = input.len() + axes.len();
    if rank > MAX_RANK {
        return Err(Fault::Rank { what: "the output", given: rank, expected: "at most 16" }.into());
    }
    let mut shape = vec![None; rank];
    for given in &axes {
        let axis = Node::axis(*given, rank)?;
        if shape[axis].replace(1).is_some() {
            return Err(Fault::Axis { given: *given, rank }.into());
        }
    }
    let mut rest = input.iter().copied();
    let shape = shape.into_iter().map(|size| size.or_else(|| rest.next()).unwrap_or(1)).collect();
    let mut value = Value::of(shape)?;
    value.data = node.input(0)?.data.clone();
    Ok(value)
}

fn split(node: &Node) -> Result<Vec<Value>, Stop> {
    let input = node.shape(0)?;
    let axis = Node::axis(node.int("axis", 0), input.len())?;
    let parts = node.proto.output.len() as u64;
    let sizes: Vec<u64> = match (node.ints("split"), node.optional(1)) {
        (Some(sizes), _) => sizes.iter().map(|s| size((*s).into())).collect::<Result<_, _>>()?,
        (None, Some(sizes)) => {
            let sizes = sizes.as_ints("the list of sizes")?;
            sizes.iter().map(|s| size((*s).into())).collect::<Result<_, _>>()?
        }
        (None, None) => {
            let part = input[axis].div_ceil(parts.max(1));
            (0..parts)
                .map(|i| part.min(input[axis].saturating_sub(i.saturating_mul(part))))
                .collect()
        }
    };
    let sum = sizes.iter().copied().fold(0, u64::saturating_add);
    if sizes.len() as u64 != parts || sum != input[axis] {
        return Err(Fault::Mismatch { left: sizes, right: vec![input[axis]] }.into());
    }
    let part = |size: u64| {
        let mut shape = input.to_vec();
        shape[axis] = size;
        Ok(Value::of(shape)?)
    };
    sizes.into_iter().map(part).collect()
}

fn slice(node: &Node) -> Result<Value, Stop> {
    let input = node.input(0)?;
    let shape = input.shape()?;
    let list = |name: &'static str, index: usize| match (node.ints(name), node.optional(index)) {
        (Some(values), _) => Ok(Some(values.to_vec())),
        (None, Some(value)) => Ok::<_, Stop>(Some(value.as_ints("a bound of the slice")?.to_vec())),
        (None, None) => Ok(None),
    };
    let starts = list("starts", 1)?.ok_or(Fault::MissingInput { index: 1 })?;
    let ends = list("ends", 2)?.ok_or(Fault::MissingInput { index: 2 })?;
    let count = starts.len().min(MAX_RANK);
    let axes = list("axes", 3)?.unwrap_or_else(|| (0..count as i64).collect());
    let steps = list("steps", 4)?.unwrap_or_else(|| vec![1; count]);
    for (name, given) in [("ends", ends.len()), ("axes", axes.len()), ("steps", steps.len())] {
        if given != starts.len() {
            return Err(Fault::Count { name, given, expected: starts.len() }.into());
        }
    }
    let mut sliced = shape.to_vec();
    let mut picked = None;
    for (i, given) in axes.iter().enumerate() {
        let axis = Node::axis(*given, shape.len())?;
        let range = Range::new(starts[i], ends[i], steps[i], shape[axis])?;
        sliced[axis] = range.count;
        picked = Some(range);
    }
    let mut value = Value::of(sliced)?;
    if let (Some(Data::Ints(values)), Some(range), 1) = (&input.data, picked, shape.len()) {
        let at = |k: u64| usize::try_from(range.start + k as i128 * range.step).ok();
        let picked = (0..range.count).map(|k| values.get(at(k)?).copied());
        value.data = picked.collect::<Option<Vec<i64>>>().map(Data::Ints);
    }
    Ok(value)
}

/// The positions that a slice takes of one axis.
struct Range {
    start: i128,
    step: i128,
    count: u64,
}

impl Range {
    /// Bounds below zero count from the end; what is outside is left out.
    fn new(start: i64, end: i64, step: i64, size: u64) -> Result<Range, Fault> {
        if step == 0 {
            return Err(Fault::Value { name: "steps", given: "0".to_owned(), expected: "not 0" });
        }
        let (size, step) = (i128::from(size), i128::from(step));
        let (least, most) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let bound = |given: i64| {
            let given = i128::from(given);
            (if given < 0 { given + size } else { given }).clamp(least, most)
        };
        let start = if step > 0 { bound(start) } else { bound(start).max(0) };
        // Only what was given counts from the end, not the bound before the first position.
        let end = bound(end);
        let span = if step > 0 { end - start } else { start - end };
        let steps = step.abs();
        let count = if span <= 0 { 0 } else { (span + steps - 1) / steps };
        Ok(Range { start, step, count: u64::try_from(count).unwrap_or(u64::MAX) })
    }
}

fn gather(node: &Node) -> Result<Value, Stop> {
    let (input, indices) = (node.input(0)?, node.input(1)?);
    let (from, by) = (input.shape()?, indices.shape()?);
    let axis = Node::axis(node.int("axis", 0), from.len())?;
    let shape = [&from[..axis], by, &from[axis + 1..]].concat();
    let mut value = Value::of(shape)?;
    if let (Some(Data::Ints(values)), Some(Data::Ints(indices)), 1) =
        (&input.data, &indices.data, from.len())
    {
        let pick = |index: &i64| Ok(values[Node::axis(*index, values.len())?]);
        value.data = Some(Data::Ints(indices.iter().map(pick).collect::<Result<_, Fault>>()?));
    }
    Ok(value)
}

fn shape_of(node: &Node) -> Result<Value, Stop> {
    let shape = node.shape(0)?;
    let bound = |given: i64| {
        let from_end = if given < 0 { given.saturating_add(shape.len() as i64) } else { given };
        usize::try_from(from_end).unwrap_or(0).min(shape.len())
    };
    let (start, end) = (bound(node.int("start", 0)), bound(node.int("end", i64::MAX)));
    let sizes: Vec<i64> =
        shape.get(start..end).unwrap_or_default().iter().map(|size| *size as i64).collect();
    Ok(Value::ints(vec![sizes.len() as u64], sizes))
}

fn constant(node: &Node) -> Result<Value, Stop> {
    if let Some(tensor) = node.tensor("value")? {
        return Ok(Value::constant(&tensor)?);
    }
    let named = |name: &str| node.attributes.iter().find(|attribute| attribute.name == name);
    if let Some(list) = named("value_ints") {
        return Ok(Value::ints(vec![list.ints.len() as u64], list.ints.clone()));
    }
    if let Some(i) = named("value_int").and_then(|attribute| attribute.i) {
        return Ok(Value::ints(Vec::new(), vec![i]));
    }
    if let Some(list) = named("value_floats") {
        let mut value = Value::of(vec![list.floats.len() as u64])?;
        value.data = (list.floats.len() <= MAX_CONSTANT).then(|| Data::Floats(list.floats.clone()));
        return Ok(value);
    }
    if named("value_float").is_some() {
        return Ok(Value::of(Vec::new())?);
    }
    Err(Stop::unknown("its Constant holds no number".to_owned()))
}

fn constant_of_shape(node: &Node) -> Result<Value, Stop> {
    let sizes = node.input(0)?.as_ints("the shape")?;
    let shape = sizes.iter().map(|given| size((*given).into())).collect::<Result<_, _>>()?;
    let mut value = Value::of(shape)?;
    value.elem = node.tensor("value")?.map_or(super::value::FLOAT, |tensor| tensor.data_type);
    Ok(value)
}

fn gemm(node: &Node) -> Result<Value, Stop> {
    let (left, right) = (node.shape(0)?, node.shape(1)?);
    if left.len() != 2 || right.len() != 2 {
        let given = if left.len() == 2 { right.len() } else { left.len() };
        return Err(Fault::Rank { what: "a matrix", given, expected: "2" }.into());
    }
    let rows = left[usize::from(node.int("transA", 0) != 0)];
    let columns = right[usize::from(node.int("transB", 0) == 0)];
    Ok(Value::of(vec![rows, columns])?)
}

fn matmul(node: &Node) -> Result<Value, Stop> {
    let (left, right) = (node.shape(0)?, node.shape(1)?);
    at_least(left, 2)?;
    at_least(right, 2)?;
    let (outer_left, outer_right) = (&left[..left.len() - 2], &right[..right.len() - 2]);
    let mut shape = broadcast(outer_left, outer_right)?;
    shape.extend([left[left.len() - 2], right[right.len() - 1]]);
    Ok(Value::of(shape)?)
}

fn reduce(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let axes: Vec<usize> = match node.axes(1)? {
        Some(axes) if !axes.is_empty() => {
            axes.iter().map(|axis| Node::axis(*axis, input.len())).collect::<Result<_, _>>()?
        }
        Some(_) | None => (0..input.len()).collect(),
    };
    let keep = node.int("keepdims", 1) != 0;
    let sizes = (0..input.len()).filter(|i| keep || !axes.contains(i));
    Ok(Value::of(sizes.map(|i| if axes.contains(&i) { 1 } else { input[i] }).collect())?)
}

/// `DepthToSpace` and its inverse.
fn blocks(node: &Node, to_space: bool) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    let given = node.int("blocksize", 0);
    let wrong =
        || Fault::Value { name: "blocksize", given: given.to_string(), expected: "a divisor" };
    let block =
        u64::try_from(given).ok().filter(|block| (1..1 << 16).contains(block)).ok_or_else(wrong)?;
    let [n, c, h, w] = input else {
        return Err(Fault::Rank { what: "the input", given: input.len(), expected: "4" }.into());
    };
    let divides =
        if to_space { c % (block * block) == 0 } else { h % block == 0 && w % block == 0 };
    match (divides, to_space) {
        (false, _) => Err(wrong().into()),
        (true, true) => Ok(Value::of(vec![*n, c / (block * block), h * block, w * block])?),
        (true, false) => Ok(Value::of(vec![*n, c * block * block, h / block, w / block])?),
    }
}

fn at_least(shape: &[u64], rank: usize) -> Result<(), Fault> {
    if shape.len() < rank {
        return Err(Fault::Rank { what: "the input", given: shape.len(), expected: "more" });
    }
    Ok(())
}

fn same_rank(name: &'static str, given: usize, shape: &[u64]) -> Result<(), Fault> {
    if given != shape.len() {
        return Err(Fault::Count { name, given, expected: shape.len() });
    }
    Ok(())
}

fn size(given: i128) -> Result<u64, Fault> {
    u64::try_from(given)
        .map_err(|_| Fault::Size { given: i64::try_from(given).unwrap_or(i64::MIN) })
}
