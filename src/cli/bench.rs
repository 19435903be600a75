//! `convgen bench`: compile, verify and time kernels against the peak of this machine.
//!
//! Promises: the compile time is that of the first compilation of the problem; the peak is measured
//! in the same run, at the vector width of the ISA; data are random and reproducible. A kernel that
//! fails its verification is timed all the same, marked, and makes the exit code 1. An error ends
//! the run, after the results so far are printed.

mod report;
mod separable;

use std::io::Write;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use convgen::check::{self, Data};
use convgen::{Aligned, Compiler, Error, Host, Kernel, machine, tune};
use convgen_ir::problem::{ConvProblem, Descriptor};
use indicatif::ProgressBar;

use self::report::{Row, Table};
use super::args::{DirectionArg, Given, IsaArg, LayoutArg, ScheduleArg, scheduled, thread_count};
use super::failure::{Hint, Verdict};
use super::memory;
use super::output::{json_line, progress, title};
use super::problems::ProblemsArg;

/// The fewest calls that are timed.
const MIN_CALLS: usize = 3;
/// How long the peak of the machine is measured, in seconds.
const PEAK_SECONDS: f64 = 0.2;
/// The longest time that may be asked for a problem, in seconds.
const MAX_SECONDS: f64 = 3600.0;

const EXAMPLES: &str = "\
Examples:
  convgen bench --suite resnet50
  convgen bench conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1 --threads 2
  convgen bench --file shapes.txt --layout nchw --json > results.jsonl
  convgen bench --file model.onnx --batch 8
  convgen bench 'conv1d ic8 oc8 iw64 kw3' --schedule 'split oc by 4; vectorize oc.i'
  convgen bench 'conv2d g96 ic96 oc96 ih112 iw112 kh3 kw3 ph1 pw1 | relu6 -> conv2d ic96 oc24 ih112 iw112 kh1 kw1'

ms is the shortest call, GFLOP/s counts two operations a tap of the definition, and % of peak is
against the fused multiply-add rate measured in the same run, at the ISA's vector width, times the
threads. compile ms is cold: from the problem to a kernel that can be called, after one throw-away
kernel, since the first of a process also meets the program's own cold pages. Weights are packed
before the clock starts. With --json, each line holds problem, name, algorithm, schedule, isa,
layout, threads, min_ms, median_ms, gflops, peak_gflops, frac_peak, compile_ms, workspace_bytes (per
thread) and verified (null with --no-verify).

Two descriptors joined by -> are a depthwise convolution and the pointwise one that reads its output:
the kernel that fuses them is timed beside the two kernels, in turns.";

/// The arguments of `convgen bench`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(flatten)]
    problems: ProblemsArg,
    #[command(flatten)]
    layout: LayoutArg,
    #[command(flatten)]
    direction: DirectionArg,
    /// Threads that share the tasks of a call
    #[arg(long, value_name = "N", default_value = "1", value_parser = thread_count())]
    threads: usize,
    #[command(flatten)]
    isa: IsaArg,
    /// How long to time each problem
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    schedule: ScheduleArg,
    /// Do not compare the results with the interpreter and the reference
    #[arg(long)]
    no_verify: bool,
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures every problem asked for.
pub fn bench(args: &BenchArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    if let Some(pair) = args.problems.pair() {
        return separable::bench(args, &pair, out);
    }
    if args.problems.is_stdin() && args.schedule.is_stdin() {
        bail!("--file and --schedule cannot both read standard input");
    }
    let problems = args.problems.read(args.direction.driver())?;
    let given = args.schedule.read()?;
    let bench = Bench::new(args, given)?;
    let mut table = Table::default();
    let measured = bench.measure_all(&problems, &mut table, out);
    if !args.json && !table.is_empty() {
        writeln!(out, "{table}")?;
    }
    measured?;
    Ok(table.verdict())
}

/// What stays the same from problem to problem.
struct Bench<'a> {
    args: &'a BenchArgs,
    compiler: Compiler,
    given: Given,
    /// Of all threads together.
    peak_gflops: f64,
}

