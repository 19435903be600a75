//! `LSTM`, `GRU` and `RNN`.
//!
//! ```text
//! layout 0   input [time, batch, features], output [time, directions, batch, hidden], states [directions, batch, hidden]
//! layout 1   input [batch, time, features], output [batch, time, directions, hidden], states [batch, directions, hidden]
//! ```

use crate::fault::{Fault, Stop};
use crate::node::Node;
use crate::scalar::Dim;
use crate::value::Value;

/// All states in time, the last one, and that of the cell.
pub(super) fn outputs(node: &Node) -> Result<Vec<Value>, Stop> {
    let input = node.dims(0)?;
    let [first, second, _] = input else {
        return Err(Fault::Rank { what: "the input", given: input.len(), expected: "3" }.into());
    };
    let directions: Dim =
        Ok(if node.word("direction").as_deref() == Some("bidirectional") { 2 } else { 1 });
    let hidden = hidden_size(node)?;
    let (all, last) = match node.int("layout", 0) {
        0 => (
            vec![first.clone(), directions.clone(), second.clone(), hidden.clone()],
            vec![directions, second.clone(), hidden],
        ),
        _ => (
            vec![first.clone(), second.clone(), directions.clone(), hidden.clone()],
            vec![first.clone(), directions, hidden],
        ),
    };
    let last = Value::of(last)?;
    Ok(vec![Value::of(all)?, last.clone(), last])
}

/// The attribute; else what the weights of the states read.
fn hidden_size(node: &Node) -> Result<Dim, Stop> {
    if let Some(given) = node.attribute("hidden_size").and_then(|attribute| attribute.i) {
        return Ok(Ok(crate::node::size(given.into())?));
    }
    let weights = node.dims(2)?;
    let wrong = Fault::Rank { what: "the weights", given: weights.len(), expected: "3" };
    Ok(weights.get(2).ok_or(wrong)?.clone())
}
