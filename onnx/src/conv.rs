//! `Conv` and `ConvTranspose` as problems, and the windows that pooling shares with them.
//!
//! ```text
//! SAME_UPPER, SAME_LOWER   output = ceil(input / stride); the padding that this needs is split in halves,
//!                          an odd one after the input (UPPER) or before it (LOWER)
//! VALID                    no padding
//! NOTSET                   the attribute `pads`: all before, then all after
//! ```

use convgen_ir::elem::Layout;
use convgen_ir::problem::{ConvProblem, ConvSpec, SpatialAxis};

use super::fault::{Fault, Stop};
use super::node::Node;
use super::value::{FLOAT, Value};

/// A convolution, or why it is none that can be computed.
pub(super) type Found = Result<ConvProblem, String>;

/// The problem of a `Conv` node, and its output.
pub(super) fn conv(node: &Node) -> Result<(Found, Value), Stop> {
    let (input, weights) = (node.shape(0)?, node.input(1)?);
    let filter = weights.shape()?;
    let rank = spatial_rank(input, filter)?;
    let groups = groups(node)?;
    if filter[1].checked_mul(groups) != Some(input[1]) {
        return Err(Fault::Channels { channels: input[1], read: filter[1], groups }.into());
    }
    let windows = Windows::new(node, &input[2..], &filter[2..])?;
    if rank > convgen_ir::problem::MAX_RANK {
        let mut shape = vec![input[0], filter[0]];
        shape.extend(windows.outputs(false)?);
        return Ok((Err(format!("{rank} spatial dimensions")), Value::of(shape)?));
    }
    let mut spec = ConvSpec::new(input[1], filter[0], windows.axes()).batch(input[0]);
    spec = spec.groups(groups).layout(Layout::ChannelsFirst).bias(node.optional(2).is_some());
    let problem = ConvProblem::new(spec).map_err(Fault::from)?;
    let output = Value::of(problem.output_shape(problem.batch()))?;
    Ok((computed(weights).map(|()| problem), output))
}

/// The problem of a `ConvTranspose` node, and its output.
pub(super) fn conv_transpose(node: &Node) -> Result<(Found, Value), Stop> {
    let (input, weights) = (node.shape(0)?, node.input(1)?);
    let filter = weights.shape()?;
    let rank = spatial_rank(input, filter)?;
    let groups = groups(node)?;
    if filter[0] != input[1] || input[1] % groups != 0 {
        let read = filter[0] / groups;
        return Err(Fault::Channels { channels: input[1], read, groups }.into());
    }
    let channels = filter[1].saturating_mul(groups);
    let (axes, beyond) = transposed_axes(node, &input[2..], &filter[2..])?;
    if rank > convgen_ir::problem::MAX_RANK {
        let mut shape = vec![input[0], channels];
        for (axis, beyond) in axes.iter().zip(&beyond) {
            let size = axis.transposed_size(axis.input) + i128::from(*beyond);
            let given = saturated(size);
            shape.push(u64::try_from(size).map_err(|_| Fault::Size { given })?);
        }
        return Ok((Err(format!("{rank} spatial dimensions")), Value::of(shape)?));
    }
    let mut spec = ConvSpec::transposed(input[1], channels, axes, &beyond).batch(input[0]);
    spec = spec.groups(groups).layout(Layout::ChannelsFirst).bias(node.optional(2).is_some());
    let problem = ConvProblem::new(spec).map_err(Fault::from)?;
    let output = Value::of(problem.output_shape(problem.batch()))?;
    Ok((computed(weights).map(|()| problem), output))
}

/// The output of a pooling node.
pub(super) fn pool(node: &Node) -> Result<Value, Stop> {
    let input = node.shape(0)?;
    if input.len() < 3 {
        return Err(
            Fault::Rank { what: "the input", given: input.len(), expected: "3 or more" }.into()
        );
    }
    if node.ints("kernel_shape").is_none() {
        return Err(Fault::MissingAttribute { name: "kernel_shape" }.into());
    }
    let kernel = node.sizes("kernel_shape", input.len() - 2)?;
    let windows = Windows::new(node, &input[2..], &kernel)?;
    let mut shape = input[..2].to_vec();
    shape.extend(windows.outputs(node.int("ceil_mode", 0) != 0)?);
    Ok(Value::of(shape)?)
}

