//! What a search found: a JSON object, a row of a table, a part of the total.

use std::fmt;

use convgen::record::Record;
use convgen::timing::CacheState;
use convgen::tune::search::{Measured, Tuned, rank_correlation};
use convgen_ir::problem::{ConvProblem, Descriptor};
use serde::Serialize;

use crate::output::{caches_line, short, table, title};

/// What the machine can do at best, for all threads together where it is arithmetic.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Operations a nanosecond.
    pub gflops: f64,
    /// Bytes a nanosecond from main memory.
    pub memory_gb_s: f64,
    /// Bytes a nanosecond from the second-level cache.
    pub l2_gb_s: f64,
}

/// A candidate that was timed.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Milliseconds by the cost model.
    pub predicted_ms: f64,
    /// Milliseconds of the shortest call, or of the median one if cold.
    pub ms: f64,
    /// The algorithm.
    pub algorithm: &'static str,
    /// Its schedule.
    pub schedule: String,
}

/// One problem. The names of the fields are the keys of the JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The canonical descriptor.
    pub problem: String,
    /// Its name, or the problem in short.
    pub name: String,
    /// The problem in short.
    #[serde(skip)]
    pub short: String,
    /// `tuned`, `known` (it was in the database) or `surveyed`.
    pub state: &'static str,
    /// What the caches held when a call began: `warm` or `cold`. Of a known problem nothing: its
    /// record does not say.
    pub caches: Option<&'static str>,
    /// The default's shortest call, or median one if cold.
    pub default_ms: f64,
    /// The pick's.
    pub ms: f64,
    /// How many times faster.
    pub gain: f64,
    /// Operations of the definition a nanosecond.
    pub gflops: f64,
    /// Operations for a byte of input, weights and output.
    pub intensity: f64,
    /// Candidates timed.
    pub tried: u64,
    /// Candidates refused.
    pub refused: usize,
    /// Seconds of the search.
    pub seconds: f64,
    /// Spearman's rank correlation of predicted and measured times, of a survey.
    pub rank_correlation: Option<f64>,
    /// The algorithm of the pick.
    pub algorithm: &'static str,
    /// The schedule of the pick.
    pub schedule: String,
    /// Everything timed.
    pub points: Vec<Point>,
}

impl Row {
    fn of(descriptor: &Descriptor, problem: &ConvProblem, state: &'static str) -> Row {
        let len = |shape: Vec<u64>| shape.iter().product::<u64>();
        let batch = problem.batch();
        let elements = len(problem.input_shape(batch))
            + len(problem.weights_shape())
            + len(problem.output_shape(batch));
        let bytes = elements * problem.elem().bytes() as u64;
        Row {
            problem: problem.to_string(),
            name: title(descriptor),
            short: short(problem),
            state,
            caches: None,
            default_ms: 0.0,
            ms: 0.0,
            gain: 1.0,
            gflops: 0.0,
            intensity: problem.flops() as f64 / bytes.max(1) as f64,
            tried: 0,
            refused: 0,
            seconds: 0.0,
            rank_correlation: None,
            algorithm: "",
            schedule: String::new(),
            points: vec![],
        }
    }

    /// A row without figures.
    #[cfg(test)]
    pub fn empty(descriptor: &Descriptor) -> Row {
        Row::of(descriptor, &descriptor.problem, "tuned")
    }

    /// What a search found.
    pub fn new(
        descriptor: &Descriptor,
        problem: &ConvProblem,
        caches: CacheState,
        tuned: Tuned,
    ) -> Row {
        let mut row = Row::of(descriptor, problem, "tuned");
        row.caches = Some(caches.name());
        row.picked(problem, &tuned.default, &tuned.best);
        row.refused = tuned.refused.len();
        row.seconds = tuned.seconds;
        row.timed(&tuned.measured);
        row
    }

    /// What the database held.
    pub fn known(descriptor: &Descriptor, problem: &ConvProblem, record: &Record) -> Row {
        let mut row = Row::of(descriptor, problem, "known");
        // A record may be of another batch: times are for this one.
        let images = problem.batch() as f64 / record.batch.max(1) as f64;
        row.default_ms = record.default_seconds * images * 1e3;
        row.ms = record.seconds * images * 1e3;
        row.gain = record.default_seconds / record.seconds;
        row.gflops = problem.flops() as f64 / row.ms / 1e6;
        row.tried = record.candidates;
        row.algorithm = record.algorithm.name();
        row.schedule = record.schedule.one_line();
        row
    }

