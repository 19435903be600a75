//! `Conv` and `ConvTranspose` as problems, and the shapes of their relatives that are none.
//!
//! Promises: the output's sizes are known as far as those of the input are; there is a problem if
//! all are.

use convgen_ir::elem::Layout;
use convgen_ir::problem::{ConvProblem, ConvSpec, MAX_RANK, SpatialAxis};

use super::elem::{Elem, F32};
use super::fault::{Fault, Stop, Unknown, Unsupported, Why};
use super::node::{Node, short, size};
use super::scalar::{Dim, known};
use super::value::{Value, shown};
use super::window::{Window, halves, pads, unknown_padding};

/// A convolution, or why it is none that can be computed.
pub(super) type Found = Result<ConvProblem, Missing>;

/// Why there is no problem.
#[derive(Clone, Debug)]
pub(super) enum Missing {
    Unsupported(Unsupported),
    Unknown(Unknown),
}

impl From<Unsupported> for Missing {
    fn from(unsupported: Unsupported) -> Missing {
        Missing::Unsupported(unsupported)
    }
}

/// The problem of a `Conv` node, and its output. A `FusedConv` is one with an epilogue, which is
/// left out.
pub(super) fn conv(node: &Node) -> Result<(Found, Value), Stop> {
    let parts = Parts::of(node, 0, 1)?;
    let windows = Window::all(node, parts.input.len())?;
    let output = parts.output(&windows)?;
    let Some(axes) = parts.axes(&windows) else {
        return Ok((Err(Missing::Unknown(parts.unknown(node))), output));
    };
    let problem = parts.problem(node, |ic, oc| ConvSpec::new(ic, oc, axes));
    problem.map(|found| (found, output))
}

/// The output of a convolution of integers, or at computed positions.
pub(super) fn relative(node: &Node, weights: usize, elem: Elem) -> Result<(Found, Value), Stop> {
    let parts = Parts::of(node, 0, weights)?;
    let windows = Window::all(node, parts.input.len())?;
    let op = short(&node.proto.op_type);
    let output = parts.output(&windows)?.typed(elem);
    Ok((Err(Unsupported::Operation { op }.into()), output))
}

/// The problem of a `ConvTranspose` node, and its output.
pub(super) fn conv_transpose(node: &Node) -> Result<(Found, Value), Stop> {
    let (input, filter) = both(node, 0, 1)?;
    let groups = groups(node)?;
    if let (Ok(read), Ok(channels)) = (&filter[0], &input[1])
        && (read != channels || channels % groups != 0)
    {
        let read = read / groups;
        return Err(Fault::Channels { channels: *channels, read, groups }.into());
    }
    let channels = filter[1].clone().map(|per_group| per_group.saturating_mul(groups));
    let spatial: Option<Vec<u64>> = known(&input[2..]);
    let kernel = known(&filter[2..]);
    let parts = Parts {
        batch: &input[0],
        channels: [filter[0].clone(), channels],
        input: &input[2..],
        kernel: filter[2..].to_vec(),
        groups,
        weights: node.input(1)?.elem,
    };
    let (Some(spatial), Some(kernel)) = (spatial, kernel) else {
        return Ok((Err(Missing::Unknown(parts.unknown(node))), parts.open(node)?));
    };
    let (axes, beyond) = transposed_axes(node, &spatial, &kernel)?;
    let mut shape = vec![parts.batch.clone(), parts.channels[1].clone()];
    for (axis, beyond) in axes.iter().zip(&beyond) {
        shape.push(Ok(size(axis.transposed_size(axis.input) + i128::from(*beyond))?));
    }
    let output = Value::of(shape)?.typed(node.input(0)?.elem);
    let problem = parts.problem(node, |ic, oc| ConvSpec::transposed(ic, oc, axes, &beyond));
    problem.map(|found| (found, output))
}

/// The output of a pooling node, and the positions of the maxima, which have its shape.
pub(super) fn pool(node: &Node) -> Result<Value, Stop> {
    let input = node.dims(0)?;
    spatial_rank(input)?;
    if node.ints("kernel_shape").is_none() {
        return Err(Fault::MissingAttribute { name: "kernel_shape" }.into());
    }
    let kernel = node.sizes("kernel_shape", input.len() - 2)?;
    let windows = Window::all(node, input.len() - 2)?;
    let mut shape = input[..2].to_vec();
    for ((window, size), kernel) in windows.iter().zip(&input[2..]).zip(kernel) {
        shape.push(window.output(size, &Ok(kernel), node.is_set("ceil_mode"))?);
    }
    Ok(Value::of(shape)?)
}

/// What the shapes of input and weights say.
struct Parts<'g> {
    batch: &'g Dim,
    /// Read and written.
    channels: [Dim; 2],
    input: &'g [Dim],
    kernel: Vec<Dim>,
    groups: u64,
    weights: Elem,
}

