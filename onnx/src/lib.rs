//! The convolutions of an ONNX model, with their shapes.
//!
//! Promises: every convolution of the model is in the list, as a problem or with the reason that it
//! is none; a bias is part of the problem, what follows in the graph is not. Shapes come from the
//! inputs of the graph, the initializers and the operations between; small constants and arithmetic
//! on shapes are computed, as far as they are known; where an operation is not understood, from
//! what the file states. A branch of an `If` is part of the graph if it is taken or may be. A file
//! that is no model, or a model that contradicts itself, is an error that names the node; no file
//! makes this code panic, or take memory beyond a multiple of the size of the file.
//!
//! Does not: read weights, run models, or look into the graphs inside of `Loop`, `Scan` and of
//! functions, whose convolutions are listed with that reason.
//!
//! Why this is no other crate: `tract-onnx` brings a whole run time to read a model (some hundred
//! crates) and fails on the first operation that it lacks; `onnx-ir` infers ranks where shapes are
//! dynamic and is made for one code generator; `rten-shape-inference` comes closest, with symbolic
//! sizes, but it computes lists of 32-bit integers alone, where exporters also compute matrices
//! (the padding of PyTorch) and floats (the factors of a resize), gives no reason for what it does
//! not know, and is not made for files that nobody vouches for.

#![deny(unsafe_code)]

mod array;
mod conv;
mod elem;
mod fault;
mod graph;
mod inputs;
mod node;
mod ops;
mod proto;
mod scalar;
mod value;
mod window;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use convgen_ir::problem::ConvProblem;

use self::node::short;

pub use self::elem::Elem;
pub use self::fault::{Cause, Fault, Unsupported, Why};
pub use self::proto::ProtoError;

/// What a model leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The first dimension of inputs that leave it open; 1 if not given.
    pub batch: Option<u64>,
    /// Other sizes by name. One that the model does not name, or by a name that others have too,
    /// has the input's name and the number of the dimension, counted from zero: `image.2`. A name
    /// that the model does not leave open is an error.
    pub dims: BTreeMap<String, u64>,
}

/// A convolution of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The name of the first node that computes it.
    pub name: String,
    /// How many nodes do.
    pub count: usize,
    /// The problem, with ONNX's layout, channels first.
    pub problem: Result<ConvProblem, Unsupported>,
}

/// Why a file gives no list of convolutions.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OnnxError {
    /// The bytes are no model.
    #[error("no ONNX model")]
    Proto(#[from] ProtoError),
    /// A message without a graph, as nearly any short file is one.
    #[error("no ONNX model: there is no graph in it")]
    NoGraph,
    /// A constant of the graph is malformed.
    #[error("initializer {name}: {fault}")]
    Initializer {
        /// The constant.
        name: String,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
    /// An input of the graph is malformed.
    #[error("input {name}: {fault}")]
    Input {
        /// The input.
        name: String,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
    /// A node is malformed.
    #[error("node `{name}`, {op}: {fault}")]
    Node {
        /// The node.
        name: String,
        /// Its operation.
        op: String,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
    /// A convolution has a size that the model leaves open.
    #[error(
        "node `{node}` depends on the size `{}`, which the model leaves open (`{}`)",
        short(name),
        short(place)
    )]
    Dimension {
        /// The convolution.
        node: String,
        /// The size.
        name: String,
        /// The input and the number of the dimension, which is another name of it.
        place: String,
    },
    /// A size is given for what the model does not leave open.
    #[error("the model leaves no size `{}` open, but {}", short(name), listed(open))]
    NoDimension {
        /// The name that is given.
        name: String,
        /// Names of what is open.
        open: Vec<String>,
    },
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().map(|name| format!("`{}`", short(name))).collect();
    if shown.is_empty() { "none at all".to_owned() } else { shown.join(", ") }
}

/// Lists the convolutions of a model, those that are alike once.
///
/// # Errors
/// [`OnnxError`]: the file is no model, contradicts itself, or leaves a size open.
pub fn read(file: Vec<u8>, options: &Options) -> Result<Vec<Layer>, OnnxError> {
    Ok(joined(read_nodes(file, options)?))
}

/// Lists the convolutions of a model, one a node.
///
/// # Errors
/// As [`read`].
pub fn read_nodes(file: Vec<u8>, options: &Options) -> Result<Vec<Layer>, OnnxError> {
    let len = file.len();
    let model: proto::Model = proto::decode(&Bytes::from(file))?;
    let graph: proto::Graph = match &model.graph {
        Some(bytes) => proto::decode(bytes)?,
        None => return Err(OnnxError::NoGraph),
    };
    let sites = graph::Walk::new(options, &model, len)?.run(&graph)?;
    let layer = |site: graph::Site| Layer { name: site.name, count: 1, problem: site.found };
    Ok(sites.into_iter().map(layer).collect())
}

/// Whether bytes may be a model rather than text: the first field of one is the version of its
/// format.
pub fn is_model(file: &[u8]) -> bool {
    matches!(file, [0x08, version, ..] if *version < b' ')
}

/// Joins equal problems, in the order in which they first occur.
fn joined(nodes: Vec<Layer>) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut places: HashMap<ConvProblem, usize> = HashMap::new();
    for node in nodes {
        let place = node.problem.as_ref().ok().and_then(|problem| places.get(problem).copied());
        match place.and_then(|place| layers.get_mut(place)) {
            Some(layer) => layer.count += 1,
            None => {
                if let Ok(problem) = &node.problem {
                    places.insert(problem.clone(), layers.len());
                }
                layers.push(node);
            }
        }
    }
    layers
}

#[doc = include_str!("../../docs/src/onnx.md")]
#[cfg(doctest)]
struct Chapter;
