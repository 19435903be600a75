//! A node with its attributes by name and its inputs by number.

use std::sync::Arc;

use super::fault::{Cause, Fault, Stop, Unknown, Why};
use super::proto::{self, Attribute, Tensor};
use super::scalar::{Dim, Scalar};
use super::value::{Data, MAX_RANK, Value};

/// A node, and what is known of its inputs.
pub(super) struct Node<'g> {
    pub(super) proto: &'g proto::Node,
    /// Its name, fit to be shown.
    pub(super) title: &'g str,
    /// In order; nothing where an optional input is left out.
    pub(super) inputs: Vec<Option<&'g Value>>,
    pub(super) attributes: Vec<Attribute>,
}

impl<'g> Node<'g> {
    pub(super) fn new(
        proto: &'g proto::Node,
        title: &'g str,
        inputs: Vec<Option<&'g Value>>,
    ) -> Result<Node<'g>, Fault> {
        let attributes = proto.attribute.iter().map(proto::decode).collect::<Result<_, _>>()?;
        Ok(Node { proto, title, inputs, attributes })
    }

    /// What is not known because of this node.
    pub(super) fn unknown(&self, why: Why) -> Unknown {
        let op = short(&self.proto.op_type);
        Unknown::Cause(Arc::new(Cause { node: self.title.to_owned(), op, why }))
    }

    /// Ends the look at this node.
    pub(super) fn stop(&self, why: Why) -> Stop {
        Stop::Unknown(self.unknown(why))
    }

    /// An input that would have to be a constant.
    pub(super) fn not_constant(&self, index: usize, what: &'static str) -> Unknown {
        let input = short(self.proto.input.get(index).map_or("", String::as_str));
        self.unknown(Why::Constant { what, input })
    }

    /// The input of that number, if it is given.
    pub(super) fn optional(&self, index: usize) -> Option<&'g Value> {
        self.inputs.get(index).copied().flatten()
    }

    /// The input of that number.
    pub(super) fn input(&self, index: usize) -> Result<&'g Value, Fault> {
        self.optional(index).ok_or(Fault::MissingInput { index })
    }

    /// The sizes of the input of that number, as far as they are known.
    pub(super) fn dims(&self, index: usize) -> Result<&'g [Dim], Stop> {
        self.input(index)?.shape.as_deref().map_err(|unknown| Stop::Unknown(unknown.clone()))
    }

    /// What the input of that number holds, if it is known.
    pub(super) fn data(&self, index: usize) -> Option<&'g Data> {
        self.optional(index)?.data.as_ref()
    }

    /// The elements of an input that says how the node works.
    pub(super) fn parameter(&self, index: usize, what: &'static str) -> Result<&'g [Scalar], Stop> {
        self.input(index)?;
        let missing = || Stop::Unknown(self.not_constant(index, what));
        self.data(index).map(|data| &data[..]).ok_or_else(missing)
    }

    /// The whole numbers of such an input; there is one for each dimension at most.
    pub(super) fn list(&self, index: usize, what: &'static str) -> Result<Vec<i64>, Stop> {
        let whole = |scalar: &Scalar| match scalar {
            Scalar::Int(value) => Ok(*value),
            Scalar::Float(_) => Err(Stop::Unknown(self.not_constant(index, what))),
            Scalar::Unknown(unknown) => Err(Stop::Unknown(unknown.clone())),
        };
        let data = self.parameter(index, what)?;
        few(what, data.len())?;
        data.iter().map(whole).collect()
    }

    /// The same for what newer models give as an input and older ones as an attribute.
    pub(super) fn list_or(
        &self,
        name: &'static str,
        index: usize,
    ) -> Result<Option<Vec<i64>>, Stop> {
        match (self.ints(name), self.optional(index)) {
            (Some(values), _) => {
                few(name, values.len()).map(|()| Some(values.to_vec())).map_err(Stop::from)
            }
            (None, Some(_)) => self.list(index, name).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// One whole number of an input.
    pub(super) fn scalar(&self, index: usize, what: &'static str) -> Result<i64, Stop> {
        match self.list(index, what)?.as_slice() {
            [one] => Ok(*one),
            other => Err(Fault::Count { name: what, given: other.len(), expected: 1 }.into()),
        }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// A whole number, or the default.
    pub(super) fn int(&self, name: &'static str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    /// Whether a switch is on.
    pub(super) fn is_set(&self, name: &'static str) -> bool {
        self.int(name, 0) != 0
    }

    /// A list of whole numbers, if it is given.
    pub(super) fn ints(&self, name: &'static str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A list of numbers, if it is given.
    pub(super) fn floats(&self, name: &'static str) -> Option<&[f32]> {
        self.attribute(name).map(|attribute| attribute.floats.as_slice())
    }

    /// A word, if it is given.
    pub(super) fn word(&self, name: &'static str) -> Option<String> {
        let bytes = self.attribute(name)?.s.as_ref()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A tensor, if it is given.
    pub(super) fn tensor(&self, name: &'static str) -> Result<Option<Tensor>, Fault> {
        match self.attribute(name).and_then(|attribute| attribute.t.as_ref()) {
            Some(bytes) => Ok(Some(proto::decode(bytes)?)),
            None => Ok(None),
        }
    }

    /// One positive value an axis; all ones if the attribute is not given.
    pub(super) fn sizes(&self, name: &'static str, rank: usize) -> Result<Vec<u64>, Fault> {
        let Some(given) = self.ints(name) else { return Ok(vec![1; rank]) };
        if given.len() != rank {
            return Err(Fault::Count { name, given: given.len(), expected: rank });
        }
        let positive = |value: &i64| match u64::try_from(*value) {
            Ok(size @ 1..) => Ok(size),
            Ok(0) | Err(_) => {
                let given = value.to_string();
                Err(Fault::Value { name, given, expected: "a positive number" })
            }
        };
        given.iter().map(positive).collect()
    }

    /// The number of an axis of a shape; negative ones count from the end.
    pub(super) fn axis(given: i64, rank: usize) -> Result<usize, Fault> {
        let from_start = if given < 0 { given.saturating_add(rank as i64) } else { given };
        usize::try_from(from_start)
            .ok()
            .filter(|axis| *axis < rank)
            .ok_or(Fault::Axis { given, rank })
    }

    /// The axes of an operation that takes them as an attribute or, in newer models, as an input.
    pub(super) fn axes(&self, input: usize, rank: usize) -> Result<Option<Vec<usize>>, Stop> {
        let Some(given) = self.list_or("axes", input)? else { return Ok(None) };
        let mut axes = Vec::new();
        for axis in given {
            let found = Node::axis(axis, rank)?;
            if axes.contains(&found) {
                return Err(Fault::Axis { given: axis, rank }.into());
            }
            axes.push(found);
        }
        Ok(Some(axes))
    }
}

/// Lists of axes and sizes are short: long ones would only take time.
pub(super) fn few(name: &'static str, given: usize) -> Result<(), Fault> {
    // Padding has two values an axis.
    let expected = 2 * MAX_RANK;
    if given > expected { Err(Fault::Count { name, given, expected }) } else { Ok(()) }
}

/// A name from the file, fit to be shown.
pub(super) fn short(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

/// A size that was computed, if it is one.
pub(super) fn size(given: i128) -> Result<u64, Fault> {
    u64::try_from(given)
        .map_err(|_| Fault::Size { given: i64::try_from(given).unwrap_or(i64::MIN) })
}

/// At least so many dimensions.
pub(super) fn at_least(shape: &[Dim], rank: usize) -> Result<(), Fault> {
    if shape.len() < rank {
        return Err(Fault::Rank { what: "the input", given: shape.len(), expected: "more" });
    }
    Ok(())
}

/// One value a dimension.
pub(super) fn same_rank(name: &'static str, given: usize, shape: &[Dim]) -> Result<(), Fault> {
    if given != shape.len() {
        return Err(Fault::Count { name, given, expected: shape.len() });
    }
    Ok(())
}
