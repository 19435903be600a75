//! A line that describes a problem or a pair: it prints back as it reads, compiles with its default
//! pick, and computes the problem.

use convgen::check::separable;
use convgen::{Accuracy, Error, Kernel};
use convgen_ir::Separable;
use convgen_ir::problem::{ConvProblem, Descriptor, parse_list};

use super::{Backend, backend, hold, hold_nest, is_small, with_accuracy};
use crate::drive::stage;

/// Panics where something is wrong.
pub fn target(data: &[u8]) {
    target_on(backend(data, None), data);
}

/// As [`target`], for a chosen instruction set.
pub fn target_on(backend: &Backend, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    stage("parse");
    // A list is several descriptors, names and comments.
    let _ = parse_list(text);
    if Separable::is_meant(text) {
        return pair(text, backend);
    }
    let Ok(descriptor) = text.trim_end().parse::<Descriptor>() else { return };
    let printed = descriptor.to_string();
    match printed.parse::<Descriptor>() {
        Ok(again) if again.problem == descriptor.problem && again.to_string() == printed => {}
        other => panic!("prints as `{printed}`, which is {other:?}"),
    }
    default_pick(&descriptor.problem, backend, data.len().is_multiple_of(4));
}

/// The promise of the compiler: every legal problem compiles.
fn default_pick(problem: &ConvProblem, backend: &Backend, strict: bool) {
    let accuracy = if strict { Accuracy::Strict } else { Accuracy::Default };
    let compiler = with_accuracy(backend, accuracy);
    stage("pick");
    let _ = compiler.pick(problem);
    stage("compile");
    let kernel = match compiler.compile(problem) {
        Ok(kernel) => kernel,
        Err(error) => panic!("a legal problem is refused: {error}: {problem}"),
    };
    if is_small(problem) {
        hold(&kernel, backend);
    }
    wrong_batches(&kernel);
}

/// Elements of an input that is made only to be refused.
const MUCH: u64 = 1 << 26;

/// Batches whose output is a multiple of 2^64 elements: an empty slice is as long, if products
/// wrap.
fn wrong_batches(kernel: &Kernel) {
    let problem = kernel.problem();
    let size = |shape: Vec<u64>| shape.iter().product::<u64>();
    let (image, output) = (size(problem.input_shape(1)), size(problem.output_shape(1)));
    let batch = 1_u128 << (64 - output.trailing_zeros().min(63));
    let Some(given) = u64::try_from(batch).ok().and_then(|batch| batch.checked_mul(image)) else {
        return;
    };
    let weights = size(problem.weights_shape());
    if given > MUCH || weights > MUCH || problem.bias() || !problem.extra_shapes(1).is_empty() {
        return;
    }
    stage("wrong batch");
    let Ok(packed) = kernel.pack_weights(&vec![0.0; weights as usize]) else { return };
    let done = kernel.run(&vec![0.0; given as usize], &packed, None, &mut []);
    assert!(matches!(done, Err(Error::Run(_))), "an empty output for {batch} images: {problem}");
}

fn pair(text: &str, backend: &Backend) {
    let Ok(pair) = text.parse::<Separable>() else { return };
    assert_eq!(pair.to_string().parse::<Separable>().as_ref(), Ok(&pair), "prints as another");
    stage("compile pair");
    let kernel = match backend.compiler.compile_separable(&pair) {
        Ok(kernel) => kernel,
        // A row that does not fit the scratch is no bug; a plan that does not apply is one.
        Err(Error::Verify(_)) => return,
        Err(error) => panic!("a legal pair is refused: {error}: {pair}"),
    };
    let (first, second) = (pair.depthwise(), pair.pointwise());
    if is_small(first) && is_small(second) {
        stage("check pair");
        if let Err(error) = separable::check(&backend.compiler, &kernel) {
            panic!("wrong: {error}");
        }
        kernel.nests().for_each(|nest| hold_nest(nest, first.batch() as i64, backend));
    }
}
