//! Minimal filtering: held against the formula within its derived bound and against the interpreter
//! bit for bit, in every direction that is a sum over taps; picked where it wins, never where
//! accuracy forbids it.

#[path = "common/problems.rs"]
mod problems;
#[path = "common/random.rs"]
mod random;

use std::sync::Arc;

use convgen::algorithm::Algorithm;
use convgen::check;
use convgen::record::Database;
use convgen::scheduler::decision::Decision;
use convgen::target::WORKSPACE_BYTES;
use convgen::{Accuracy, Compiler, Error, Host, Isa, Kernel};
use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::Schedule;
use proptest::prelude::*;

fn compilers() -> Vec<Compiler> {
    let host = Host::detect();
    let made = Isa::ALL.into_iter().filter_map(|isa| Compiler::new(&host, isa).ok());
    made.map(|compiler| compiler.with_database(Arc::new(Database::new()))).collect()
}

fn problem(text: &str) -> ConvProblem {
    text.parse().expect(text)
}

fn winograd(compiler: &Compiler, problem: &ConvProblem) -> Result<Kernel, Error> {
    compiler.compile_with(problem, Algorithm::Winograd, &Schedule::default())
}

fn check(kernel: &Kernel) {
    let checked = check::check(kernel).unwrap_or_else(|error| panic!("{error}"));
    assert!(checked.elements > 0, "{}: {checked:?}", kernel.problem());
    assert!(kernel.workspace_bytes() as u64 <= WORKSPACE_BYTES, "{}", kernel.name());
}

#[test]
fn random_problems_are_within_the_bound() {
    let compilers = compilers();
    let accepted = std::cell::Cell::new(0);
    random::for_each(600, &problems::problem(), |problem| {
        for compiler in &compilers {
            match winograd(compiler, &problem) {
                Ok(kernel) => {
                    accepted.set(accepted.get() + 1);
                    let checked = check::check(&kernel);
                    prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
                }
                Err(Error::Unsupported(_)) => {}
                Err(error) => prop_assert!(false, "{}: {}", problem, error),
            }
        }
        Ok(())
    });
    assert!(accepted.get() > 100, "only {} were in the domain", accepted.get());
}

/// Tails of tiles, of blocks, of channels and of vectors; phases of unequal length; several axes.
#[test]
fn every_field_of_a_problem_is_honoured() {
    let texts = [
        // Copies rows under a condition that does not mention the loop which it stands on:
        // Cranelift's emitter took such a condition to hold.
        "conv2d nchw ic3 oc1 ih12 iw9 kh3 kw1 dh3 ph1:0 pw2:0",
        "conv1d n2 ic3 oc34 iw70 kw5 pw1:3 bias | relu",
        "conv1d nchw n3 g2 ic40 oc6 iw31 kw7 dw5 pw20",
        "conv1d ic1 oc1 iw50 kw4 pw-3:-4 flip",
        "conv2d n2 g3 ic6 oc9 ih14 iw13 kh3 kw2 dh2 dw3 ph8 pw4 bias | add | sigmoid",
        "conv2d nchw ic5 oc19 ih11 iw17 kh1 kw5 ph1:3 pw1 flip | scale | hardswish",
        "conv2d ic20 oc70 ih30 iw7 kh5 kw5 ph2 pw2 bias | leaky_relu(0.1)",
        "conv2d ic17 oc33 ih7 iw9 kh3 kw3 dh2 dw2 ph2 pw2",
        "conv2d ic4 oc4 ih6 iw900 kh3 kw3 ph1 pw1",
        "conv3d ic5 oc6 id5 ih6 iw7 kd3 kh3 kw3 pd1 ph1 pw1",
        // Strides: phases of unequal taps, more taps than points, fewer taps than the stride, a
        // dilation beside the stride, an axis of one tap.
        "conv2d ic18 oc35 ih15 iw13 kh3 kw3 sh2 sw2 ph1 pw1 bias | relu",
        "conv2d nchw ic18 oc35 ih29 iw30 kh5 kw7 sh2 sw3 ph2 pw3",
        "conv1d ic16 oc16 iw80 kw9 sw4 pw3",
        "conv2d ic5 oc6 ih12 iw31 kh3 kw2 sh1 sw3 dw2 pw2:1 flip",
        "conv2d n2 ic4 oc4 ih12 iw17 kh1 kw3 sh2 sw2 dw3 pw3 circular",
        // Phases of a dilation that share a block, some of them shorter.
        "conv2d ic32 oc32 ih15 iw15 kh3 kw3 dh4 dw4 ph4 pw4",
        "conv2d nchw n2 ic16 oc20 ih14 iw13 kh3 kw3 dh6 ph6 pw1 bias",
        "conv2d ic20 oc35 ih13 iw10 kh3 kw3 ph2 pw1 reflect bias | relu",
        "conv2d nchw ic5 oc19 ih11 iw17 kh3 kw5 dh2 ph4 pw9:3 replicate",
        "conv1d n2 ic3 oc34 iw70 kw5 pw70:3 circular flip",
        "deconv2d ic20 oc18 ih7 iw9 kh4 kw4 sh2 sw2 ph1 pw1 bias",
        "conv2d ic18 oc35 ih13 iw10 kh3 kw3 ph1 pw1 bwd_d",
    ];
    for compiler in compilers() {
        for text in texts {
            check(&winograd(&compiler, &problem(text)).unwrap_or_else(|e| panic!("{text}: {e}")));
        }
    }
}

