//! The schedule space: its text, and that every point of it is a schedule of its problem.
//!
//! Targets are written down, not detected: the same candidates on every machine.

use std::collections::HashMap;

use convgen::algorithm::Algorithm;
use convgen::scheduler::space::{Candidate, Space};
use convgen::target::Caches;
use convgen::{Compiler, Isa, Target, lower};
use convgen_ir::interpret;
use convgen_ir::nest::Role;
use convgen_ir::parse::parse_schedule;
use convgen_ir::problem::ConvProblem;
use convgen_ir::verify::{VerifiedNest, VerifyError};

const PROBLEMS: [&str; 15] = [
    "conv2d ic8 oc12 ih6 iw7 kh3 kw3 ph1 pw1",
    "conv2d ic6 oc20 ih5 iw5 kh1 kw1 bias | relu",
    "conv2d g20 ic20 oc20 ih7 iw6 kh3 kw3 ph1 pw1",
    "conv2d nchw ic4 oc5 ih6 iw19 kh3 kw3 ph1 pw1",
    "conv2d nchw g2 ic8 oc18 ih7 iw7 kh3 kw3 sh2 sw2 ph1 pw1",
    "conv1d ic3 oc16 iw33 kw5 sw2 pw2",
    "conv3d ic2 oc9 id3 ih4 iw5 kd2 kh3 kw3 ph1 pw1",
    "conv2d ic1 oc1 ih9 iw9 kh5 kw5 ph2 pw2",
    "conv2d g6 ic24 oc24 ih6 iw7 kh3 kw3 ph1 pw1",
    "conv2d g4 ic32 oc32 ih6 iw7 kh3 kw3 ph1 pw1",
    "conv2d nchw g8 ic8 oc16 ih5 iw7 kh3 kw3 sh2 sw2 ph1 pw1",
    "conv2d ic6 oc20 ih5 iw9 kh3 kw3 ph2 pw1 reflect",
    "conv2d nchw g20 ic20 oc20 ih4 iw19 kh3 kw3 ph3 pw1 circular",
    "conv2d nchw ic6 oc70 ih5 iw9 kh1 kw1 bias",
    "conv2d nchw g40 ic40 oc40 ih9 iw7 kh3 kw3 ph1 pw1",
];

fn target(isa: Isa) -> Target {
    let triple = "x86_64-unknown-linux-gnu".parse().unwrap();
    Target::new(triple, isa, true, Caches::TYPICAL, 2).unwrap()
}

/// The space of the defining sum.
fn sums<'p>(problem: &'p ConvProblem, target: &'p Target) -> [Space<'p>; 1] {
    [Space::new(problem, Algorithm::Direct, target).expect("accepts every problem")]
}

/// Numbers that look random and are the same in every run.
fn draws(mut state: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % below as u64) as usize
    }
}

fn lowered(
    problem: &ConvProblem,
    candidate: &Candidate,
    target: &Target,
) -> Result<VerifiedNest, VerifyError> {
    let nests = Compiler::schedule(problem, candidate.algorithm, &candidate.schedule)
        .unwrap_or_else(|error| panic!("{problem}\n{candidate}\n{error}"));
    let [nest] = <[_; 1]>::try_from(nests).expect("a forward problem is one nest");
    lower::lower(nest, &target.limits())
}

