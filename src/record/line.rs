//! A record as its line of text: the fields as written, and the checks that make a [`Record`] of
//! them.
//!
//! Promises: [`RecordLine::read`] does what loading many lines needs and no more: the syntax, the
//! version, and lengths. [`RecordLine::record`] checks everything else.

use std::borrow::Cow;

use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::ConvProblem;
use serde::{Deserialize, Serialize};

use super::{
    GENERATOR, Key, MAX_LINE, MAX_SCHEDULE, MAX_TEXT, MAX_THREADS, Record, RecordError, SCHEMA,
    is_date,
};
use crate::algorithm::Algorithm;

/// The fields, in the order in which they are written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordLine<'a> {
    schema: u32,
    #[serde(borrow)]
    generator: Cow<'a, str>,
    #[serde(borrow)]
    problem: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    threads: usize,
    #[serde(borrow)]
    algorithm: Cow<'a, str>,
    #[serde(borrow)]
    schedule: Cow<'a, str>,
    batch: u64,
    seconds: f64,
    default_seconds: f64,
    candidates: u64,
    #[serde(borrow)]
    date: Cow<'a, str>,
}

/// What a line of every version has.
#[derive(Deserialize)]
struct Version<'a> {
    schema: u32,
    #[serde(borrow)]
    generator: Cow<'a, str>,
}

impl<'a> RecordLine<'a> {
    /// The line of a record, given its schedule as text.
    pub(super) fn of(record: &'a Record, schedule: &'a str) -> RecordLine<'a> {
        RecordLine {
            schema: SCHEMA,
            generator: GENERATOR.into(),
            problem: record.key.problem.as_str().into(),
            target: record.key.target.as_str().into(),
            threads: record.key.threads,
            algorithm: record.algorithm.name().into(),
            schedule: schedule.into(),
            batch: record.batch,
            seconds: record.seconds,
            default_seconds: record.default_seconds,
            candidates: record.candidates,
            date: record.date.as_str().into(),
        }
    }

    pub(super) fn text(&self) -> Result<String, RecordError> {
        serde_json::to_string(self).map_err(|error| syntax(&error))
    }

    /// Reads the fields of a line of this version.
    pub(super) fn read(bytes: &'a [u8]) -> Result<RecordLine<'a>, RecordError> {
        at_most("the line", bytes.len(), MAX_LINE)?;
        let line: RecordLine = match serde_json::from_slice(bytes) {
            Ok(line) => line,
            Err(error) => return Err(refusal(bytes, &error)),
        };
        check_version(line.schema, &line.generator)?;
        for (what, text) in [("the problem", &line.problem), ("the target", &line.target)] {
            at_most(what, text.len(), MAX_TEXT)?;
        }
        at_most("the schedule", line.schedule.len(), MAX_SCHEDULE)?;
        at_most("the date", line.date.len(), MAX_TEXT)?;
        Ok(line)
    }

    /// The key as written; that of a record only if the rest is one.
    pub(super) fn key(&self) -> Key {
        let (problem, target) = (self.problem.to_string(), self.target.to_string());
        Key { problem, target, threads: self.threads }
    }

    /// What records of one key are compared by.
    pub(super) fn seconds_an_image(&self) -> f64 {
        self.seconds / self.batch as f64
    }

    /// Checks everything that can be known without a compiler.
    pub(super) fn record(&self) -> Result<Record, RecordError> {
        let problem: ConvProblem = self.problem.parse()?;
        let canonical = problem.with_batch(1).unwrap_or(problem).to_string();
        if canonical != self.problem {
            return Err(RecordError::Canonical { canonical });
        }
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_ .+-".contains(&b);
        if self.target.is_empty() || !self.target.bytes().all(is_word) {
            return Err(RecordError::Target { given: self.target.escape_debug().to_string() });
        }
        if !(1..=MAX_THREADS).contains(&self.threads) {
            return Err(RecordError::Threads { given: self.threads });
        }
        let algorithm = Algorithm::ALL.into_iter().find(|known| known.name() == self.algorithm);
        let algorithm = algorithm.ok_or_else(|| RecordError::Algorithm {
            given: self.algorithm.escape_debug().to_string(),
        })?;
        self.check_figures()?;
        let schedule = parse_schedule(&self.schedule)
            .map_err(|error| RecordError::Schedule { message: error.to_string() })?;
        Ok(Record {
            key: self.key(),
            algorithm,
            schedule,
            batch: self.batch,
            seconds: self.seconds,
            default_seconds: self.default_seconds,
            candidates: self.candidates,
            date: self.date.to_string(),
        })
    }

    fn check_figures(&self) -> Result<(), RecordError> {
        if self.batch == 0 {
            return Err(RecordError::Batch);
        }
        let seconds = [("seconds", self.seconds), ("default_seconds", self.default_seconds)];
        for (field, given) in seconds {
            if !(given.is_finite() && given > 0.0) {
                return Err(RecordError::Seconds { field, given });
            }
        }
        match is_date(&self.date) {
            true => Ok(()),
            false => Err(RecordError::Date { given: self.date.to_string() }),
        }
    }
}

/// A line that has not these fields is either of another version, which it then says, or no record.
fn refusal(bytes: &[u8], error: &serde_json::Error) -> RecordError {
    if std::str::from_utf8(bytes).is_err() {
        return RecordError::Encoding;
    }
    let other = serde_json::from_slice(bytes)
        .ok()
        .and_then(|version: Version| check_version(version.schema, &version.generator).err());
    other.unwrap_or_else(|| syntax(error))
}

fn check_version(schema: u32, generator: &str) -> Result<(), RecordError> {
    if schema != SCHEMA {
        return Err(RecordError::Schema { given: schema });
    }
    if generator != GENERATOR {
        let given = generator.chars().take(40).flat_map(char::escape_debug).collect();
        return Err(RecordError::Generator { given });
    }
    Ok(())
}

fn at_most(what: &'static str, given: usize, limit: usize) -> Result<(), RecordError> {
    if given > limit { Err(RecordError::TooLong { what, given, limit }) } else { Ok(()) }
}

/// The parser's words, without the line number, which is always one.
fn syntax(error: &serde_json::Error) -> RecordError {
    let message = error.to_string().replace(" at line 1 column", ", column");
    RecordError::Syntax { message }
}
