//! A problem on the first line and a schedule on the others: refused, or the kernel computes the
//! problem.

use convgen::Error;
use convgen::algorithm::Algorithm;
use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::ConvProblem;

use super::{Backend, backend, hold, is_small};
use crate::drive::stage;

/// Panics where something is wrong.
pub fn target(data: &[u8]) {
    target_on(backend(data, None), data);
}

/// As [`target`], for a chosen instruction set.
pub fn target_on(backend: &Backend, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((problem, schedule)) = text.split_once('\n') else { return };
    stage("parse");
    let Ok(problem) = problem.parse::<ConvProblem>() else { return };
    let Ok(schedule) = parse_schedule(schedule) else { return };
    assert_eq!(parse_schedule(&schedule.to_string()).as_ref(), Ok(&schedule), "prints as another");
    stage("lower");
    // What lowers within the limits is compiled unless that is too much code: the verifier had its
    // say.
    let algorithm = Algorithm::of(&schedule);
    let lowered = match algorithm {
        Algorithm::Direct | Algorithm::Winograd => {
            backend.compiler.lower(&problem, algorithm, &schedule).map(drop)
        }
        Algorithm::Fourier => backend.compiler.stages(&problem, &schedule).map(drop),
    };
    if lowered.is_err() {
        return;
    }
    stage("compile");
    match backend.compiler.compile_with(&problem, algorithm, &schedule) {
        Ok(kernel) if is_small(&problem) => hold(&kernel, backend),
        Ok(_) | Err(Error::CodeSize { .. }) => {}
        Err(error) => panic!("verified, and refused by a later stage: {error}"),
    }
}
