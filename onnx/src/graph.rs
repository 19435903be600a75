//! The walk through a graph: what is known of each value, and the convolutions on the way.
//!
//! Promises: every node is looked at once; each convolution of the graph, of graphs inside of it
//! and of the model's functions has an entry. The elements that are computed, all together, are
//! limited by the size of the file.

mod branches;

use std::collections::{HashMap, HashSet};

use self::branches::Graphs;
use super::conv::{self, Found, Missing};
use super::elem::Elem;
use super::fault::{Cause, Fault, Stop, Unknown, Unsupported, Why};
use super::inputs::{Sizes, dims_of, elem_of};
use super::node::{Node, short};
use super::ops;
use super::proto::{self, Graph, ValueInfo};
use super::value::{MAX_RANK, Value};
use super::{OnnxError, Options};

/// A convolution of the graph: its name, and the problem or the reason that there is none.
pub(super) struct Site {
    pub(super) name: String,
    pub(super) found: Result<convgen_ir::problem::ConvProblem, Unsupported>,
}

/// The elements that are computed for a file of any size: some for each node of a large model.
const ELEMENTS: u64 = 1 << 20;
/// Bytes of the file for each further one, which takes some bytes itself.
const BYTES_PER_ELEMENT: u64 = 8;

/// What is known while the nodes are gone through.
pub(super) struct Walk {
    sizes: Sizes,
    /// Those of the graph, and of the branches that are being looked into.
    scopes: Vec<Scope>,
    /// The model's own operations that hold convolutions and those that do not.
    functions: HashMap<(String, String), bool>,
    sites: Vec<Site>,
    /// The elements that may still be computed.
    elements: u64,
}

/// The values of a graph.
#[derive(Default)]
struct Scope {
    values: HashMap<String, Value>,
    /// What the file says of values that nodes make.
    stated: HashMap<String, ValueInfo>,
}

impl Walk {
    pub(super) fn new(
        options: &Options,
        model: &proto::Model,
        len: usize,
    ) -> Result<Walk, OnnxError> {
        let given = options.dims.iter().map(|(name, size)| (name.clone(), *size)).collect();
        Ok(Walk {
            sizes: Sizes::new(options.batch, given),
            scopes: Vec::new(),
            functions: functions(model)?,
            sites: Vec::new(),
            elements: ELEMENTS + len as u64 / BYTES_PER_ELEMENT,
        })
    }

    /// Goes through the model's graph, and gives its convolutions in order.
    pub(super) fn run(mut self, graph: &Graph) -> Result<Vec<Site>, OnnxError> {
        self.open(graph)?;
        for bytes in &graph.input {
            self.input(proto::decode(bytes)?)?;
        }
        let stated = self.scopes.last().map(|scope| &scope.stated);
        if let Some(name) = stated.and_then(|stated| self.sizes.unused(stated)) {
            return Err(OnnxError::NoDimension { name, open: self.sizes.open() });
        }
        self.nodes(graph)?;
        Ok(self.sites)
    }

