//! `convgen bench`: compile, verify and time kernels against the peak of this machine.
//!
//! Promises: the compile time is that of the first compilation of the problem; the peak is measured
//! in the same run, at the vector width of the ISA, and so are the bandwidths of the caches; data
//! are random and reproducible; calls on different numbers of threads take turns. A kernel that
//! fails its verification is timed all the same, marked, and makes the exit code 1. An error ends
//! the run, after the results so far are printed.

mod groups;
mod machine;
mod report;
mod row;
mod separable;
mod statistics;
mod turns;

use std::io::Write;

use anyhow::{Context, bail};
use clap::Args;
use convgen::eviction::Evictor;
use convgen::timing::{self, Timing};
use convgen::{Compiler, Error, Host, Kernel, check};
use convgen_ir::problem::{ConvProblem, Descriptor};
use indicatif::ProgressBar;
use rayon::ThreadPool;

use self::machine::Machine;
use self::report::Table;
use self::row::Row;
use super::args::{
    ColdArg, DirectionArg, Given, IsaArg, LayoutArg, ScheduleArg, scheduled, thread_count,
};
use super::failure::{Hint, Verdict};
use super::memory;
use super::output::{json_line, progress, title};
use super::problems::ProblemsArg;

/// The longest time that may be asked for a problem, in seconds.
const MAX_SECONDS: f64 = 3600.0;

const EXAMPLES: &str = "\
Examples:
  convgen bench --suite resnet50
  convgen bench conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1 --threads 2
  convgen bench --suite resnet50 --threads 1,2
  convgen bench --file shapes.txt --layout nchw --json > results.jsonl
  convgen bench --file model.onnx --batch 8
  convgen bench --suite mobilenet_v2 --cold
  convgen bench 'conv1d ic8 oc8 iw64 kw3' --schedule \
    'split ow by 4; accumulate output at ow.o; unroll ow.i'
  convgen bench 'conv2d g96 ic96 oc96 ih112 iw112 kh3 kw3 ph1 pw1 | relu6 -> conv2d ic96 oc24 ih112 iw112 kh1 kw1'

ms is the shortest call, GFLOP/s counts two operations a tap of the definition, and % of peak is
against the fused multiply-add rate measured in the same run, at the ISA's vector width, times the
threads. GB/s counts what has to move, each once: input, weights, output, and what the epilogue takes;
data in is the smallest cache of a core that holds all of it. Above the table stand the peak and the
read bandwidths of the caches, of one core, measured in the same run. compile, in ms, is cold: from the
problem to a kernel that can be called, after one throw-away kernel, since the first of a process also
meets the program's own cold pages. right says whether the results were those of the oracles. Names of
kernels are without the type and the ISA. Weights are packed before the clock starts. Below the table,
layers are put in groups by kernel size, stride, dilation and channel groups.

With several numbers of threads a kernel is compiled for each, their calls take turns, and the
speed-up is against the first number.

With --json, each line holds problem, name, group, algorithm, schedule, isa, layout, threads, caches
(warm or cold), min_ms, median_ms, speedup (null with one number of threads), gflops, peak_gflops, frac_peak, traffic_bytes,
gb_per_s, data_in, l1_gb_per_s, l2_gb_per_s, l3_gb_per_s (of one core), compile_ms, workspace_bytes (per
thread) and verified (null with --no-verify).

With --cold the caches of every thread's core are emptied before each timed call, which is one call: no
tensor, packed weight or code of it is in a cache of data. ms, and all that follows from it, is then the
median call; data in is memory. compile and the peak are as ever.

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
    /// Threads that share the tasks of a call; several numbers, as in 1,2,4, are compared
    #[arg(
        long, value_name = "N,..", default_value = "1", value_delimiter = ',',
        value_parser = thread_count()
    )]
    threads: Vec<usize>,
    #[command(flatten)]
    isa: IsaArg,
    /// How long to time each problem; with --cold that is with the time to empty the caches
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    cold: ColdArg,
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
    if let Some(count) = repeated(&args.threads) {
        bail!("--threads has {count} more than once");
    }
    let problems = args.problems.read(args.direction.driver())?;
    let given = args.schedule.read()?;
    let bench = Bench::new(args, given)?;
    let mut table = Table::new(bench.machine.clone(), args.cold.caches(), args.threads.clone());
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
    /// One for each number of threads: a tuning record is for a number of threads.
    compilers: Vec<(usize, Compiler)>,
    given: Given,
    machine: Machine,
    /// For the most threads asked for; calls of fewer leave some idle.
    pool: Option<ThreadPool>,
    /// If calls are cold.
    evictor: Option<Evictor>,
}

