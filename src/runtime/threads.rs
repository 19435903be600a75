//! The threads of a call: how many pay, and how its tasks are split among them.
//!
//! Promises: results do not depend on the number of threads, since tasks write different elements;
//! a thread that has run a kernel once allocates nothing. After `fork`, a call in the child runs on
//! the calling thread alone, unless that belongs to a pool of the child's own.

use std::cell::RefCell;
use std::sync::OnceLock;

use crate::jit::{Call, Scratch, Tasks};

/// Predicted seconds of work that a thread is woken for. Handing over half of a call takes about 1
/// us if the other thread is awake and 2 to 8 us if it sleeps (rayon, Linux, two cores of a virtual
/// machine), so that two threads gain nothing below about 8 us of work.
const WORTH: f64 = 5e-6;

/// Parts of a call for each thread. The cores of a shared machine are not equally fast from one
/// moment to the next: halves wait for the slower one.
const PARTS_A_THREAD: usize = 4;

thread_local! {
    /// The scratch of this thread, kept from call to call so that a call allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// How many of so many threads pay for a call of that many seconds: each has [`WORTH`] to do.
pub(super) fn paying(seconds: f64, most: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "ends at usize::MAX, far above `most`")]
    let worth = (seconds / WORTH) as usize;
    most.min(worth).max(1)
}

/// Runs all tasks of a call on the calling thread.
pub(crate) fn run_alone(mut call: Call) {
    SCRATCH.with_borrow_mut(|scratch| call.tasks().run(scratch));
}

impl Call<'_> {
    /// Runs all tasks on so many threads of the current rayon pool, whether that pays or not;
    /// [`Kernel::run_parallel`](super::Kernel::run_parallel) takes only as many as do.
    pub fn share(mut self, threads: usize) {
        let tasks = self.tasks();
        // A forked child has no thread of the pool but this one: nobody would take the other parts.
        let threads = if in_forked_child() { 1 } else { threads };
        // A thread that runs late leaves parts to the others; if there are no more threads than may
        // take one.
        let all = threads > 1 && threads >= rayon::current_num_threads();
        let parts = if all { threads.saturating_mul(PARTS_A_THREAD) } else { threads };
        let parts = parts.clamp(1, tasks.len().max(1));
        run_parts(tasks, parts);
    }
}

/// Halves the tasks until there are so many parts, which idle threads take from the end.
fn run_parts(tasks: Tasks, parts: usize) {
    if parts <= 1 {
        return SCRATCH.with_borrow_mut(|scratch| tasks.run(scratch));
    }
    let left = parts / 2;
    let count = left_share(tasks.len(), parts);
    let (first, rest) = tasks.split_at(count);
    rayon::join(|| run_parts(first, left), || run_parts(rest, parts.saturating_sub(left)));
}

/// How many of so many tasks the first half of the parts get, in proportion.
fn left_share(tasks: usize, parts: usize) -> usize {
    let share = (tasks as u128).saturating_mul((parts / 2) as u128).checked_div(parts as u128);
    share.and_then(|share| usize::try_from(share).ok()).unwrap_or(tasks)
}

/// The process that made the first kernel.
static PROCESS: OnceLock<u32> = OnceLock::new();

/// Remembers this process as the one whose threads calls may be shared by.
pub(super) fn note_process() {
    PROCESS.get_or_init(std::process::id);
}

/// Whether this process was forked from one that had made kernels. Its copy of rayon's global pool
/// has no threads; a pool of its own, whose threads call, has.
fn in_forked_child() -> bool {
    let forked = PROCESS.get().is_some_and(|process| *process != std::process::id());
    forked && rayon::current_thread_index().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compiler, Host, Isa, Kernel};

    #[test]
    fn each_thread_has_enough_to_do() {
        let shares = [0.0, 1.9, 2.0, 3.5, 100.0].map(|shares| paying(shares * WORTH, 4));
        assert_eq!(shares, [1, 1, 2, 3, 4]);
        assert_eq!(paying(f64::INFINITY, 0), 1);
    }
    #[test]
    fn small_calls_stay_on_one_thread() {
        let compiler = Compiler::new(&Host::detect(), Isa::Clif).unwrap();
        let compiler = compiler.with_database(Default::default());
        let kernel = |text: &str| compiler.compile(&text.parse().unwrap()).unwrap();
        let threads =
            |kernel: &Kernel, batch: usize| [1, 2].map(|most| kernel.threads(batch, most));
        let tiny = kernel("conv2d ic8 oc8 ih8 iw8 kh3 kw3 ph1 pw1");
        assert_eq!([1, 64].map(|batch| threads(&tiny, batch)), [[1, 1], [1, 2]]);
        let layer = kernel("conv2d ic64 oc64 ih56 iw56 kh1 kw1");
        assert_eq!([0, 1].map(|batch| threads(&layer, batch)), [[1, 1], [1, 2]]);
        // Of transforms, not the last stage alone.
        let long = kernel("conv1d n4 ic1 oc1 iw32768 kw2048");
        assert!(long.fourier_plan().is_some());
        assert_eq!([0, 4].map(|batch| threads(&long, batch)), [[1, 1], [1, 2]]);
        let pair = "conv1d g4 ic4 oc4 iw8 kw3 -> conv1d ic4 oc5 iw6 kw1".parse().unwrap();
        let pair = compiler.compile_separable(&pair).unwrap();
        assert_eq!([1, 10_000].map(|batch| pair.threads(batch, 2)), [1, 2]);
    }
}