    /// Begins a scope with what the graph says of its values.
    fn open(&mut self, graph: &Graph) -> Result<(), OnnxError> {
        let mut scope = Scope::default();
        for bytes in &graph.initializer {
            let tensor: proto::Tensor = proto::decode(bytes)?;
            let value = Value::constant(&tensor).map_err(|fault| OnnxError::Initializer {
                name: quoted(&tensor.name),
                fault: fault.into(),
            })?;
            scope.values.insert(tensor.name, value);
        }
        for bytes in &graph.value_info {
            let info: ValueInfo = proto::decode(bytes)?;
            scope.stated.insert(info.name.clone(), info);
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// Goes through the nodes of the scope that is open.
    fn nodes(&mut self, graph: &Graph) -> Result<(), OnnxError> {
        graph.node.iter().enumerate().try_for_each(|(index, bytes)| {
            let node: proto::Node = proto::decode(bytes)?;
            self.node(index, &node)
        })
    }

    /// What is known of a value: of the innermost graph that makes it.
    fn value(&self, name: &str) -> Option<&Value> {
        self.scopes.iter().rev().find_map(|scope| scope.values.get(name))
    }

    fn keep(&mut self, name: &str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.values.insert(name.to_owned(), value);
        }
    }

    /// Notes an input of the graph, unless it is an initializer, whose shape is known already.
    fn input(&mut self, info: ValueInfo) -> Result<(), OnnxError> {
        if self.value(&info.name).is_some() {
            return Ok(());
        }
        let failed =
            |fault: Fault| OnnxError::Input { name: quoted(&info.name), fault: fault.into() };
        let value = match dims_of(&info) {
            Some(dims) if dims.len() > MAX_RANK => {
                let given = dims.len();
                return Err(failed(Fault::Rank {
                    what: "the input",
                    given,
                    expected: "at most 16",
                }));
            }
            Some(dims) => Value::of(self.sizes.of_input(&info.name, dims)).map_err(failed)?,
            None => Value::unknown(unknown(&short(&info.name), "input", Why::Stated)),
        };
        self.keep(&info.name, value.typed(elem_of(&info)));
        Ok(())
    }

    fn node(&mut self, index: usize, proto: &proto::Node) -> Result<(), OnnxError> {
        let title = title(index, proto);
        let failed = |fault: Fault| OnnxError::Node {
            name: title.clone(),
            op: quoted(&proto.op_type),
            fault: fault.into(),
        };
        let graphs = Graphs::of(proto).map_err(|error| failed(error.into()))?;
        let outputs = if graphs.are_none() {
            match self.look(proto, &title) {
                Ok((found, outputs)) => {
                    self.note(&title, found)?;
                    outputs
                }
                Err(Stop::Fault(fault)) => return Err(failed(fault)),
                Err(Stop::Unknown(reason)) => {
                    self.note(&title, self.unknown_site(proto, &title, &reason))?;
                    vec![Value::unknown(reason); proto.output.len().min(1)]
                }
            }
        } else {
            self.enter(proto, &title, &graphs)?
        };
        self.store(proto, &title, outputs);
        Ok(())
    }

    /// Keeps the outputs of a node.
    fn store(&mut self, proto: &proto::Node, title: &str, outputs: Vec<Value>) {
        self.charge(proto, &outputs);
        let mut missing = None;
        let mut outputs = outputs.into_iter();
        for name in &proto.output {
            let value = outputs.next().unwrap_or_else(|| {
                let reason = missing
                    .get_or_insert_with(|| unknown(title, &short(&proto.op_type), Why::Output));
                Value::unknown(reason.clone())
            });
            if !name.is_empty() {
                let value = self.or_stated(name, value);
                self.keep(name, value);
            }
        }
    }

    /// Counts what was read and made to compute elements; when there were too many, all are
    /// forgotten.
    fn charge(&mut self, proto: &proto::Node, outputs: &[Value]) {
        let len = |value: &Value| value.data.as_ref().map_or(0, |data| data.len() as u64);
        let made: u64 = outputs.iter().map(len).sum();
        if made == 0 && !outputs.iter().any(|value| value.data.is_some()) {
            return;
        }
        let read: u64 = proto.input.iter().filter_map(|name| self.value(name)).map(len).sum();
        self.elements = self.elements.saturating_sub(made + read);
        if self.elements == 0 {
            let values = self.scopes.iter_mut().flat_map(|scope| scope.values.values_mut());
            values.for_each(|value| value.data = None);
        }
    }

    /// What a node makes, and the convolution that it is.
    fn look(&self, proto: &proto::Node, title: &str) -> Result<(Option<Found>, Vec<Value>), Stop> {
        let stop = |why| Err(Stop::Unknown(unknown(title, &short(&proto.op_type), why)));
        let mut inputs = Vec::new();
        let mut orphan = None;
        for name in &proto.input {
            let value = self.value(name);
            if value.is_none() && !name.is_empty() {
                orphan = Some(short(name));
            }
            inputs.push(value);
        }
        if let Some(input) = orphan {
            return stop(Why::Orphan { input });
        }
        let node = Node::new(proto, title, inputs)?;
        if self.function(proto).is_some() {
            return stop(Why::Graph);
        }
        let site = |(found, value)| (Some(found), vec![value]);
        match (proto.domain.as_str(), proto.op_type.as_str()) {
            (domain, "Conv") if ops::is_standard(domain) => conv::conv(&node).map(site),
            (ops::MICROSOFT, "FusedConv") => conv::conv(&node).map(site),
            (domain, "ConvTranspose") if ops::is_standard(domain) => {
                conv::conv_transpose(&node).map(site)
            }
            (domain, "ConvInteger") if ops::is_standard(domain) => {
                conv::relative(&node, 1, Elem::Int { bits: 32, signed: true }).map(site)
            }
            (domain, "QLinearConv") if ops::is_standard(domain) => {
                let elem = node.optional(7).map_or(Elem::Unstated, |value| value.elem);
                conv::relative(&node, 3, elem).map(site)
            }
            (domain, "DeformConv") if ops::is_standard(domain) => {
                conv::relative(&node, 1, node.input(0)?.elem).map(site)
            }
            (_, _) => ops::outputs(&node).map(|mut values| {
                if self.elements == 0 {
                    values.iter_mut().for_each(|value| value.data = None);
                }
                (None, values)
            }),
        }
    }

    fn function(&self, proto: &proto::Node) -> Option<bool> {
        self.functions.get(&(proto.domain.clone(), proto.op_type.clone())).copied()
    }

    /// Adds the entry of a convolution.
    fn note(&mut self, title: &str, found: Option<Found>) -> Result<(), OnnxError> {
        let found = match found {
            None => return Ok(()),
            Some(Ok(problem)) => Ok(problem),
            Some(Err(Missing::Unsupported(unsupported))) => Err(unsupported),
            Some(Err(Missing::Unknown(Unknown::Cause(cause)))) => {
                Err(Unsupported::Shape(Cause::clone(&cause)))
            }
            Some(Err(Missing::Unknown(Unknown::Open(open)))) => {
                return Err(OnnxError::Dimension {
                    node: title.to_owned(),
                    name: open.name.clone(),
                    place: open.place.clone(),
                });
            }
        };
        self.sites.push(Site { name: title.to_owned(), found });
        Ok(())
    }

    /// The entry of a node whose outputs are unknown, if it is or holds a convolution.
    fn unknown_site(&self, proto: &proto::Node, title: &str, reason: &Unknown) -> Option<Found> {
        let op = short(&proto.op_type);
        match self.function(proto) {
            Some(true) => Some(Err(Unsupported::Inside { node: title.to_owned(), op }.into())),
            Some(false) => None,
            None if !is_convolution(&proto.op_type) => None,
            None if matches!(reason, Unknown::Cause(cause) if cause.node == title) => {
                let op = match ops::is_standard(&proto.domain) {
                    true => op,
                    false => format!("{}.{op}", short(&proto.domain)),
                };
                Some(Err(Unsupported::Operation { op }.into()))
            }
            None => Some(Err(Missing::Unknown(reason.clone()))),
        }
    }

    /// The sizes that the file states, where they could not be inferred.
    fn or_stated(&self, name: &str, mut value: Value) -> Value {
        let Some(info) = self.scopes.last().and_then(|scope| scope.stated.get(name)) else {
            return value;
        };
        let Some(dims) = dims_of(info).filter(|dims| dims.len() <= MAX_RANK) else { return value };
        let mut shape = match &value.shape {
            Ok(shape) => shape.clone(),
            Err(unknown) => vec![Err(unknown.clone()); dims.len()],
        };
        if shape.len() != dims.len() || shape.iter().all(Result::is_ok) {
            return value.typed(elem_of(info));
        }
        for (i, (size, dim)) in shape.iter_mut().zip(dims).enumerate() {
            if let (Err(_), Some(stated)) = (&size, self.sizes.stated(name, i, dim)) {
                *size = Ok(stated);
            }
        }
        if let Ok(stated) = Value::of(shape) {
            value.shape = stated.shape;
        }
        value.typed(elem_of(info))
    }
}

/// Whether an operation is a convolution, understood or not.
fn is_convolution(op: &str) -> bool {
    op.contains("Conv")
}

/// Whether each operation that the model defines holds a convolution, itself or by another that it
/// calls.
fn functions(model: &proto::Model) -> Result<HashMap<(String, String), bool>, OnnxError> {
    let mut calls: HashMap<(String, String), HashSet<(String, String)>> = HashMap::new();
    for bytes in &model.functions {
        let function: proto::Function = proto::decode(bytes)?;
        let nodes = function.node.iter().map(proto::decode::<proto::Node>);
        let called = nodes.map(|node| node.map(|node| (node.domain, node.op_type)));
        let called = called.collect::<Result<_, _>>()?;
        calls.insert((function.domain, function.name), called);
    }
    let mut holds: HashMap<(String, String), bool> = calls
        .iter()
        .map(|(name, ops)| (name.clone(), ops.iter().any(|op| is_convolution(&op.1))))
        .collect();
    // Each round reaches one call further.
    for _ in 0..calls.len().min(MAX_CALLS) {
        let holding = |name: &(String, String)| holds.get(name).copied().unwrap_or(false);
        let more: Vec<_> = calls
            .iter()
            .filter(|(name, ops)| !holding(name) && ops.iter().any(holding))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        holds.extend(more.into_iter().map(|name| (name, true)));
    }
    Ok(holds)
}

/// Functions that call functions; exporters nest a few.
const MAX_CALLS: usize = 32;

/// A name from the file, fit to be shown.
fn quoted(name: &str) -> String {
    format!("`{}`", short(name))
}

/// What is not known because of a node.
fn unknown(node: &str, op: &str, why: Why) -> Unknown {
    Unknown::Cause(Cause { node: node.to_owned(), op: op.to_owned(), why }.into())
}

/// The node's name; that of its output, or its place, if it has none.
fn title(index: usize, proto: &proto::Node) -> String {
    let output = proto.output.first().map_or("", String::as_str);
    let given = [proto.name.as_str(), output].into_iter().find(|name| !name.is_empty());
    match given {
        Some(name) => name.chars().filter(|c| !c.is_control()).take(200).collect(),
        None => format!("node {index}"),
    }
}