impl<'a> Bench<'a> {
    fn new(args: &'a BenchArgs, given: Given) -> anyhow::Result<Self> {
        let host = Host::detect();
        let compiler = |threads: &usize| Ok((*threads, args.isa.compiler(&host, *threads)?));
        let compilers = args.threads.iter().map(compiler).collect::<anyhow::Result<Vec<_>>>()?;
        let (_, first) = compilers.first().context("no number of threads")?;
        // The first compilation of a process also meets cold pages of the program itself.
        first.compile(&"conv1d ic4 oc4 iw4 kw1".parse()?)?;
        let machine = Machine::measure(&host, first.target().isa())?;
        let pool = turns::pool(args.threads.iter().copied().max().unwrap_or(1))?;
        let evictor = turns::evictor(args.cold.caches(), &host);
        Ok(Self { args, compilers, given, machine, pool, evictor })
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
            let rows = self.measure(descriptor, &bar).with_context(|| title(descriptor))?;
            if self.args.json {
                bar.suspend(|| rows.iter().try_for_each(|row| json_line(out, row)))?;
            }
            table.push(rows, &descriptor.problem);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// One row for each number of threads.
    fn measure(&self, descriptor: &Descriptor, bar: &ProgressBar) -> anyhow::Result<Vec<Row>> {
        let problem = self.args.direction.apply(&descriptor.problem)?;
        let problem = self.args.layout.apply(&problem);
        memory::check(&problem).hint(|| "measure a smaller batch or a smaller size".to_owned())?;
        let mut compiled = Vec::new();
        for (threads, compiler) in &self.compilers {
            let (kernel, seconds) = scheduled(self.compile(&problem, compiler), &self.given)?;
            // One plan is one kernel: right once is right on any number of threads.
            let plan = |kernel: &Kernel| (kernel.algorithm(), kernel.schedule().clone());
            let same =
                compiled.iter().find(|other: &&Compiled| plan(&other.kernel) == plan(&kernel));
            let verified = match same {
                Some(other) => other.verified,
                None => (!self.args.no_verify).then(|| self.verified(&kernel, bar)),
            };
            compiled.push(Compiled { threads: *threads, kernel, seconds, verified });
        }
        let (pool, evictor) = (self.pool.as_ref(), self.evictor.as_ref());
        let timings = turns::time(&compiled, self.args.seconds, pool, evictor)?;
        let first = timings.first().map_or(f64::NAN, Timing::seconds);
        let row = |(compiled, timing): (&Compiled, &Timing)| {
            let speedup = (timings.len() > 1).then(|| first / timing.seconds());
            Row { speedup, ..self.row(descriptor, compiled, timing) }
        };
        Ok(compiled.iter().zip(&timings).map(row).collect())
    }

    fn row(&self, descriptor: &Descriptor, compiled: &Compiled, timing: &Timing) -> Row {
        let Compiled { threads, kernel, seconds, verified } = compiled;
        let problem = kernel.problem();
        let gflops = problem.flops() as f64 / timing.seconds() / 1e9;
        let peak_gflops = self.machine.peak_gflops * *threads as f64;
        let traffic_bytes = problem.traffic_bytes();
        Row {
            problem: problem.to_string(),
            name: descriptor.name.clone(),
            group: groups::label(problem),
            kernel: kernel.name().to_owned(),
            algorithm: kernel.algorithm().name(),
            schedule: kernel.schedule().one_line(),
            isa: self.machine.isa.to_string(),
            layout: problem.layout().name(),
            threads: *threads,
            caches: timing.caches.name(),
            ms: timing.seconds() * 1e3,
            min_ms: timing.min * 1e3,
            median_ms: timing.median * 1e3,
            speedup: None,
            gflops,
            peak_gflops,
            frac_peak: gflops / peak_gflops,
            traffic_bytes,
            gb_per_s: traffic_bytes as f64 / timing.seconds() / 1e9,
            data_in: self.machine.data_in(traffic_bytes, timing.caches),
            l1_gb_per_s: self.machine.gb_per_s("L1"),
            l2_gb_per_s: self.machine.gb_per_s("L2"),
            l3_gb_per_s: self.machine.gb_per_s("L3"),
            compile_ms: seconds * 1e3,
            workspace_bytes: kernel.workspace_bytes(),
            verified: *verified,
        }
    }

    /// The kernel, and the seconds its making took.
    fn compile(&self, problem: &ConvProblem, compiler: &Compiler) -> Result<(Kernel, f64), Error> {
        let (kernel, seconds) = timing::once(|| match self.given.is_nothing() {
            true => compiler.compile(problem),
            false => {
                let (algorithm, schedule) = self.given.plan(problem, compiler)?;
                compiler.compile_with(problem, algorithm, &schedule)
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
}

/// A kernel for a number of threads.
struct Compiled {
    threads: usize,
    kernel: Kernel,
    /// Seconds that its making took.
    seconds: f64,
    verified: Option<bool>,
}

fn repeated(counts: &[usize]) -> Option<usize> {
    let again = |(at, count): &(usize, &usize)| counts[..*at].contains(count);
    counts.iter().enumerate().find(again).map(|(_, count)| *count)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("expected seconds from 0 to {MAX_SECONDS}")),
    }
}
