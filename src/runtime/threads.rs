//! The threads of a call: how its tasks are split among them.
//!
//! Promises: results do not depend on the number of threads, since tasks write different elements; a
//! thread that has run a kernel once allocates nothing.

use std::cell::RefCell;

use crate::jit::{Call, Scratch, Tasks};

thread_local! {
    /// The scratch of this thread, kept from call to call so that a call allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Runs all tasks of a call on the calling thread.
pub(crate) fn run_alone(mut call: Call) {
    SCRATCH.with_borrow_mut(|scratch| call.tasks().run(scratch));
}

/// Runs all tasks of a call on up to so many threads.
pub(super) fn run_shared(mut call: Call, threads: usize) {
    let tasks = call.tasks();
    let parts = threads.clamp(1, tasks.len().max(1));
    run_parts(tasks, parts);
}

/// Halves the tasks until there is one part a thread.
fn run_parts(tasks: Tasks, parts: usize) {
    if parts <= 1 {
        return SCRATCH.with_borrow_mut(|scratch| tasks.run(scratch));
    }
    let left = parts / 2;
    let count = tasks.len() * left / parts;
    let (first, rest) = tasks.split_at(count);
    rayon::join(|| run_parts(first, left), || run_parts(rest, parts - left));
}
