//! Spatial axes padded, scaled, cut and sampled.

use super::generate::{target, target_scalars};
use crate::fault::{Fault, Stop, Why};
use crate::node::{Node, at_least, few, same_rank, size};
use crate::scalar::{Dim, Scalar};
use crate::value::{Value, elements};

/// Positions before and after each axis; negative ones are cut off.
pub(super) fn pad(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let pads = match node.ints("pads").or(node.ints("paddings")) {
        Some(pads) => {
            few("pads", pads.len())?;
            pads.iter().map(|pad| Scalar::Int(*pad)).collect()
        }
        None => padding(node, dims.len())?,
    };
    let axes = match node.optional(3) {
        Some(_) => node.axes(3, dims.len())?.unwrap_or_default(),
        None => (0..dims.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        let (given, expected) = (pads.len(), 2 * axes.len());
        return Err(Fault::Count { name: "pads", given, expected }.into());
    }
    let mut shape = dims.to_vec();
    for (i, axis) in axes.iter().enumerate() {
        shape[*axis] = match (&shape[*axis], &pads[i], &pads[i + axes.len()]) {
            (Ok(dim), Scalar::Int(before), Scalar::Int(after)) => {
                Ok(size(i128::from(*dim) + i128::from(*before) + i128::from(*after))?)
            }
            (Err(unknown), _, _)
            | (_, Scalar::Unknown(unknown), _)
            | (_, _, Scalar::Unknown(unknown)) => Err(unknown.clone()),
            (Ok(_), _, _) => Err(node.not_constant(1, "the padding")),
        };
    }
    Ok(Value::of(shape)?)
}

/// The padding that is an input; where it is computed, each axis that it is given for is unknown.
fn padding(node: &Node, rank: usize) -> Result<Vec<Scalar>, Stop> {
    match target_scalars(node, 1, "the padding") {
        // It has two entries an axis, whether their number is known or not.
        Err(Stop::Unknown(unknown)) if node.optional(3).is_none() => {
            Ok(vec![Scalar::Unknown(unknown); 2 * rank])
        }
        other => other,
    }
}

/// By factors, or to sizes; an input that is empty is not given.
pub(super) fn resize(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let axes = match node.ints("axes") {
        Some(_) => node.axes(usize::MAX, dims.len())?.unwrap_or_default(),
        None => (0..dims.len()).collect(),
    };
    // Before version 11 the factors were the second input, or an attribute.
    let factors = if node.inputs.len() <= 2 { 1 } else { 2 };
    let is_given = |index: usize| node.optional(index).is_some_and(|value| !value.is_empty());
    let mut shape = dims.to_vec();
    if is_given(3) {
        let sizes = to_sizes(node, dims, &axes)?;
        axes.iter().zip(sizes).for_each(|(axis, size)| shape[*axis] = size);
        return Ok(Value::of(shape)?);
    }
    if node.word("coordinate_transformation_mode").as_deref() == Some("tf_crop_and_resize") {
        return Err(node.stop(Why::Values));
    }
    let given = match (node.floats("scales"), is_given(factors)) {
        (Some(factors), _) => {
            few("scales", factors.len())?;
            factors.iter().map(|factor| Scalar::Float((*factor).into())).collect()
        }
        (None, true) => target_scalars(node, factors, "the factors")?,
        (None, false) => return Err(Fault::MissingInput { index: factors }.into()),
    };
    same_rank("scales", given.len(), &vec![Ok(0); axes.len()])?;
    for (axis, factor) in axes.iter().zip(&given) {
        shape[*axis] = scaled(&dims[*axis], factor)?;
    }
    Ok(Value::of(shape)?)
}

/// The sizes that are given; with a policy, as large as one factor for all axes allows.
fn to_sizes(node: &Node, dims: &[Dim], axes: &[usize]) -> Result<Vec<Dim>, Stop> {
    let sizes = target(node, 3, "the sizes")?;
    same_rank("sizes", sizes.len(), &vec![Ok(0); axes.len()])?;
    let is_smallest = match node.word("keep_aspect_ratio_policy").as_deref() {
        Some("not_larger") => true,
        Some("not_smaller") => false,
        None | Some(_) => return Ok(sizes),
    };
    let factor = |(axis, size): (&usize, &Dim)| match (size, &dims[*axis]) {
        (Ok(size), Ok(from)) if *from > 0 => Ok(*size as f64 / *from as f64),
        (Ok(_), Ok(_)) => Err(node.unknown(Why::Range)),
        (Err(unknown), _) | (_, Err(unknown)) => Err(unknown.clone()),
    };
    let factors = axes.iter().zip(&sizes).map(factor).collect::<Result<Vec<f64>, _>>();
    let factors = factors.map_err(Stop::Unknown)?;
    let pick = if is_smallest { f64::min } else { f64::max };
    let Some(factor) = factors.into_iter().reduce(pick) else { return Ok(sizes) };
    let scaled =
        |axis: &usize| dims[*axis].clone().map(|from| (from as f64 * factor).round() as u64);
    Ok(axes.iter().map(scaled).collect())
}

/// To the whole number below, in single precision as ONNX Runtime computes it; out of range becomes
/// a size that is refused.
fn scaled(dim: &Dim, factor: &Scalar) -> Result<Dim, Fault> {
    let (from, factor) = match (dim, factor) {
        (Err(unknown), _) | (_, Scalar::Unknown(unknown)) => return Ok(Err(unknown.clone())),
        (Ok(from), Scalar::Float(factor)) => (*from, *factor as f32),
        (Ok(from), Scalar::Int(factor)) => (*from, *factor as f32),
    };
    let scaled = (from as f32 * factor).floor();
    if scaled >= 0.0 && factor.is_finite() {
        Ok(Ok(scaled as u64))
    } else {
        let given = factor.to_string();
        Err(Fault::Value { name: "scales", given, expected: "a positive number" })
    }
}

/// The pixels at computed positions: as many as there are positions.
pub(super) fn grid_sample(node: &Node) -> Result<Value, Stop> {
    let (dims, grid) = (node.dims(0)?, node.dims(1)?);
    at_least(dims, 2)?;
    at_least(grid, 2)?;
    let places = &grid[1..grid.len() - 1];
    Ok(Value::of([&dims[..2], places].concat())?)
}

/// Positions for a tensor of that size, with as many coordinates as it has spatial axes.
pub(super) fn affine_grid(node: &Node) -> Result<Value, Stop> {
    let size = target(node, 1, "the size")?;
    at_least(&size, 4)?;
    let mut shape = vec![size[0].clone()];
    shape.extend_from_slice(&size[2..]);
    shape.push(Ok(size.len() as u64 - 2));
    Ok(Value::of(shape)?)
}

/// Axes cut or padded to sizes.
pub(super) fn center_crop_pad(node: &Node) -> Result<Value, Stop> {
    let mut shape = node.dims(0)?.to_vec();
    let sizes = target(node, 1, "the shape")?;
    let axes = match node.ints("axes") {
        Some(_) => node.axes(usize::MAX, shape.len())?.unwrap_or_default(),
        None => (0..shape.len()).collect(),
    };
    same_rank("axes", axes.len(), &sizes)?;
    axes.iter().zip(sizes).for_each(|(axis, size)| shape[*axis] = size);
    Ok(Value::of(shape)?)
}

/// A pooled picture for each region.
pub(super) fn regions(node: &Node) -> Result<Value, Stop> {
    let (dims, regions) = (node.dims(0)?, node.dims(1)?);
    at_least(dims, 2)?;
    at_least(regions, 1)?;
    let pooled = match node.ints("pooled_shape") {
        Some(_) => node.sizes("pooled_shape", 2)?,
        None => {
            let side = |name| size(node.int(name, 1).into());
            vec![side("output_height")?, side("output_width")?]
        }
    };
    let mut shape = vec![regions[0].clone(), dims[1].clone()];
    shape.extend(pooled.into_iter().map(Ok));
    Ok(Value::of(shape)?)
}

/// Pooled maxima put back: the sizes that are given, or those that such a pooling reads.
pub(super) fn unpool(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    at_least(dims, 3)?;
    if node.optional(2).is_some() {
        return Ok(Value::of(target(node, 2, "the shape")?)?);
    }
    let rank = dims.len() - 2;
    let (kernel, strides) = (node.sizes("kernel_shape", rank)?, node.sizes("strides", rank)?);
    let (before, after) = crate::window::pads(node, rank)?;
    let mut shape = dims[..2].to_vec();
    for (i, dim) in dims[2..].iter().enumerate() {
        shape.push(match dim {
            Ok(dim) => {
                let whole = (i128::from(*dim) - 1) * i128::from(strides[i]) + i128::from(kernel[i]);
                Ok(size(whole - i128::from(before[i]) - i128::from(after[i]))?)
            }
            Err(unknown) => Err(unknown.clone()),
        });
    }
    Ok(Value::of(shape)?)
}

/// Columns of blocks put back into pictures of that size.
pub(super) fn col2im(node: &Node) -> Result<Value, Stop> {
    let dims = node.dims(0)?;
    let [batch, columns, _] = dims else {
        return Err(Fault::Rank { what: "the input", given: dims.len(), expected: "3" }.into());
    };
    let block = target(node, 2, "the shape of a block")?;
    let channels =
        match (columns, elements(&block), block.iter().find_map(|dim| dim.as_ref().err())) {
            (Ok(columns), Some(block @ 1..), _) => Ok(columns / block),
            (Err(unknown), _, _) | (_, _, Some(unknown)) => Err(unknown.clone()),
            (Ok(_), _, None) => Err(node.unknown(Why::Range)),
        };
    let image = target(node, 1, "the shape of the pictures")?;
    Ok(Value::of([vec![batch.clone(), channels], image].concat())?)
}
