//! `convgen run`: convolve arrays in `.npy` files.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use convgen::{Arguments, Host, Kernel};
use convgen_ir::problem::ConvProblem;

use super::args::{IsaArg, thread_count};
use super::failure::{Hint, Verdict};
use super::npy::{self, Tensor};
use super::source::{self, ModelArgs};

const EXAMPLES: &str = "\
Examples:
  convgen run --problem 'conv2d nchw ic3 oc8 ih32 iw32 kh3 kw3 ph1 pw1' \\
      --input x.npy --weights w.npy --output y.npy
  convgen run --problem 'conv1d ic8 oc8 iw64 kw3 bias | add | relu' \\
      --input x.npy --weights w.npy --bias b.npy --extra residual.npy --output y.npy
  convgen run --problem 'conv1d ic8 oc8 iw64 kw3 bwd_w' \\
      --input x.npy --extra gradient.npy --output dw.npy
  convgen run --model model.onnx --input x.npy --weights w.npy --output y.npy

All arrays hold 32-bit floats. The input has the problem's layout (nhwc if it says nothing) and any
number of images: the batch of the problem is not looked at. Weights are always output channels,
input channels of a group, kernel sizes; those of a transposed problem, as in ONNX, input channels,
output channels of a group, kernel sizes. A problem that reads no weights (bwd_w, bwd_b) is given none.
What else is read is given with --extra: the gradient of the output to bwd_w; for each `add` of the
epilogue, in order, an array of the output's shape, for each `scale` one value an output channel. The
input of bwd_d and bwd_b is the gradient of the output.";

/// The arguments of `convgen run`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The problem
    #[arg(long, value_name = "DESCRIPTOR", required_unless_present = "model")]
    problem: Option<String>,
    /// An ONNX model with one convolution, in place of the problem
    #[arg(long, value_name = "FILE", conflicts_with = "problem")]
    model: Option<PathBuf>,
    #[command(flatten)]
    dims: ModelArgs,
    /// The input, in the problem's layout
    #[arg(long, value_name = "X.npy")]
    input: PathBuf,
    /// The weights, in the order oihw; none where the problem reads none
    #[arg(long, value_name = "W.npy")]
    weights: Option<PathBuf>,
    /// The bias, one value an output channel
    #[arg(long, value_name = "B.npy")]
    bias: Option<PathBuf>,
    /// The gradient that `bwd_w` reads; what the next `add` or `scale` of the epilogue reads
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
    let problem = args.problem()?;
    let tensors = Tensors::read(args, &problem)?;
    let host = Host::detect();
    let threads = args.threads.unwrap_or(host.cores());
    let kernel = args.isa.compiler(&host, threads)?.compile(&problem)?;
    let values = tensors.convolve(&kernel, threads)?;
    npy::write(&args.output, &tensors.output_shape, &values)?;
    writeln!(out, "{}: f32 {:?}", args.output.display(), tensors.output_shape)?;
    Ok(Verdict::Good)
}

impl RunArgs {
    /// The problem that the command line or the model names.
    fn problem(&self) -> anyhow::Result<ConvProblem> {
        match (&self.problem, &self.model) {
            (Some(text), _) => Ok(source::descriptor(text)?.problem),
            (None, Some(path)) => source::only_problem(path, &self.dims),
            (None, None) => bail!("neither --problem nor --model is given"),
        }
    }
}

/// What a call reads, and the shape of what it writes.
struct Tensors {
    input: Tensor,
    /// Empty where none are read.
    weights: Vec<f32>,
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
        let read = |path: &PathBuf, what: &str, shape: &[u64]| npy::read(path, what, &fixed(shape));
        let weights = match &args.weights {
            Some(path) => read(path, "weights", &problem.weights_shape())?.values,
            None => Vec::new(),
        };
        let channels = [problem.result_channels()];
        let bias = args.bias.as_ref().map(|path| read(path, "bias", &channels)).transpose()?;
        let wanted = problem.extra_shapes(batch).into_iter().zip(&args.extra);
        let extras = wanted.map(|((what, shape), path)| read(path, what, &shape));
        let extras = extras.collect::<anyhow::Result<Vec<_>>>()?;
        let output_shape = problem.output_shape(batch);
        Ok(Tensors { input, weights, bias, extras, output_shape })
    }

    fn convolve(&self, kernel: &Kernel, threads: usize) -> anyhow::Result<Vec<f32>> {
        let len = self.output_shape.iter().product::<u64>() as usize;
        let mut output = Vec::new();
        output
            .try_reserve_exact(len)
            .with_context(|| format!("an output of {len} elements does not fit the memory"))?;
        output.resize(len, 0.0);
        let weights = kernel.pack_weights(&self.weights)?;
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
    let reads_weights = problem.weights_shape().iter().all(|&size| size > 0);
    match (reads_weights, &args.weights) {
        (true, None) => bail!("the problem reads weights, --weights is missing"),
        (false, Some(_)) => {
            let direction = problem.direction().name();
            bail!("--weights is given, but {direction} reads none");
        }
        (true, Some(_)) | (false, None) => {}
    }
    let wanted: Vec<&str> = problem.extra_shapes(1).into_iter().map(|(name, _)| name).collect();
    let (expected, given) = (wanted.len(), args.extra.len());
    if expected == given {
        return Ok(());
    }
    let names = if wanted.is_empty() { String::new() } else { format!(" ({})", wanted.join(", ")) };
    Err(anyhow!(
        "the problem reads {expected} further arrays{names}, --extra is given {given} times"
    ))
    .hint(|| {
        "`bwd_w` reads a gradient, each `add` and each `scale` of a problem one array".to_owned()
    })
}

fn fixed(shape: &[u64]) -> Vec<Option<u64>> {
    shape.iter().copied().map(Some).collect()
}
