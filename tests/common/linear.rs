//! Convolutions as linear maps: integers that stay exact, and the kernels of this host.

use std::sync::{Arc, LazyLock};

use convgen::record::Database;
use convgen::{Accuracy, Arguments, Compiler, Host, Isa};
use convgen_ir::PaddingMode;
use convgen_ir::problem::{ConvProblem, Direction};

/// The kernels of the widest instruction set of this host, with the default pick.
static COMPILER: LazyLock<Compiler> = LazyLock::new(|| {
    let host = Host::detect();
    let compiler = Isa::ALL.into_iter().rev().find_map(|isa| Compiler::new(&host, isa).ok());
    // Laws hold to the last bit for sums of integers, not for products of their transforms.
    let compiler = compiler.map(|compiler| compiler.with_accuracy(Accuracy::Strict));
    compiler.expect("a host has an instruction set").with_database(Arc::new(Database::default()))
});

/// Small integers, whose products and sums are exact in single precision.
pub struct Integers(u64);

impl Integers {
    pub fn new(seed: u64) -> Integers {
        Integers(seed)
    }

    /// A tensor of integers from -4 to 4.
    pub fn tensor(&mut self, shape: &[u64]) -> Vec<f32> {
        (0..shape.iter().product::<u64>()).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> f32 {
        // The multiplier and increment of Knuth's MMIX generator; its high bits are good enough.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f32 % 9.0 - 4.0
    }
}

/// The problem without bias and epilogue, of one image, in that direction.
pub fn plain(problem: &ConvProblem, direction: Direction) -> ConvProblem {
    let spec = problem.to_spec().bias(false).epilogue([]).batch(1).direction(direction);
    ConvProblem::new(spec).expect("a part of a legal problem is legal")
}

/// The problem with zero padding, which is the one that every direction has.
pub fn zero_padded(problem: &ConvProblem) -> ConvProblem {
    let spec = problem.to_spec().padding_mode(PaddingMode::Zeros);
    ConvProblem::new(spec).expect("any padding may be zeros")
}

/// What the kernel of a problem without bias computes, of any number of images.
pub fn kernel_output(
    problem: &ConvProblem,
    input: &[f32],
    weights: &[f32],
    extras: &[&[f32]],
) -> Vec<f64> {
    run(problem, input, weights, None, extras)
}

/// As [`kernel_output`], of a problem with a bias.
pub fn biased_output(
    problem: &ConvProblem,
    input: &[f32],
    weights: &[f32],
    bias: &[f32],
) -> Vec<f64> {
    run(problem, input, weights, Some(bias), &[])
}

fn run(
    problem: &ConvProblem,
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    extras: &[&[f32]],
) -> Vec<f64> {
    let kernel = COMPILER.compile(problem).expect("every problem compiles");
    let weights = kernel.pack_weights(weights).expect("weights of the problem");
    let image: u64 = problem.input_shape(1).iter().product();
    let batch = input.len() as u64 / image;
    let mut output = vec![f32::NAN; problem.output_shape(batch).iter().product::<u64>() as usize];
    let arguments = Arguments { input, weights: &weights, bias, extras };
    kernel.run_with(&arguments, &mut output).expect("tensors of the problem");
    output.into_iter().map(f64::from).collect()
}
