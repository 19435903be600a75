//! Graphs inside of nodes: the branches of an `If`, and those that are not looked into.
//!
//! ```text
//! the condition is a constant   the branch that it takes is part of the graph
//! it is not known               both branches are; an output has the sizes in which both agree, or those
//!                               of the one branch, if the other contradicts itself and so cannot run
//! `Loop`, `Scan`, others        their convolutions are listed with that reason
//! ```

use super::{Site, Walk, is_convolution, title, unknown};
use crate::OnnxError;
use crate::fault::{Cause, Fault, Unsupported, Why};
use crate::node::short;
use crate::ops;
use crate::proto::{self, Attribute, Graph, ProtoError, ValueInfo};
use crate::scalar::Scalar;
use crate::value::Value;

/// Graphs in graphs that are looked into; exporters nest a few.
const MAX_DEPTH: usize = 16;

/// The attributes of a node that are graphs.
pub(super) struct Graphs {
    named: Vec<(String, Graph)>,
}

impl Graphs {
    pub(super) fn of(node: &proto::Node) -> Result<Graphs, ProtoError> {
        let mut named = Vec::new();
        for bytes in &node.attribute {
            let attribute: Attribute = proto::decode(bytes)?;
            if let Some(graph) = &attribute.g {
                named.push((attribute.name, proto::decode(graph)?));
            }
        }
        Ok(Graphs { named })
    }

    pub(super) fn are_none(&self) -> bool {
        self.named.is_empty()
    }

    fn get(&self, name: &'static str) -> Result<&Graph, Fault> {
        let found = self.named.iter().find(|(other, _)| other == name);
        found.map(|(_, graph)| graph).ok_or(Fault::MissingAttribute { name })
    }
}

impl Walk {
    /// The outputs of a node with graphs inside.
    pub(super) fn enter(
        &mut self,
        proto: &proto::Node,
        title: &str,
        graphs: &Graphs,
    ) -> Result<Vec<Value>, OnnxError> {
        let is_if = proto.op_type == "If" && ops::is_standard(&proto.domain);
        if !is_if || self.scopes.len() > MAX_DEPTH {
            let op = short(&proto.op_type);
            let reason = Unsupported::Inside { node: title.to_owned(), op: op.clone() };
            for (_, graph) in &graphs.named {
                self.list(graph, &reason, self.scopes.len())?;
            }
            return Ok(vec![
                Value::unknown(unknown(title, &op, Why::Graph));
                proto.output.len().min(1)
            ]);
        }
        let failed = |fault: Fault| OnnxError::Node {
            name: title.to_owned(),
            op: "`If`".to_owned(),
            fault: fault.into(),
        };
        let yes = graphs.get("then_branch").map_err(failed)?;
        let no = graphs.get("else_branch").map_err(failed)?;
        let condition = proto.input.first().and_then(|name| self.value(name));
        let outputs = match condition.and_then(|value| value.data.as_deref()) {
            Some([Scalar::Int(0)]) => self.branch(no)?,
            Some([Scalar::Int(_)]) => self.branch(yes)?,
            Some(_) | None => match (self.perhaps(yes, title)?, self.perhaps(no, title)?) {
                (Ok(yes), Ok(no)) => merged(yes, no, title),
                (Ok(outputs), Err(_)) | (Err(_), Ok(outputs)) => outputs,
                (Err(error), Err(_)) => return Err(error),
            },
        };
        let (given, expected) = (outputs.len(), proto.output.len());
        if given == expected {
            Ok(outputs)
        } else {
            Err(failed(Fault::Outputs { given, expected }))
        }
    }

    /// The outputs of a branch that is taken.
    fn branch(&mut self, graph: &Graph) -> Result<Vec<Value>, OnnxError> {
        let depth = self.scopes.len();
        let outputs = self.open(graph).and_then(|()| self.nodes(graph)).and_then(|()| {
            let mut outputs = Vec::new();
            for bytes in &graph.output {
                let info: ValueInfo = proto::decode(bytes)?;
                let why = || Why::Orphan { input: short(&info.name) };
                let orphan = || Value::unknown(unknown(&short(&info.name), "output", why()));
                outputs.push(self.value(&info.name).cloned().unwrap_or_else(orphan));
            }
            Ok(outputs)
        });
        self.scopes.truncate(depth);
        outputs
    }

    /// The outputs of a branch that may be taken, or the error if it cannot be.
    fn perhaps(
        &mut self,
        graph: &Graph,
        title: &str,
    ) -> Result<Result<Vec<Value>, OnnxError>, OnnxError> {
        let before = self.sites.len();
        let error = match self.branch(graph) {
            Ok(outputs) => return Ok(Ok(outputs)),
            Err(error @ (OnnxError::Node { .. } | OnnxError::Initializer { .. })) => error,
            Err(error) => return Err(error),
        };
        self.sites.truncate(before);
        let why = Why::Branch { fault: error.to_string() };
        let cause = Cause { node: title.to_owned(), op: "If".to_owned(), why };
        self.list(graph, &Unsupported::Shape(cause), self.scopes.len())?;
        Ok(Err(error))
    }

    /// Lists the convolutions of a graph that is not looked into.
    fn list(&mut self, graph: &Graph, reason: &Unsupported, depth: usize) -> Result<(), OnnxError> {
        for (index, bytes) in graph.node.iter().enumerate() {
            let node: proto::Node = proto::decode(bytes)?;
            if is_convolution(&node.op_type) {
                let name = title(index, &node);
                self.sites.push(Site { name, found: Err(reason.clone()) });
            }
            if depth <= 2 * MAX_DEPTH {
                for (_, graph) in &Graphs::of(&node)?.named {
                    self.list(graph, reason, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

/// What is known of values that come from either branch.
fn merged(yes: Vec<Value>, no: Vec<Value>, title: &str) -> Vec<Value> {
    let differ = unknown(title, "If", Why::Branches);
    if yes.len() != no.len() {
        // What the node states is compared with these.
        return yes;
    }
    let both = |(yes, no): (Value, Value)| {
        let shape = match (yes.shape, no.shape) {
            (Ok(a), Ok(b)) if a.len() == b.len() => Ok(a
                .into_iter()
                .zip(b)
                .map(|(a, b)| if a == b { a } else { Err(differ.clone()) })
                .collect()),
            (Ok(_), Ok(_)) => Err(differ.clone()),
            (Err(unknown), _) | (_, Err(unknown)) => Err(unknown),
        };
        let data = yes.data.filter(|data| no.data.as_ref() == Some(data));
        Value { shape, elem: yes.elem, data }
    };
    yes.into_iter().zip(no).map(both).collect()
}
