//! `convgen explain`: what was chosen for a problem, and what it costs.

use std::io::Write;

use anyhow::anyhow;
use clap::Args;
use convgen::algorithm::{Algorithm, winograd};
use convgen::cost::{self, Rates};
use convgen::fourier::Plan;
use convgen::scheduler::space::{Candidate, Space};
use convgen::scheduler::{self, Estimated};
use convgen::tune::bench::Bench;
use convgen::tune::search::Draw;
use convgen::{Compiler, Host, Kernel, Origin, Target, machine};
use convgen_ir::nest::Role;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;

use super::args::{DescriptorArg, IsaArg, LayoutArg, ScheduleArg, scheduled, thread_count};
use super::failure::Verdict;
use super::memory;
use super::output::bytes;

const EXAMPLES: &str = "\
Examples:
  convgen explain conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1
  convgen explain 'conv2d g32 ic32 oc32 ih112 iw112 kh3 kw3 ph1 pw1 bias | relu6' --layout nchw
  convgen explain --measure --candidates 8 conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1

The prediction is the cost model's: what is counted in the lowered loops, at the rates known of this
kind of core, or with --measure at rates measured now, beside the time of the kernel itself. The
estimates are what the default schedule was chosen by, before anything was lowered.";

/// How long each rate of the machine is measured, in seconds.
const RATE_SECONDS: f64 = 0.02;
/// How long a kernel is timed, in seconds, and in how many rounds.
const KERNEL_SECONDS: f64 = 0.1;
const ROUNDS: usize = 5;
/// The most candidates that are listed.
const MAX_CANDIDATES: u64 = 1000;
/// Candidates drawn at random for each that is listed, besides the neighbours of the pick.
const DRAWN: usize = 4;

/// The arguments of `convgen explain`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    #[command(flatten)]
    layout: LayoutArg,
    #[command(flatten)]
    isa: IsaArg,
    /// Threads that the kernel is meant for: a tuning record is for a number of threads
    #[arg(long, value_name = "N", default_value = "1", value_parser = thread_count())]
    threads: usize,
    #[command(flatten)]
    schedule: ScheduleArg,
    /// Measure this machine's rates for the prediction, and the kernels
    #[arg(long)]
    measure: bool,
    /// List that many other schedules, those with the shortest predicted times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_CANDIDATES))]
    candidates: Option<u64>,
    #[command(flatten)]
    descriptor: DescriptorArg,
}

/// Prints the choice, its costs, and what was ruled out.
pub fn explain(args: &ExplainArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let descriptor = args.descriptor.read()?;
    let problem = args.layout.apply(&descriptor.problem);
    let given = args.schedule.read()?;
    let compiler = args.isa.compiler(&Host::detect(), args.threads)?;
    let (algorithm, schedule) = given.plan(&problem, &compiler)?;
    let compiled = compiler.compile_with(&problem, algorithm, &schedule);
    let kernel = scheduled(compiled, &given)?;
    writeln!(out, "problem          {problem}")?;
    writeln!(out, "multiply-adds    {}", problem.macs())?;
    writeln!(out, "target           {}", compiler.target())?;
    writeln!(out, "kernel           {}", kernel.name())?;
    writeln!(out, "algorithm        {algorithm}")?;
    for tile in register_tiles(&kernel) {
        writeln!(out, "register tile    {tile}")?;
    }
    costs(&kernel, args.threads, out)?;
    let origin = given.is_nothing().then(|| compiler.pick(&problem).origin);
    writeln!(out, "schedule         {}", chosen_by(origin.as_ref()))?;
    for directive in &schedule.directives {
        writeln!(out, "  {directive}")?;
    }
    let model = Model::new(args, &compiler, &problem)?;
    let pick = Candidate { algorithm, plan: None, schedule };
    match kernel.fourier_plan() {
        Some(plan) => write_tiles(plan, out)?,
        None => model.write(&kernel, &pick, out)?,
    }
    if algorithm == Algorithm::Winograd {
        write_error(&kernel, &pick.schedule, compiler.target(), out)?;
    }
    write_estimates(&problem, &compiler, &pick.schedule, out)?;
    writeln!(out, "accuracy         {}", compiler.accuracy())?;
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_sum()) {
        writeln!(out, "{:<16} {}", algorithm.name(), compiler.decision(&problem, algorithm))?;
    }
    if let Some(count) = args.candidates {
        model.write_others(&pick, count as usize, out)?;
    }
    writeln!(out, "other algorithms")?;
    for line in others(&problem, algorithm, &compiler) {
        writeln!(out, "  {line}")?;
    }
    Ok(Verdict::Good)
}

