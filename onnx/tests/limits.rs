//! Files that nobody vouches for: no damaged or hostile one does more than be refused, or leave
//! convolutions without a shape.

mod common;

use std::time::{Duration, Instant};

use common::wire::{field, graph, int, node, subgraph, tensor, weights};
use common::{lines, model, options, wire};
use convgen_onnx::{self as onnx, OnnxError, Options, ProtoError};

#[path = "../../tests/common/mutants.rs"]
#[allow(dead_code, reason = "the mutants of texts are for other tests")]
mod mutants;

#[test]
fn what_is_no_model_is_refused() {
    let refused = |file: &[u8]| onnx::read(file.to_vec(), &Options::default()).unwrap_err();
    assert_eq!(refused(b""), OnnxError::NoGraph);
    assert!(matches!(refused(b"conv2d ic3 oc5 ih6 iw5 kh3 kw3\n"), OnnxError::Proto(_)));
    let whole = model("ops");
    assert!(matches!(refused(&whole[..whole.len() - 9]), OnnxError::Proto(_)));
    assert!(onnx::is_model(&whole) && !onnx::is_model(b"conv2d"));
}

/// Ten million empty nodes, two bytes each.
#[test]
fn a_file_of_nothing_but_items_is_refused_before_it_takes_memory() {
    let nodes = [0x0a, 0x00].repeat(10_000_000);
    let mut file = vec![0x3a];
    let mut len = nodes.len();
    while len >= 0x80 {
        file.push(len as u8 | 0x80);
        len >>= 7;
    }
    file.push(len as u8);
    file.extend(nodes);
    let error = onnx::read(file, &Options::default()).unwrap_err();
    assert_eq!(error, OnnxError::Proto(ProtoError::TooManyItems));
}

#[test]
fn ten_thousand_damaged_models_are_read_or_refused() {
    let open = options(Some(2), &[("height", 31), ("width", 20)]);
    let models =
        [("resnet50", options(Some(2), &[])), ("dynamic", open), ("ops", options(Some(2), &[]))]
            .map(|(name, options)| (model(name), options));
    let mut random = mutants::Random::new(11);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let (file, options) = random.pick(&models);
        let mut file = file.clone();
        for _ in 0..=random.below(2) {
            damage(&mut file, &mut random);
        }
        match onnx::read(file, options) {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(read > 1_000 && refused > 1_000, "{read} read, {refused} refused");
}

/// The cases of every operation, whose constants are parameters of what stands behind them.
#[test]
fn damaged_cases_of_every_operation_are_read_or_refused() {
    let cases = model("cases");
    let mut random = mutants::Random::new(12);
    let mut read = 0;
    for _ in 0..1_500 {
        let mut file = cases.clone();
        for _ in 0..=random.below(3) {
            damage(&mut file, &mut random);
        }
        read += usize::from(onnx::read(file, &Options::default()).is_ok());
    }
    assert!(read > 100, "{read}");
}

/// One byte or one of its lower bits changed, some bytes dropped, some repeated, or the end cut
/// off.
fn damage(file: &mut Vec<u8>, random: &mut mutants::Random) {
    let at = random.below(file.len());
    let end = (at + random.below(40)).min(file.len());
    match random.below(8) {
        0 => file.truncate(at),
        1 => drop(file.drain(at..end)),
        2 => {
            let part = file[at..end].to_vec();
            file.splice(at..at, part);
        }
        3 | 4 => {
            if let Some(byte) = file.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        _ => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << random.below(5);
            }
        }
    }
}

/// A convolution behind a node that would make a large tensor, and what the reader says of it.
fn behind(nodes: &[Vec<u8>], constants: &[Vec<u8>]) -> String {
    let mut nodes = nodes.to_vec();
    nodes.push(node("Conv", "x w", "found", &[]));
    let mut constants = constants.to_vec();
    constants.push(weights("w", &[1, 1, 1]));
    let file = wire::model(&graph(&nodes, &constants, &[]));
    let before = Instant::now();
    let said = match onnx::read(file, &Options::default()) {
        Ok(layers) => lines(&layers).concat(),
        Err(error) => error.to_string(),
    };
    assert!(before.elapsed() < Duration::from_secs(5), "{said}");
    said
}

