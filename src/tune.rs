//! Tuning: candidates of the scheduler's space, compiled, checked and timed, until the best is
//! known.
//!
//! Promises: a result is only what passed its check; a search is a function of its seed but for the
//! times. Does not: write records, which is for whoever asked for the search.

pub mod bench;
pub mod search;