/// What the default schedule of the sum was chosen among, the shortest estimate first.
fn write_estimates(
    problem: &ConvProblem,
    compiler: &Compiler,
    picked: &Schedule,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let estimated = scheduler::estimated(problem, compiler.target());
    if !estimated.is_empty() {
        writeln!(out, "estimates        of the sum, by what lanes run over; before lowering")?;
    }
    for Estimated { plan, schedule, estimate } in estimated {
        let lines = if plan.lines > 1 { format!("{} lines, ", plan.lines) } else { String::new() };
        let mark = if schedule == *picked { "  (this one)" } else { "" };
        let (lanes, rows, vectors) = (plan.lanes.name(), plan.rows, plan.vectors);
        writeln!(out, "  {lanes:<16}{estimate}; {lines}{rows} x {vectors} vectors{mark}")?;
    }
    Ok(())
}

/// The tiles of the Fourier form, one line an axis, and how far its results may be off.
fn write_tiles(plan: &Plan, out: &mut impl Write) -> anyhow::Result<()> {
    for axis in &plan.axes {
        writeln!(
            out,
            "transform        {} points, tiles of {} outputs, {} of them",
            axis.points, axis.tile, axis.tiles
        )?;
    }
    let error = plan.error();
    writeln!(out, "error            worst case {error:.1e} of the tile's norm")?;
    Ok(())
}

/// How far the results of these tiles of minimal filtering may be off.
fn write_error(
    kernel: &Kernel,
    schedule: &Schedule,
    target: &Target,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let plans = winograd::planned(kernel.problem(), schedule, target)?;
    let largest = |error: fn(&winograd::Plan) -> f64| plans.iter().map(error).fold(0.0, f64::max);
    let (expected, worst) = (largest(winograd::Plan::error), largest(winograd::Plan::bound));
    let norm = if plans.iter().all(|plan| plan.is_local()) { "window" } else { "tile" };
    writeln!(
        out,
        "error            expected {expected:.1e}, worst case {worst:.1e} of the {norm}'s norm"
    )?;
    Ok(())
}

/// The cost model, with its rates.
struct Model<'a> {
    args: &'a ExplainArgs,
    compiler: &'a Compiler,
    problem: &'a ConvProblem,
    rates: Rates,
}

impl<'a> Model<'a> {
    fn new(
        args: &'a ExplainArgs,
        compiler: &'a Compiler,
        problem: &'a ConvProblem,
    ) -> anyhow::Result<Self> {
        let target = compiler.target();
        let rates = match args.measure {
            false => *target.rates(),
            true => machine::rates(&Host::detect(), target.isa(), RATE_SECONDS)
                .ok_or_else(|| anyhow!("the rates of {} were not measured", target.isa()))?,
        };
        Ok(Model { args, compiler, problem, rates })
    }

    /// The terms of the prediction, and the measured time.
    fn write(&self, kernel: &Kernel, pick: &Candidate, out: &mut impl Write) -> anyhow::Result<()> {
        let rates = if self.args.measure { "measured now" } else { "known of this kind of core" };
        let (target, batch) = (self.compiler.target(), self.problem.batch());
        let cost = cost::cost(kernel.nests(), target, &self.rates, batch, self.args.threads);
        writeln!(out, "prediction       at rates {rates}")?;
        for line in cost.to_string().lines() {
            writeln!(out, "  {line}")?;
        }
        if self.args.measure {
            memory::check(self.problem)?;
            let seconds = self.seconds(&self.bench(pick)?, pick, cost.seconds)?;
            let ratio = cost.seconds / seconds;
            writeln!(
                out,
                "  {:<12}{:>12.3} us   predicted {ratio:.2} of it",
                "measured",
                seconds * 1e6
            )?;
        }
        Ok(())
    }