impl<'a> Bench<'a> {
    fn new(args: &'a BenchArgs, given: Given) -> anyhow::Result<Self> {
        let host = Host::detect();
        let compiler = args.isa.compiler(&host, args.threads)?;
        let bits = compiler.target().isa().vector_bits();
        // The first compilation of a process also meets cold pages of the program itself.
        compiler.compile(&"conv1d ic4 oc4 iw4 kw1".parse()?)?;
        let peaks = machine::peak_gflops(&host, PEAK_SECONDS);
        let peak = peaks.iter().find(|(width, _)| *width == bits);
        let (_, one) = peak.ok_or_else(|| anyhow!("no peak was measured at {bits} bits"))?;
        Ok(Self { args, compiler, given, peak_gflops: one * args.threads as f64 })
    }

    fn measure_all(
        &self,
        problems: &[Descriptor],
        table: &mut Table,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let bar = progress(problems.len());
        for descriptor in problems {
            bar.set_message(title(descriptor));
            let row = self.measure(descriptor, &bar).with_context(|| title(descriptor))?;
            if self.args.json {
                bar.suspend(|| json_line(out, &row))?;
            }
            table.push(row, &descriptor.problem);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn measure(&self, descriptor: &Descriptor, bar: &ProgressBar) -> anyhow::Result<Row> {
        let problem = self.args.direction.apply(&descriptor.problem)?;
        let problem = self.args.layout.apply(&problem);
        memory::check(&problem).hint(|| "measure a smaller batch or a smaller size".to_owned())?;
        let compiled = self.compile(&problem);
        let (kernel, compile_seconds) = scheduled(compiled, &self.given)?;
        let verified = match self.args.no_verify {
            true => None,
            false => Some(self.verified(&kernel, bar)),
        };
        let timing = self.time(&kernel)?;
        let gflops = problem.flops() as f64 / timing.min / 1e9;
        Ok(Row {
            problem: problem.to_string(),
            name: descriptor.name.clone(),
            kernel: kernel.name().to_owned(),
            algorithm: kernel.algorithm().name(),
            schedule: kernel.schedule().one_line(),
            isa: self.compiler.target().isa().to_string(),
            layout: problem.layout().name(),
            threads: self.args.threads,
            min_ms: timing.min * 1e3,
            median_ms: timing.median * 1e3,
            gflops,
            peak_gflops: self.peak_gflops,
            frac_peak: gflops / self.peak_gflops,
            compile_ms: compile_seconds * 1e3,
            workspace_bytes: kernel.workspace_bytes(),
            verified,
        })
    }

    /// The kernel, and the seconds its making took.
    fn compile(&self, problem: &ConvProblem) -> Result<(Kernel, f64), Error> {
        let (kernel, seconds) = tune::once(|| match self.given.is_nothing() {
            true => self.compiler.compile(problem),
            false => {
                let (algorithm, schedule) = self.given.plan(problem, &self.compiler)?;
                self.compiler.compile_with(problem, algorithm, &schedule)
            }
        });
        Ok((kernel?, seconds))
    }

    /// Whether the kernel is right; if not, the test case goes to standard error.
    fn verified(&self, kernel: &Kernel, bar: &ProgressBar) -> bool {
        match check::check(kernel) {
            Ok(_) => true,
            Err(mismatch) => {
                // Nobody is left to tell if standard error is closed.
                let _ = bar.suspend(|| writeln!(std::io::stderr(), "{mismatch}"));
                false
            }
        }
    }

    fn time(&self, kernel: &Kernel) -> anyhow::Result<tune::Timing> {
        let data = Data::reals(kernel.problem());
        let weights = kernel.pack_weights(data.weights())?;
        let extras = data.extras();
        let arguments = data.arguments(&weights, &extras);
        let mut output = Aligned::zeros(data.output_len());
        let (seconds, threads) = (self.args.seconds, self.args.threads);
        let timing = match threads {
            1 => timed(seconds, || kernel.run_with(&arguments, &mut output)),
            // Timed inside the pool: entering it is no part of a call.
            _ => rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(|| {
                timed(seconds, || kernel.run_parallel(&arguments, &mut output, threads))
            }),
        };
        Ok(timing?)
    }
}

/// Times a call. The first touches the memory and is not counted; if it works, so do the others.
fn timed(seconds: f64, mut call: impl FnMut() -> Result<(), Error>) -> Result<tune::Timing, Error> {
    call()?;
    let mut last = Ok(());
    let timing = tune::time(seconds, MIN_CALLS, || last = call());
    last.map(|()| timing)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("expected seconds from 0 to {MAX_SECONDS}")),
    }
}
