//! The only reader of the clock: how long a call takes.
//!
//! Promises: a first call is not counted, so memory is touched and code is in the cache; calls too
//! short for the clock are timed many at a time. The minimum is what the machine can do, the median
//! what it usually does.
//!
//! Cold calls are timed one at a time, since a second one would be warm, and the caches are emptied
//! before each, outside of the timed interval. Reading the clock is nothing beside one: the least
//! problem, of 0.1 us warm, takes some 10 us when its code and the tables of its pages come from
//! memory. The figure is the median: the shortest cold call is the one that found the most in a
//! cache by accident.
//!
//! Does not: pin threads or wait for a quiet machine; [`interleaved`] makes comparisons fair
//! instead.

use std::time::Instant;

/// Calls shorter than this are timed in batches: reading the clock takes some tens of nanoseconds.
const SHORT_CALL: f64 = 2e-6;

/// The length of a batch of short calls, at least: reading the clock is then 0.2 % of it.
const BATCH: f64 = 20e-6;

/// Samples of one measurement, at most; longer measurements get longer samples. Bounds memory.
const MAX_SAMPLES: f64 = (1 << 20) as f64;

/// What the caches hold when a timed call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheState {
    /// What the call before left there.
    Warm,
    /// Nothing of the call: neither tensors nor packed weights nor code.
    Cold,
}

impl CacheState {
    /// `warm` or `cold`.
    pub fn name(self) -> &'static str {
        match self {
            CacheState::Warm => "warm",
            CacheState::Cold => "cold",
        }
    }

    /// Which of the timed calls is the figure.
    pub fn figure(self) -> &'static str {
        match self {
            CacheState::Warm => "shortest",
            CacheState::Cold => "median",
        }
    }
}

/// What repeated calls took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// What the caches held.
    pub caches: CacheState,
    /// Seconds of the shortest call.
    pub min: f64,
    /// Seconds of the median call.
    pub median: f64,
    /// Calls that were timed.
    pub calls: usize,
}

impl Timing {
    /// The figure: seconds of the shortest warm call, or of the median cold one.
    pub fn seconds(&self) -> f64 {
        match self.caches {
            CacheState::Warm => self.min,
            CacheState::Cold => self.median,
        }
    }
}

/// Seconds since a moment.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// The moment is now.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Seconds since then.
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Calls `f` once, and gives its value and the seconds it took.
pub fn once<T>(f: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let value = f();
    (value, start.elapsed().as_secs_f64())
}

/// Times warm calls of `f` until they took `min_seconds` together and are at least `min_calls`.
pub fn time(min_seconds: f64, min_calls: usize, mut f: impl FnMut()) -> Timing {
    let mut series = Series::warm(&mut f, min_seconds / MAX_SAMPLES);
    series.run(&mut f, min_seconds, min_calls.max(1));
    series.timing()
}

/// [`turns`] of warm calls.
pub fn interleaved(
    min_seconds_each: f64,
    rounds: usize,
    functions: &mut [&mut dyn FnMut()],
) -> Vec<Timing> {
    turns(None, min_seconds_each, rounds, functions)
}

/// Times several functions in turns, so that whatever slows the machine down meets all of them:
/// each of the `rounds` gives every function its share of `min_seconds_each`, at least one sample.
///
/// Calls are cold if `empty` is given: it empties the caches before each timed call. What that
/// takes counts as part of the share, which is far longer than most calls, but not of the call.
pub fn turns(
    empty: Option<&dyn Fn()>,
    min_seconds_each: f64,
    rounds: usize,
    functions: &mut [&mut dyn FnMut()],
) -> Vec<Timing> {
    let shortest = min_seconds_each / MAX_SAMPLES;
    let series = functions.iter_mut().map(|f| match empty {
        None => Series::warm(f, shortest),
        Some(empty) => Series::cold(f, empty),
    });
    let mut series: Vec<Series> = series.collect();
    let rounds = rounds.max(1);
    for round in 1..=rounds {
        for (f, series) in functions.iter_mut().zip(&mut series) {
            let share = min_seconds_each * round as f64 / rounds as f64;
            series.run(f, share, series.calls() + 1);
        }
    }
    series.iter().map(Series::timing).collect()
}

/// The samples of one function.
struct Series<'e> {
    /// How calls are timed.
    sampling: Sampling<'e>,
    /// Seconds a call, one value a sample.
    samples: Vec<f64>,
    /// Seconds that the samples took, with what was done for them.
    spent: f64,
}

/// How a sample is taken.
enum Sampling<'e> {
    /// By so many calls, one after the other.
    Warm { batch: usize },
    /// By one call after the caches were emptied.
    Cold { empty: &'e dyn Fn() },
}

