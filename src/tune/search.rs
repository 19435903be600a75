//! The search for the fastest way to compute one problem.
//!
//! First the default picks of all algorithms race that the accuracy asked for allows. Then rounds
//! of three steps until the time is up: the cost model ranks the candidates near the best ones
//! known, the most promising are compiled and verified, and they race against the best so far. What
//! the model is off by at a candidate that was measured it is off by at those near it, too: they
//! are ranked by their prediction times that factor. A race is successive halving: all run for a
//! short time in turns, the slower half is dropped, the rest runs for twice as long. Only times of
//! one race are compared, since a machine is not equally fast at all times. A candidate whose first
//! call already takes much longer than the best call known does not race at all. In the end the
//! last winners race against the default pick, and the best is held against all oracles once more;
//! it wins only if both say so.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use convgen_ir::problem::ConvProblem;

use super::bench::{Bench, Entrant, TuneError};
use crate::compiler::Compiler;
use crate::cost::Rates;
use crate::scheduler::space::{Candidate, Space};
use crate::timing::{CacheState, Stopwatch, Timing};

/// Kernels that race at once, besides the best so far.
const FIELD: usize = 8;

/// Of these, drawn at random instead of ranked: the model may be wrong about a whole region.
const STRANGERS: usize = 2;

/// The fastest of those measured, near which others are looked for.
const ORIGINS: usize = 3;

/// Candidates ranked before the first race.
const RANKED: usize = 192;

/// Candidates ranked before each later one: the pool still has those ranked before.
const RANKED_LATER: usize = 64;

/// Winners of races that are in the last one: the last of them may have been lucky.
const FINALISTS: usize = 3;

/// The part of the time that ranking may take.
const RANKING: f64 = 0.25;

/// A first call so many times the best call known is no match: calls vary less than that.
const HOPELESS: f64 = 1.5;

/// Rounds of a race in which each survivor is timed before the slower half is dropped.
const ROUNDS: usize = 3;

/// Calls, about, that each kernel of a race makes before the first cut.
const CALLS: f64 = 3.0;

/// The shortest time for which a kernel is timed before it is dropped, in seconds.
const SHORTEST: f64 = 1e-3;

/// The part of the time for the last race, of the best against the default.
const FINAL: f64 = 0.15;

/// The best must be faster than the default by more than this to be picked instead of it.
const MARGIN: f64 = 0.005;

/// As [`MARGIN`], of cold calls: medians of fifteen differ by 6 % from run to run in the mean over
/// MobileNetV2 (`convgen bench --suite mobilenet_v2 --cold`, a busy Xeon, Emerald Rapids, November
/// 2026); those of a last race are of more calls, in turns.
const COLD_MARGIN: f64 = 0.03;

/// What a search may use.
///
/// With cold caches a timing is the median of cold calls, and emptying the caches before each is
/// part of the seconds: it takes some tens of milliseconds, so a search needs a longer time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Seconds of ranking and racing. The oracles' checks, of the default picks before and of the
    /// winner after, take what they take.
    pub seconds: f64,
    /// Threads of a call.
    pub threads: usize,
    /// What the caches hold when a call begins.
    pub caches: CacheState,
    /// Decides what is drawn at random.
    pub seed: u64,
}

/// How a search stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Candidates measured.
    pub tried: usize,
    /// Seconds of the best call.
    pub best: f64,
    /// Seconds of the default pick's best call.
    pub default: f64,
    /// Seconds left.
    pub left: f64,
}

/// A candidate and its times.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was measured.
    pub candidate: Candidate,
    /// Seconds of a call by the cost model.
    pub predicted: f64,
    /// Seconds of the shortest warm call, or of the median cold one.
    pub seconds: f64,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The default pick.
    pub default: Measured,
    /// The pick: the fastest, or the default.
    pub best: Measured,
    /// Everything measured, the default first.
    pub measured: Vec<Measured>,
    /// Candidates that were not measured, and why.
    pub refused: Vec<(Candidate, String)>,
    /// Seconds the search took.
    pub seconds: f64,
    /// Whether it was asked to stop.
    pub stopped: bool,
}

impl Tuned {
    /// How many times faster the pick is than the default.
    pub fn gain(&self) -> f64 {
        self.default.seconds / self.best.seconds
    }
}