/// The output of one image, for inputs that are no round numbers.
fn output(problem: &ConvProblem, nest: &VerifiedNest) -> Vec<u32> {
    let data = |len: i64| (0..len).map(|i| (i * 37 % 101) as f32 / 7.0 - 6.5).collect::<Vec<f32>>();
    let len = |shape: Vec<u64>| shape.iter().product::<u64>() as i64;
    let weights = interpret::pack(nest, &data(len(problem.weights_shape()))).unwrap();
    let input = data(len(problem.input_shape(1)));
    let bias = data(problem.out_channels() as i64);
    let mut given: Vec<&[f32]> = vec![&input, &weights];
    given.extend(problem.bias().then_some(bias.as_slice()));
    let mut output = vec![f32::NAN; len(problem.output_shape(1)) as usize];
    let tasks = 0..nest.nest().tasks(1).unwrap();
    interpret::run(nest, 1, tasks, &given, &mut output).unwrap();
    output.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_candidate_applies_and_has_the_bits_of_the_others() {
    const SAMPLES: usize = 60;
    for text in PROBLEMS {
        let problem: ConvProblem = text.parse().unwrap();
        for isa in Isa::ALL {
            let target = target(isa);
            for space in sums(&problem, &target) {
                // Whether an output is one sum or several decides the bits; nothing else does.
                let mut bits: HashMap<bool, Vec<u32>> = HashMap::new();
                let mut draw = draws(7);
                let default = std::iter::once(space.default_candidate());
                for candidate in default.chain((0..SAMPLES).map(|_| space.sample(&mut draw))) {
                    let several = candidate.schedule.to_string().contains("rfactor");
                    match lowered(&problem, &candidate, &target) {
                        Ok(nest) => {
                            let output = output(&problem, &nest);
                            let expected = bits.entry(several).or_insert_with(|| output.clone());
                            assert_eq!(output, *expected, "{candidate}");
                        }
                        Err(error) => panic!("{problem} {isa}\n{candidate}\n{error}"),
                    }
                }
            }
        }
    }
}

#[test]
fn neighbours_apply_and_differ() {
    for text in PROBLEMS {
        let problem: ConvProblem = text.parse().unwrap();
        let target = target(Isa::Avx512);
        for space in sums(&problem, &target) {
            let default = space.default_candidate();
            let neighbours = space.neighbours(&default);
            assert!(neighbours.len() >= 3, "{problem}: {}", neighbours.len());
            for candidate in neighbours {
                assert_ne!(candidate.plan, default.plan);
                lowered(&problem, &candidate, &target).unwrap();
            }
        }
    }
}

#[test]
fn the_default_is_a_point_of_the_space() {
    for text in PROBLEMS {
        let problem: ConvProblem = text.parse().unwrap();
        for isa in Isa::ALL {
            let target = target(isa);
            for space in sums(&problem, &target) {
                let default = space.default_candidate();
                let plan = default.plan.as_ref().unwrap();
                assert_eq!(plan.check(&problem, &target), Ok(()), "{default}");
            }
        }
    }
}

#[test]
fn the_text_of_a_candidate_reads_back() {
    let problem: ConvProblem = PROBLEMS[0].parse().unwrap();
    let target = target(Isa::Avx2);
    for space in sums(&problem, &target) {
        for candidate in space.neighbours(&space.default_candidate()) {
            let text = candidate.schedule.one_line();
            assert_eq!(parse_schedule(&text).unwrap(), candidate.schedule);
        }
    }
}

/// The default and every so-many-th point, and how many there are of each kind.
fn listing(text: &str, isa: Isa) -> String {
    const SHOWN: usize = 8;
    let problem: ConvProblem = text.parse().unwrap();
    let target = target(isa);
    let mut lines = vec![format!("{problem}"), format!("{target}")];
    for space in sums(&problem, &target) {
        lines.push(format!("default  {}", space.default_candidate()));
        let (mut legal, mut excluded) = (Vec::new(), 0);
        for point in space.all() {
            match point {
                Ok(candidate) => legal.push(candidate),
                Err(_) => excluded += 1,
            }
        }
        lines.push(format!("{} candidates, {excluded} excluded", legal.len()));
        let step = (legal.len() / SHOWN).max(1);
        lines.extend(legal.iter().step_by(step).take(SHOWN).map(ToString::to_string));
        // One reason of each kind.
        let mut reasons: Vec<String> =
            space.all().take(200_000).filter_map(Result::err).map(|e| e.to_string()).collect();
        reasons.sort();
        reasons.dedup_by(|a, b| a.split(' ').next_back() == b.split(' ').next_back());
        reasons.truncate(6);
        lines.extend(reasons.into_iter().map(|reason| format!("excluded: {reason}")));
    }
    lines.join("\n")
}

#[test]
fn spaces_as_text() {
    let cases = [
        ("dense_avx2", "conv2d ic4 oc16 ih6 iw6 kh3 kw3 ph1 pw1", Isa::Avx2),
        ("pointwise_avx512", "conv2d ic4 oc32 ih4 iw4 kh1 kw1", Isa::Avx512),
        ("depthwise_avx512", "conv2d g32 ic32 oc32 ih6 iw6 kh3 kw3 ph1 pw1", Isa::Avx512),
        ("few_outputs_avx512", "conv2d ic4 oc8 ih4 iw6 kh3 kw3 bias", Isa::Avx512),
        ("channels_first_clif", "conv2d nchw ic2 oc4 ih4 iw16 kh3 kw3", Isa::Clif),
    ];
    for (name, text, isa) in cases {
        insta::assert_snapshot!(name, listing(text, isa));
    }
}

#[test]
fn every_tile_of_the_space_fits_the_registers() {
    let problem: ConvProblem = PROBLEMS[0].parse().unwrap();
    for isa in Isa::ALL {
        let target = target(isa);
        for space in sums(&problem, &target) {
            let mut draw = draws(11);
            for _ in 0..20 {
                let candidate = space.sample(&mut draw);
                let nest = lowered(&problem, &candidate, &target).unwrap();
                let file = i64::from(target.registers() * target.lanes());
                let tiles = nest.nest().buffers.iter().filter(|b| b.role == Role::Reg);
                tiles.for_each(|tile| assert!(tile.len(0).unwrap() <= file, "{candidate}"));
            }
        }
    }
}

/// Sizes are decisions like any other: moves change one, what they lead to is legal, differs, and
/// reads back.
#[test]
fn the_sizes_of_tiles_are_points_of_a_space() {
    let cases = [
        ("conv2d ic64 oc64 ih28 iw28 kh3 kw3 ph1 pw1", Algorithm::Winograd),
        ("conv2d ic64 oc96 ih15 iw31 kh3 kw3 dh2 dw2 ph2 pw2", Algorithm::Winograd),
        ("deconv2d ic64 oc64 ih16 iw16 kh4 kw4 sh2 sw2 ph1 pw1", Algorithm::Winograd),
        ("conv2d ic1 oc1 ih128 iw128 kh31 kw31 ph15 pw15", Algorithm::Fourier),
    ];
    for (text, algorithm) in cases {
        let problem: ConvProblem = text.parse().unwrap();
        let target = target(Isa::Avx512);
        let spaces = Space::of(&problem, &target);
        assert!(spaces[0].algorithm() == Algorithm::Direct, "{text}");
        let space = spaces.iter().find(|space| space.algorithm() == algorithm).expect(text);
        let default = space.default_candidate();
        let mut draw = draws(3);
        let drawn: Vec<Candidate> = (0..20).map(|_| space.sample(&mut draw)).collect();
        let near = space.neighbours(&default);
        assert!(near.len() >= 8 && !near.contains(&default), "{text}: {}", near.len());
        for candidate in near.iter().chain(&drawn) {
            assert_eq!(Algorithm::of(&candidate.schedule), algorithm);
            let read = parse_schedule(&candidate.schedule.one_line());
            assert_eq!(read.as_ref(), Ok(&candidate.schedule));
            if algorithm == Algorithm::Winograd {
                let schedule = &candidate.schedule;
                let nests = Compiler::schedule_for(&target, &problem, algorithm, schedule).unwrap();
                for nest in nests {
                    lower::lower(nest, &target.limits())
                        .unwrap_or_else(|e| panic!("{candidate}: {e}"));
                }
            }
        }
        let different = drawn.iter().filter(|candidate| **candidate != default).count();
        assert!(different > 10, "{text}: {different}");
    }
}