#[test]
fn large_constants_are_shapes_without_elements() {
    let huge = 1 << 30;
    let list = |name: &str, values: &[i64]| tensor(name, &[values.len() as i64], values);
    let scalar = |name: &str, value| tensor(name, &[], &[value]);
    let shape = list("shape", &[1, 1, huge]);
    let wide = "conv1d f32 nchw n1 ic1 oc1 iw1073741824 kw1";
    let filled = node("ConstantOfShape", "shape", "x", &[]);
    assert_eq!(behind(&[filled], std::slice::from_ref(&shape)), format!("1 found: {wide}"));
    let expanded = node("Expand", "one shape", "x", &[]);
    let one = tensor("one", &[1, 1, 1], &[7]);
    assert_eq!(behind(&[expanded], &[one.clone(), shape.clone()]), format!("1 found: {wide}"));
    let tiled = node("Tile", "one shape", "x", &[]);
    assert_eq!(behind(&[tiled], &[one, shape]), format!("1 found: {wide}"));
    let range =
        [node("Range", "zero huge one", "list", &[]), node("Unsqueeze", "list axes", "x", &[])];
    let constants =
        [scalar("zero", 0), scalar("huge", huge), scalar("one", 1), list("axes", &[0, 1])];
    assert_eq!(behind(&range, &constants), format!("1 found: {wide}"));
    let far = [scalar("zero", i64::MIN), scalar("huge", i64::MAX), scalar("one", 1)];
    let far = [&far[..], &constants[3..]].concat();
    let said = behind(&range, &far);
    assert!(said.contains("expected at most 2147483648"), "{said}");
}

#[test]
fn graphs_in_graphs_end_at_a_depth() {
    let mut inner = graph(&[node("Conv", "x w", "y", &[])], &[], &["y"]);
    for _ in 0..1_000 {
        let branches = [subgraph("then_branch", &inner), subgraph("else_branch", &inner[..0])];
        inner = graph(&[node("If", "c", "y", &branches)], &[], &["y"]);
    }
    let constants = [tensor("c", &[], &[1]), weights("x", &[1, 1, 1]), weights("w", &[1, 1, 1])];
    let constants: Vec<u8> = constants.iter().flat_map(|tensor| field(5, tensor)).collect();
    let file = wire::model(&[inner, constants].concat());
    // Deeper than anything is listed.
    assert_eq!(onnx::read(file, &Options::default()), Ok(Vec::new()));
}

#[test]
fn elements_that_are_computed_again_and_again_are_given_up() {
    let mut nodes = Vec::new();
    for i in 0..200_000 {
        nodes.push(node("Neg", "list", &format!("{i:x}"), &[]));
    }
    nodes.push(node("Reshape", "x shape", "y", &[]));
    let list = tensor("list", &[4096], &[3; 4096]);
    let said = behind(&nodes, &[list, tensor("shape", &[3], &[1, 1, 1]), weights("x", &[1, 1, 1])]);
    assert_eq!(said, "1 found: conv1d f32 nchw n1 ic1 oc1 iw1 kw1");
}

#[test]
fn long_lists_of_axes_are_refused() {
    let axes = vec![0_i64; 4096];
    let list = |name: &str| tensor(name, &[4096], &axes);
    let sliced = node("Slice", "input starts ends axes", "x", &[]);
    let constants = [list("starts"), list("ends"), list("axes"), weights("input", &[1, 1, 9])];
    let said = behind(&[sliced], &constants);
    assert!(said.contains("has 4096 values, expected 32"), "{said}");
}

#[test]
fn a_cycle_is_an_input_that_nothing_makes() {
    let said = behind(&[node("Relu", "y", "x", &[]), node("Relu", "x", "y", &[])], &[]);
    let expected = "1 found: (its shape depends on the Relu `x`, which reads `y`, which nothing \
                    before it makes; a model simplified with fixed dimensions may state it)";
    assert_eq!(said, expected);
}

/// Places that are far apart in a tensor without elements.
#[test]
fn tensors_without_elements_take_no_time() {
    let empty = tensor("empty", &[1 << 31, 0], &[]);
    let joined = node("Concat", "empty empty", "x", &[int("axis", 1)]);
    let said = behind(&[joined], std::slice::from_ref(&empty));
    assert!(said.contains("the input has 2 dimensions"), "{said}");
    let picked = node("Gather", "empty none", "x", &[int("axis", 1)]);
    let said = behind(&[picked], &[empty, tensor("none", &[0], &[])]);
    assert!(said.contains("the input has 2 dimensions"), "{said}");
}