/// Searches within the limits, until asked to stop.
///
/// # Errors
/// If the default pick itself is refused, or wrong.
pub fn search(
    compiler: &Compiler,
    problem: &ConvProblem,
    rates: Rates,
    limits: Limits,
    stop: &AtomicBool,
    mut report: impl FnMut(Progress),
) -> Result<Tuned, TuneError> {
    let watch = Stopwatch::start();
    let spaces = Space::of(problem, compiler.target());
    let Some(sum) = spaces.first().map(Space::default_candidate) else {
        return Err(TuneError::NoAlgorithm);
    };
    let bench = Bench::new(compiler, problem, &sum, rates, limits.threads)?;
    let bench = bench.with_caches(limits.caches);
    let (chosen, _) = compiler.default_choice(problem);
    let (default, rivals): (Vec<Candidate>, Vec<Candidate>) =
        spaces.iter().map(Space::default_candidate).partition(|c| c.algorithm == chosen);
    let default = default.into_iter().next().unwrap_or(sum);
    let predicted = bench.predict(&default)?;
    let entrant = bench.admit(default, predicted)?;
    let (mut entrants, mut refused) = (Vec::new(), Vec::new());
    for rival in rivals {
        let admitted = bench.predict(&rival).map_err(TuneError::from);
        match admitted.and_then(|predicted| bench.admit(rival.clone(), predicted)) {
            Ok(entrant) => entrants.push(entrant),
            Err(error) => refused.push((rival, error.to_string())),
        }
    }
    let searching = Stopwatch::start();
    let timing =
        bench.race(&[&entrant], SHORTEST.max(bench.seconds_for(CALLS, entrant.first)), 1)?[0];
    let mut search = Search {
        bench: &bench,
        spaces: &spaces,
        limits,
        watch: searching,
        stop,
        draw: Draw(limits.seed),
        pool: Vec::new(),
        seen: HashSet::from([entrant.candidate.clone()]),
        measured: vec![timed(&entrant, timing)],
        refused,
    };
    search.seen.extend(entrants.iter().map(|rival| rival.candidate.clone()));
    let (default, best) = search.run(entrant, entrants, &mut report)?;
    let Search { measured, refused, .. } = search;
    Ok(Tuned {
        default,
        best,
        measured,
        refused,
        seconds: watch.seconds(),
        stopped: stop.load(Ordering::Relaxed),
    })
}

/// The entrant by its first call.
fn measured(entrant: &Entrant) -> Measured {
    let (candidate, predicted) = (entrant.candidate.clone(), entrant.predicted);
    Measured { candidate, predicted, seconds: entrant.first }
}

/// The entrant by the calls of a race.
fn timed(entrant: &Entrant, timing: Timing) -> Measured {
    Measured { seconds: timing.seconds(), ..measured(entrant) }
}

/// What a kernel takes by what it took before and a timing: the shortest of all warm calls, or the
/// median of the last cold ones, since the least of several medians is mostly that of few calls.
fn joined(before: f64, timing: &Timing) -> f64 {
    match timing.caches {
        CacheState::Warm => before.min(timing.seconds()),
        CacheState::Cold => timing.seconds(),
    }
}

/// By how much a pick must be faster than the default.
fn margin(caches: CacheState) -> f64 {
    match caches {
        CacheState::Warm => MARGIN,
        CacheState::Cold => COLD_MARGIN,
    }
}

