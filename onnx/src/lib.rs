//! The convolutions of an ONNX model, with their shapes.
//!
//! Promises: every `Conv` and `ConvTranspose` of the graph is in the list, as a problem or with the
//! reason that it is none; a bias is part of the problem, what follows in the graph is not. Shapes
//! come from the inputs of the graph, the initializers and the operations between; where an
//! operation is not understood, from what the file states. A file that is no model, or a model that
//! contradicts itself, is an error that names the node; no file makes this code panic, or take
//! memory beyond some times the size of the file.
//!
//! Does not: read weights, run models, or look into the graphs inside of `If`, `Loop`, `Scan` and
//! of functions, which are listed with that reason.

#![deny(unsafe_code)]

mod conv;
mod fault;
mod graph;
mod node;
mod proto;
mod shapes;
mod value;

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use convgen_ir::problem::ConvProblem;

pub use self::fault::Fault;
pub use self::proto::ProtoError;

/// What a model leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The first dimension of inputs that leave it open; 1 if not given.
    pub batch: Option<u64>,
    /// Other sizes by name. One that the model does not name has the input's name and the number of
    /// the dimension, counted from zero: `image.2`.
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

/// A convolution that is not computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{reason}")]
pub struct Unsupported {
    /// Why not.
    pub reason: String,
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
    #[error("node `{node}` depends on the size `{name}`, which the model leaves open")]
    Dimension {
        /// The convolution.
        node: String,
        /// The size.
        name: String,
    },
}

/// Lists the convolutions of a model, those that are alike once.
///
/// # Errors
/// [`OnnxError`]: the file is no model, contradicts itself, or leaves a size open.
pub fn read(file: Vec<u8>, options: &Options) -> Result<Vec<Layer>, OnnxError> {
    let model: proto::Model = proto::decode(&Bytes::from(file))?;
    let graph: proto::Graph = match &model.graph {
        Some(bytes) => proto::decode(bytes)?,
        None => return Err(OnnxError::NoGraph),
    };
    let functions = model.functions.iter().map(proto::decode::<proto::Function>);
    let functions = functions.map(|f| f.map(|f| f.name)).collect::<Result<HashSet<_>, _>>()?;
    let sites = graph::Walk::new(options, functions).run(&graph)?;
    Ok(joined(sites))
}

/// Whether bytes may be a model rather than text: the first field of one is the version of its
/// format.
pub fn is_model(file: &[u8]) -> bool {
    matches!(file, [0x08, version, ..] if *version < b' ')
}

/// Joins equal problems, in the order in which they first occur.
fn joined(sites: Vec<graph::Site>) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut places: HashMap<ConvProblem, usize> = HashMap::new();
    for graph::Site { name, found } in sites {
        let problem = found.map_err(|reason| Unsupported { reason });
        let place = match &problem {
            Ok(problem) => places.get(problem).copied(),
            Err(_) => None,
        };
        match place.and_then(|place| layers.get_mut(place)) {
            Some(layer) => layer.count += 1,
            None => {
                if let Ok(problem) = &problem {
                    places.insert(problem.clone(), layers.len());
                }
                layers.push(Layer { name, count: 1, problem });
            }
        }
    }
    layers
}

#[doc = include_str!("../../docs/src/onnx.md")]
#[cfg(doctest)]
struct Chapter;
