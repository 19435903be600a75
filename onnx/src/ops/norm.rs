//! Normalizations with further outputs.

use crate::fault::Stop;
use crate::node::Node;
use crate::value::Value;

/// The values, and the mean and deviation over the last axes.
pub(super) fn layer(node: &Node) -> Result<Vec<Value>, Stop> {
    let dims = node.dims(0)?;
    let axis = Node::axis(node.int("axis", -1), dims.len())?;
    let mut moments = dims.to_vec();
    moments[axis..].fill(Ok(1));
    let moments = Value::of(moments)?;
    Ok(vec![Value::of(dims.to_vec())?, moments.clone(), moments])
}

/// The values, and the mean and variance of each channel, which only training makes. Their number
/// has changed with the versions.
pub(super) fn batch(node: &Node) -> Result<Vec<Value>, Stop> {
    let values = Value::of(node.dims(0)?.to_vec())?;
    let further = node.proto.output.len().clamp(1, 5) - 1;
    let moments = match further {
        0 => Vec::new(),
        _ => vec![Value::of(node.dims(3)?.to_vec())?; further],
    };
    Ok([vec![values], moments].concat())
}