/// Measures candidates drawn at random all over the spaces of a problem, the default pick first:
/// what tells how well the cost model ranks. Kernels race in groups; a much slower one than the
/// fastest is timed by few calls, but is not left out.
///
/// # Errors
/// As [`search`].
pub fn survey(
    compiler: &Compiler,
    problem: &ConvProblem,
    rates: Rates,
    limits: Limits,
    candidates: usize,
    stop: &AtomicBool,
) -> Result<Vec<Measured>, TuneError> {
    let spaces = Space::of(problem, compiler.target());
    let mut draw = Draw(limits.seed);
    let mut drawn: Vec<Candidate> = spaces.iter().map(Space::default_candidate).collect();
    let watch = Stopwatch::start();
    let stopped = || stop.load(Ordering::Relaxed);
    for space in spaces.iter().cycle().take(DRAWS * candidates) {
        if stopped() || watch.seconds() > limits.seconds {
            break;
        }
        let candidate = space.sample(|below| draw.below(below));
        if drawn.len() < candidates && !drawn.contains(&candidate) {
            drawn.push(candidate);
        }
    }
    let bench = Bench::new(compiler, problem, &drawn[0], rates, limits.threads)?;
    let bench = bench.with_caches(limits.caches);
    let share = limits.seconds / drawn.len() as f64;
    let mut all: Vec<Measured> = Vec::new();
    for group in drawn.chunks(FIELD) {
        let mut field = Vec::new();
        for candidate in group.iter().filter(|_| !stop.load(Ordering::Relaxed)) {
            // A refused candidate is no point of the comparison.
            let Ok(predicted) = bench.predict(candidate) else { continue };
            let entrant = bench.admit(candidate.clone(), predicted)?;
            match all.first().is_some_and(|default| entrant.first > SLOW * default.seconds) {
                true => all.push(Measured { seconds: entrant.first, ..measured(&entrant) }),
                false => field.push(entrant),
            }
        }
        let runners: Vec<&Entrant> = field.iter().collect();
        let timings = bench.race(&runners, share / 2.0, ROUNDS)?;
        let raced = field.iter().zip(timings);
        all.extend(raced.map(|(entrant, timing)| timed(entrant, timing)));
    }
    Ok(all)
}

/// A candidate of a survey so many times slower than the default is timed by one call.
const SLOW: f64 = 4.0;

/// Draws for each candidate of a survey, at most: some are drawn twice.
const DRAWS: usize = 8;

/// The rank correlation of predicted and measured seconds by Spearman's formula; 1 is the same
/// order.
pub fn rank_correlation(measured: &[Measured]) -> f64 {
    let predicted = ranks(measured, |m| m.predicted);
    let seconds = ranks(measured, |m| m.seconds);
    let mean = (measured.len() as f64 - 1.0) / 2.0;
    let (mut both, mut first, mut second) = (0.0, 0.0, 0.0);
    for (a, b) in predicted.iter().zip(&seconds) {
        both += (a - mean) * (b - mean);
        first += (a - mean).powi(2);
        second += (b - mean).powi(2);
    }
    if first * second > 0.0 { both / (first * second).sqrt() } else { 0.0 }
}

/// The place of each value in the order; equal ones share the mean of their places.
fn ranks(measured: &[Measured], value: impl Fn(&Measured) -> f64) -> Vec<f64> {
    let below = |a: f64| measured.iter().filter(|m| value(m) < a).count() as f64;
    let equal = |a: f64| measured.iter().filter(|m| value(m) == a).count() as f64;
    measured.iter().map(|m| below(value(m)) + (equal(value(m)) - 1.0) / 2.0).collect()
}

/// A candidate that was not measured.
struct Ranked {
    candidate: Candidate,
    /// Seconds by the cost model.
    predicted: f64,
    /// By what it is multiplied: the model is that far off near by.
    factor: f64,
}

impl Ranked {
    fn seconds(&self) -> f64 {
        self.predicted * self.factor
    }
}

struct Search<'s, 'c> {
    bench: &'s Bench<'c>,
    spaces: &'s [Space<'s>],
    limits: Limits,
    watch: Stopwatch,
    stop: &'s AtomicBool,
    draw: Draw,
    /// Ranked and not yet measured, the most promising last.
    pool: Vec<Ranked>,
    seen: HashSet<Candidate>,
    /// The default first.
    measured: Vec<Measured>,
    refused: Vec<(Candidate, String)>,
}

impl Search<'_, '_> {
    /// The default's and the best's measurement.
    fn run(
        &mut self,
        default: Entrant,
        rivals: Vec<Entrant>,
        report: &mut impl FnMut(Progress),
    ) -> Result<(Measured, Measured), TuneError> {
        let mut winners: Vec<Entrant> = self.race(&default, rivals, report)?.into_iter().collect();
        while self.left() > self.limits.seconds * FINAL {
            self.rank();
            let champion = winners.last().unwrap_or(&default);
            let field = self.field(champion);
            if field.is_empty() && self.pool.is_empty() {
                break;
            }
            if let Some(winner) = self.race(champion, field, report)? {
                winners.push(winner);
                winners.drain(..winners.len().saturating_sub(FINALISTS));
            }
            report(self.progress());
        }
        self.finish(default, winners)
    }

