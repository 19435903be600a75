//! The Fourier form: held against the formula within its derived bound, its generated stages
//! against the interpreter bit for bit; picked where it wins, never where the accuracy forbids it.

#[path = "common/problems.rs"]
mod problems;
#[path = "common/random.rs"]
mod random;

use std::sync::Arc;

use convgen::algorithm::Algorithm;
use convgen::check::{self, Data};
use convgen::record::Database;
use convgen::scheduler::decision::Decision;
use convgen::target::WORKSPACE_BYTES;
use convgen::{Accuracy, Compiler, Error, Host, Isa, Kernel};
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::Schedule;
use proptest::prelude::*;

const LONG: &str = "conv1d ic1 oc1 iw65536 kw4096";
const LARGE: &str = "conv2d ic1 oc1 ih512 iw512 kh31 kw31 ph15 pw15";

fn compilers() -> Vec<Compiler> {
    let host = Host::detect();
    let made = Isa::ALL.into_iter().filter_map(|isa| Compiler::new(&host, isa).ok());
    made.map(|compiler| compiler.with_database(Arc::new(Database::new()))).collect()
}

fn compiler() -> Compiler {
    compilers().pop().expect("every host has one")
}

fn problem(text: &str) -> ConvProblem {
    text.parse().expect(text)
}

fn fourier(compiler: &Compiler, problem: &ConvProblem) -> Result<Kernel, Error> {
    compiler.compile_with(problem, Algorithm::Fourier, &Schedule::default())
}

fn check(kernel: &Kernel) {
    let checked = check::check(kernel).unwrap_or_else(|error| panic!("{error}"));
    assert!(checked.elements > 0 && checked.bitwise > 0, "{checked:?}");
    assert!(kernel.workspace_bytes() as u64 <= WORKSPACE_BYTES, "{}", kernel.name());
}

#[test]
fn random_problems_are_within_the_bound() {
    let compilers = compilers();
    random::for_each(400, &problems::problem(), |problem| {
        for compiler in &compilers {
            let inside = problem.direction() == Direction::Forward && problem.rank() <= 2;
            match fourier(compiler, &problem) {
                Ok(kernel) => {
                    prop_assert!(inside, "{}", problem);
                    let checked = check::check(&kernel);
                    prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
                }
                Err(Error::Unsupported(_)) => prop_assert!(!inside, "{}", problem),
                Err(error) => prop_assert!(false, "{}: {}", problem, error),
            }
        }
        Ok(())
    });
}

#[test]
fn long_and_large_kernels_are_right_and_picked() {
    let compiler = compiler();
    for text in [LONG, LARGE] {
        for layout in convgen_ir::Layout::ALL {
            let problem = problem(text).with_layout(*layout);
            let kernel = compiler.compile(&problem).expect(text);
            assert_eq!(kernel.algorithm(), Algorithm::Fourier, "{text}");
            check(&kernel);
        }
    }
}