/// Kernels are of single floats.
fn computed(weights: &Value) -> Result<(), String> {
    match weights.elem {
        0 | FLOAT => Ok(()),
        10 => Err("its weights are 16-bit floats, only 32-bit floats are computed".to_owned()),
        11 => Err("its weights are 64-bit floats, only 32-bit floats are computed".to_owned()),
        other => {
            Err(format!("its weights are of ONNX type {other}, only 32-bit floats are computed"))
        }
    }
}

/// The number of spatial axes of input and weights, at least one and the same.
fn spatial_rank(input: &[u64], filter: &[u64]) -> Result<usize, Fault> {
    if input.len() < 3 {
        return Err(Fault::Rank { what: "the input", given: input.len(), expected: "3 or more" });
    }
    if input.len() != filter.len() {
        let expected = "those of the input";
        return Err(Fault::Rank { what: "the weights", given: filter.len(), expected });
    }
    Ok(input.len() - 2)
}

fn groups(node: &Node) -> Result<u64, Fault> {
    let given = node.int("group", 1);
    u64::try_from(given).ok().filter(|groups| *groups > 0).ok_or_else(|| Fault::Value {
        name: "group",
        given: given.to_string(),
        expected: "a positive number",
    })
}

/// What slides over the spatial axes.
struct Windows {
    axes: Vec<SpatialAxis>,
}

impl Windows {
    /// The windows of a node with kernels of that size.
    fn new(node: &Node, input: &[u64], kernel: &[u64]) -> Result<Windows, Fault> {
        let rank = input.len();
        if node.ints("kernel_shape").is_some() {
            let stated = node.sizes("kernel_shape", rank)?;
            if stated != kernel {
                return Err(Fault::Mismatch { left: stated, right: kernel.to_vec() });
            }
        }
        let strides = node.sizes("strides", rank)?;
        let dilations = node.sizes("dilations", rank)?;
        let mut axes = Vec::new();
        for i in 0..rank {
            let axis = SpatialAxis {
                stride: strides[i],
                dilation: dilations[i],
                ..SpatialAxis::new(input[i], kernel[i])
            };
            axes.push(axis);
        }
        let mut windows = Windows { axes };
        match node.word("auto_pad").as_deref() {
            None | Some("" | "NOTSET") => windows.pad(node)?,
            Some("VALID") => {}
            Some("SAME_UPPER") => windows.same(true),
            Some("SAME_LOWER") => windows.same(false),
            Some(other) => return Err(unknown_padding(other)),
        }
        Ok(windows)
    }

    fn pad(&mut self, node: &Node) -> Result<(), Fault> {
        let rank = self.axes.len();
        let (before, after) = pads(node, rank)?;
        for (i, axis) in self.axes.iter_mut().enumerate() {
            (axis.pad_before, axis.pad_after) = (before[i], after[i]);
        }
        Ok(())
    }

    fn same(&mut self, upper: bool) {
        for axis in &mut self.axes {
            let output = i128::from(axis.input.div_ceil(axis.stride));
            let needed = (output - 1) * i128::from(axis.stride) + i128::from(axis.extent());
            let total = (needed - i128::from(axis.input)).max(0);
            let (less, more) = (saturated(total / 2), saturated(total - total / 2));
            (axis.pad_before, axis.pad_after) = if upper { (less, more) } else { (more, less) };
        }
    }

    fn axes(self) -> Vec<SpatialAxis> {
        self.axes
    }

    /// The output sizes; `ceil` counts a last window that is partly outside.
    fn outputs(&self, ceil: bool) -> Result<Vec<u64>, Fault> {
        let output = |axis: &SpatialAxis| {
            let (padded, extent) = (axis.padded_input(), i128::from(axis.extent()));
            let slack = padded - extent;
            if slack < 0 {
                return Err(Fault::Window { extent, padded });
            }
            let stride = i128::from(axis.stride);
            let mut count = slack / stride + 1;
            // A window that would begin in the padding after the input is none.
            let begins = count * stride < i128::from(axis.input) + i128::from(axis.pad_before);
            if ceil && slack % stride != 0 && begins {
                count += 1;
            }
            Ok(u64::try_from(count).unwrap_or(u64::MAX))
        };
        self.axes.iter().map(output).collect()
    }
}