/// A problem that transforms pay for, or nearly, and sizes that may fit it.
fn tiled() -> impl Strategy<Value = (ConvProblem, Schedule)> {
    let axis = (1..=6_u32, 1..=9_u32, 1..=3_u32);
    let channels = (1..=30_u32, prop::sample::select(vec![1_u32, 2, 3, 8, 16, 17, 32, 64]));
    let sizes = (axis.clone(), axis, channels, 1..=40_u32, 0..=4_u32, 1..=3_u32);
    (problems::problem(), sizes).prop_map(
        |(problem, (first, last, channels, copy, ahead, share))| {
            let mut text = String::new();
            for (name, (tile, block, merge)) in
                problem.axis_names().iter().zip([first, last, first])
            {
                text += &format!("tile o{name} by {tile}; block o{name} by {block}; ");
                text += &format!("merge o{name} by {merge}; ");
            }
            let (pixels, panel) = channels;
            text += &format!("register t by {pixels}; register oc by {panel}; copy ic by {copy}; ");
            text += &format!("block oc by {}", panel.saturating_mul(share));
            if ahead > 0 {
                text += &format!("; ahead ic by {ahead}");
            }
            (problem, parse_schedule(&text).expect("a schedule"))
        },
    )
}

/// What is accepted of any sizes computes the problem; the rest is refused.
#[test]
fn random_sizes_are_within_the_bound_or_refused() {
    let compilers = compilers();
    let accepted = std::cell::Cell::new(0);
    random::for_each(600, &tiled(), |(problem, schedule)| {
        for compiler in &compilers {
            match compiler.compile_with(&problem, Algorithm::Winograd, &schedule) {
                Ok(kernel) => {
                    accepted.set(accepted.get() + 1);
                    prop_assert_eq!(kernel.schedule(), &schedule);
                    let checked = check::check(&kernel);
                    prop_assert!(checked.is_ok(), "{schedule}{}", checked.unwrap_err());
                }
                Err(Error::Unsupported(_) | Error::Sizes(_) | Error::Verify(_)) => {}
                Err(error) => prop_assert!(false, "{}: {}", problem, error),
            }
        }
        Ok(())
    });
    assert!(accepted.get() > 100, "only {} were accepted", accepted.get());
}

#[test]
fn the_sizes_of_a_kernel_make_it_again() {
    let texts = [
        "conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1",
        "conv2d nchw ic18 oc35 ih29 iw30 kh5 kw7 sh2 sw3 ph2 pw3",
        "conv2d ic32 oc32 ih15 iw15 kh3 kw3 dh4 dw4 ph4 pw4",
        "deconv2d ic20 oc18 ih7 iw9 kh5 kw5 sh2 sw2 ph1 pw1 bias",
    ];
    for compiler in compilers() {
        for text in texts {
            let problem = problem(text);
            let first = winograd(&compiler, &problem).expect(text);
            assert_eq!(Algorithm::of(first.schedule()), Algorithm::Winograd);
            let read = parse_schedule(&first.schedule().one_line()).expect("its own text");
            let again = compiler.compile_with(&problem, Algorithm::Winograd, &read).expect(text);
            assert!(first.nests().eq(again.nests()), "{text}");
        }
    }
}

