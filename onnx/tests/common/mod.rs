//! What the tests of the reader share.

#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeMap;
use std::path::Path;

use convgen_onnx::{Layer, Options};

pub mod wire;

/// A model beside the tests, made by `make.py` or `op_shapes.py`.
pub fn model(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    std::fs::read(folder.join(format!("{name}.onnx"))).unwrap()
}

pub fn options(batch: Option<u64>, dims: &[(&str, u64)]) -> Options {
    let dims: BTreeMap<String, u64> = dims.iter().map(|(k, v)| (k.to_string(), *v)).collect();
    Options { batch, dims }
}

/// One line a layer: how often, its name, its problem or why there is none.
pub fn lines(layers: &[Layer]) -> Vec<String> {
    let text = |layer: &Layer| match &layer.problem {
        Ok(problem) => format!("{} {}: {problem}", layer.count, layer.name),
        Err(unsupported) => format!("{} {}: ({unsupported})", layer.count, layer.name),
    };
    layers.iter().map(text).collect()
}

/// The same, one line a node, without what every problem here has.
pub fn node_lines(name: &str, options: &Options) -> Vec<String> {
    let nodes = convgen_onnx::read_nodes(model(name), options).unwrap();
    let plain = |line: String| line.replacen("1 ", "", 1).replace(" f32 nchw", "");
    nodes.iter().map(|node| plain(lines(std::slice::from_ref(node)).concat())).collect()
}