/// The attribute `pads` in halves, zeros if it is not given.
fn pads(node: &Node, rank: usize) -> Result<(Vec<i64>, Vec<i64>), Fault> {
    let Some(given) = node.ints("pads") else { return Ok((vec![0; rank], vec![0; rank])) };
    if given.len() != 2 * rank {
        return Err(Fault::Count { name: "pads", given: given.len(), expected: 2 * rank });
    }
    if let Some(negative) = given.iter().find(|pad| **pad < 0) {
        let given = negative.to_string();
        return Err(Fault::Value { name: "pads", given, expected: "no negative number" });
    }
    Ok((given[..rank].to_vec(), given[rank..].to_vec()))
}

/// The axes of a transposed convolution, with the sizes that are read, and the positions that are
/// written beyond the last window.
fn transposed_axes(
    node: &Node,
    input: &[u64],
    kernel: &[u64],
) -> Result<(Vec<SpatialAxis>, Vec<u64>), Fault> {
    let rank = input.len();
    let (strides, dilations) = (node.sizes("strides", rank)?, node.sizes("dilations", rank)?);
    let mut axes: Vec<SpatialAxis> = (0..rank)
        .map(|i| SpatialAxis {
            stride: strides[i],
            dilation: dilations[i],
            ..SpatialAxis::new(input[i], kernel[i])
        })
        .collect();
    let mut beyond = output_padding(node, rank)?;
    let mode = node.word("auto_pad");
    let sizes = match (node.ints("output_shape").is_some(), mode.as_deref()) {
        (true, _) => Some(node.sizes("output_shape", rank)?),
        (false, Some("SAME_UPPER" | "SAME_LOWER")) => {
            Some(input.iter().zip(&strides).map(|(size, s)| size.saturating_mul(*s)).collect())
        }
        (false, None | Some("" | "NOTSET" | "VALID")) => None,
        (false, Some(other)) => return Err(unknown_padding(other)),
    };
    match sizes {
        Some(sizes) => {
            let upper = mode.as_deref() == Some("SAME_UPPER");
            for ((axis, beyond), size) in axes.iter_mut().zip(&mut beyond).zip(sizes) {
                fit(axis, beyond, size, upper);
            }
        }
        None if mode.as_deref() == Some("VALID") => {}
        None => {
            let (before, after) = pads(node, rank)?;
            for (i, axis) in axes.iter_mut().enumerate() {
                (axis.pad_before, axis.pad_after) = (before[i], after[i]);
            }
        }
    }
    Ok((axes, beyond))
}

/// Pads an axis so that this size is written: what is too much is cut off in halves, the larger one
/// before (`SAME_UPPER`: after); what is missing is written beyond.
fn fit(axis: &mut SpatialAxis, beyond: &mut u64, size: u64, upper: bool) {
    let total = axis.transposed_size(axis.input) + i128::from(*beyond) - i128::from(size);
    if total < 0 {
        *beyond = beyond.saturating_add(u64::try_from(-total).unwrap_or(u64::MAX));
        return;
    }
    let (less, more) = (saturated(total / 2), saturated(total - total / 2));
    (axis.pad_before, axis.pad_after) = if upper { (less, more) } else { (more, less) };
}

/// The attribute `output_padding`, zeros if it is not given.
fn output_padding(node: &Node, rank: usize) -> Result<Vec<u64>, Fault> {
    let given = match node.ints("output_padding") {
        Some(given) if !given.is_empty() => given,
        Some(_) | None => return Ok(vec![0; rank]),
    };
    if given.len() != rank {
        return Err(Fault::Count { name: "output_padding", given: given.len(), expected: rank });
    }
    let size = |given: &i64| {
        u64::try_from(*given).map_err(|_| Fault::Value {
            name: "output_padding",
            given: given.to_string(),
            expected: "no negative number",
        })
    };
    given.iter().map(size).collect()
}

fn unknown_padding(given: &str) -> Fault {
    let given = format!("`{}`", given.escape_debug());
    Fault::Value { name: "auto_pad", given, expected: "NOTSET, VALID, SAME_UPPER or SAME_LOWER" }
}

fn saturated(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}
