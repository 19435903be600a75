//! `convgen run`: convolve arrays in `.npy` files.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use convgen::{Arguments, Host, Kernel};
use convgen_ir::epilogue::ExtraArg;
use convgen_ir::problem::ConvProblem;

use super::args::{IsaArg, thread_count};
use super::failure::{Hint, Verdict};
use super::npy::{self, Tensor};
use super::source;

const EXAMPLES: &str = "\
Examples:
  convgen run --problem 'conv2d nchw ic3 oc8 ih32 iw32 kh3 kw3 ph1 pw1' \\
      --input x.npy --weights w.npy --output y.npy
  convgen run --problem 'conv1d ic8 oc8 iw64 kw3 bias | add | relu' \\
      --input x.npy --weights w.npy --bias b.npy --extra residual.npy --output y.npy

All arrays hold 32-bit floats. The input has the problem's layout (nhwc if it says nothing) and any
number of images: the batch of the problem is not looked at. Weights are always output channels,
input channels of a group, kernel sizes. Each `add` of the epilogue reads an array of the output's
shape, each `scale` one value an output channel; they are given with --extra in the order of the
epilogue.";

/// The arguments of `convgen run`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The problem
    #[arg(long, value_name = "DESCRIPTOR")]
    problem: String,
    /// The input, in the problem's layout
    #[arg(long, value_name = "X.npy")]
    input: PathBuf,
    /// The weights, in the order oihw
    #[arg(long, value_name = "W.npy")]
    weights: PathBuf,
    /// The bias, one value an output channel
    #[arg(long, value_name = "B.npy")]
    bias: Option<PathBuf>,
    /// What the next `add` or `scale` of the epilogue reads
    #[arg(long, value_name = "E.npy")]
    extra: Vec<PathBuf>,
    /// Where the output goes
    #[arg(long, value_name = "Y.npy")]
    output: PathBuf,
    /// Threads that share the tasks; all cores if not given
    #[arg(long, value_name = "N", value_parser = thread_count())]
    threads: Option<usize>,
    #[command(flatten)]
    isa: IsaArg,
}

/// Reads the arrays, convolves them, writes the output.
pub fn run(args: &RunArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let problem = source::descriptor(&args.problem)?.problem;
    let tensors = Tensors::read(args, &problem)?;
    let host = Host::detect();
    let threads = args.threads.unwrap_or(host.cores());
    let kernel = args.isa.compiler(&host, threads)?.compile(&problem)?;
    let values = tensors.convolve(&kernel, threads)?;
    npy::write(&args.output, &tensors.output_shape, &values)?;
    writeln!(out, "{}: f32 {:?}", args.output.display(), tensors.output_shape)?;
    Ok(Verdict::Good)
}

/// What a call reads, and the shape of what it writes.
struct Tensors {
    input: Tensor,
    weights: Tensor,
    bias: Option<Tensor>,
    extras: Vec<Tensor>,
    output_shape: Vec<u64>,
}

impl Tensors {
    fn read(args: &RunArgs, problem: &ConvProblem) -> anyhow::Result<Tensors> {
        check_counts(args, problem)?;
        let mut expected = fixed(&problem.input_shape(1));
        expected[0] = None;
        let input = npy::read(&args.input, "input", &expected)?;
        let batch = input.shape[0];
        problem.with_batch(batch).context("the batch of the input does not fit the problem")?;
        let weights = npy::read(&args.weights, "weights", &fixed(&problem.weights_shape()))?;
        let channels = [Some(problem.result_channels())];
        let bias = args.bias.as_ref().map(|path| npy::read(path, "bias", &channels)).transpose()?;
        let output_shape = problem.output_shape(batch);
        let wanted = extras_of(problem).into_iter().zip(&args.extra);
        let extras = wanted.map(|(extra, path)| match extra {
            ExtraArg::Residual => npy::read(path, "residual", &fixed(&output_shape)),
            ExtraArg::ChannelScale => npy::read(path, "scale", &channels),
        });
        let extras = extras.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Tensors { input, weights, bias, extras, output_shape })
    }

    fn convolve(&self, kernel: &Kernel, threads: usize) -> anyhow::Result<Vec<f32>> {
        let len = self.output_shape.iter().product::<u64>() as usize;
        let mut output = Vec::new();
        output
            .try_reserve_exact(len)
            .with_context(|| format!("an output of {len} elements does not fit the memory"))?;
        output.resize(len, 0.0);
        let weights = kernel.pack_weights(&self.weights.values)?;
        let bias = self.bias.as_ref().map(|bias| bias.values.as_slice());
        let extras: Vec<&[f32]> = self.extras.iter().map(|e| e.values.as_slice()).collect();
        let input = &self.input.values;
        let arguments = Arguments { input, weights: &weights, bias, extras: &extras };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        pool.install(|| kernel.run_parallel(&arguments, &mut output, threads))?;
        Ok(output)
    }
}

/// Whether the files given are those the problem reads.
fn check_counts(args: &RunArgs, problem: &ConvProblem) -> anyhow::Result<()> {
    match (problem.bias(), &args.bias) {
        (true, None) => bail!("the problem has a bias, --bias is missing"),
        (false, Some(_)) => {
            return Err(anyhow!("--bias is given, but the problem has none"))
                .hint(|| "add the word `bias` to the problem, before the epilogue".to_owned());
        }
        (true, Some(_)) | (false, None) => {}
    }
    let (expected, given) = (extras_of(problem).len(), args.extra.len());
    if expected != given {
        return Err(anyhow!(
            "the epilogue reads {expected} arrays, --extra is given {given} times"
        ))
        .hint(|| "each `add` and each `scale` of the problem reads one".to_owned());
    }
    Ok(())
}

fn extras_of(problem: &ConvProblem) -> Vec<ExtraArg> {
    problem.epilogue().iter().filter_map(|op| op.takes_extra()).collect()
}

fn fixed(shape: &[u64]) -> Vec<Option<u64>> {
    shape.iter().copied().map(Some).collect()
}
