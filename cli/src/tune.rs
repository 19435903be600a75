//! `convgen tune`: measure schedules of problems, keep the best.
//!
//! Promises: every candidate is verified before it is timed; a problem's result is in the database
//! before the next problem begins, so that nothing found is lost, whatever ends the run; a run
//! after that goes on where it ended. Does not: change the order of a sum, as long as the algorithm
//! stays.

mod html;
mod report;
mod shard;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;
use convgen::cost::Rates;
use convgen::record::{Key, Record, Store};
use convgen::timing::CacheState;
use convgen::tune::search::{self, Limits, Measured, Progress, Tuned};
use convgen::{Compiler, Host, Isa, machine};
use convgen_ir::problem::{ConvProblem, Descriptor};
use indicatif::{ProgressBar, ProgressStyle};

use self::report::{Row, Table};
use self::shard::Shard;
use super::args::{ColdArg, DbArg, DirectionArg, LayoutArg, thread_count};
use super::failure::{Hint, Verdict};
use super::memory;
use super::output::{json_line, title};
use super::problems::ProblemsArg;

/// How long each rate of the machine is measured, in seconds.
const RATE_SECONDS: f64 = 0.05;
/// The longest time that may be asked for a problem, in seconds.
const MAX_SECONDS: f64 = 24.0 * 3600.0;
/// The budget of a problem whose calls are cold, if not given: emptying the caches takes some tens
/// of milliseconds before each, and races have some hundred calls.
const COLD_BUDGET: &str = "30s";
/// The most candidates of a survey.
const MAX_SURVEY: u64 = 10_000;

const EXAMPLES: &str = "\
Examples:
  convgen tune conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1
  convgen tune --suite resnet50 --budget 10s --report resnet50.html
  convgen tune --file shapes.txt --threads 2 --db tuned.jsonl
  convgen tune --suite mobilenet_v2 --cold --db cold.jsonl
  parallel -j1 --lb convgen tune --suite resnet50 --shard {}/4 --db {}.jsonl ::: 1 2 3 4

A search ranks schedules by a cost model, verifies the most promising and lets them race, the slower
half dropping out, until the budget of the problem is spent. The best is kept in the database, where
every later compilation of the problem finds it, if it beat the default schedule in a last race and
passed all oracles. A problem that the database holds for this machine and number of threads is
skipped, unless --again. Ctrl-C ends the search of the problem at hand and keeps what was found; a
second one ends the program at once.

gain is the default's time over the pick's, both measured in turns. tried counts schedules timed.
--shard I/N takes every Nth problem from the Ith on (I from 1 to N), the same on every machine: one
task of a Slurm array, of an indexed Kubernetes job or of GNU parallel each; `convgen db merge` joins
their databases. --survey N measures N schedules drawn at random instead, and prints how well the
cost model's order agrees with the measured one (Spearman's rank correlation: 1 is the same order).

With --cold the caches are emptied before each timed call, outside of the timed interval, and schedules
are compared by their median call. That takes some tens of milliseconds a call, so the budget is 30s if
not given. A record does not say how it was timed: records of cold calls go to a file of their own, --db
FILE, which is not to be merged with others; or --no-db keeps nothing.";

/// The arguments of `convgen tune`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct TuneArgs {
    #[command(flatten)]
    problems: ProblemsArg,
    #[command(flatten)]
    layout: LayoutArg,
    #[command(flatten)]
    direction: DirectionArg,
    /// Threads that share the tasks of a call
    #[arg(long, value_name = "N", default_value = "1", value_parser = thread_count())]
    threads: usize,
    /// What kernels are compiled for: clif, avx2 or avx512; the widest that this machine has if not
    /// given
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    /// How long to search for each problem: seconds, or with a unit: 500ms, 2s, 1m
    #[arg(
        long, value_name = "TIME", default_value = "2s", value_parser = budget,
        default_value_if("cold", "true", COLD_BUDGET)
    )]
    budget: f64,
    #[command(flatten)]
    cold: ColdArg,
    /// Take only every Nth problem, from the Ith on
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Search for problems that the database holds already, too
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    db: DbArg,
    /// Keep nothing
    #[arg(long, conflicts_with = "db")]
    no_db: bool,
    /// Write a page with plots: gains, roofline, every candidate
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Measure N schedules drawn at random, and compare with the cost model
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=MAX_SURVEY))]
    survey: Option<u64>,
    /// Decides what is drawn at random
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Searches for every problem asked for.
pub fn tune(args: &TuneArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    check_cold_records(args)?;
    let problems = args.problems.read(args.direction.driver())?;
    let problems = match args.shard {
        Some(shard) => shard.of(problems),
        None => problems,
    };
    let tuner = Tuner::new(args)?;
    let mut table = Table::new(tuner.peaks, args.cold.caches());
    let done = match args.survey {
        Some(candidates) => tuner.survey_all(&problems, candidates as usize, &mut table, out),
        None => tuner.tune_all(&problems, &mut table, out),
    };
    if !args.json && !table.is_empty() {
        writeln!(out, "{table}")?;
    }
    if let Some(path) = &args.report {
        let page = html::page(&table, &tuner.machine());
        std::fs::write(path, page)
            .with_context(|| format!("cannot write `{}`", path.display()))
            .hint(|| "give --report the path of a file that may be written".to_owned())?;
    }
    done?;
    Ok(Verdict::Good)
}