/// A number that does not fit is named, and so is one that is missing.
#[test]
fn sizes_that_do_not_fit_are_refused() {
    let problem = problem("conv2d ic16 oc48 ih20 iw20 kh3 kw3 ph1 pw1");
    let sizes = [
        "tile oh by 4",
        "block oh by 2",
        "tile ow by 4",
        "block ow by 2",
        "register t by 4",
        "register oc by 16",
        "block oc by 48",
        "copy ic by 16",
    ];
    let cases = [
        ("tile oh by 4", "", "no sizes that say `tile oh by ..`"),
        ("tile oh by 4", "tile oh by 0", "`tile oh` is 0"),
        ("tile oh by 4", "tile oh by 7", "tiles of 7 outputs of 3 taps need more than 8 points"),
        ("tile oh by 4", "tile oh by 4294967295", "need more than 8 points"),
        ("block oh by 2", "merge oh by 2; block oh by 2", ""),
        ("block oc by 48", "block oc by 47", "tasks of 47 of 48 output channels"),
        ("block oc by 48", "block oc by 24", "no whole panels of 16"),
        ("copy ic by 16", "copy ic by 16; copy ic by 16", "`copy ic by 16` is given twice"),
        ("copy ic by 16", "copy ic by 16; points oh by 8", "`points oh by 8` is none of its sizes"),
        ("copy ic by 16", "copy ic by 16; unroll nothing; tile oh by 2", "no loop over `nothing`"),
    ];
    for compiler in compilers() {
        for (line, instead, reason) in cases {
            let lines: Vec<&str> =
                sizes.iter().map(|size| if *size == line { instead } else { size }).collect();
            let schedule = parse_schedule(&lines.join("; ")).expect("a schedule");
            let compiled = compiler.compile_with(&problem, Algorithm::Winograd, &schedule);
            let refused = compiled.err().map_or(String::new(), |error| error.to_string());
            assert!(refused.contains(reason), "{instead}: {refused}");
            assert_eq!(refused.is_empty(), reason.is_empty(), "{instead}: {refused}");
        }
        let schedule = parse_schedule("tile oh by 4; unroll kw").expect("a schedule");
        let refused = compiler.compile_with(&problem, Algorithm::Direct, &schedule).err();
        let refused = refused.map_or(String::new(), |error| error.to_string());
        assert!(refused.contains("`tile oh by 4`: a size stands before all rewrites"), "{refused}");
    }
}

#[test]
fn outside_its_domain_it_says_why() {
    let cases = [
        ("conv2d ic16 oc16 ih8 iw8 kh3 kw3 sh5 sw2", "stride 5 exceeds 4"),
        ("conv2d ic16 oc16 ih8 iw8 kh1 kw1 sh2 sw2", "reads one place"),
        ("conv2d ic16 oc16 ih8 iw8 kh1 kw1", "reads one place"),
        ("conv1d ic16 oc16 iw80 kw9", "9 taps"),
        ("conv2d ic16 oc16 ih8 iw8 kh3 kw3 bwd_w", "no sum over taps"),
    ];
    for compiler in compilers() {
        for (text, reason) in cases {
            let refused = winograd(&compiler, &problem(text)).err().map(|e| e.to_string());
            assert!(refused.as_ref().is_some_and(|e| e.contains(reason)), "{text}: {refused:?}");
        }
    }
}

#[test]
fn it_is_picked_where_products_are_saved_and_allowed() {
    let many = problem("conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1");
    let few = problem("conv2d ic3 oc64 ih56 iw56 kh3 kw3 ph1 pw1");
    for compiler in compilers() {
        assert_eq!(compiler.pick(&many).algorithm, Algorithm::Winograd);
        assert_eq!(compiler.pick(&few).algorithm, Algorithm::Direct);
        let decision = compiler.decision(&few, Algorithm::Winograd).to_string();
        assert!(decision.contains("3 channels do not fill a vector"), "{decision}");
        let strict = compiler.with_accuracy(Accuracy::Strict);
        assert_eq!(strict.pick(&many).algorithm, Algorithm::Direct);
        let accuracy = Accuracy::Strict;
        let decision = strict.decision(&many, Algorithm::Winograd);
        assert_eq!(decision, Decision::Inexact { accuracy });
    }
    assert_eq!(many.direction(), Direction::Forward);
}

/// The order of packed weights depends on the registers of the target.
#[test]
fn weights_packed_for_another_target_are_refused() {
    let problem = problem("conv2d ic16 oc48 ih8 iw8 kh3 kw3 ph1 pw1");
    let kernels: Vec<Kernel> =
        compilers().iter().filter_map(|compiler| winograd(compiler, &problem).ok()).collect();
    let [first, .., last] = kernels.as_slice() else { return };
    let data = check::Data::integers(&problem);
    let packed = first.pack_weights(data.weights()).expect("weights of the problem");
    let mut output = vec![0.0; data.output_len()];
    assert!(last.run_with(&data.arguments(&packed, &[]), &mut output).is_err());
}
