//! An inverted residual block of MobileNetV2: three convolutions, each with what follows it fused
//! into its kernel, the last one adding the block's input. Then the last two in one kernel, which
//! has the same bits and keeps the tensor between them out of memory.
//!
//! ```sh
//! cargo run --release --example separable
//! ```

use std::error::Error;

use convgen::ir::{ConvProblem, Separable};
use convgen::{Arguments, Compiler, Kernel, PackedWeights, SeparableArguments};
use convgen::{check, timing};

/// 32 channels, expanded sixfold, on a map of 28 by 28.
const BLOCK: [&str; 3] = [
    "conv2d ic32 oc192 ih28 iw28 kh1 kw1 bias | relu6",
    "conv2d g192 ic192 oc192 ih28 iw28 kh3 kw3 ph1 pw1 bias | relu6",
    "conv2d ic192 oc32 ih28 iw28 kh1 kw1 bias | add",
];

/// A convolution with its parameters, ready to run.
struct Layer {
    kernel: Kernel,
    weights: PackedWeights,
    /// As a network's file has them.
    unpacked: Vec<f32>,
    bias: Vec<f32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let compiler = Compiler::host()?;
    let layers = BLOCK
        .iter()
        .map(|descriptor| Layer::new(&compiler, descriptor))
        .collect::<Result<Vec<_>, _>>()?;

    let input = values(layers[0].kernel.problem().input_shape(1), 1.0);
    let expanded = layers[0].run(&input, &[])?;
    let filtered = layers[1].run(&expanded, &[])?;
    let output = layers[2].run(&filtered, &[&input])?;

    for Layer { kernel, .. } in &layers {
        let check = check::check(kernel)?;
        println!("{}", kernel.problem());
        println!(
            "  {}: {} bytes of code, {} of scratch, {} outputs equal to the formula, {} to the \
             interpreter",
            kernel.name(),
            kernel.code_bytes(),
            kernel.workspace_bytes(),
            check.elements,
            check.bitwise
        );
    }
    let mean = output.iter().sum::<f32>() / output.len() as f32;
    println!("{} outputs with a mean of {mean:.4}", output.len());
    fused(&compiler, &layers[1], &layers[2], &expanded, &input)
}

/// The last two layers in one kernel, and as two, in turns.
fn fused(
    compiler: &Compiler,
    depthwise: &Layer,
    pointwise: &Layer,
    expanded: &[f32],
    residual: &[f32],
) -> Result<(), Box<dyn Error>> {
    let problem = |layer: &Layer| layer.kernel.problem().clone();
    let separable = Separable::new(problem(depthwise), problem(pointwise))?;
    let kernel = compiler.compile_separable(&separable)?;
    let weights = kernel.pack_weights(&depthwise.unpacked, &pointwise.unpacked)?;
    let arguments = SeparableArguments {
        input: expanded,
        weights: &weights,
        depthwise_bias: Some(&depthwise.bias),
        pointwise_bias: Some(&pointwise.bias),
        extras: &[residual],
    };
    let mut output = vec![0.0; residual.len()];
    kernel.run(&arguments, &mut output)?;
    let two = || pointwise.run(&depthwise.run(expanded, &[])?, &[residual]);
    assert_eq!(output, two()?);

    // These calls have just succeeded.
    let mut one = || drop(kernel.run(&arguments, &mut output));
    let timings = timing::interleaved(0.05, 10, &mut [&mut || drop(two()), &mut one]);
    println!("{}: as two kernels {:.3} ms", kernel.name(), timings[0].min * 1e3);
    println!("  fused {:.3} ms, {} rows at a time", timings[1].min * 1e3, kernel.plan().rows);
    Ok(())
}

impl Layer {
    fn new(compiler: &Compiler, descriptor: &str) -> Result<Layer, Box<dyn Error>> {
        let problem: ConvProblem = descriptor.parse()?;
        let kernel = compiler.compile(&problem)?;
        // A network would load these.
        let fan_in = problem.weights_shape()[1..].iter().product::<u64>();
        let unpacked = values(problem.weights_shape(), (1.0 / fan_in as f32).sqrt());
        let weights = kernel.pack_weights(&unpacked)?;
        let bias = values(vec![problem.out_channels()], 0.1);
        Ok(Layer { kernel, weights, unpacked, bias })
    }

    /// `extras` holds what the `add` of the epilogue reads.
    fn run(&self, input: &[f32], extras: &[&[f32]]) -> Result<Vec<f32>, convgen::Error> {
        let len = self.kernel.problem().output_shape(1).iter().product::<u64>();
        let mut output = vec![0.0; len as usize];
        let arguments = Arguments { input, weights: &self.weights, bias: Some(&self.bias), extras };
        self.kernel.run_with(&arguments, &mut output)?;
        Ok(output)
    }
}

/// Numbers spread between plus and minus `scale`, the same in every run.
fn values(shape: Vec<u64>, scale: f32) -> Vec<f32> {
    let value = |i: u64| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * scale;
    (0..shape.iter().product()).map(value).collect()
}