/// What stays the same from problem to problem.
struct Tuner<'a> {
    args: &'a TuneArgs,
    host: Host,
    compiler: Compiler,
    rates: Rates,
    peaks: report::Peaks,
    store: Option<Store>,
    stop: Arc<AtomicBool>,
}

impl<'a> Tuner<'a> {
    fn new(args: &'a TuneArgs) -> anyhow::Result<Self> {
        let host = Host::detect();
        let compiler = Compiler::new(&host, args.isa.unwrap_or(host.widest_isa()))?;
        let target = compiler.target();
        let rates = machine::rates(&host, target.isa(), RATE_SECONDS)
            .ok_or_else(|| anyhow!("the rates of {} were not measured", target.isa()))?;
        let lanes = f64::from(target.lanes());
        let peaks = report::Peaks {
            gflops: 2.0 * lanes / rates.fma / 1e9 * args.threads as f64,
            memory_gb_s: 1e-9 / rates.memory,
            l2_gb_s: 1e-9 / rates.l2,
        };
        let store = store(args)?;
        let stop = Arc::new(AtomicBool::new(false));
        stop_on_interrupt(&stop)?;
        Ok(Tuner { args, host, compiler, rates, peaks, store, stop })
    }

    fn machine(&self) -> String {
        let threads = self.args.threads;
        let plural = if threads == 1 { "" } else { "s" };
        format!("{}, {}, {threads} thread{plural}", self.host.cpu_name(), self.compiler.target())
    }

    fn problem(&self, descriptor: &Descriptor) -> anyhow::Result<ConvProblem> {
        let problem = self.args.direction.apply(&descriptor.problem)?;
        Ok(self.args.layout.apply(&problem))
    }

