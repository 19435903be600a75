//! The windows that slide over the spatial axes of convolution and pooling.
//!
//! ```text
//! SAME_UPPER, SAME_LOWER   output = ceil(input / stride); the padding that this needs is split in halves,
//!                          an odd one after the input (UPPER) or before it (LOWER)
//! VALID                    no padding
//! NOTSET                   the attribute `pads`: all before, then all after
//! ```

use convgen_ir::problem::SpatialAxis;

use super::fault::Fault;
use super::node::Node;
use super::scalar::Dim;

/// What slides over one axis.
pub(super) struct Window {
    stride: u64,
    dilation: u64,
    padding: Padding,
}

/// The padding of an axis.
#[derive(Clone, Copy)]
enum Padding {
    Given { before: i64, after: i64 },
    Same { upper: bool },
}

impl Window {
    /// The windows of a node over so many axes.
    pub(super) fn all(node: &Node, rank: usize) -> Result<Vec<Window>, Fault> {
        let strides = node.sizes("strides", rank)?;
        let dilations = node.sizes("dilations", rank)?;
        let paddings = match node.word("auto_pad").as_deref() {
            None | Some("" | "NOTSET") => {
                let (before, after) = pads(node, rank)?;
                let sides = before.into_iter().zip(after);
                sides.map(|(before, after)| Padding::Given { before, after }).collect()
            }
            Some("VALID") => vec![Padding::Given { before: 0, after: 0 }; rank],
            Some("SAME_UPPER") => vec![Padding::Same { upper: true }; rank],
            Some("SAME_LOWER") => vec![Padding::Same { upper: false }; rank],
            Some(other) => return Err(unknown_padding(other)),
        };
        let each = strides.into_iter().zip(dilations).zip(paddings);
        Ok(each.map(|((stride, dilation), padding)| Window { stride, dilation, padding }).collect())
    }

    /// The axis over an input with a kernel of those sizes.
    pub(super) fn axis(&self, input: u64, kernel: u64) -> SpatialAxis {
        let mut axis = SpatialAxis {
            stride: self.stride,
            dilation: self.dilation,
            ..SpatialAxis::new(input, kernel)
        };
        (axis.pad_before, axis.pad_after) = match self.padding {
            Padding::Given { before, after } => (before, after),
            Padding::Same { upper } => {
                let output = i128::from(input.div_ceil(self.stride));
                let needed = (output - 1) * i128::from(self.stride) + i128::from(axis.extent());
                halves((needed - i128::from(input)).max(0), upper)
            }
        };
        axis
    }

    /// The number of windows, as far as it follows from what is known; `ceil` counts a last one
    /// that is partly outside.
    pub(super) fn output(&self, input: &Dim, kernel: &Dim, ceil: bool) -> Result<Dim, Fault> {
        match (input, kernel, self.padding) {
            (Err(unknown), _, _) => Ok(Err(unknown.clone())),
            (Ok(input), _, Padding::Same { .. }) => Ok(Ok(input.div_ceil(self.stride))),
            (Ok(_), Err(unknown), Padding::Given { .. }) => Ok(Err(unknown.clone())),
            (Ok(input), Ok(kernel), Padding::Given { .. }) => {
                windows(&self.axis(*input, *kernel), ceil).map(Ok)
            }
        }
    }
}

/// How many windows there are on an axis.
fn windows(axis: &SpatialAxis, ceil: bool) -> Result<u64, Fault> {
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
}

/// A padding in halves, the odd one after the input (`upper`) or before it.
pub(super) fn halves(total: i128, upper: bool) -> (i64, i64) {
    let (less, more) = (saturated(total / 2), saturated(total - total / 2));
    if upper { (less, more) } else { (more, less) }
}

/// The attribute `pads` in halves, zeros if it is not given.
pub(super) fn pads(node: &Node, rank: usize) -> Result<(Vec<i64>, Vec<i64>), Fault> {
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

pub(super) fn unknown_padding(given: &str) -> Fault {
    let given = format!("`{}`", given.escape_debug());
    Fault::Value { name: "auto_pad", given, expected: "NOTSET, VALID, SAME_UPPER or SAME_LOWER" }
}

fn saturated(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}
