//! A nest: refused, or interpreted and compiled, with the same bits, also after lowering.

use convgen::Error;
use convgen_ir::interpret;
use convgen_ir::nest::{BufferId, Role};
use convgen_ir::parse::parse_nest;
use convgen_ir::print::print_nest;
use convgen_ir::verify::{Limits, VerifiedNest, verify};

use super::{Backend, backend, elements, hold_nest, work};
use crate::drive::stage;
use crate::raw::same;

/// The images that nests are run on.
const BATCH: i64 = 2;

/// Statements executed for one text, at most.
const WORK: u128 = 40_000;

/// Elements of all buffers together, at most.
const ELEMENTS: u128 = 100_000;

/// Panics where something is wrong.
pub fn target(data: &[u8]) {
    target_on(backend(data, None), data);
}

/// As [`target`], for a chosen instruction set.
pub fn target_on(backend: &Backend, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    stage("parse");
    let Ok((nest, _)) = parse_nest(text) else { return };
    let printed = print_nest(&nest);
    match parse_nest(&printed) {
        Ok((again, _)) if print_nest(&again) == printed => {}
        Ok(_) => panic!("prints as another nest"),
        Err(error) => panic!("prints as what is refused: {error}"),
    }
    let limits = backend.compiler.target().limits();
    stage("verify");
    let meaning = verify(nest.clone(), &Limits::INTERPRETER).ok().and_then(|nest| output(&nest));
    stage("verify for the target");
    let verified = verify(nest.clone(), &limits).ok();
    stage("lower");
    let lowered = convgen::lower::lower(nest, &limits).ok();
    let target = backend.compiler.target();
    let outlined = lowered.map(|nest| convgen::lower::outline(nest, target));
    for nest in verified.into_iter().chain(outlined) {
        if let (Some(meaning), Some(output)) = (&meaning, output(&nest)) {
            same(&output, meaning).unwrap_or_else(|error| panic!("wrong, lowered: {error}"));
        }
        stage("compile");
        match backend.compiler.code(vec![nest.clone()]) {
            Ok(_) => {}
            Err(Error::CodeSize { .. }) => continue,
            Err(error) => panic!("verified, and refused by a later stage: {error}"),
        }
        hold_nest(&nest, BATCH, backend);
    }
}

/// What the interpreter writes, on values that count up; nothing if that is much work.
fn output(nest: &VerifiedNest) -> Option<Vec<f32>> {
    let ir = nest.nest();
    if work(ir, BATCH) > WORK || elements(ir, BATCH) > ELEMENTS {
        return None;
    }
    stage("interpret");
    let count = |id: BufferId| -> Vec<f32> {
        (1..=ir.buffer(id).len(BATCH).unwrap_or(0)).map(|x| x as f32 / 8.0).collect()
    };
    let weights: Vec<Vec<f32>> = ir.find_all(Role::Weights).map(count).collect();
    let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
    let packed = interpret::pack_all(nest, &weights).expect("as long as the nest says");
    let mut packed = packed.into_iter();
    let given: Vec<Vec<f32>> = interpret::arguments(ir)
        .into_iter()
        .map(|id| match ir.buffer(id).role {
            Role::Weights | Role::Packed => packed.next().unwrap_or_default(),
            Role::Input
            | Role::Gradient
            | Role::Bias
            | Role::Scale
            | Role::Residual
            | Role::Output
            | Role::Scratch
            | Role::Reg => count(id),
        })
        .collect();
    let slices: Vec<&[f32]> = given.iter().map(Vec::as_slice).collect();
    let output = ir.find_role(Role::Output).expect("an accepted nest has an output");
    let mut values = vec![f32::NAN; ir.buffer(output).len(BATCH).unwrap_or(0) as usize];
    interpret::run(nest, BATCH, 0..ir.tasks(BATCH).unwrap_or(0), &slices, &mut values)
        .expect("the same lengths");
    Some(values)
}