    fn limits(&self) -> Limits {
        let TuneArgs { budget, threads, seed, cold, .. } = self.args;
        Limits { seconds: *budget, threads: *threads, caches: cold.caches(), seed: *seed }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn tune_all(
        &self,
        problems: &[Descriptor],
        table: &mut Table,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let bar = bar(problems.len(), self.args.budget);
        for (number, descriptor) in problems.iter().enumerate() {
            if self.stopped() {
                self.say_stopped(&bar, problems.len() - number);
                break;
            }
            let row = self
                .tune_one(descriptor, problems.len() - number, &bar)
                .with_context(|| title(descriptor))?;
            self.keep(row, table, &bar, out)?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn keep(
        &self,
        row: Row,
        table: &mut Table,
        bar: &ProgressBar,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        if self.args.json {
            bar.suspend(|| json_line(out, &row))?;
        }
        table.push(row);
        bar.inc(1);
        Ok(())
    }

    fn say_stopped(&self, bar: &ProgressBar, left: usize) {
        let plural = if left == 1 { "" } else { "s" };
        bar.suspend(|| eprintln!("stopped, {left} problem{plural} left; run again to go on"));
    }

    fn tune_one(
        &self,
        descriptor: &Descriptor,
        left: usize,
        bar: &ProgressBar,
    ) -> anyhow::Result<Row> {
        let problem = self.problem(descriptor)?;
        memory::check(&problem).hint(|| "tune a smaller batch or a smaller size".to_owned())?;
        let name = title(descriptor);
        if let Some(known) = self.known(&problem)? {
            bar.set_message(format!("{name}: in the database"));
            return Ok(Row::known(descriptor, &problem, &known));
        }
        let message = |progress: Progress| {
            let others = (left - 1) as f64 * self.args.budget;
            bar.set_message(format!("{name}: {}", state(progress, others)));
        };
        bar.set_message(format!("{name}: verifying the default pick"));
        let limits = self.limits();
        let (compiler, rates) = (&self.compiler, self.rates);
        let tuned = search::search(compiler, &problem, rates, limits, &self.stop, message)?;
        // A search cut short that found nothing is no reason to skip the problem the next time.
        if !tuned.stopped || tuned.gain() > 1.0 {
            self.record(&problem, &tuned)?;
        }
        Ok(Row::new(descriptor, &problem, limits.caches, tuned))
    }

    /// What the database holds already, if that is enough.
    fn known(&self, problem: &ConvProblem) -> anyhow::Result<Option<Record>> {
        let Some(store) = self.store.as_ref().filter(|_| !self.args.again) else { return Ok(None) };
        // A record that is unsound is searched for again, and replaced.
        let database = store.load()?;
        Ok(database.find(problem, self.compiler.target(), self.args.threads).ok().flatten())
    }

    fn record(&self, problem: &ConvProblem, tuned: &Tuned) -> anyhow::Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let Measured { candidate, seconds, .. } = &tuned.best;
        let record = Record {
            key: Key::new(problem, self.compiler.target(), self.args.threads),
            algorithm: candidate.algorithm,
            schedule: candidate.schedule.clone(),
            batch: problem.batch(),
            seconds: *seconds,
            default_seconds: tuned.default.seconds,
            candidates: tuned.measured.len() as u64,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        };
        match self.args.again {
            true => store.update(|database| database.replace(&record))?,
            false => store.insert(&record).map(|_| ())?,
        }
        Ok(())
    }

    fn survey_all(
        &self,
        problems: &[Descriptor],
        candidates: usize,
        table: &mut Table,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let bar = bar(problems.len(), self.args.budget);
        for descriptor in problems {
            if self.stopped() {
                break;
            }
            bar.set_message(format!("{}: {candidates} candidates", title(descriptor)));
            let problem = self.problem(descriptor)?;
            memory::check(&problem).hint(|| "survey a smaller size".to_owned())?;
            let (compiler, rates) = (&self.compiler, self.rates);
            let limits = self.limits();
            let measured =
                search::survey(compiler, &problem, rates, limits, candidates, &self.stop)
                    .with_context(|| title(descriptor))?;
            if measured.is_empty() {
                // It was stopped before there was anything to compare.
                break;
            }
            let row = Row::surveyed(descriptor, &problem, limits.caches, measured);
            self.keep(row, table, &bar, out)?;
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// `34 tried, best 0.123 ms (1.12 x default), 14 s left`
fn state(progress: Progress, others: f64) -> String {
    let Progress { tried, best, default, left } = progress;
    let (ms, gain) = (best * 1e3, default / best);
    let left = left + others;
    format!("{tried} tried, best {ms:.3} ms ({gain:.2} x default), {left:.0} s left")
}

fn bar(problems: usize, budget: f64) -> ProgressBar {
    /// How often the elapsed time is shown anew.
    const TICK: Duration = Duration::from_millis(100);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {wide_msg}");
    let bar = ProgressBar::new(problems as u64);
    let bar = match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    // Redrawing takes time from a core that measures: only where a problem takes long enough to
    // wait.
    if budget > TICK.as_secs_f64() {
        bar.enable_steady_tick(TICK * 5);
    }
    bar
}

/// Whether no record is written.
fn keeps_nothing(args: &TuneArgs) -> bool {
    args.no_db || args.survey.is_some()
}

/// A record does not say what the caches held, and the compiler takes it for one of warm calls:
/// records of cold calls are kept only where the user asks for it.
fn check_cold_records(args: &TuneArgs) -> anyhow::Result<()> {
    match args.cold.caches() {
        CacheState::Warm => Ok(()),
        CacheState::Cold if keeps_nothing(args) || args.db.is_apart() => Ok(()),
        CacheState::Cold => Err(anyhow!("records of cold calls are not kept among the usual ones")),
    }
    .hint(|| "keep them in a file of their own with --db FILE, or nothing with --no-db".to_owned())
}

fn store(args: &TuneArgs) -> anyhow::Result<Option<Store>> {
    if keeps_nothing(args) {
        return Ok(None);
    }
    args.db.store().map(Some)
}

/// The first Ctrl-C asks the search to stop; the second ends the program: what is kept is kept.
fn stop_on_interrupt(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    const INTERRUPTED: i32 = 130;
    let stop = Arc::clone(stop);
    ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
    })?;
    Ok(())
}

fn budget(text: &str) -> Result<f64, String> {
    let plain = text.parse::<f64>().ok();
    let seconds = match plain {
        Some(seconds) => seconds,
        None => humantime::parse_duration(text).map_err(|error| error.to_string())?.as_secs_f64(),
    };
    match (0.0..=MAX_SECONDS).contains(&seconds) {
        true => Ok(seconds),
        false => Err(format!("expected from 0 s to {} h", MAX_SECONDS / 3600.0)),
    }
}
