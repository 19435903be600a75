//! A worker of a side-by-side comparison of convolution libraries: a process that prepares one
//! layer and times it on request, so that a driver can let the workers of several libraries take
//! turns on one core. A request is a line on stdin, its answer a line of JSON on stdout.
//!
//! - `P name kind nd n ic oc g inp k s pb pe d op out bias relu`, where `inp` to `out` are three
//!   numbers each: compiles the layer for data that follow from formulas and calls the kernel once.
//! - `T seconds`: times calls of the layer prepared last.
//! - `Q`, or the end of the input: the end.
//!
//! ```sh
//! echo 'P tiny conv 2 1 8 8 1  1 8 8  1 3 3  1 1 1  0 1 1  0 1 1  1 1 1  0 0 0  1 8 8  0 0
//! T 0.1' | cargo run --release --example peer_worker 1 nhwc default
//! ```

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use convgen::ir::{ConvProblem, ConvSpec, Direction, EpilogueOp, Layout, SpatialAxis};
use convgen::timing::once;
use convgen::{Accuracy, Aligned, Arguments, Compiler, Host, Kernel, PackedWeights};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::{Value, json};

const USAGE: &str = "usage: peer_worker THREADS nhwc|nchw|bwd_d|bwd_w default|strict";

/// Multiplier and modulus of a tensor's values.
const INPUT: (usize, usize) = (7919, 251);
const WEIGHTS: (usize, usize) = (104_729, 241);
const BIAS: (usize, usize) = (31, 17);

/// Numbers that describe a layer: five, eight triples, and two.
const NUMBERS: usize = 5 + 8 * 3 + 2;

/// Elements of the output that an answer shows.
const PROBES: usize = 16;

/// Calls that a timing makes at least, at least if they are slow, and at most.
const CALLS: usize = 5;
const SLOW_CALLS: usize = 2;
const MAX_CALLS: usize = 20_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [threads, mode, budget] = &arguments[..] else {
        println!("{USAGE}");
        return Ok(());
    };
    let mut worker = Worker::new(threads, mode, budget)?;
    for line in stdin().lock().lines() {
        let line = line?;
        if line.starts_with('Q') {
            break;
        }
        let answer = catch_unwind(AssertUnwindSafe(|| worker.answer(&line)));
        let answer = answer.unwrap_or_else(|_| Err("panicked, see stderr".into()));
        let refusal = |why: Box<dyn Error>| json!({"ok": false, "err": why.to_string()});
        println!("{}", answer.unwrap_or_else(refusal));
        stdout().flush()?;
    }
    Ok(())
}

/// What a timed call computes.
#[derive(Clone, Copy)]
enum Mode {
    Forward(Layout),
    InputGradient,
    WeightsGradient,
}

struct Worker {
    mode: Mode,
    compiler: Compiler,
    pool: ThreadPool,
    layer: Option<Layer>,
}

impl Worker {
    fn new(threads: &str, mode: &str, budget: &str) -> Outcome<Worker> {
        let mode = match mode {
            "nhwc" => Mode::Forward(Layout::ChannelsLast),
            "nchw" => Mode::Forward(Layout::ChannelsFirst),
            "bwd_d" => Mode::InputGradient,
            "bwd_w" => Mode::WeightsGradient,
            _ => return Err(format!("unknown mode `{mode}`; {USAGE}").into()),
        };
        let accuracy: Accuracy = budget.parse().map_err(|error| format!("{error}; {USAGE}"))?;
        let host = Host::detect();
        let compiler = Compiler::new(&host, host.widest_isa())?.with_accuracy(accuracy);
        let pool = ThreadPoolBuilder::new().num_threads(threads.parse()?).build()?;
        Ok(Worker { mode, compiler, pool, layer: None })
    }

    fn answer(&mut self, line: &str) -> Outcome<Value> {
        match line.split_at_checked(1) {
            Some(("P", layer)) => self.prepare(layer),
            Some(("T", seconds)) => self.time(seconds.trim().parse()?),
            _ => Err(format!("unknown request `{line}`").into()),
        }
    }