    /// What a survey measured.
    pub fn surveyed(
        descriptor: &Descriptor,
        problem: &ConvProblem,
        caches: CacheState,
        measured: Vec<Measured>,
    ) -> Row {
        let mut row = Row::of(descriptor, problem, "surveyed");
        row.caches = Some(caches.name());
        let best = measured.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        if let (Some(default), Some(best)) = (measured.first(), best) {
            row.picked(problem, default, best);
        }
        row.timed(&measured);
        // What a search measures is what the model picked: no sample of its opinions.
        row.rank_correlation = (measured.len() > 2).then(|| rank_correlation(&measured));
        row
    }

    fn picked(&mut self, problem: &ConvProblem, default: &Measured, best: &Measured) {
        self.default_ms = default.seconds * 1e3;
        self.ms = best.seconds * 1e3;
        self.gain = default.seconds / best.seconds;
        self.gflops = problem.flops() as f64 / best.seconds / 1e9;
        self.algorithm = best.candidate.algorithm.name();
        self.schedule = best.candidate.schedule.one_line();
    }

    fn timed(&mut self, measured: &[Measured]) {
        self.tried = measured.len() as u64;
        let point = |m: &Measured| Point {
            predicted_ms: m.predicted * 1e3,
            ms: m.seconds * 1e3,
            algorithm: m.candidate.algorithm.name(),
            schedule: m.candidate.schedule.one_line(),
        };
        self.points = measured.iter().map(point).collect();
    }
}

/// All rows; displayed as a table and a line with the total.
pub struct Table {
    /// The machine's.
    pub peaks: Peaks,
    /// What its caches hold when a call begins.
    pub caches: CacheState,
    /// One a problem.
    pub rows: Vec<Row>,
}

impl Table {
    /// No rows yet.
    pub fn new(peaks: Peaks, caches: CacheState) -> Table {
        Table { peaks, caches, rows: vec![] }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The geometric mean of the gains.
    pub fn gain(&self) -> f64 {
        let logs: f64 = self.rows.iter().map(|row| row.gain.ln()).sum();
        (logs / self.rows.len().max(1) as f64).exp()
    }

    /// The median rank correlation of the rows that have one.
    pub fn rank_correlation(&self) -> Option<f64> {
        let mut all: Vec<f64> = self.rows.iter().filter_map(|row| row.rank_correlation).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let surveyed = self.rank_correlation().is_some();
        let mut columns =
            vec!["name", "problem", "default ms", "pick ms", "gain", "GFLOP/s", "tried", "s"];
        columns.push(if surveyed { "rank" } else { "state" });
        let mut table = table(&columns, 2..8);
        for row in &self.rows {
            table.add_row(vec![
                row.name.clone(),
                row.short.clone(),
                format!("{:.3}", row.default_ms),
                format!("{:.3}", row.ms),
                format!("{:.2}", row.gain),
                format!("{:.1}", row.gflops),
                row.tried.to_string(),
                format!("{:.1}", row.seconds),
                row.rank_correlation.map_or(row.state.to_owned(), |rank| format!("{rank:.2}")),
            ]);
        }
        writeln!(f, "{}\n{table}", caches_line(self.caches))?;
        let layers = self.rows.len();
        let plural = if layers == 1 { "" } else { "s" };
        let total = |field: fn(&Row) -> f64| self.rows.iter().map(field).sum::<f64>();
        write!(
            f,
            "{layers} layer{plural}, default {:.3} ms, pick {:.3} ms, geometric mean of gains {:.3}, \
             largest {:.2}, {} tried, {:.0} s",
            total(|row| row.default_ms),
            total(|row| row.ms),
            self.gain(),
            self.rows.iter().map(|row| row.gain).fold(0.0, f64::max),
            self.rows.iter().map(|row| row.tried).sum::<u64>(),
            total(|row| row.seconds),
        )?;
        match self.rank_correlation() {
            Some(rank) => write!(f, ", median rank correlation {rank:.2}"),
            None => Ok(()),
        }
    }
}