/// Strides, dilations, groups, crops, flips, several blocks of channels, tiles that do not fit.
#[test]
fn every_field_of_a_problem_is_honoured() {
    let texts = [
        "conv1d n2 ic3 oc34 iw700 kw50 pw7:31 bias | relu",
        "conv1d nchw n3 g2 ic4 oc6 iw301 kw17 sw3 dw5 pw20",
        "conv1d ic1 oc1 iw5000 kw100 pw-3:-40 flip",
        "conv2d n2 g3 ic6 oc9 ih40 iw33 kh9 kw7 dh2 dw3 ph8 pw4 bias | add | sigmoid",
        "conv2d nchw ic5 oc19 ih61 iw47 kh12 kw5 sh2 sw3 ph3:9 pw1 flip | scale | hardswish",
        "conv1d n2 ic3 oc5 iw301 kw50 sw2 pw300:31 reflect bias",
        "conv2d g3 ic6 oc9 ih40 iw33 kh9 kw7 dh2 ph40 pw33:4 circular",
        "conv2d nchw ic5 oc3 ih31 iw47 kh12 kw5 ph30:-3 pw60 replicate flip",
        "conv2d nchw ic20 oc16 ih90 iw90 kh5 kw5 ph2 pw2 bias | leaky_relu(0.1)",
    ];
    for compiler in compilers() {
        for text in texts {
            check(&fourier(&compiler, &problem(text)).expect(text));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let problem = problem("conv2d n3 ic6 oc40 ih100 iw90 kh9 kw9 ph4 pw4 bias | relu");
    let kernel = fourier(&compiler(), &problem).expect("in its domain");
    let data = Data::reals(&problem);
    let weights = kernel.pack_weights(data.weights()).expect("they fit");
    let extras = data.extras();
    let arguments = data.arguments(&weights, &extras);
    let once = data.run(&kernel).expect("it runs");
    for threads in [2, 3, 7] {
        let mut output = vec![f32::NAN; data.output_len()];
        kernel.prepare(&arguments, &mut output).expect("it fits").share(threads);
        assert!(once.iter().zip(&output).all(|(a, b)| check::same_bits(*a, *b)), "{threads}");
    }
}

/// A problem, and sizes that may fit it.
fn tiled() -> impl Strategy<Value = (ConvProblem, Schedule)> {
    let axis = (prop::sample::select(vec![2_u32, 4, 6, 8, 12, 16, 24, 32, 48, 64]), 1..=12_u32);
    (problems::problem(), axis.clone(), axis, 1..=4_u32).prop_map(
        |(problem, first, last, block)| {
            let mut text = String::new();
            for (name, (points, tile)) in problem.axis_names().iter().zip([first, last, first]) {
                text += &format!("points o{name} by {points}; tile o{name} by {tile}; ");
            }
            text += &format!("block oc by {block}");
            (problem, convgen_ir::parse::parse_schedule(&text).expect("sizes"))
        },
    )
}

/// What is accepted of any sizes computes the problem; the rest is refused.
#[test]
fn random_sizes_are_within_the_bound_or_refused() {
    let compiler = compiler();
    let accepted = std::cell::Cell::new(0);
    random::for_each(1500, &tiled(), |(problem, schedule)| {
        match compiler.compile_with(&problem, Algorithm::Fourier, &schedule) {
            Ok(kernel) => {
                accepted.set(accepted.get() + 1);
                let checked = check::check(&kernel);
                prop_assert!(checked.is_ok(), "{schedule}{}", checked.unwrap_err());
            }
            Err(Error::Unsupported(_) | Error::Sizes(_)) => {}
            Err(error) => prop_assert!(false, "{}: {}", problem, error),
        }
        Ok(())
    });
    assert!(accepted.get() > 100, "only {} were accepted", accepted.get());
}

/// Tiles that begin behind the input, and lines above and below it, are padding alone.
#[test]
fn tiles_behind_the_input_are_padding() {
    let tiles = "points ow by 32; tile ow by 4; block oc by 1";
    let cases = [
        ("conv1d nchw ic1 oc1 iw21 kw1 sw3 pw2", tiles),
        ("conv1d nchw n2 ic3 oc2 iw21 kw3 pw0:40", tiles),
        ("conv1d n2 ic3 oc2 iw21 kw3 pw0:40", tiles),
        ("conv1d nchw ic2 oc3 iw21 kw1 sw3 pw2 circular", tiles),
        (
            "conv2d nchw ic2 oc2 ih5 iw6 kh3 kw3 ph0:30 pw0:40",
            "points oh by 16; tile oh by 4; points ow by 32; tile ow by 4; block oc by 1",
        ),
        (
            "conv2d nchw ic2 oc2 ih5 iw6 kh3 kw3 ph30:0 pw40:0",
            "points oh by 16; tile oh by 4; points ow by 32; tile ow by 4; block oc by 1",
        ),
    ];
    for compiler in compilers() {
        for (text, schedule) in cases {
            let schedule = convgen_ir::parse::parse_schedule(schedule).expect("sizes");
            let kernel = compiler.compile_with(&problem(text), Algorithm::Fourier, &schedule);
            check(&kernel.unwrap_or_else(|error| panic!("{text}: {error}")));
        }
    }
    check(
        &fourier(&compiler(), &problem("conv1d nchw ic16 oc16 iw4000 kw501 pw0:1500"))
            .expect("fits"),
    );
}

#[test]
fn strict_accuracy_keeps_the_sum() {
    let strict = compiler().with_accuracy(Accuracy::Strict);
    let problem = problem(LONG);
    let accuracy = Accuracy::Strict;
    let decision = strict.decision(&problem, Algorithm::Fourier);
    assert_eq!(decision, Decision::Inexact { accuracy });
    assert_eq!(strict.pick(&problem).algorithm, Algorithm::Direct);
}

#[test]
fn short_kernels_and_long_sums_are_not_its_business() {
    let compiler = compiler();
    let small = problem("conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1");
    let decision = compiler.decision(&small, Algorithm::Fourier);
    assert!(!decision.is_for(), "{decision}");
    let deep = problem("conv1d ic2048 oc1 iw256 kw64");
    let decision = compiler.decision(&deep, Algorithm::Fourier);
    assert!(!decision.is_for(), "{decision}");
    let solid = problem("conv3d ic1 oc1 id64 ih64 iw64 kd9 kh9 kw9");
    let decision = compiler.decision(&solid, Algorithm::Fourier);
    assert!(decision.to_string().contains("does not apply") && !decision.is_for(), "{decision}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let compiler = compiler();
    let problem = problem("conv1d ic1 oc1 iw4096 kw64");
    let kernel = fourier(&compiler, &problem).expect("in its domain");
    let schedule = convgen_ir::parse::parse_schedule("unroll ow").expect("it is one");
    let refused = compiler.compile_with(&problem, Algorithm::Fourier, &schedule);
    assert!(matches!(refused, Err(Error::Sizes(_))));
    assert!(kernel.pack_weights(&[1.0; 63]).is_err());
    let direct = compiler.compile_with(&problem, Algorithm::Direct, &Schedule::default());
    let other = direct.expect("legal").pack_weights(&[1.0; 64]).expect("they fit");
    let mut output = vec![0.0; 4033];
    assert!(kernel.run(&[0.0; 4096], &other, None, &mut output).is_err());
    let weights = kernel.pack_weights(&[1.0; 64]).expect("they fit");
    assert!(kernel.run(&[0.0; 4095], &weights, None, &mut output).is_err());
    assert!(kernel.run(&[0.0; 4096], &weights, None, &mut output[1..]).is_err());
    kernel.run(&[0.0; 4096], &weights, None, &mut output).expect("all fits");
    kernel.run(&[], &weights, None, &mut []).expect("no image is a batch too");
}