impl<'g> Parts<'g> {
    fn of(node: &Node<'g>, input: usize, weights: usize) -> Result<Parts<'g>, Stop> {
        let elem = node.input(weights)?.elem;
        let (input, filter) = both(node, input, weights)?;
        let groups = groups(node)?;
        let channels = match (&input[1], &filter[1]) {
            (Ok(channels), Ok(read)) if read.checked_mul(groups) != Some(*channels) => {
                return Err(Fault::Channels { channels: *channels, read: *read, groups }.into());
            }
            (_, Ok(read)) => Ok(read.saturating_mul(groups)),
            (channels, Err(_)) => channels.clone(),
        };
        let mut kernel = filter[2..].to_vec();
        if node.ints("kernel_shape").is_some_and(|stated| !stated.is_empty()) {
            let stated = node.sizes("kernel_shape", kernel.len())?;
            for (kernel, stated) in kernel.iter_mut().zip(&stated) {
                if kernel.as_ref().is_ok_and(|kernel| kernel != stated) {
                    let (left, right) = (vec![*stated], shown(&filter[2..]));
                    return Err(Fault::Mismatch { left, right }.into());
                }
                *kernel = Ok(*stated);
            }
        }
        let channels = [channels, filter[0].clone()];
        let (batch, input) = (&input[0], &input[2..]);
        Ok(Parts { batch, channels, input, kernel, groups, weights: elem })
    }

    /// The output, as far as it is known.
    fn output(&self, windows: &[Window]) -> Result<Value, Fault> {
        let mut shape = vec![self.batch.clone(), self.channels[1].clone()];
        for ((window, input), kernel) in windows.iter().zip(self.input).zip(&self.kernel) {
            shape.push(window.output(input, kernel, false)?);
        }
        Value::of(shape)
    }

    fn axes(&self, windows: &[Window]) -> Option<Vec<SpatialAxis>> {
        let sizes = known(self.input)?.into_iter().zip(known(&self.kernel)?);
        Some(windows.iter().zip(sizes).map(|(window, (i, k))| window.axis(i, k)).collect())
    }

    /// The first size that is not known.
    fn unknown(&self, node: &Node) -> Unknown {
        let all = [self.batch].into_iter().chain(&self.channels).chain(self.input);
        let missing = all.chain(&self.kernel).find_map(|dim| dim.as_ref().err());
        missing.cloned().unwrap_or_else(|| node.unknown(Why::Range))
    }

    /// The output of a transposed convolution of whose sizes some are not known.
    fn open(&self, node: &Node) -> Result<Value, Fault> {
        let unknown = self.unknown(node);
        let mut shape = vec![self.batch.clone(), self.channels[1].clone()];
        shape.resize(2 + self.input.len(), Err(unknown));
        Value::of(shape)
    }

    /// The problem, if it is one of those that are computed.
    fn problem(&self, node: &Node, spec: impl FnOnce(u64, u64) -> ConvSpec) -> Result<Found, Stop> {
        let (Ok(batch), [Ok(ic), Ok(oc)]) = (self.batch, &self.channels) else {
            return Ok(Err(Missing::Unknown(self.unknown(node))));
        };
        let rank = self.input.len();
        if rank > MAX_RANK {
            return Ok(Err(Unsupported::Rank { rank }.into()));
        }
        let has_bias = node.optional(2).is_some();
        let spec = spec(*ic, *oc).batch(*batch).groups(self.groups);
        let spec = spec.layout(Layout::ChannelsFirst).bias(has_bias);
        let problem = ConvProblem::new(spec).map_err(Fault::from)?;
        Ok(match self.weights {
            Elem::Unstated | F32 => Ok(problem),
            elem => Err(Unsupported::Elements { elem }.into()),
        })
    }
}

/// The shapes of input and weights, of as many dimensions.
fn both<'g>(node: &Node<'g>, input: usize, weights: usize) -> Result<(&'g [Dim], &'g [Dim]), Stop> {
    let (input, filter) = (node.dims(input)?, node.dims(weights)?);
    spatial_rank(input)?;
    if input.len() != filter.len() {
        let expected = "those of the input";
        return Err(Fault::Rank { what: "the weights", given: filter.len(), expected }.into());
    }
    Ok((input, filter))
}

/// At least one spatial axis.
fn spatial_rank(input: &[Dim]) -> Result<(), Fault> {
    if input.len() < 3 {
        return Err(Fault::Rank { what: "the input", given: input.len(), expected: "3 or more" });
    }
    Ok(())
}

fn groups(node: &Node) -> Result<u64, Fault> {
    let given = node.int("group", 1);
    u64::try_from(given).ok().filter(|groups| *groups > 0).ok_or_else(|| Fault::Value {
        name: "group",
        given: given.to_string(),
        expected: "a positive number",
    })
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
    (axis.pad_before, axis.pad_after) = halves(total, upper);
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