    fn left(&self) -> f64 {
        match self.stop.load(Ordering::Relaxed) {
            true => 0.0,
            false => (self.limits.seconds - self.watch.seconds()).max(0.0),
        }
    }

    fn progress(&self) -> Progress {
        let fastest = self.measured.iter().map(|m| m.seconds).fold(f64::INFINITY, f64::min);
        let default = self.measured.first().map_or(fastest, |m| m.seconds);
        Progress { tried: self.measured.len(), best: fastest, default, left: self.left() }
    }

    /// Fills the pool: what is near the fastest measured, what is near the most promising,
    /// strangers.
    fn rank(&mut self) {
        let watch = Stopwatch::start();
        let allowed = RANKING * self.limits.seconds.min(self.left());
        let mut known: Vec<&Measured> = self.measured.iter().collect();
        known.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let near = known.iter().take(ORIGINS);
        let mut origins: Vec<(Candidate, f64)> =
            near.map(|m| (m.candidate.clone(), m.seconds / m.predicted)).collect();
        let ranked = if self.measured.len() > 1 { RANKED_LATER } else { RANKED };
        let goal = self.pool.len() + ranked;
        while let Some((origin, factor)) = origins.pop() {
            let algorithm = origin.algorithm;
            let space = self.spaces.iter().find(|space| space.algorithm() == algorithm);
            for candidate in space.map(|s| s.neighbours(&origin)).unwrap_or_default() {
                if watch.seconds() > allowed || self.pool.len() >= goal {
                    break;
                }
                self.predict(candidate, factor);
            }
            self.sort();
            let promising = self.pool.last().filter(|_| origins.is_empty());
            if let Some(ranked) = promising
                && watch.seconds() < allowed
                && self.pool.len() < goal
            {
                // Each step is downhill, or ends when nothing new is near.
                let next = (ranked.candidate.clone(), ranked.factor);
                if next.0 != origin && !self.measured.iter().any(|m| m.candidate == next.0) {
                    origins.push(next);
                }
            }
        }
        let factor = self.usual_factor();
        for space in self.spaces {
            for _ in 0..STRANGERS * 4 {
                if watch.seconds() < allowed {
                    let candidate = space.sample(|below| self.draw.below(below));
                    self.predict(candidate, factor);
                }
            }
        }
        self.sort();
    }

    fn sort(&mut self) {
        self.pool.sort_by(|a, b| b.seconds().total_cmp(&a.seconds()));
    }

    /// The geometric mean of what the model is off by.
    fn usual_factor(&self) -> f64 {
        let logs: f64 = self.measured.iter().map(|m| (m.seconds / m.predicted).ln()).sum();
        (logs / self.measured.len().max(1) as f64).exp()
    }

    fn predict(&mut self, candidate: Candidate, factor: f64) {
        if !self.seen.insert(candidate.clone()) {
            return;
        }
        match self.bench.predict(&candidate) {
            Ok(predicted) => self.pool.push(Ranked { candidate, predicted, factor }),
            Err(error) => self.refused.push((candidate, error.to_string())),
        }
    }

    /// The next candidates to race: compiled, verified, and not hopeless.
    fn field(&mut self, champion: &Entrant) -> Vec<Entrant> {
        let mut field = Vec::new();
        let best = self.seconds_of(champion).min(champion.first);
        while field.len() < FIELD && self.left() > self.limits.seconds * FINAL {
            let stranger = field.len() >= FIELD - STRANGERS;
            let next = match stranger && !self.pool.is_empty() {
                true => Some(self.pool.swap_remove(self.draw.below(self.pool.len()))),
                false => self.pool.pop(),
            };
            let Some(Ranked { candidate, predicted, .. }) = next else { break };
            match self.bench.admit(candidate.clone(), predicted) {
                Ok(entrant) if entrant.first > HOPELESS * best => {
                    let seconds = entrant.first;
                    self.measured.push(Measured { candidate, predicted, seconds });
                    if stranger {
                        break;
                    }
                }
                Ok(entrant) => field.push(entrant),
                Err(error) => self.refused.push((candidate, error.to_string())),
            }
        }
        field
    }

