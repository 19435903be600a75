//! Arguments that several subcommands share.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use convgen::algorithm::Algorithm;
use convgen::calibration::Profile;
use convgen::record::{Database, MAX_THREADS, Store};
use convgen::scheduler::space::Space;
use convgen::timing::CacheState;
use convgen::{Accuracy, Compiler, Error, Host, Isa, Pick};
use convgen_ir::elem::Layout;
use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::{
    ConvProblem, ConvSpec, Descriptor, Direction, Driver, ProblemError, SpatialAxis,
};
use convgen_ir::schedule::Schedule;
use convgen_ir::separable::{Separable, SeparableError};

use super::failure::Hint;
use super::source::{self, STDIN};

/// Which code to make.
#[derive(Args)]
pub struct IsaArg {
    /// What the kernel is compiled for: clif runs everywhere, avx2 and avx512 on x86-64 with
    /// these features; the widest that this machine has if not given
    #[arg(long, value_name = "ISA")]
    isa: Option<Isa>,
    /// Which arithmetic may be chosen: strict is the sum of the definition, in any order;
    /// reproducible the same in one order, so that every instruction set gives the same bits; local
    /// also transforms whose error is small beside what each output reads; default those whose
    /// error is small beside the largest values of a tile
    #[arg(long, value_name = "ACCURACY", default_value = "default")]
    accuracy: Accuracy,
    /// Choose by the rates of this file, which `convgen machine --calibrate` wrote, instead of
    /// those that ship for the CPU
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    records: RecordsArg,
}

impl IsaArg {
    /// A compiler for this machine, of kernels for that many threads.
    pub fn compiler(&self, host: &Host, threads: usize) -> anyhow::Result<Compiler> {
        let host = match &self.profile {
            Some(path) => host.clone().with_profile(profile(path)?),
            None => host.clone(),
        };
        let compiler = Compiler::new(&host, self.isa.unwrap_or(host.widest_isa()))?;
        let records = self.records.load()?;
        let compiler = compiler.with_accuracy(self.accuracy);
        Ok(compiler.with_database(Arc::new(records)).with_threads(threads))
    }
}

/// The longest profile that is read, in bytes: many times what one has.
const MAX_PROFILE: u64 = 1 << 16;

/// Reads the rates of a machine.
fn profile(path: &Path) -> anyhow::Result<Profile> {
    let text = source::read_short(path, MAX_PROFILE)?;
    let named = |error| anyhow!("`{}`: {error}", path.display());
    Profile::from_json(&text)
        .map_err(named)
        .hint(|| "`convgen machine --calibrate FILE` writes one of this machine".to_owned())
}

/// Which tuning records decide what a problem is compiled with.
#[derive(Args)]
struct RecordsArg {
    #[command(flatten)]
    file: DbArg,
    /// Use no tuning records: every problem gets the default pick
    #[arg(long, conflicts_with = "db")]
    no_db: bool,
}

impl RecordsArg {
    /// The records; lines that are none are counted on standard error.
    fn load(&self) -> anyhow::Result<Database> {
        if self.no_db || (self.file.db.is_none() && default_path().is_none()) {
            return Ok(Database::new());
        }
        let store = self.file.store()?;
        if self.file.db.is_some() && !store.exists().hint(|| self.file.other_file())? {
            return Err(anyhow!("there is no database `{}`", store.path().display())).hint(|| {
                "give --db the file that `convgen db merge` or a tuning run wrote".to_owned()
            });
        }
        let database = self.file.load(&store)?;
        if !database.skipped().is_empty() {
            let (count, path) = (database.skipped().len(), store.path().display());
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(
                std::io::stderr(),
                "warning: {count} lines of `{path}` are not used; `convgen db list` says why"
            );
        }
        Ok(database)
    }
}

/// What the caches hold when a timed call begins.
#[derive(Args)]
pub struct ColdArg {
    /// Empty the caches before each timed call, and report the median call: for layers that do not
    /// come twice in a row
    #[arg(long)]
    cold: bool,
}

