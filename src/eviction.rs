//! Empties the caches of the cores that a call runs on, by walking memory.
//!
//! Promises: after [`Evictor::empty`] the data caches hold lines of a buffer of twice what they can
//! hold, and nothing of a layer. Each line is read and written: a second-level cache may drop a
//! clean line that it evicts, but hands a written one to a third level that is not inclusive, whose
//! lines it then replaces. Pages are of the usual size, so address translations go, too.
//!
//! Does not: empty the first-level instruction cache and the predictors of branches, which no walk
//! over data reaches; code is gone from the second level on. Lines of the walk are modified, so
//! what a cold call brings in pays for writing them back, as it does after any other layer.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::target::{CACHE_LINE, Caches};

/// Words of a cache line.
const LINE_WORDS: usize = CACHE_LINE / size_of::<AtomicU32>();

/// Times the bytes of the caches that are walked. Of a buffer as large as the caches, their
/// replacement, which is not exactly that of the least recently used line, leaves some: on a Xeon
/// (Emerald Rapids, 2 MiB of L2, 260 MiB of L3), reading 4 MiB took 0.14 ms warm, 0.21 ms after a
/// walk of 256 MiB, 0.28 ms after 524 MiB and 0.30 ms after 1 GiB (a loop like this one, November
/// 2026).
const TIMES_THE_CACHES: usize = 2;

/// The most bytes walked, whatever the caches.
const MAX_BYTES: usize = 1 << 30;

/// Memory to walk.
#[derive(Debug)]
pub struct Evictor {
    /// Atomic, since every thread walks all of it: threads may share a third-level cache or not.
    words: Vec<AtomicU32>,
}

impl Evictor {
    /// For cores with these caches.
    pub fn new(caches: Caches) -> Evictor {
        Evictor::of(walked(caches))
    }

    /// Of so many bytes, rounded down to whole lines.
    fn of(bytes: usize) -> Evictor {
        let words = bytes / CACHE_LINE * LINE_WORDS;
        Evictor { words: (0..words).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Bytes that each thread walks.
    pub fn bytes(&self) -> usize {
        size_of_val(self.words.as_slice())
    }

    /// Walks on the threads of the rayon pool that it is called in, as many as there are cores, or
    /// else on this thread alone; gives the number of threads that walked.
    pub fn empty(&self) -> usize {
        match rayon::current_thread_index() {
            None => {
                self.walk(0, 1);
                1
            }
            Some(_) => {
                // More threads than cores would walk the same caches again.
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let walk = |thread: rayon::BroadcastContext| {
                    let walkers = thread.num_threads().min(cores);
                    if thread.index() < walkers {
                        self.walk(thread.index(), walkers);
                    }
                };
                rayon::broadcast(walk).len().min(cores)
            }
        }
    }

    /// Reads and writes a word of each line, from this thread's part of the buffer on: threads that
    /// began at one place would find in a shared cache what another just brought there.
    fn walk(&self, thread: usize, threads: usize) {
        let lines = self.words.len() / LINE_WORDS;
        let (before, from) = self.words.split_at(lines * thread / threads * LINE_WORDS);
        for word in from.iter().chain(before).step_by(LINE_WORDS) {
            // No read-modify-write: that would wait for each line. Nothing is decided by the value.
            word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }
}

/// The bytes to walk on cores with these caches.
fn walked(caches: Caches) -> usize {
    caches.l2.saturating_add(caches.l3).saturating_mul(TIMES_THE_CACHES).min(MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: usize = 1001;

    fn counts(evictor: &Evictor) -> Vec<u32> {
        evictor
            .words
            .chunks(LINE_WORDS)
            .map(|line| line.iter().map(|word| word.load(Ordering::Relaxed)).sum())
            .collect()
    }

    #[test]
    fn a_walk_writes_every_line_once() {
        let evictor = Evictor::of(LINES * CACHE_LINE + 1);
        assert_eq!(evictor.bytes(), LINES * CACHE_LINE);
        assert_eq!(evictor.empty(), 1);
        assert_eq!(counts(&evictor), [1; LINES]);
        (0..3).for_each(|thread| evictor.walk(thread, 3));
        assert_eq!(counts(&evictor), [4; LINES]);
    }

    #[test]
    fn each_core_of_a_pool_walks() {
        let evictor = Evictor::of(LINES * CACHE_LINE);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(pool.install(|| evictor.empty()), cores.min(3));
        // Threads that meet at a line may count as one.
        assert!(counts(&evictor).iter().all(|count| (1..=3).contains(count)));
    }

    #[test]
    fn the_buffer_exceeds_the_caches_up_to_a_bound() {
        let caches = |l2, l3| Caches { l1d: 32 << 10, l2, l3 };
        assert_eq!(walked(caches(1 << 20, 4 << 20)), 10 << 20);
        assert_eq!(walked(caches(1 << 20, usize::MAX)), MAX_BYTES);
    }
}