    fn bench(&self, pick: &Candidate) -> anyhow::Result<Bench<'a>> {
        Ok(Bench::new(self.compiler, self.problem, pick, self.rates, self.args.threads)?)
    }

    fn seconds(&self, bench: &Bench, of: &Candidate, predicted: f64) -> anyhow::Result<f64> {
        let entrant = bench.admit(of.clone(), predicted)?;
        let timings = bench.race(&[&entrant], KERNEL_SECONDS, ROUNDS)?;
        Ok(timings.first().map_or(f64::INFINITY, |timing| timing.min))
    }

    /// Other schedules, the most promising first.
    fn write_others(
        &self,
        pick: &Candidate,
        count: usize,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let (target, batch) = (self.compiler.target(), self.problem.batch());
        let mut ranked: Vec<(f64, Candidate)> = Vec::new();
        let mut draw = Draw(1);
        for space in Space::of(self.problem, target) {
            let default = space.default_candidate();
            let drawn = (0..DRAWN * count).map(|_| space.sample(|below| draw.below(below)));
            let drawn: Vec<Candidate> = drawn.collect();
            for candidate in space.neighbours(&default).into_iter().chain(drawn) {
                let Candidate { algorithm, schedule, .. } = &candidate;
                let Ok(nests) = self.compiler.lower(self.problem, *algorithm, schedule) else {
                    continue;
                };
                let cost = cost::cost(&nests, target, &self.rates, batch, self.args.threads);
                let known = ranked.iter().any(|(_, other)| other.schedule == *schedule);
                if !known && *schedule != pick.schedule {
                    ranked.push((cost.seconds, candidate));
                }
            }
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        ranked.truncate(count);
        let bench = if self.args.measure { Some(self.bench(pick)?) } else { None };
        writeln!(out, "other schedules")?;
        for (predicted, candidate) in ranked {
            let measured = match &bench {
                Some(bench) => {
                    let seconds = self.seconds(bench, &candidate, predicted)?;
                    format!(", measured {:.3} us", seconds * 1e6)
                }
                None => String::new(),
            };
            writeln!(out, "  predicted {:.3} us{measured}: {candidate}", predicted * 1e6)?;
        }
        Ok(())
    }
}

fn costs(kernel: &Kernel, threads: usize, out: &mut impl Write) -> anyhow::Result<()> {
    let batch = kernel.problem().batch();
    let weights: u64 = kernel.problem().weights_shape().iter().product();
    let packed = kernel.packed_len() * size_of::<f32>();
    let plain = bytes(weights * size_of::<f32>() as u64);
    writeln!(out, "tasks            {} for a batch of {batch}", kernel.tasks(batch as usize))?;
    let sharing = kernel.threads(batch as usize, threads);
    writeln!(out, "threads          {sharing} of {threads} share a call")?;
    writeln!(out, "workspace        {} a thread", bytes(kernel.workspace_bytes() as u64))?;
    writeln!(out, "packed weights   {} (as given: {plain})", bytes(packed as u64))?;
    writeln!(out, "machine code     {}", bytes(kernel.code_bytes() as u64))?;
    Ok(())
}

/// The buffers the nest keeps in registers, as the nest declares them.
fn register_tiles(kernel: &Kernel) -> Vec<String> {
    let buffers = kernel.nests().flat_map(|nest| &nest.nest().buffers);
    let tiles = buffers.filter(|buffer| buffer.role == Role::Reg);
    let mut texts: Vec<String> = tiles
        .map(|tile| {
            let shape: Vec<String> = tile.shape.iter().map(ToString::to_string).collect();
            format!("{} {}[{}]", tile.name, tile.elem, shape.join(","))
        })
        .collect();
    // The parts of a kernel mostly have the same.
    texts.dedup();
    texts
}

/// Who chose the schedule, and for a tuning record what was measured.
fn chosen_by(origin: Option<&Origin>) -> String {
    match origin {
        None => "(given)".to_owned(),
        Some(Origin::Default) => "(default; there is no tuning record)".to_owned(),
        Some(Origin::Refused { reason }) => {
            format!("(default; the tuning record is refused: {reason})")
        }
        Some(Origin::Record(record)) => format!(
            "(tuning record of {}: {:.4} ms for a batch of {}, the default pick {:.4} ms; {} \
             candidates)",
            record.date,
            record.seconds * 1e3,
            record.batch,
            record.default_seconds * 1e3,
            record.candidates
        ),
    }
}

/// What was not chosen, and why.
fn others(problem: &ConvProblem, chosen: Algorithm, compiler: &Compiler) -> Vec<String> {
    let others: Vec<String> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| *algorithm != chosen)
        .map(|algorithm| match Space::new(problem, algorithm, compiler.target()) {
            Ok(_) => format!("{algorithm} applies, but was not picked"),
            Err(unsupported) => unsupported.to_string(),
        })
        .collect();
    if others.is_empty() { vec!["none in this build".to_owned()] } else { others }
}
