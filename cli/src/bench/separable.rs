//! A separable convolution: the fused kernel beside the kernels of its halves, timed in turns.

use std::fmt;
use std::io::Write;

use anyhow::{anyhow, bail};
use convgen::check::separable::{PairData, SeparableCheckError, check};
use convgen::eviction::Evictor;
use convgen::timing::{self, CacheState};
use convgen::{Aligned, Arguments, Compiler, Error, Host, Kernel, SeparableKernel};
use convgen_ir::problem::ConvProblem;
use convgen_ir::separable::Separable;
use serde::Serialize;

use super::{BenchArgs, turns};
use crate::failure::{Hint, Verdict};
use crate::memory;
use crate::output::{bytes, caches_line, json_line, short, table};
use crate::source;

/// How often the kernels take turns.
const ROUNDS: usize = 20;

/// One pair measured. The names of the fields are the keys of the JSON object.
#[derive(Serialize)]
struct Row {
    problem: String,
    isa: String,
    threads: usize,
    /// What the caches held when a call began; the pointwise kernel is called after the depthwise.
    caches: &'static str,
    /// Bytes of the tensor between the halves.
    middle_bytes: u64,
    /// Rows of a task.
    rows: u64,
    depthwise_ms: f64,
    pointwise_ms: f64,
    fused_ms: f64,
    /// How many times as fast as the two kernels.
    speedup: f64,
    workspace_bytes: usize,
    verified: Option<bool>,
    #[serde(skip)]
    names: [String; 3],
    #[serde(skip)]
    halves: [ConvProblem; 2],
}

/// Measures the pair of a text.
pub fn bench(args: &BenchArgs, text: &str, out: &mut impl Write) -> anyhow::Result<Verdict> {
    if args.problems.has_others() || args.schedule.is_given() || args.direction.is_given() {
        bail!("a pair of convolutions is measured alone, by the default schedules, forwards");
    }
    let [threads] = *args.threads else {
        bail!("a pair of convolutions is measured on one number of threads");
    };
    let separable = source::separable(text)?;
    let separable = args.problems.apply_batch(&separable)?;
    let separable = args.layout.apply_pair(&separable)?;
    for half in [separable.depthwise(), separable.pointwise()] {
        memory::check(half).hint(|| "measure a smaller batch or a smaller size".to_owned())?;
    }
    let host = Host::detect();
    let compiler = args.isa.compiler(&host, threads)?;
    let row = measure(args, threads, &compiler, &host, &separable)?;
    match args.json {
        true => json_line(out, &row)?,
        false => writeln!(out, "{}\n{row}", caches_line(args.cold.caches()))?,
    }
    Ok(if row.verified == Some(false) { Verdict::Wrong } else { Verdict::Good })
}

fn measure(
    args: &BenchArgs,
    threads: usize,
    compiler: &Compiler,
    host: &Host,
    separable: &Separable,
) -> anyhow::Result<Row> {
    let [depthwise, pointwise] = [separable.depthwise(), separable.pointwise()];
    let halves = [compiler.compile(depthwise)?, compiler.compile(pointwise)?];
    let fused = compiler.compile_separable(separable)?;
    let verified = match args.no_verify {
        true => None,
        false => Some(verified(compiler, &fused)?),
    };
    let caches = args.cold.caches();
    let evictor = turns::evictor(caches, host);
    let times = || times(args.seconds, threads, separable, &halves, &fused, evictor.as_ref());
    let times = match turns::pool(threads)? {
        None => times()?,
        // Timed inside the pool: entering it is no part of a call.
        Some(pool) => pool.install(times)?,
    };
    let [depthwise_ms, pointwise_ms, fused_ms] = times.map(|seconds| seconds * 1e3);
    Ok(Row {
        problem: separable.to_string(),
        isa: compiler.target().isa().to_string(),
        threads,
        caches: caches.name(),
        middle_bytes: separable.middle_len() * depthwise.elem().bytes() as u64,
        rows: fused.plan().rows,
        depthwise_ms,
        pointwise_ms,
        fused_ms,
        speedup: (depthwise_ms + pointwise_ms) / fused_ms,
        workspace_bytes: fused.workspace_bytes(),
        verified,
        names: [halves[0].name(), halves[1].name(), fused.name()].map(str::to_owned),
        halves: [depthwise.clone(), pointwise.clone()],
    })
}

/// Whether the kernel is right; if not, what is wrong goes to standard error.
fn verified(compiler: &Compiler, kernel: &SeparableKernel) -> anyhow::Result<bool> {
    match check(compiler, kernel) {
        Ok(_) => Ok(true),
        Err(SeparableCheckError::Run(error)) => Err(error.into()),
        Err(error @ (SeparableCheckError::Half(_) | SeparableCheckError::Differs { .. })) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "{error}");
            Ok(false)
        }
    }
}