    fn prepare(&mut self, line: &str) -> Outcome<Value> {
        self.layer = None;
        let forward = parse(line)?;
        let problem = match self.mode {
            Mode::Forward(layout) => forward.with_layout(layout),
            Mode::InputGradient => gradient(&forward, Direction::BackwardData)?,
            Mode::WeightsGradient => gradient(&forward, Direction::BackwardWeights)?,
        };
        let weights = fill(&problem.weights_shape(), WEIGHTS);
        let (compiled, prepared) = once(|| {
            let kernel = self.compiler.compile(&problem)?;
            let packed = kernel.pack_weights(&weights)?;
            Ok::<_, convgen::Error>((kernel, packed))
        });
        let (kernel, packed) = compiled?;
        let mut layer = Layer::new(kernel, packed);
        let (called, first) = once(|| layer.call(&self.pool));
        called?;
        let answer = json!({
            "ok": true,
            "notes": layer.kernel.name(),
            "prep_s": prepared,
            "first_s": first,
            "probe": layer.probe(),
        });
        self.layer = Some(layer);
        Ok(answer)
    }

    fn time(&mut self, seconds: f64) -> Outcome<Value> {
        let layer = self.layer.as_mut().ok_or("no layer is prepared")?;
        let pool = &self.pool;
        // As a program that runs a whole network does: it enters the pool once, not for every
        // layer.
        let mut times = match pool.current_num_threads() {
            1 => layer.times(pool, seconds),
            _ => pool.install(|| layer.times(pool, seconds)),
        }?;
        times.sort_by(f64::total_cmp);
        let (min, median) = (times[0], times[times.len() / 2]);
        Ok(json!({"ok": true, "min": min, "median": median, "iters": times.len()}))
    }
}

/// A layer that is ready to run.
struct Layer {
    kernel: Kernel,
    weights: PackedWeights,
    bias: Option<Vec<f32>>,
    input: Aligned,
    /// The output's gradient, if that of the weights is computed.
    gradient: Option<Aligned>,
    output: Aligned,
}

impl Layer {
    fn new(kernel: Kernel, weights: PackedWeights) -> Layer {
        let problem = kernel.problem();
        let batch = problem.batch();
        let input = activations(problem, &problem.input_shape(batch));
        let gradient = problem.gradient_shape(batch).map(|shape| activations(problem, &shape));
        let bias = problem.bias().then(|| fill(&[problem.result_channels()], BIAS));
        let output = Aligned::zeros(count(&problem.output_shape(batch)));
        Layer { kernel, weights, bias, input, gradient, output }
    }

    /// Seconds of every call.
    fn times(&mut self, pool: &ThreadPool, seconds: f64) -> Result<Vec<f64>, convgen::Error> {
        self.call(pool)?;
        let mut times = Vec::with_capacity(MAX_CALLS);
        let start = Instant::now();
        loop {
            let (called, time) = once(|| self.call(pool));
            called?;
            times.push(time);
            let (passed, calls) = (start.elapsed().as_secs_f64(), times.len());
            let enough = passed > seconds && calls >= CALLS;
            let slow = passed > 7.0 * seconds + 2.0 && calls >= SLOW_CALLS;
            if enough || slow || calls >= MAX_CALLS {
                return Ok(times);
            }
        }
    }

    fn call(&mut self, pool: &ThreadPool) -> Result<(), convgen::Error> {
        let (input, weights, bias) = (&self.input, &self.weights, self.bias.as_deref());
        let gradient = self.gradient.as_deref();
        let extras = gradient.as_slice();
        let arguments = Arguments { input, weights, bias, extras };
        let threads = pool.current_num_threads();
        // A call that one thread makes alone is spared the way into the pool.
        let batch = self.kernel.problem().batch() as usize;
        if self.kernel.threads(batch, threads) == 1 {
            return self.kernel.run_with(&arguments, &mut self.output);
        }
        pool.install(|| self.kernel.run_parallel(&arguments, &mut self.output, threads))
    }

