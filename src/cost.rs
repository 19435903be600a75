//! What a nest will take on a machine, predicted from the nest itself.
//!
//! Promises: every term is derived by walking the lowered loops (how often a statement runs, which
//! elements it touches), never from the problem's formula, so that every algorithm and every
//! schedule is covered; each term says what it counted. Deterministic, and reads no clock: the
//! machine's rates are given, those of the [target](Target::rates) or measured.
//!
//! # The terms
//!
//! | term | what it is |
//! |---|---|
//! | `arithmetic` | vector operations, at the rate of multiply-adds in registers; in a micro-kernel with the counters and pointers of its loops, which run beside them |
//! | `loads` | vector loads and stores beyond what the arithmetic hides |
//! | `latency` | waiting for sums that depend on one another beyond both |
//! | `loops` | starting and ending loops and micro-kernels: an entry, a mispredicted end, and outside of micro-kernels each iteration |
//! | `copies` | what fills scratch or is done outside of register tiles: copies of the input |
//! | `L2`, `L3`, `memory` | lines that come from that level, at its bandwidth |
//! | `imbalance` | threads that wait for the one with the most tasks |
//!
//! Arithmetic, loads and latency share the core's cycles, so each is counted beyond what the ones
//! before it hide; traffic is fetched ahead while the core computes, so of it only
//! [`EXPOSED`] is added, unless the traffic is the longer of the two.

mod estimate;
mod traffic;
mod trips;
mod work;

use std::fmt;

use convgen_ir::verify::VerifiedNest;

pub use self::estimate::Estimate;
use self::traffic::Traffic;
use self::work::Work;
pub use crate::calibration::Rates;
pub use crate::calibration::cycles::EXPOSED;
use crate::target::Target;

/// One reason why a call takes time.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What it is called.
    pub name: &'static str,
    /// Seconds of a call.
    pub seconds: f64,
    /// What was counted.
    pub what: String,
}

/// The predicted time of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Seconds of a call.
    pub seconds: f64,
    /// What they are made of.
    pub terms: Vec<Term>,
}

impl fmt::Display for Cost {
    /// One term a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Term { name, seconds, what } in &self.terms {
            writeln!(f, "{name:<12}{:>12.3} us   {what}", seconds * 1e6)?;
        }
        write!(f, "{:<12}{:>12.3} us", "predicted", self.seconds * 1e6)
    }
}

/// Predicts a call with a batch, on some threads: the sum of the parts of a problem.
pub fn cost<'n>(
    nests: impl IntoIterator<Item = &'n VerifiedNest>,
    target: &Target,
    rates: &Rates,
    batch: u64,
    threads: usize,
) -> Cost {
    let parts = nests.into_iter().map(|nest| part(nest, target, rates, batch, threads));
    let add = |mut sum: Cost, part: Cost| {
        sum.seconds += part.seconds;
        for (term, other) in sum.terms.iter_mut().zip(part.terms) {
            term.seconds += other.seconds;
            term.what = format!("{} and {}", term.what, other.what);
        }
        sum
    };
    parts.reduce(add).unwrap_or(Cost { seconds: 0.0, terms: vec![] })
}

fn part(nest: &VerifiedNest, target: &Target, rates: &Rates, batch: u64, threads: usize) -> Cost {
    let nest = nest.nest();
    let batch = batch.max(1) as i64;
    let work = Work::of(nest, target, rates, batch);
    let traffic = Traffic::of(nest, target, batch);
    let mut terms = work.terms();
    let compute: f64 = terms.iter().map(|term| term.seconds).sum();
    let fetched = traffic.terms(rates, work.refetched);
    let fetch: f64 = fetched.iter().map(|term| term.seconds).sum();
    terms.extend(fetched);
    let alone = compute.max(fetch) + EXPOSED * compute.min(fetch);
    let tasks = nest.tasks(batch).unwrap_or(i64::MAX);
    let imbalance = imbalance(alone, tasks, threads as i64);
    let shared = alone / threads.max(1) as f64;
    terms.push(Term {
        name: "imbalance",
        seconds: imbalance,
        what: format!("{tasks} tasks on {threads} threads"),
    });
    Cost { seconds: shared + imbalance, terms }
}

/// Seconds for which the slowest thread works longer than the average, if all tasks are alike.
fn imbalance(seconds: f64, tasks: i64, threads: i64) -> f64 {
    if threads <= 1 || tasks <= 0 {
        return 0.0;
    }
    let most = (tasks as u64).div_ceil(threads as u64) as f64;
    seconds * (most / tasks as f64 - 1.0 / threads as f64)
}