impl ColdArg {
    /// The state asked for.
    pub fn caches(&self) -> CacheState {
        if self.cold { CacheState::Cold } else { CacheState::Warm }
    }
}

/// The file of tuning records.
#[derive(Args)]
pub struct DbArg {
    /// The file of tuning records; `convgen db path` shows where it is if not given
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
}

impl DbArg {
    /// The place asked for, or the usual one.
    pub fn store(&self) -> anyhow::Result<Store> {
        let path = self.db.clone().or_else(default_path);
        let path = path.ok_or_else(|| anyhow!("this platform has no directory for data of users"));
        path.map(Store::at).hint(|| "name the file with --db FILE".to_owned())
    }

    /// Whether the records are kept apart from the usual ones.
    pub fn is_apart(&self) -> bool {
        // A file that is not there yet has no canonical path.
        let real = |path: PathBuf| {
            path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path)
        };
        self.db.clone().is_some_and(|path| Some(real(path)) != default_path().map(real))
    }

    /// Reads the file.
    pub fn load(&self, store: &Store) -> anyhow::Result<Database> {
        store.load().hint(|| self.other_file())
    }

    /// What to do about a file that cannot be read or written.
    pub fn other_file(&self) -> String {
        match self.db {
            Some(_) => "--db takes a file that `convgen db` or a tuning run wrote".to_owned(),
            None => "move the file away, or name another with --db FILE".to_owned(),
        }
    }
}

/// Where the records of this user are: `convgen/tuning.jsonl` in the platform's directory of local
/// application data (on Linux `~/.local/share`, unless the user's XDG base directories are
/// elsewhere). Nothing if the platform has none.
fn default_path() -> Option<PathBuf> {
    Some(dirs::data_local_dir()?.join("convgen").join("tuning.jsonl"))
}

/// A layout instead of the problem's own.
#[derive(Args)]
pub struct LayoutArg {
    /// Use this layout instead of the problem's own: nhwc or nchw
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<Layout>,
}

impl LayoutArg {
    /// The pair over the layout asked for.
    pub fn apply_pair(&self, pair: &Separable) -> Result<Separable, SeparableError> {
        Separable::new(self.apply(pair.depthwise()), self.apply(pair.pointwise()))
    }

    /// The problem over the layout asked for.
    pub fn apply(&self, problem: &ConvProblem) -> ConvProblem {
        match self.layout {
            Some(layout) => problem.with_layout(layout),
            None => problem.clone(),
        }
    }
}

/// What is computed, instead of what the problem says.
#[derive(Args)]
pub struct DirectionArg {
    /// Compute this of the convolution: fwd, bwd_d, bwd_w or bwd_b (benchdnn's BWD_D and so on). A
    /// gradient is that of the plain sum, without bias and epilogue
    #[arg(long, value_name = "DIR", value_parser = direction)]
    dir: Option<Direction>,
    /// Read benchdnn's lines as transposed convolutions
    #[arg(long)]
    deconv: bool,
}

impl DirectionArg {
    /// Whether a direction is asked for.
    pub fn is_given(&self) -> bool {
        self.dir.is_some() || self.deconv
    }

    /// What a line of benchdnn is a problem of.
    pub fn driver(&self) -> Driver {
        if self.deconv { Driver::Deconv } else { Driver::Conv }
    }

    /// The problem in the direction asked for.
    pub fn apply(&self, problem: &ConvProblem) -> Result<ConvProblem, ProblemError> {
        match (self.dir, problem.direction()) {
            (None, _) | (Some(Direction::Forward), Direction::Transposed) => Ok(problem.clone()),
            // The gradients of a transposed convolution are those of the forward one it is the
            // adjoint of, with its input and output in each other's place.
            (Some(Direction::BackwardData), Direction::Transposed) => {
                problem.with_direction(Direction::Forward)
            }
            (Some(Direction::BackwardBias), Direction::Transposed) => {
                let axes = problem.spatial().iter().map(|axis| SpatialAxis::new(axis.input, 1));
                let channels = problem.result_channels();
                let spec = ConvSpec::new(channels, channels, axes.collect()).groups(channels);
                let spec = spec.batch(problem.batch()).layout(problem.layout());
                ConvProblem::new(spec.direction(Direction::BackwardBias))
            }
            (Some(direction), _) => problem.with_direction(direction),
        }
    }
}