    fn seconds_of(&self, entrant: &Entrant) -> f64 {
        let found = self.measured.iter().find(|m| m.candidate == entrant.candidate);
        found.map_or(f64::INFINITY, |m| m.seconds)
    }

    /// Successive halving of the field and the champion; the winner, if it is not the champion.
    fn race(
        &mut self,
        champion: &Entrant,
        field: Vec<Entrant>,
        report: &mut impl FnMut(Progress),
    ) -> Result<Option<Entrant>, TuneError> {
        let call = champion.first.min(self.seconds_of(champion));
        let mut seconds = self.bench.seconds_for(CALLS, call).max(SHORTEST);
        let mut alive: Vec<Entrant> = field;
        let mut kings = f64::INFINITY;
        while !alive.is_empty() && self.left() > 0.0 {
            let mut runners: Vec<&Entrant> = vec![champion];
            runners.extend(&alive);
            let timings = self.bench.race(&runners, seconds, ROUNDS)?;
            let times: Vec<f64> = timings.iter().map(Timing::seconds).collect();
            self.note(champion, timings[0]);
            for (entrant, timing) in alive.iter().zip(&timings[1..]) {
                self.note(entrant, *timing);
            }
            kings = joined(kings, &timings[0]);
            let mut ranked: Vec<(f64, Entrant)> =
                times[1..].iter().copied().zip(std::mem::take(&mut alive)).collect();
            ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
            let keep = ranked.len() / 2;
            // The fastest wins if nobody is left to be compared with.
            if keep == 0 {
                return Ok(ranked
                    .into_iter()
                    .find(|(t, _)| *t < kings)
                    .map(|(_, entrant)| entrant));
            }
            ranked.truncate(keep);
            alive = ranked.into_iter().map(|(_, entrant)| entrant).collect();
            seconds *= 2.0;
            report(self.progress());
        }
        Ok(None)
    }

    /// Keeps one time of each candidate.
    fn note(&mut self, entrant: &Entrant, timing: Timing) {
        match self.measured.iter_mut().find(|m| m.candidate == entrant.candidate) {
            Some(m) => m.seconds = joined(m.seconds, &timing),
            None => self.measured.push(timed(entrant, timing)),
        }
    }

    /// The last race, and the last check.
    fn finish(
        &mut self,
        default: Entrant,
        winners: Vec<Entrant>,
    ) -> Result<(Measured, Measured), TuneError> {
        if winners.is_empty() {
            // Nothing beat it in any race.
            let first = Measured { seconds: self.seconds_of(&default), ..measured(&default) };
            return Ok((first.clone(), first));
        }
        let runners: Vec<&Entrant> = std::iter::once(&default).chain(&winners).collect();
        let stopped = self.stop.load(Ordering::Relaxed);
        let share = self.limits.seconds * FINAL / runners.len() as f64;
        let seconds = if stopped { SHORTEST } else { share };
        let timings = self.bench.race(&runners, seconds, 4 * ROUNDS)?;
        for (runner, timing) in runners.iter().zip(&timings) {
            self.note(runner, *timing);
        }
        let first = timed(&default, timings[0]);
        let others = runners[1..].iter().zip(&timings[1..]);
        let fastest = others.min_by(|a, b| a.1.seconds().total_cmp(&b.1.seconds()));
        let Some((best, timing)) = fastest else { return Ok((first.clone(), first)) };
        let second = timed(best, *timing);
        let faster = second.seconds * (1.0 + margin(self.limits.caches)) < first.seconds;
        let right = faster
            && match self.bench.verify(best) {
                Ok(()) => true,
                Err(error) => {
                    self.refused.push((best.candidate.clone(), error.to_string()));
                    false
                }
            };
        Ok((first.clone(), if right { second } else { first }))
    }
}

/// Numbers that look random, the same for the same seed.
pub struct Draw(pub u64);

impl Draw {
    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        // A linear congruential generator of Knuth's; its high bits are the better ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit.max(1) as u64) as usize
    }
}
