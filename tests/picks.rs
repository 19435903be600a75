//! Every legal problem has a default pick that is legal on every target, and is picked soon,
//! whatever its sizes.
//!
//! CI draws a sample; `cargo test --release --test picks -- --ignored` draws as many as the promise
//! is held against. Only the lowering is asked of each, which needs no CPU of that kind.

#[allow(dead_code, reason = "texts are damaged by other tests")]
#[path = "common/mutants.rs"]
mod mutants;
#[path = "common/realistic.rs"]
mod realistic;

use std::fs;
use std::path::Path;

use convgen::scheduler::{self, separable};
use convgen::target::Caches;
use convgen::{Compiler, Isa, Target, lower};
use convgen_ir::problem::{ConvProblem, Descriptor};
use convgen_ir::verify::Limits;
use convgen_ir::{Layout, Separable};
use mutants::Random;
use rayon::prelude::*;

/// Problems that CI draws, and pairs.
const SAMPLE: (u64, u64) = (800, 100);

/// Those that a long run draws.
const LONG: (u64, u64) = (30_000, 2_000);

#[test]
fn a_sample_of_problems_has_legal_picks() {
    hold(SAMPLE);
}

#[test]
#[ignore = "minutes"]
fn many_problems_have_legal_picks() {
    hold(LONG);
}

#[test]
fn layers_of_networks_have_legal_picks() {
    let lists = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/networks"));
    let lists: Vec<String> = lists
        .expect("a folder")
        .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("a list"))
        .collect();
    let lines = lists.iter().flat_map(|list| list.lines()).filter(|line| !line.starts_with('#'));
    let problems: Vec<ConvProblem> = lines
        .map(|line| line.parse::<Descriptor>().unwrap_or_else(|e| panic!("{line}: {e}")).problem)
        .collect();
    assert!(problems.len() > 300);
    all_legal(&problems);
}

/// The first convolutions of networks, channels first: their borders are kernels of their own, and
/// were once more code than a nest may have.
#[test]
fn first_layers_have_legal_picks() {
    let mut problems: Vec<ConvProblem> = vec![
        "conv2d nchw ic4 oc320 ih96 iw96 kh3 kw3 ph1 pw1".parse().expect("legal"),
        "conv2d nchw ic3 oc40 ih13 iw128 kh3 kw4 dh3 ph1 pw1".parse().expect("legal"),
        "conv3d ic96 oc160 id40 kd3 sd2 dd3 ih40 kh4 sh2 dh2 ph3 iw32 kw2 pw1"
            .parse()
            .expect("legal"),
    ];
    for ic in [2, 3, 4, 8] {
        for size in [32, 64, 96, 128, 160] {
            for kernel in [3, 5, 7] {
                for oc in [32, 64, 320] {
                    let pad = kernel / 2;
                    let text = format!(
                        "conv2d ic{ic} oc{oc} ih{size} iw{size} kh{kernel} kw{kernel} ph{pad} pw{pad}"
                    );
                    problems.push(text.parse().expect("legal"));
                }
            }
        }
    }
    all_legal(&problems);
}

/// Strips of one channel have no planes to copy from.
#[test]
fn pairs_of_one_channel_have_legal_picks() {
    let pair: Separable =
        "conv2d nchw ic1 oc1 ih12 iw21 kh3 kw3 sh3 sw3 ph2 pw2 reflect bias | silu -> \
                           conv2d nchw ic1 oc100 ih5 iw8 kh1 kw1 | leaky_relu(0.1)"
            .parse()
            .expect("legal");
    let refused: Vec<String> =
        Isa::ALL.into_iter().filter_map(|isa| refused_pair(&pair, &typical(isa))).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

fn hold((problems, pairs): (u64, u64)) {
    let problems = (0..problems).into_par_iter().flat_map_iter(|seed| {
        let mut random = Random::new(seed);
        let problem = realistic::problem(&mut random);
        Isa::ALL.map(|isa| refused(&problem, &realistic::target(&mut random, isa)))
    });
    let pairs = (0..pairs).into_par_iter().flat_map_iter(|seed| {
        let mut random = Random::new(!seed);
        let pair = realistic::pair(&mut random);
        Isa::ALL.map(|isa| refused_pair(&pair, &realistic::target(&mut random, isa)))
    });
    let refused: Vec<String> = problems.chain(pairs).flatten().collect();
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

fn all_legal(problems: &[ConvProblem]) {
    let refused = problems.par_iter().flat_map_iter(|problem| {
        let layouts = Layout::ALL.iter().map(|layout| problem.with_layout(*layout));
        layouts.flat_map(|p| Isa::ALL.map(|isa| refused(&p, &typical(isa))))
    });
    let refused: Vec<String> = refused.flatten().collect();
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

fn typical(isa: Isa) -> Target {
    let triple = "x86_64-unknown-linux-gnu".parse().expect("a triple");
    Target::new(triple, isa, true, Caches::TYPICAL, 2).expect("x86-64")
}

/// Why the default pick is not legal, if it is not.
fn refused(problem: &ConvProblem, target: &Target) -> Option<String> {
    let (algorithm, schedule) = scheduler::default_schedule(problem, target);
    let nests = Compiler::schedule(problem, algorithm, &schedule);
    let lowered = nests.and_then(|nests| {
        nests.into_iter().try_for_each(|nest| Ok(lower::lower(nest, &target.limits()).map(drop)?))
    });
    lowered.err().map(|error| format!("{target}: {problem}: {error}"))
}

fn refused_pair(pair: &Separable, target: &Target) -> Option<String> {
    let nest = Compiler::schedule_separable(pair, &separable::plan(pair, target));
    let limits = target.limits();
    let limits = Limits { unrolled: 2 * limits.unrolled, ..limits };
    let lowered = nest.and_then(|nest| Ok(lower::lower(nest, &limits)?));
    lowered.err().map(|error| format!("{target}: {pair}: {error}"))
}
