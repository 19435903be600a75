//! Tuning records: which schedule was measured to be the best one for a problem on a machine.
//!
//! ```text
//! {"format":"convgen tuning database"}
//! {"schema":1,"generator":"0.1.0","problem":"conv1d f32 nhwc n1 ic8 oc8 iw64 kw3","target":"x86_64 avx2 fma
//!  l1d32768 l2524288 l34194304","threads":1,"algorithm":"direct","schedule":"unroll kw; vectorize oc","batch":1,
//!  "seconds":1.5e-6,"default_seconds":2e-6,"candidates":40,"date":"2026-11-23T21:00:00Z"}
//! ```
//! A record is one line (the second of these, broken here), a JSON object with these fields in this
//! order. Its [`Key`] is:
//! - the problem, as its canonical descriptor over a batch of one: a kernel serves any batch, so
//!   batches share a record; layout, bias and epilogue are part of the problem;
//! - the target, as [`Target::key`](crate::Target::key) writes it;
//! - the threads that shared the tasks of the calls that were measured.
//!
//! Of two records with one key the better is the one with fewer seconds an image, at a draw the one
//! whose line comes first in the order of bytes: a total order, so that merging is associative,
//! commutative and idempotent.
//!
//! Promises: a line from anywhere is refused with a reason or read; lengths are bounded. A record
//! that was read has a schedule that is one by its grammar. Does not: promise that the schedule
//! applies to the problem or is legal on the target. [`Compiler::pick`](crate::Compiler::pick)
//! takes it through the transforms and the verifier as any other, and falls back to the default
//! pick.
//!
//! [`Database`] holds records in memory, [`Store`] keeps them in a file that processes share; some
//! [ship](Database::shipped) with the library.

mod database;
mod fault;
mod file;
mod line;
mod shipped;
mod store;

use convgen_ir::problem::{ConvProblem, DescriptorError};
use convgen_ir::schedule::Schedule;

use crate::algorithm::Algorithm;
use crate::target::Target;

pub use self::database::{Database, Inserted, Skipped};
pub use self::fault::StoreError;
pub use self::store::{MAX_FILE, Store};

/// The number of the line's format and of the meaning of schedules: changed when a line of before
/// would be read wrongly or would mean another kernel.
pub const SCHEMA: u32 = 1;

/// The version that writes records and the only one whose records it reads: what was best among the
/// code of another version says nothing about this one's.
pub const GENERATOR: &str = env!("CARGO_PKG_VERSION");

/// The longest line that is read, in bytes.
pub const MAX_LINE: usize = 1 << 16;
/// The longest schedule that is read, in bytes: some hundred directives.
pub const MAX_SCHEDULE: usize = 1 << 14;
/// The longest of the other texts of a record, in bytes.
pub const MAX_TEXT: usize = 1 << 10;
/// The most threads of a record, and of a command.
pub const MAX_THREADS: usize = 1024;

/// What a record is about: one problem on one machine, with a number of threads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    problem: String,
    target: String,
    threads: usize,
}

impl Key {
    /// The key of a problem of any batch.
    pub fn new(problem: &ConvProblem, target: &Target, threads: usize) -> Key {
        // A problem that is legal over some batch is legal over one image: the limits count at
        // least one.
        let one = problem.with_batch(1).unwrap_or_else(|_| problem.clone());
        Key { problem: one.to_string(), target: target.key(), threads }
    }

    /// The canonical descriptor, over one image.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The target, as [`Target::key`] writes it.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The threads that share a call.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

/// A schedule and what it was measured to take.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What it is about.
    pub key: Key,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The schedule.
    pub schedule: Schedule,
    /// Images of a call that was measured.
    pub batch: u64,
    /// Seconds of the shortest call.
    pub seconds: f64,
    /// Seconds of the shortest call with the default pick, measured in turns with it.
    pub default_seconds: f64,
    /// How many schedules were measured.
    pub candidates: u64,
    /// When, in Coordinated Universal Time, to the second: `2026-11-30T09:00:00Z`.
    pub date: String,
}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_line(line: &str) -> Result<Record, RecordError> {
        line::RecordLine::read(line.as_bytes())?.record()
    }

    /// The line, without its end.
    ///
    /// # Errors
    /// What a reader would refuse it for: nothing is written that cannot be read.
    pub fn to_line(&self) -> Result<String, RecordError> {
        let schedule = self.schedule.one_line();
        let text = line::RecordLine::of(self, &schedule).text()?;
        Record::from_line(&text).map(|_| text)
    }
}

/// Whether a text has the form of a [`Record::date`]. Nothing is decided by a date, so the calendar
/// is not asked.
fn is_date(text: &str) -> bool {
    let form = "0000-00-00T00:00:00Z";
    let fits = |(given, form): (u8, u8)| match form {
        b'0' => given.is_ascii_digit(),
        _ => given == form,
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

/// Why a line is no record of this version.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name every field")]
pub enum RecordError {
    #[error("no record: {message}")]
    Syntax { message: String },
    #[error("the line is not text in UTF-8")]
    Encoding,
    #[error("{what} has {given} bytes, expected at most {limit}")]
    TooLong { what: &'static str, given: usize, limit: usize },
    #[error("schema {given}, this version reads {SCHEMA}")]
    Schema { given: u32 },
    #[error("written by convgen {given}, this is {GENERATOR}")]
    Generator { given: String },
    #[error("problem: {0}")]
    Problem(#[from] DescriptorError),
    #[error("the problem is not in canonical form over one image, which is `{canonical}`")]
    Canonical { canonical: String },
    #[error("no target: `{given}`")]
    Target { given: String },
    #[error("{given} threads, expected 1 to {MAX_THREADS}")]
    Threads { given: usize },
    #[error("unknown algorithm `{given}`")]
    Algorithm { given: String },
    #[error("schedule: {message}")]
    Schedule { message: String },
    #[error("a batch of 0 images takes no time")]
    Batch,
    #[error("{field} is {given}, expected a positive number")]
    Seconds { field: &'static str, given: f64 },
    #[error("date: `{given}`, expected one like 2026-11-30T09:00:00Z")]
    Date { given: String },
}
