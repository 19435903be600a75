//! The layers of the networks built in, for the benchmarks.

use convgen::ir::problem::Descriptor;
use convgen::suites;

/// The layers of a suite, in the order of its list.
pub fn of(suite: &str) -> Vec<Descriptor> {
    let suite = suites::find(suite).expect("a suite that is built in");
    suite.descriptors().expect("a list without errors")
}