    /// Samples of the output with its channels first, whatever the layout of the call.
    fn probe(&self) -> Vec<f32> {
        let problem = self.kernel.problem();
        let plain = match (problem.layout(), problem.direction()) {
            // Weights are plain as they are.
            (Layout::ChannelsFirst, _) | (_, Direction::BackwardWeights) => self.output.to_vec(),
            (Layout::ChannelsLast, _) => {
                let channels = problem.result_channels();
                let pixels = self.output.len() / (problem.batch() * channels) as usize;
                transpose(&self.output, pixels, channels as usize)
            }
        };
        (0..PROBES).map(|j| plain[(plain.len() - 1) * j / (PROBES - 1)]).collect()
    }
}

/// Values of a tensor of activations: those of its plain form, in the problem's layout.
fn activations(problem: &ConvProblem, shape: &[u64]) -> Aligned {
    let plain = fill(shape, INPUT);
    let values = match (problem.layout(), shape) {
        (Layout::ChannelsLast, [batch, pixels @ .., channels]) if *batch > 0 => {
            transpose(&plain, *channels as usize, count(pixels))
        }
        (Layout::ChannelsLast | Layout::ChannelsFirst, _) => plain,
    };
    Aligned::from(values.as_slice())
}

/// A gradient of the plain sum, channels last.
fn gradient(forward: &ConvProblem, direction: Direction) -> Outcome<ConvProblem> {
    match forward.direction() {
        Direction::Forward => Ok(forward.with_direction(direction)?),
        _ => Err("the gradients of transposed layers are other layers".into()),
    }
}

/// A layer as the protocol writes it.
fn parse(line: &str) -> Outcome<ConvProblem> {
    let mut fields = line.split_whitespace().skip(1);
    let transposed = match fields.next().ok_or("the layer has no kind")? {
        "conv" => false,
        "convtr" => true,
        kind => return Err(format!("unknown kind of layer `{kind}`").into()),
    };
    let numbers = fields.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let misfit = || format!("the layer has {} numbers, {NUMBERS} are needed", numbers.len());
    let [rank, batch, ic, oc, groups, ref triples @ .., bias, relu] = numbers[..] else {
        return Err(misfit().into());
    };
    let ([input, kernel, stride, before, after, dilation, beyond, output], []) =
        triples.as_chunks::<3>()
    else {
        return Err(misfit().into());
    };
    let axis = |i: usize| SpatialAxis {
        input: input[i],
        kernel: kernel[i],
        stride: stride[i],
        dilation: dilation[i],
        pad_before: before[i] as i64,
        pad_after: after[i] as i64,
    };
    let first = 3_usize.checked_sub(rank as usize).ok_or("more than three spatial axes")?;
    let axes = (first..3).map(axis).collect();
    let spec = match transposed {
        true => ConvSpec::transposed(ic, oc, axes, &beyond[first..]),
        false => ConvSpec::new(ic, oc, axes),
    };
    let spec = spec.batch(batch).groups(groups).bias(bias != 0).epilogue(if relu != 0 {
        vec![EpilogueOp::Relu]
    } else {
        vec![]
    });
    let problem = ConvProblem::new(spec)?;
    let size = |axis: &SpatialAxis| if transposed { axis.input } else { axis.output() };
    let computed: Vec<u64> = problem.spatial().iter().map(size).collect();
    if computed != output[first..] {
        return Err(format!("the output is {computed:?}, not {:?}", &output[first..]).into());
    }
    Ok(problem)
}

/// Row-major values that any library of the comparison can make.
fn fill(shape: &[u64], (factor, modulus): (usize, usize)) -> Vec<f32> {
    let value = |i: usize| (i * factor % modulus) as f32 / modulus as f32 - 0.5;
    (0..count(shape)).map(value).collect()
}

fn count(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}

/// Each matrix of that many rows and columns, one after the other, transposed.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let matrices = values.chunks_exact(rows * columns);
    let element = |matrix: &[f32], i: usize| matrix[i % rows * columns + i / rows];
    matrices.flat_map(|m| (0..m.len()).map(move |i| element(m, i))).collect()
}