impl Series<'_> {
    /// Warms `f` up and finds how many calls make a sample of at least `shortest` seconds.
    fn warm(f: &mut (impl FnMut() + ?Sized), shortest: f64) -> Series<'static> {
        f();
        let mut batch = 1;
        let first = seconds(f, batch);
        let goal = if first < SHORT_CALL { BATCH.max(shortest) } else { shortest };
        let mut last = first;
        while last < goal {
            batch *= 2;
            last = seconds(f, batch);
        }
        let sampling = Sampling::Warm { batch };
        // A call that is long enough by itself is a sample already.
        match batch {
            1 => Series { sampling, samples: vec![last], spent: last },
            _ => Series { sampling, samples: Vec::new(), spent: 0.0 },
        }
    }

    /// Touches the memory of `f`: what a page takes the first time is no part of a cold call.
    fn cold<'e>(f: &mut (impl FnMut() + ?Sized), empty: &'e dyn Fn()) -> Series<'e> {
        f();
        Series { sampling: Sampling::Cold { empty }, samples: Vec::new(), spent: 0.0 }
    }

    /// Takes samples until there are that many seconds and calls in all.
    fn run(&mut self, f: &mut (impl FnMut() + ?Sized), min_seconds: f64, min_calls: usize) {
        while self.spent < min_seconds || self.calls() < min_calls {
            let (call, spent) = self.sample(f);
            self.samples.push(call);
            self.spent += spent;
        }
    }

    /// Seconds of a call, and those that the sample took.
    fn sample(&self, f: &mut (impl FnMut() + ?Sized)) -> (f64, f64) {
        match self.sampling {
            Sampling::Warm { batch } => {
                let sample = seconds(f, batch);
                (sample / batch as f64, sample)
            }
            Sampling::Cold { empty } => once(|| {
                empty();
                // The clock's own code was evicted as well; it is not what is timed.
                once(|| ());
                seconds(f, 1)
            }),
        }
    }

    fn calls(&self) -> usize {
        let batch = match self.sampling {
            Sampling::Warm { batch } => batch,
            Sampling::Cold { .. } => 1,
        };
        self.samples.len() * batch
    }

    fn caches(&self) -> CacheState {
        match self.sampling {
            Sampling::Warm { .. } => CacheState::Warm,
            Sampling::Cold { .. } => CacheState::Cold,
        }
    }

    fn timing(&self) -> Timing {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied();
        Timing {
            caches: self.caches(),
            min: sorted.first().copied().unwrap_or_default(),
            median: median.unwrap_or_default(),
            calls: self.calls(),
        }
    }
}

fn seconds(f: &mut (impl FnMut() + ?Sized), calls: usize) -> f64 {
    let ((), seconds) = once(|| (0..calls).for_each(|_| f()));
    seconds
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_call_is_counted_or_warms_up() {
        let mut calls = 0;
        let nap = Duration::from_micros(100);
        let timing = time(0.0, 5, || {
            calls += 1;
            std::thread::sleep(nap);
        });
        // One warms up.
        assert_eq!((timing.calls, calls), (5, 6));
        assert!(nap.as_secs_f64() <= timing.min && timing.min <= timing.median);
    }

    #[test]
    fn short_calls_are_timed_in_batches() {
        let mut x = 0_u64;
        let timing = time(1e-3, 1, || x = black_box(x + 1));
        assert!(timing.min > 0.0 && timing.min < SHORT_CALL, "{timing:?}");
        assert!(timing.calls > 100, "{timing:?}");
    }

    #[test]
    fn functions_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let call = |name: char| {
            order.borrow_mut().push(name);
            std::thread::sleep(Duration::from_micros(10));
        };
        let timings = interleaved(0.0, 3, &mut [&mut || call('a'), &mut || call('b')]);
        assert_eq!(*order.borrow(), "aabbababab");
        assert!(timings.iter().all(|timing| timing.calls == 4 && timing.min > 0.0));
    }

    #[test]
    fn caches_are_emptied_before_each_timed_cold_call() {
        let order = std::cell::RefCell::new(String::new());
        let note = |name: char| order.borrow_mut().push(name);
        let empty = || note('-');
        let timings = turns(Some(&empty), 0.0, 2, &mut [&mut || note('a'), &mut || note('b')]);
        // The first of each touches its memory; short as they are, calls are timed one by one.
        assert_eq!(*order.borrow(), "ab-a-b-a-b");
        assert!(timings.iter().all(|timing| timing.calls == 2));
        assert!(timings.iter().all(|timing| timing.caches == CacheState::Cold));
    }

    #[test]
    fn emptying_counts_as_time_but_not_as_the_call() {
        let nap = Duration::from_millis(20);
        let empty = || std::thread::sleep(nap);
        let mut calls = 0;
        let timings = turns(Some(&empty), 3.0 * nap.as_secs_f64(), 1, &mut [&mut || calls += 1]);
        assert!(timings[0].min < nap.as_secs_f64(), "{timings:?}");
        assert!((2..=4).contains(&calls), "{calls}");
    }

    #[test]
    fn the_figure_is_the_shortest_warm_and_the_median_cold_call() {
        let timing = |caches| Timing { caches, min: 1.0, median: 2.0, calls: 3 };
        assert_eq!(timing(CacheState::Warm).seconds(), 1.0);
        assert_eq!(timing(CacheState::Cold).seconds(), 2.0);
    }

    #[test]
    fn a_value_comes_with_its_seconds() {
        let (value, seconds) = once(|| 7);
        assert_eq!(value, 7);
        assert!(seconds >= 0.0);
    }
}