/// What the depthwise, the pointwise and the fused kernel take. The first two are one sample of
/// both, one after the other, split by what each takes of it: so each meets the caches as the other
/// leaves them.
fn times(
    seconds_each: f64,
    threads: usize,
    separable: &Separable,
    halves: &[Kernel; 2],
    fused: &SeparableKernel,
    evictor: Option<&Evictor>,
) -> anyhow::Result<[f64; 3]> {
    let data = PairData::reals(separable);
    let [depthwise, pointwise] = halves;
    let packed = data.pack(fused)?;
    let extras = data.extras();
    let arguments = data.arguments(&packed, &extras);
    let first_weights = depthwise.pack_weights(data.depthwise().weights())?;
    let second_weights = pointwise.pack_weights(data.pointwise().weights())?;
    let [first_extras, second_extras] = [data.depthwise().extras(), data.pointwise().extras()];
    let first = data.depthwise().arguments(&first_weights, &first_extras);
    let second = data.pointwise().arguments(&second_weights, &second_extras);
    let mut middle = Aligned::zeros(data.depthwise().output_len());
    let mut outputs = [(); 2].map(|()| Aligned::zeros(data.pointwise().output_len()));
    let [separate, together] = &mut outputs;
    let call = |kernel: &Kernel, arguments: &Arguments, output: &mut [f32]| {
        kernel.run_parallel(arguments, output, threads)
    };
    let caches = if evictor.is_some() { CacheState::Cold } else { CacheState::Warm };
    let mut pairs: Vec<[f64; 2]> = Vec::new();
    let mut failed: Result<(), Error> = Ok(());
    let mut pair = || {
        let (one, seconds) = timing::once(|| call(depthwise, &first, &mut middle));
        let second = Arguments { input: &middle, ..second };
        let (other, more) = timing::once(|| call(pointwise, &second, separate));
        keep(&mut pairs, [seconds, more], caches);
        failed = one.and(other);
    };
    let mut whole = || {
        let _ = fused.run_parallel(&arguments, together, threads);
    };
    let timings = turns::timed(evictor, seconds_each, ROUNDS, &mut [&mut pair, &mut whole]);
    failed?;
    let fused = timings.last().ok_or_else(|| anyhow!("nothing was timed"))?;
    let [depthwise, pointwise] = median(pairs);
    Ok([depthwise, pointwise, fused.seconds()])
}

/// Notes the times of a pair of calls: all cold ones, of warm ones the shortest, since there may be
/// many.
fn keep(pairs: &mut Vec<[f64; 2]>, pair: [f64; 2], caches: CacheState) {
    match caches {
        CacheState::Warm => {
            if pairs.first().is_none_or(|best| sum(&pair) < sum(best)) {
                *pairs = vec![pair];
            }
        }
        CacheState::Cold => pairs.push(pair),
    }
}

/// The pair of times whose sum is the median. The first call, which touches the memory, is one of
/// many.
fn median(mut pairs: Vec<[f64; 2]>) -> [f64; 2] {
    pairs.sort_by(|a, b| sum(a).total_cmp(&sum(b)));
    pairs.get(pairs.len() / 2).copied().unwrap_or([f64::INFINITY; 2])
}

fn sum(pair: &[f64; 2]) -> f64 {
    pair[0] + pair[1]
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = table(&["", "problem", "kernel", "ms", "GFLOP/s", "verified"], 3..5);
        let [first, second] = &self.halves;
        let mut add = |what: &str, problem: String, kernel: &str, ms: f64, flops: u64, ok: &str| {
            let gflops = flops as f64 / ms / 1e6;
            let cells = [format!("{ms:.3}"), format!("{gflops:.1}"), ok.to_owned()];
            let start = [what.to_owned(), problem, kernel.to_owned()];
            table.add_row(start.into_iter().chain(cells).collect::<Vec<_>>());
        };
        let [depthwise, pointwise, fused] = &self.names;
        let flops = first.flops() + second.flops();
        add("depthwise", short(first), depthwise, self.depthwise_ms, first.flops(), "");
        add("pointwise", short(second), pointwise, self.pointwise_ms, second.flops(), "");
        let two = self.depthwise_ms + self.pointwise_ms;
        add("two kernels", String::new(), "", two, flops, "");
        let verified = super::report::verified(self.verified);
        add("fused", String::new(), fused, self.fused_ms, flops, verified);
        writeln!(f, "{table}")?;
        write!(
            f,
            "fused {:.2} times as fast; the tensor between them has {}, {} rows of it at a time in a \
             workspace of {}",
            self.speedup,
            bytes(self.middle_bytes),
            self.rows,
            bytes(self.workspace_bytes as u64)
        )
    }
}
