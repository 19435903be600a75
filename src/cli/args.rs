//! Arguments that several subcommands share.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use convgen::algorithm::Algorithm;
use convgen::{Compiler, Error, Host, Isa, Target, scheduler};
use convgen_ir::elem::Layout;
use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::{ConvProblem, Descriptor};
use convgen_ir::schedule::Schedule;

use super::failure::Hint;
use super::source::{self, STDIN};

/// The most threads a command takes.
const MAX_THREADS: u64 = 1024;

/// Which code to make.
#[derive(Args)]
pub struct IsaArg {
    /// What the kernel is compiled for: clif runs everywhere, avx2 and avx512 on x86-64 with
    /// these features; the widest that this machine has if not given
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
}

impl IsaArg {
    /// A compiler for this machine.
    pub fn compiler(&self, host: &Host) -> anyhow::Result<Compiler> {
        Ok(Compiler::new(host, self.isa.unwrap_or(host.widest_isa()))?)
    }
}

/// A layout instead of the problem's own.
#[derive(Args)]
pub struct LayoutArg {
    /// Use this layout instead of the problem's own: nhwc or nchw
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<Layout>,
}

impl LayoutArg {
    /// The problem over the layout asked for.
    pub fn apply(&self, problem: &ConvProblem) -> ConvProblem {
        match self.layout {
            Some(layout) => problem.with_layout(layout),
            None => problem.clone(),
        }
    }
}

/// A schedule instead of the scheduler's.
#[derive(Args)]
pub struct ScheduleArg {
    /// Use this schedule instead of the default: directives such as `split ow by 4; unroll ow.i`, a
    /// file of them, or - for standard input
    #[arg(long, value_name = "TEXT|FILE")]
    schedule: Option<String>,
}

impl ScheduleArg {
    /// Whether the schedule comes from standard input.
    pub fn is_stdin(&self) -> bool {
        self.schedule.as_deref() == Some(STDIN)
    }

    /// Reads the schedule, if one is given.
    pub fn read(&self) -> anyhow::Result<Option<Schedule>> {
        let Some(given) = &self.schedule else { return Ok(None) };
        let is_file = given == STDIN || std::path::Path::new(given).is_file();
        let text = if is_file { source::read_text(given.as_ref())? } else { given.clone() };
        let schedule = parse_schedule(&text).hint(|| {
            let what = if is_file { "" } else { " (no file has that name, so it is read as text)" };
            format!(
                "`{given}` is no schedule{what}; `convgen print --stage schedule --directives \
                 DESCRIPTOR` prints one to start from"
            )
        })?;
        Ok(Some(schedule))
    }
}

/// The algorithm and the schedule to compile with: the scheduler's pick, or the schedule given.
pub fn plan(
    problem: &ConvProblem,
    target: &Target,
    given: Option<&Schedule>,
) -> (Algorithm, Schedule) {
    let (algorithm, default) = scheduler::default_schedule(problem, target);
    (algorithm, given.cloned().unwrap_or(default))
}

/// Adds what helps with a schedule that does not apply, if the user gave it.
pub fn scheduled<T>(result: Result<T, Error>, given: Option<&Schedule>) -> anyhow::Result<T> {
    match given {
        Some(_) => result.hint(|| {
            "`convgen print --stage nest DESCRIPTOR` shows the loops that a schedule names, \
             `convgen print --schedule ...` what the directives make of them"
                .to_owned()
        }),
        None => Ok(result?),
    }
}

/// A problem as the words of the command line.
#[derive(Args)]
pub struct DescriptorArg {
    /// The problem, as one quoted string or as several words
    #[arg(value_name = "DESCRIPTOR", required = true)]
    words: Vec<String>,
}

impl DescriptorArg {
    /// Reads the words as one descriptor.
    pub fn read(&self) -> anyhow::Result<Descriptor> {
        source::descriptor(&self.words.join(" "))
    }
}

/// Accepts a number of threads.
pub fn thread_count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_THREADS)
}
