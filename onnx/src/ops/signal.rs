//! Fourier transforms and windows.

use crate::elem::{Elem, F32};
use crate::fault::{Fault, Stop, Unknown, Why};
use crate::node::{Node, at_least, size};
use crate::scalar::Dim;
use crate::value::Value;

/// Transforms of frames: `[batch, frames, frequencies, 2]`.
pub(super) fn stft(node: &Node) -> Result<Value, Stop> {
    let signal = node.dims(0)?;
    at_least(signal, 2)?;
    let length = match (node.optional(3), node.optional(2)) {
        (Some(_), _) => whole(node, 3, "the length of a frame")?,
        (None, Some(_)) => node.dims(2)?.first().cloned().unwrap_or(Ok(1)),
        (None, None) => return Err(Fault::MissingInput { index: 3 }.into()),
    };
    let step = whole(node, 1, "the step of the frames")?;
    let frames = match (&signal[1], &length, step) {
        (Ok(samples), Ok(length), Ok(step)) if step > 0 => {
            let slack = i128::from(*samples) - i128::from(*length);
            Ok(size(slack.div_euclid(step.into()) + 1)?)
        }
        (Ok(_), Ok(_), Ok(_)) => Err(node.unknown(Why::Range)),
        (Err(unknown), _, _) | (_, Err(unknown), _) => Err(unknown.clone()),
        (_, _, Err(unknown)) => Err(unknown),
    };
    let is_half = node.int("onesided", 1) != 0;
    let bins = length.map(|length| if is_half { length / 2 + 1 } else { length });
    Ok(Value::of(vec![signal[0].clone(), frames, bins, Ok(2)])?)
}

/// A transform of one axis; the last axis holds the parts of a complex number.
pub(super) fn dft(node: &Node) -> Result<Value, Stop> {
    let mut shape = node.dims(0)?.to_vec();
    at_least(&shape, 2)?;
    let given = match (node.attribute("axis").and_then(|attribute| attribute.i), node.optional(2)) {
        (Some(axis), _) => axis,
        (None, Some(_)) => node.scalar(2, "the axis")?,
        // Version 17 had the attribute, whose default is 1; for signals of one axis both agree.
        (None, None) if shape.len() == 3 => 1,
        (None, None) => -2,
    };
    let (is_half, is_inverse) = (node.is_set("onesided"), node.is_set("inverse"));
    if is_half && is_inverse {
        return Err(node.stop(Why::Operation));
    }
    let axis = Node::axis(given, shape.len())?;
    if node.optional(1).is_some() {
        shape[axis] = whole(node, 1, "the length")?;
    }
    if is_half {
        shape[axis] = shape[axis].clone().map(|length| length / 2 + 1);
    }
    if let Some(last) = shape.last_mut() {
        *last = Ok(2);
    }
    Ok(Value::of(shape)?)
}

/// A list of factors.
pub(super) fn window(node: &Node) -> Result<Value, Stop> {
    let elem = i32::try_from(node.int("output_datatype", 1)).map_or(F32, Elem::from_number);
    Ok(Value::of(vec![whole(node, 0, "the length")?])?.typed(elem))
}

/// A matrix of frequencies by bands.
pub(super) fn mel_weights(node: &Node) -> Result<Value, Stop> {
    let bands = whole(node, 0, "the number of bands")?;
    let rows = whole(node, 1, "the length")?.map(|length| length / 2 + 1);
    Ok(Value::of(vec![rows, bands])?.typed(F32))
}

/// A size that is an input.
fn whole(node: &Node, index: usize, what: &'static str) -> Result<Dim, Stop> {
    match node.scalar(index, what) {
        Ok(given) => Ok(Ok(size(given.into())?)),
        Err(Stop::Unknown(unknown)) => Ok(Err::<u64, Unknown>(unknown)),
        Err(fault) => Err(fault),
    }
}
