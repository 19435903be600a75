//! The walk through a graph: what is known of each value, and the convolutions on the way.

use std::collections::{HashMap, HashSet};

use super::conv::{self, Found};
use super::fault::{Fault, Stop, Unknown};
use super::node::Node;
use super::proto::{self, Dimension, Graph, ValueInfo};
use super::shapes::{self, quoted};
use super::value::{MAX_RANK, Value, reason};
use super::{OnnxError, Options};

/// A convolution of the graph: its name, and the problem or the reason that there is none.
pub(super) struct Site {
    pub(super) name: String,
    pub(super) found: Found,
}

/// What is known while the nodes are gone through.
pub(super) struct Walk<'o> {
    options: &'o Options,
    /// Sizes by the name that the model gives them.
    dims: HashMap<String, u64>,
    values: HashMap<String, Value>,
    /// What the file says of values that nodes make.
    stated: HashMap<String, ValueInfo>,
    functions: HashSet<String>,
    sites: Vec<Site>,
}

impl<'o> Walk<'o> {
    pub(super) fn new(options: &'o Options, functions: HashSet<String>) -> Walk<'o> {
        let dims = options.dims.iter().map(|(name, size)| (name.clone(), *size)).collect();
        let (values, stated, sites) = (HashMap::new(), HashMap::new(), Vec::new());
        Walk { options, dims, values, stated, functions, sites }
    }

    /// Goes through a graph, and gives its convolutions in order.
    pub(super) fn run(mut self, graph: &Graph) -> Result<Vec<Site>, OnnxError> {
        for bytes in &graph.initializer {
            let tensor: proto::Tensor = proto::decode(bytes)?;
            let value = Value::constant(&tensor).map_err(|fault| OnnxError::Initializer {
                name: quoted(&tensor.name),
                fault: fault.into(),
            })?;
            self.values.insert(tensor.name, value);
        }
        for bytes in &graph.input {
            self.input(proto::decode(bytes)?)?;
        }
        for bytes in &graph.value_info {
            let info: ValueInfo = proto::decode(bytes)?;
            self.stated.insert(info.name.clone(), info);
        }
        for (index, bytes) in graph.node.iter().enumerate() {
            self.node(index, &proto::decode(bytes)?)?;
        }
        Ok(self.sites)
    }

    /// Notes an input of the graph, unless it is an initializer, whose shape is known already.
    fn input(&mut self, info: ValueInfo) -> Result<(), OnnxError> {
        if self.values.contains_key(&info.name) {
            return Ok(());
        }
        let mut value = Value::unknown(Unknown::Because(reason(format!(
            "the model states no shape of its input {}",
            quoted(&info.name)
        ))));
        if let Some(dims) = dims_of(&info) {
            value.shape = self.input_shape(&info.name, dims)?;
        }
        value.elem = elem_of(&info);
        self.values.insert(info.name, value);
        Ok(())
    }

    fn input_shape(
        &mut self,
        input: &str,
        dims: &[Dimension],
    ) -> Result<super::value::Shape, OnnxError> {
        if dims.len() > MAX_RANK {
            let given = dims.len();
            let fault = Fault::Rank { what: "the input", given, expected: "at most 16" };
            return Err(OnnxError::Input { name: quoted(input), fault: fault.into() });
        }
        let mut shape = Vec::new();
        for (i, dim) in dims.iter().enumerate() {
            let name = name_of(dim, input, i);
            let known = known_size(dim).or_else(|| self.dims.get(&name).copied());
            // The first dimension of an input is the batch.
            let batch = || (i == 0).then(|| self.options.batch.unwrap_or(1));
            let Some(size) = known.or_else(batch) else {
                return Ok(Err(Unknown::Dimension(reason(name))));
            };
            self.dims.insert(name, size);
            shape.push(size);
        }
        let checked = Value::of(shape);
        checked
            .map(|value| value.shape)
            .map_err(|fault| OnnxError::Input { name: quoted(input), fault: fault.into() })
    }

    fn node(&mut self, index: usize, proto: &proto::Node) -> Result<(), OnnxError> {
        let title = title(index, proto);
        let (site, outputs) = match self.look(proto) {
            Ok((found, outputs)) => (found, outputs),
            Err(Stop::Fault(fault)) => {
                return Err(OnnxError::Node {
                    name: title,
                    op: quoted(&proto.op_type),
                    fault: fault.into(),
                });
            }
            Err(Stop::Unknown(unknown)) => {
                let found = self.unknown_site(proto, &unknown, &title)?;
                let value = Value::unknown(unknown);
                (found, vec![value; proto.output.len().min(1)])
            }
        };
        if let Some(found) = site {
            self.sites.push(Site { name: title, found });
        }
        let missing = Unknown::Because(reason("it is a further output of its node".to_owned()));
        let mut outputs = outputs.into_iter();
        for name in proto.output.iter().filter(|name| !name.is_empty()) {
            let value = outputs.next().unwrap_or_else(|| Value::unknown(missing.clone()));
            let value = self.or_stated(name, value);
            self.values.insert(name.clone(), value);
        }
        Ok(())
    }

    /// What a node makes, and the convolution that it is.
    fn look(&self, proto: &proto::Node) -> Result<(Option<Found>, Vec<Value>), Stop> {
        let mut inputs = Vec::new();
        let mut orphan = None;
        for name in &proto.input {
            let value = self.values.get(name);
            if value.is_none() && !name.is_empty() {
                orphan = Some(format!("nothing before it makes its input {}", quoted(name)));
            }
            inputs.push(value);
        }
        if let Some(because) = orphan {
            return Err(Stop::unknown(because));
        }
        let node = Node::new(proto, inputs)?;
        let is_standard = matches!(proto.domain.as_str(), "" | "ai.onnx");
        if !is_standard || self.functions.contains(&proto.op_type) {
            let op = quoted(&proto.op_type);
            return Err(Stop::unknown(format!("the operation {op} is not of ONNX's own")));
        }
        match proto.op_type.as_str() {
            "Conv" => conv::conv(&node).map(|(found, value)| (Some(found), vec![value])),
            "ConvTranspose" => {
                conv::conv_transpose(&node).map(|(found, value)| (Some(found), vec![value]))
            }
            _ => shapes::outputs(&node).map(|values| (None, values)),
        }
    }

    /// The entry of a node whose outputs are unknown, if it is or may hold a convolution.
    fn unknown_site(
        &self,
        proto: &proto::Node,
        unknown: &Unknown,
        title: &str,
    ) -> Result<Option<Found>, OnnxError> {
        let op = proto.op_type.as_str();
        let holds_others = matches!(op, "If" | "Loop" | "Scan") || self.functions.contains(op);
        if holds_others {
            return Ok(Some(Err(format!("{} holds a graph that is not looked into", quoted(op)))));
        }
        match (op.contains("Conv"), unknown) {
            (false, _) => Ok(None),
            (true, Unknown::Dimension(name)) => {
                Err(OnnxError::Dimension { node: title.to_owned(), name: name.to_string() })
            }
            (true, Unknown::Because(because)) => Ok(Some(Err(because.to_string()))),
        }
    }

    /// The shape that the file states, where none could be inferred.
    fn or_stated(&self, name: &str, value: Value) -> Value {
        if value.shape.is_ok() {
            return value;
        }
        let Some(info) = self.stated.get(name) else { return value };
        let Some(dims) = dims_of(info).filter(|dims| dims.len() <= MAX_RANK) else { return value };
        let size =
            |(i, dim)| known_size(dim).or_else(|| self.dims.get(&name_of(dim, name, i)).copied());
        let shape: Option<Vec<u64>> = dims.iter().enumerate().map(size).collect();
        match shape.map(Value::of) {
            Some(Ok(stated)) => Value { elem: elem_of(info), ..stated },
            Some(Err(_)) | None => value,
        }
    }
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

fn dims_of(info: &ValueInfo) -> Option<&[Dimension]> {
    let tensor = info.kind.as_ref()?.tensor.as_ref()?;
    tensor.shape.as_ref().map(|shape| shape.dim.as_slice())
}

fn elem_of(info: &ValueInfo) -> i32 {
    let tensor = info.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
    tensor.map_or(0, |tensor| tensor.elem_type)
}

/// A size that is written down; exporters write 0 or -1 for one that is not known.
fn known_size(dim: &Dimension) -> Option<u64> {
    u64::try_from(dim.dim_value?).ok().filter(|size| *size > 0)
}

/// The name of a size: the model's, or the value's with the number of the dimension.
fn name_of(dim: &Dimension, value: &str, index: usize) -> String {
    match dim.dim_param.as_deref() {
        Some(name) if !name.is_empty() => name.to_owned(),
        Some(_) | None => format!("{value}.{index}"),
    }
}