/// Reads a direction; benchdnn writes them in capitals.
fn direction(text: &str) -> Result<Direction, String> {
    let name = text.to_ascii_lowercase();
    let name = match name.as_str() {
        "fwd_d" | "fwd_b" | "fwd_i" => "fwd",
        name => name,
    };
    Direction::from_name(name)
        .filter(|direction| *direction != Direction::Transposed)
        .ok_or_else(|| format!("`{text}` is no direction: fwd, bwd_d, bwd_w, bwd_b"))
}

/// An algorithm and a schedule instead of the scheduler's.
#[derive(Args)]
pub struct ScheduleArg {
    /// Use this algorithm instead of the default: direct, winograd or fourier
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,
    /// Use this schedule instead of the default: directives such as `split ow by 4; unroll ow.i`, a
    /// file of them, or - for standard input; sizes such as `tile oh by 4` stand for winograd or
    /// fourier
    #[arg(long, value_name = "TEXT|FILE")]
    schedule: Option<String>,
}

/// What the user wants instead of the scheduler's pick.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The algorithm.
    pub algorithm: Option<Algorithm>,
    /// The schedule.
    pub schedule: Option<Schedule>,
}

impl Given {
    /// Whether the pick is the scheduler's alone.
    pub fn is_nothing(&self) -> bool {
        self.algorithm.is_none() && self.schedule.is_none()
    }

    /// The algorithm and the schedule to compile with: the compiler's pick, but for what is given.
    pub fn plan(
        &self,
        problem: &ConvProblem,
        compiler: &Compiler,
    ) -> Result<(Algorithm, Schedule), Error> {
        let (algorithm, schedule) = match (self.algorithm, &self.schedule) {
            (None, None) => {
                let Pick { algorithm, schedule, .. } = compiler.pick(problem);
                (algorithm, schedule)
            }
            (algorithm, Some(schedule)) => {
                (algorithm.unwrap_or(Algorithm::of(schedule)), schedule.clone())
            }
            (Some(algorithm), None) => {
                let space = Space::new(problem, algorithm, compiler.target())?;
                (algorithm, space.default_candidate().schedule)
            }
        };
        Ok((algorithm, compiler.completed(problem, algorithm, &schedule)?))
    }
}

impl ScheduleArg {
    /// Whether the schedule comes from standard input.
    pub fn is_stdin(&self) -> bool {
        self.schedule.as_deref() == Some(STDIN)
    }

    /// Whether an algorithm or a schedule is asked for.
    pub fn is_given(&self) -> bool {
        self.algorithm.is_some() || self.schedule.is_some()
    }

    /// Reads what is given.
    pub fn read(&self) -> anyhow::Result<Given> {
        Ok(Given { algorithm: self.algorithm, schedule: self.read_schedule()? })
    }

    fn read_schedule(&self) -> anyhow::Result<Option<Schedule>> {
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

/// Adds what helps with a schedule that does not apply, if the user gave it.
pub fn scheduled<T>(result: Result<T, Error>, given: &Given) -> anyhow::Result<T> {
    match &given.schedule {
        Some(schedule) if Algorithm::of(schedule) != Algorithm::Direct => result.hint(|| {
            format!(
                "`convgen print --stage schedule --directives --algorithm {} DESCRIPTOR` prints \
                 sizes that fit",
                Algorithm::of(schedule)
            )
        }),
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
    /// The words, if they are meant as a pair of convolutions.
    pub fn pair(&self) -> Option<String> {
        let text = self.words.join(" ");
        Separable::is_meant(&text).then_some(text)
    }

    /// Reads the words as one descriptor.
    pub fn read(&self) -> anyhow::Result<Descriptor> {
        source::descriptor(&self.words.join(" "))
    }
}

/// Accepts a number of threads.
pub fn thread_count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_THREADS as u64)
}
