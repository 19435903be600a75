//! Random cases, the same in every run.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

/// Holds a test for so many cases.
pub fn for_each<S: Strategy>(cases: u32, of: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let run = TestRunner::new_with_rng(config, rng).run(of, test);
    run.unwrap_or_else(|error| panic!("{error}"));
}
