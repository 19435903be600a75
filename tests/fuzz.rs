//! A bounded run of each fuzz target: every seed, and some thousand inputs made from them, each
//! under a limit of processor time and memory, in processes of their own. The long run is
//! `fuzz/src/bin/drive.rs`.
#![cfg(unix)]
#![allow(dead_code, reason = "the modules are those of the crate in `fuzz/`")]

#[path = "../fuzz/src/cli.rs"]
mod cli;
#[path = "../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../fuzz/src/drive.rs"]
mod drive;
#[path = "common/fault.rs"]
mod fault;
#[path = "common/fence.rs"]
mod fence;
#[path = "common/mutants.rs"]
mod mutants;
#[path = "../fuzz/src/mutate.rs"]
mod mutate;
#[path = "common/raw.rs"]
mod raw;
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drive::Run;
use targets::Target;

/// Inputs of a target that take about ten seconds.
fn inputs(target: Target) -> u64 {
    match target {
        Target::Descriptor | Target::Schedule => 3_000,
        Target::Nest => 6_000,
        Target::Record => 3_000,
        Target::Onnx | Target::Npy => 20_000,
    }
}

/// Time of a target by the clock, at most; what is left is not tried.
const TIME: Duration = Duration::from_secs(300);

#[test]
fn descriptors() {
    feed(Target::Descriptor, 1, inputs(Target::Descriptor), TIME);
}

#[test]
fn schedules() {
    feed(Target::Schedule, 1, inputs(Target::Schedule), TIME);
}

#[test]
fn nests() {
    feed(Target::Nest, 1, inputs(Target::Nest), TIME);
}

#[test]
fn records() {
    feed(Target::Record, 1, inputs(Target::Record), TIME);
}

#[test]
fn models() {
    feed(Target::Onnx, 1, inputs(Target::Onnx), TIME);
}

#[test]
fn tensors() {
    feed(Target::Npy, 1, inputs(Target::Npy), TIME);
}

/// Some hours: `cargo test --release --test fuzz -- --ignored`.
#[test]
#[ignore = "long"]
fn a_million_inputs() {
    for target in Target::ALL {
        feed(target, 2, 10_000 * target.share(), Duration::from_secs(6 * 3600));
    }
}

/// Drives a target; panics if anything is found.
fn feed(target: Target, seed: u64, inputs: u64, time: Duration) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    let program = std::env::current_exe().expect("a test has a path");
    let again = || {
        let mut command = Command::new(&program);
        command.args(["--exact", "--ignored", "--nocapture", "worker"]);
        command
    };
    let run = Run { target, inputs, seed, jobs: 2, time, folder: folder.clone() };
    let report = drive::drive(&run, again).expect("processes can be started");
    drive::print(&run, &report);
    let found = report.findings.len();
    assert_eq!(found, 0, "findings, see above; the inputs are in {}", folder.display());
    let seeds = (corpus::read(target).len() * target.isas()) as u64;
    assert!(report.inputs >= seeds, "{target}: in {time:?} not even the {seeds} seeds");
}

/// A process of the test above.
#[test]
#[ignore = "started by the other test"]
fn worker() {
    if drive::is_ordered() {
        drive::work();
    }
}
