//! The only reader of the clock: how long a call takes.
//!
//! Promises: a first call is not counted, so memory is touched and code is in the cache; calls too
//! short for the clock are timed many at a time. The minimum is what the machine can do, the median
//! what it usually does.
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

/// What repeated calls took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Seconds of the shortest call.
    pub min: f64,
    /// Seconds of the median call.
    pub median: f64,
    /// Calls that were timed.
    pub calls: usize,
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

/// Times calls of `f` until they took `min_seconds` together and are at least `min_calls`.
pub fn time(min_seconds: f64, min_calls: usize, mut f: impl FnMut()) -> Timing {
    let mut series = Series::new(&mut f, min_seconds / MAX_SAMPLES);
    series.run(&mut f, min_seconds, min_calls.max(1));
    series.timing()
}

/// Times several functions in turns, so that whatever slows the machine down meets all of them:
/// each of the `rounds` gives every function its share of `min_seconds_each`, at least one sample.
pub fn interleaved(
    min_seconds_each: f64,
    rounds: usize,
    functions: &mut [&mut dyn FnMut()],
) -> Vec<Timing> {
    let shortest = min_seconds_each / MAX_SAMPLES;
    let mut series: Vec<Series> = functions.iter_mut().map(|f| Series::new(f, shortest)).collect();
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
struct Series {
    /// Calls in one sample.
    batch: usize,
    /// Seconds a call, one value a sample.
    samples: Vec<f64>,
    seconds: f64,
}

impl Series {
    /// Warms `f` up and finds how many calls make a sample of at least `shortest` seconds.
    fn new(f: &mut (impl FnMut() + ?Sized), shortest: f64) -> Series {
        f();
        let mut batch = 1;
        let first = seconds(f, batch);
        let goal = if first < SHORT_CALL { BATCH.max(shortest) } else { shortest };
        let mut last = first;
        while last < goal {
            batch *= 2;
            last = seconds(f, batch);
        }
        // A call that is long enough by itself is a sample already.
        match batch {
            1 => Series { batch, samples: vec![last], seconds: last },
            _ => Series { batch, samples: Vec::new(), seconds: 0.0 },
        }
    }

    /// Takes samples until there are that many seconds and calls in all.
    fn run(&mut self, f: &mut (impl FnMut() + ?Sized), min_seconds: f64, min_calls: usize) {
        while self.seconds < min_seconds || self.calls() < min_calls {
            let sample = seconds(f, self.batch);
            self.samples.push(sample / self.batch as f64);
            self.seconds += sample;
        }
    }

    fn calls(&self) -> usize {
        self.samples.len() * self.batch
    }

    fn timing(&self) -> Timing {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied();
        Timing {
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
    fn a_value_comes_with_its_seconds() {
        let (value, seconds) = once(|| 7);
        assert_eq!(value, 7);
        assert!(seconds >= 0.0);
    }
}
