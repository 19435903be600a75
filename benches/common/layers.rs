//! The layers of the networks built in, for the benchmarks.

#[path = "../../tests/common/suites.rs"]
mod suites;

/// The layers of a suite, in the order of its list.
pub use suites::suite as of;
