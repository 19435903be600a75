//! `convgen verify`: hold the kernels of lists of problems against interpreter and reference.
//!
//! Promises: every line of every file is either verified, failed or unsupported, and counted; a
//! failure is printed when it is found, with its place and a test case that reproduces it. Lines
//! that are no problem are failures. A file that cannot be read, or holds no problem at all, ends
//! the command.

mod job;

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use convgen::{Compiler, Host};
use convgen_ir::elem::Layout;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;

use self::job::{Job, Outcome};
use super::args::{DirectionArg, IsaArg, thread_count};
use super::failure::{Hint, Verdict};
use super::output::{json_line, progress};
use super::source::{self, Line, ModelArgs};

const EXAMPLES: &str = "\
Examples:
  convgen verify shapes.txt
  convgen verify shapes.txt more.txt --layout both --batch 2
  convgen verify shapes_resnet_50 --only res4 --json
  convgen verify model.onnx --dim height=224 --dim width=224
  convgen verify shapes.txt --dir bwd_w
  convgen verify shapes_deconv.txt --deconv

A file is a list of problems, one a line, in the grammar of `convgen --help` or in benchdnn's, or
an ONNX model, whose convolutions are verified; those that are alike are one line.
The last line of the output counts the results; with --json it goes to standard error, and every
line of standard output is an object with file, line, name, problem, layout, outcome (verified,
failed or unsupported), ok, error, elements (compared with the reference), bitwise (compared bit for
bit with the interpreter) and max_error. The exit code is 1 if anything failed, 2 if a file is no
list.";

/// The arguments of `convgen verify`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Lists of problems or ONNX models; - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Use this batch instead of the problem's own
    #[arg(long, value_name = "N")]
    batch: Option<u64>,
    /// Use this layout instead of the problem's own
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<Layouts>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    direction: DirectionArg,
    #[command(flatten)]
    isa: IsaArg,
    /// Problems verified at a time; all cores if not given
    #[arg(long, alias = "threads", value_name = "N", value_parser = thread_count())]
    jobs: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Only lines that contain this text, as written or in canonical form
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Which layouts each problem is verified in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layouts {
    Nhwc,
    Nchw,
    Both,
}

impl Layouts {
    fn list(self) -> &'static [Layout] {
        match self {
            Layouts::Nhwc => &[Layout::ChannelsLast],
            Layouts::Nchw => &[Layout::ChannelsFirst],
            Layouts::Both => Layout::ALL,
        }
    }
}

/// Verifies every line, and says how many were right.
pub fn verify(args: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let jobs = jobs(args)?;
    let compiler = args.isa.compiler(&Host::detect(), 1)?;
    let threads = args.jobs.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let bar = progress(jobs.len());
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        scope.spawn(|| pool.install(|| check_all(&jobs, &compiler, sender)));
        // Returning drops `results`, which ends the workers.
        results.into_iter().try_for_each(|(job, outcome): (&Job, Outcome)| {
            counts.add(&outcome);
            show(args, job, &outcome, &bar, out)?;
            bar.inc(1);
            anyhow::Ok(())
        })
    })?;
    bar.finish_and_clear();
    match args.json {
        // Nobody is left to tell if standard error is closed.
        true => drop(writeln!(std::io::stderr(), "{counts}")),
        false => writeln!(out, "{counts}")?,
    }
    Ok(if counts.failed == 0 { Verdict::Good } else { Verdict::Wrong })
}

/// Results in the order in which they are found; stops when nobody listens.
fn check_all<'j>(jobs: &'j [Job], compiler: &Compiler, results: Sender<(&'j Job, Outcome)>) {
    // An error means that the receiver is gone, and then there is nobody to tell.
    let _ = jobs
        .par_iter()
        .try_for_each_with(results, |results, job| results.send((job, job.check(compiler))));
}

fn show(
    args: &VerifyArgs,
    job: &Job,
    outcome: &Outcome,
    bar: &ProgressBar,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if args.json {
        return bar.suspend(|| json_line(out, &Record::new(job, outcome)));
    }
    match outcome {
        Outcome::Verified(_) => Ok(()),
        Outcome::Failed(error) | Outcome::Unsupported(error) => bar.suspend(|| {
            writeln!(out, "{}: {}: {error}", job.line, outcome.name())?;
            Ok(out.flush()?)
        }),
    }
}

/// What is to be verified: every line that is wanted, in every layout that is wanted.
fn jobs(args: &VerifyArgs) -> anyhow::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for path in &args.files {
        let lines = source::read_lines(path, &args.model, args.batch, args.direction.driver())?;
        for line in lines.into_iter().filter(|line| wanted(args, line)) {
            match args.layout {
                Some(layouts) if line.descriptor.is_ok() => {
                    let each = layouts.list().iter();
                    jobs.extend(each.map(|layout| {
                        Job::new(line.clone(), args.batch, Some(*layout), &args.direction)
                    }));
                }
                Some(_) | None => jobs.push(Job::new(line, args.batch, None, &args.direction)),
            }
        }
    }
    match &args.only {
        Some(only) if jobs.is_empty() => Err(anyhow!("no line contains `{only}`"))
            .hint(|| "--only looks for the text in the lines of the files".to_owned()),
        Some(_) | None => Ok(jobs),
    }
}

fn wanted(args: &VerifyArgs, line: &Line) -> bool {
    let Some(only) = &args.only else { return true };
    let canonical = line.descriptor.as_ref().map(ToString::to_string).unwrap_or_default();
    line.text.contains(only) || canonical.contains(only)
}

/// How many lines came out how.
#[derive(Default)]
struct Counts {
    verified: usize,
    failed: usize,
    unsupported: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Verified(_) => self.verified += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Unsupported(_) => self.unsupported += 1,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { verified, failed, unsupported } = self;
        write!(f, "verified {verified}, failed {failed}, unsupported {unsupported}")
    }
}

/// One result. The names of the fields are the keys of the JSON object.
#[derive(Serialize)]
struct Record<'a> {
    file: &'a str,
    line: usize,
    name: Option<&'a str>,
    problem: Option<String>,
    layout: Option<&'static str>,
    outcome: &'static str,
    ok: bool,
    error: Option<&'a str>,
    elements: Option<usize>,
    bitwise: Option<usize>,
    max_error: Option<f64>,
}

impl<'a> Record<'a> {
    fn new(job: &'a Job, outcome: &'a Outcome) -> Self {
        let (error, check) = match outcome {
            Outcome::Verified(check) => (None, Some(check)),
            Outcome::Failed(error) | Outcome::Unsupported(error) => (Some(error.as_str()), None),
        };
        let descriptor = job.line.descriptor.as_ref().ok();
        let problem = job.problem.as_ref().ok();
        Record {
            file: &job.line.file,
            line: job.line.number,
            name: descriptor.and_then(|descriptor| descriptor.name.as_deref()),
            problem: problem.map(ToString::to_string),
            layout: problem.map(|problem| problem.layout().name()),
            outcome: outcome.name(),
            ok: check.is_some(),
            error,
            elements: check.map(|check| check.elements),
            bitwise: check.map(|check| check.bitwise),
            max_error: check.map(|check| check.max_error),
        }
    }
}
