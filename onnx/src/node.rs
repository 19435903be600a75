//! A node with its attributes by name and its inputs by number.

use super::fault::{Fault, Stop};
use super::proto::{self, Attribute, Tensor};
use super::value::Value;

/// A node, and what is known of its inputs.
pub(super) struct Node<'g> {
    pub(super) proto: &'g proto::Node,
    /// In order; nothing where an optional input is left out.
    pub(super) inputs: Vec<Option<&'g Value>>,
    pub(super) attributes: Vec<Attribute>,
}

impl<'g> Node<'g> {
    pub(super) fn new(
        proto: &'g proto::Node,
        inputs: Vec<Option<&'g Value>>,
    ) -> Result<Node<'g>, Fault> {
        let attributes = proto.attribute.iter().map(proto::decode).collect::<Result<_, _>>()?;
        Ok(Node { proto, inputs, attributes })
    }

    /// The input of that number, if it is given.
    pub(super) fn optional(&self, index: usize) -> Option<&'g Value> {
        self.inputs.get(index).copied().flatten()
    }

    /// The input of that number.
    pub(super) fn input(&self, index: usize) -> Result<&'g Value, Fault> {
        self.optional(index).ok_or(Fault::MissingInput { index })
    }

    /// The shape of the input of that number.
    pub(super) fn shape(&self, index: usize) -> Result<&'g [u64], Stop> {
        self.input(index)?.shape()
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// A whole number, or the default.
    pub(super) fn int(&self, name: &'static str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
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
    pub(super) fn axes(&self, input: usize) -> Result<Option<Vec<i64>>, Stop> {
        match (self.ints("axes"), self.optional(input)) {
            (Some(axes), _) => Ok(Some(axes.to_vec())),
            (None, Some(value)) => Ok(Some(value.as_ints("the list of axes")?.to_vec())),
            (None, None) => Ok(None),
        }
    }
}
