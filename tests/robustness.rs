//! Texts and calls that are wrong: refused with a reason, never a panic, never a wrong result.
//!
//! A hundred thousand damaged descriptors, schedules and nests go through every stage that takes
//! text. Most are refused. Whatever the verifier accepts is run, and lowering must not change a
//! bit.

#[path = "common/mutants.rs"]
mod mutants;
#[allow(dead_code, reason = "kernels are run by the other tests")]
#[path = "common/values.rs"]
mod values;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use convgen::algorithm::Algorithm;
use convgen::{
    Arguments, Compiler, Error, Host, Isa, Kernel, RunError, Target, lower, scheduler, transform,
};
use convgen_ir::nest::{Nest, Role, Stmt};
use convgen_ir::parse::{parse_nest, parse_schedule};
use convgen_ir::print::print_nest;
use convgen_ir::problem::{ConvProblem, Descriptor, parse_list};
use convgen_ir::verify::{Limits, VerifiedNest, verify};
use convgen_ir::{interpret, schedule::Schedule};
use mutants::{Random, Seeds, mutant};
use rayon::prelude::*;
use values::{Kind, Values, compare_bits, compare_values};

/// What becomes of a damaged text, or why that is wrong.
type Outcome = Result<Fate, String>;

/// How far a damaged text got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Refused,
    /// Accepted, and too large to run, or not to be run.
    Accepted,
    /// Accepted, and run.
    Run,
}

/// Statements executed for one text, at most.
const WORK: u128 = 20_000;

/// Elements of all buffers together, at most.
const ELEMENTS: u128 = 100_000;

/// Descriptors as benchdnn writes them.
const BENCHDNN: [&str; 6] = [
    r#"g32mb1ic128ih56oc128oh56kh3ph1n"resnext""#,
    "mb2ic3ih9oc4kh3sh2dh1ph2",
    "ic16iw40oc16kw5pw2",
    "g8ic8ih7iw9oc16oh7ow9kh3kw3ph1pw1",
    "mb1ic4id4ih5iw6oc4kd2kh2kw2",
    "ic3ih224oc64oh112kh7sh2ph3",
];

/// 2^25 images of 2^39 outputs are 2^64 elements, which is the length of an empty output modulo
/// 2^64.
#[test]
fn calls_whose_sizes_exceed_64_bits_are_refused() {
    let text = "conv1d ic1 oc16384 iw1 kw2 pw16777216";
    let compiler = Compiler::new(&Host::detect(), Isa::Clif).unwrap();
    let kernel = compiler.compile(&text.parse().unwrap()).unwrap();
    let weights = kernel.pack_weights(&vec![1.0; 32768]).unwrap();
    let input = vec![0.0; 1 << 25];
    let error = kernel.run(&input, &weights, None, &mut []).unwrap_err();
    assert!(
        matches!(error, Error::Run(RunError::Length { what: "output", given: 0, .. })),
        "{error}"
    );
    assert_eq!(kernel.tasks(usize::MAX), usize::MAX);
    // The packed weights of a problem that no memory holds are not asked for before the weights are
    // there.
    let huge: ConvProblem = "conv1d ic1048575 oc1048575 iw1 kw1".parse().unwrap();
    let error = compiler.compile(&huge).unwrap().pack_weights(&[]).err();
    assert!(matches!(error, Some(Error::Run(RunError::Length { what: "weights", .. }))));
}

#[test]
fn damaged_descriptors() {
    let mut seeds = Seeds::read().problems;
    seeds.extend(BENCHDNN.map(String::from));
    let target = compiler().target().clone();
    let counts = damage(40_000, &seeds, |text, _| {
        // A list is several descriptors, names and comments.
        let _ = parse_list(text);
        let Ok(descriptor) = text.parse::<Descriptor>() else { return Ok(Fate::Refused) };
        let printed = descriptor.to_string();
        // A quote in a name cannot be written; the problem can, always.
        match printed.parse::<Descriptor>() {
            Ok(again) if again.problem == descriptor.problem && again.to_string() == printed => {}
            other => return Err(format!("prints as `{printed}`, which is {other:?}")),
        }
        has_a_default(&descriptor.problem, &target)?;
        Ok(Fate::Accepted)
    });
    assert!(counts.accepted > 4_000, "{counts:?}");
}

/// The scheduler's promise: legal for every problem on every target.
fn has_a_default(problem: &ConvProblem, target: &Target) -> Result<(), String> {
    let (algorithm, schedule) = scheduler::default_schedule(problem, target);
    let refused = |error: &dyn Display| format!("{problem}: {error}\n{schedule}");
    let nests = match Compiler::schedule(problem, algorithm, &schedule) {
        // Strides and dilations that put taps too far apart are refused with their numbers.
        Err(Error::Unsupported(_)) => return Ok(()),
        nests => nests.map_err(|error| refused(&error))?,
    };
    nests.into_iter().try_for_each(|nest| {
        lower::lower(nest, &target.limits()).map(drop).map_err(|error| refused(&error))
    })
}

/// Problems whose default schedule was refused once.
#[test]
fn narrow_escapes_have_a_default_schedule() {
    let target = compiler().target().clone();
    for text in [
        // The copied rows of the last, incomplete tile of columns just exceed the scratch.
        "conv2d ic2048 oc256 ih33 iw33 kh3 kw3 dh6 dw6 ph6 pw3",
        // Every tile of a row touches padding: each is a kernel of its own, epilogue and all.
        "conv2d n2 ic224 oc64 ih3 iw3 kh8 kw8 sh2 sw2 ph33:194 pw33:194",
        "conv2d g64 ic64 oc64 ih56 iw56 kh31 kw31 ph15 pw15 bias | gelu",
        // Rows of a copy that begin at a cache line just exceed the scratch.
        "conv3d ic384 oc1 id16 ih16 iw16 kd3 kh3 kw3 pd1 ph1 pw1",
        "conv3d ic192 oc1 id32 ih32 iw32 kd3 kh3 kw3 pd1 ph1 pw1",
        "conv1d ic65536 oc1 iw6 kw3 pw1",
        // Lanes of padded groups write two channels each.
        "conv1d nchw g5 ic5 oc10 iw1 kw1",
    ] {
        has_a_default(&text.parse().expect("legal"), &target).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn damaged_schedules() {
    let seeds = Seeds::read();
    let problems = small_problems(&seeds.problems);
    let limits = compiler().target().limits();
    let counts = damage(25_000, &seeds.schedules, |text, random| {
        let Ok(schedule) = parse_schedule(text) else { return Ok(Fate::Refused) };
        if parse_schedule(&schedule.to_string()).as_ref() != Ok(&schedule) {
            return Err(format!("prints as\n{schedule}"));
        }
        let problem = random.pick(&problems);
        let applied = apply(problem, &schedule);
        let Ok(nest) = lower::lower(applied, &limits) else { return Ok(Fate::Accepted) };
        if work(&nest) > 10 * WORK {
            return Ok(Fate::Accepted);
        }
        let values = Values::new(problem, Kind::Integers, 1);
        compare_values(&values.interpret(std::slice::from_ref(&nest))?, &values.reference()?)
            .map_err(|error| format!("{problem}: {error}"))?;
        Ok(Fate::Run)
    });
    assert!(counts.run > 4_000, "{counts:?}");
}

#[test]
fn damaged_nests() {
    let seeds = Seeds::read();
    let mut nests = seeds.nests;
    let legal = |text: &&String| {
        parse_nest(text).is_ok_and(|(nest, _)| verify(nest, &Limits::INTERPRETER).is_ok())
    };
    let legal: Vec<String> = nests.iter().filter(legal).cloned().collect();
    nests.extend([legal.clone(), legal].concat());
    nests.extend(scheduled_nests(&small_problems(&seeds.problems), &seeds.schedules));
    let compiler = compiler();
    let counts = damage(50_000, &nests, |text, random| {
        let Ok((nest, _)) = parse_nest(text) else { return Ok(Fate::Refused) };
        let printed = print_nest(&nest);
        match parse_nest(&printed) {
            Ok((again, _)) if print_nest(&again) == printed => {}
            Ok(_) => return Err("prints as another nest".to_string()),
            Err(error) => return Err(format!("prints as what is refused: {error}")),
        }
        let lowered = lower::lower(nest.clone(), &compiler.target().limits());
        let Ok(verified) = verify(nest, &Limits::INTERPRETER) else { return Ok(Fate::Accepted) };
        if work(&verified) > WORK || elements(verified.nest()) > ELEMENTS {
            return Ok(Fate::Accepted);
        }
        let output = run(&verified)?;
        if let Ok(lowered) = lowered
            && work(&lowered) <= 4 * WORK
        {
            compare_bits(&run(&lowered)?, &output).map_err(|error| format!("lowered: {error}"))?;
            if random.below(20) == 0 {
                let outlined = lower::outline(lowered, compiler.target());
                compiler.code(vec![outlined]).map_err(|error| error.to_string())?;
            }
        }
        Ok(Fate::Run)
    });
    assert!(counts.run > 4_000, "{counts:?}");
}

/// Texts that are only deep or long must not exhaust the stack or the memory.
#[test]
fn monstrous_texts() {
    let deep = |open: &str| format!("nest x {{ output f32[1] {}", open.repeat(100_000));
    for text in [
        deep("for a in 0..2 { "),
        deep("if 0 < 1 { "),
        deep("output[0] = add(1.0, "),
        deep("output[0] = neg("),
        deep("pack { "),
        "(".repeat(100_000),
        "nest x { output f32[".to_string() + &"1,".repeat(100_000),
        "nest ".to_string() + &"x".repeat(100_000),
        "0".repeat(100_000),
    ] {
        assert!(parse_nest(&text).is_err());
        assert!(parse_schedule(&text).is_err());
        assert!(text.parse::<Descriptor>().is_err());
    }
    let long = "conv1d ic1 oc1 iw1 kw1".to_string() + &" | relu".repeat(100_000);
    let _ = long.parse::<Descriptor>();
}

#[test]
fn malformed_problems_are_refused_with_their_numbers() {
    let good = "conv2d ic8 oc8 ih8 iw8 kh3 kw3";
    assert!(good.parse::<ConvProblem>().is_ok());
    for (words, fragment) in [
        ("sh0", "sh is 0, expected at least 1"),
        ("dw0", "dw is 0, expected at least 1"),
        ("g0", "g is 0, expected at least 1"),
        ("g3", "ic is 8, which g 3 does not divide"),
        ("dh4", "kh is 3 with dilation 4, an extent of 9, but 8 input positions"),
        ("ph-3", "8 input positions with padding -3:-3 are 2"),
        ("ph16777217", "ph is 16777217, expected -16777216 to 16777216"),
        ("sw2147483649", "sw is 2147483649, expected at most 2147483648"),
        ("n2147483648", "too many elements, expected fewer than 1099511627776"),
        ("dw18446744073709551616", "`dw` needs a number, found `18446744073709551616`"),
        ("oh7", "`oh` is stated as 7, but 6 comes out"),
        ("ic8", "`ic` is given twice"),
        ("id4", "unknown word `id4`"),
        ("nchv", "unknown word `nchv`"),
        ("| rely", "unknown epilogue operation `rely`"),
        ("| clamp(1,0)", "clamp has bounds 1 > 0"),
        ("| clamp(1)", "takes 2 parameters, 1 given"),
        ("| leaky_relu(inf)", "not finite"),
        ("| leaky_relu(x)", "which is no number"),
    ] {
        is_refused(&format!("{good} {words}"), fragment);
    }
    let quadratic = "ih524288 iw524288 kh524288 kw524288 ph262144 pw262144";
    for (text, fragment) in [
        ("", "empty descriptor"),
        ("conv4d ic1", "unknown word `conv`"),
        ("conv2d", "`ic` is missing"),
        ("conv1d ic1 oc1 iw4", "`kw` is missing"),
        ("conv1d ic2147483648 oc2147483648 iw1 kw1", "weights of shape"),
        // An empty batch of images that do not fit.
        ("conv1d n0 ic2147483648 oc1 iw2147483648 kw1", "input of shape"),
        ("conv1d ic524288 oc8 iw1048575 kw1048575 pw1048575", "[8, 524288, 1048575] has too many"),
        (&format!("conv2d ic1 oc1 {quadratic}"), "are too many multiply-adds"),
        ("g3ic8ih8oc8kh3", "g 3 does not divide"),
        ("ic8ih8oc8kh3sh0", "sh is 0, expected at least 1"),
        ("ic8ih8oc8kh9ph0", "kh is 9 with dilation 1"),
    ] {
        is_refused(text, fragment);
    }
}

fn is_refused(text: &str, fragment: &str) {
    match text.parse::<ConvProblem>() {
        Ok(problem) => panic!("`{text}` is accepted as `{problem}`"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains(fragment), "`{text}`: `{error}` lacks `{fragment}`");
        }
    }
}

/// A call with everything right, to be spoilt one thing at a time.
struct Right {
    kernel: Kernel,
    input: Vec<f32>,
    weights: convgen::PackedWeights,
    bias: Vec<f32>,
    residual: Vec<f32>,
    scale: Vec<f32>,
}

const RIGHT: &str = "conv1d n2 ic3 oc5 iw7 kw2 bias | add | scale";

impl Right {
    fn new() -> Right {
        let kernel = compiler().compile(&RIGHT.parse().expect("legal")).expect("compiles");
        let weights = kernel.pack_weights(&[1.0; 30]).expect("as long as the problem says");
        Right {
            kernel,
            input: vec![1.0; 2 * 21],
            weights,
            bias: vec![1.0; 5],
            residual: vec![1.0; 2 * 30],
            scale: vec![1.0; 5],
        }
    }

    fn arguments<'r>(&'r self, extras: &'r [&'r [f32]]) -> Arguments<'r> {
        let bias = Some(self.bias.as_slice());
        Arguments { input: &self.input, weights: &self.weights, bias, extras }
    }

    /// Refused by every way to call, and nothing is written.
    fn refuses(&self, arguments: &Arguments, outputs: usize, fragment: &str) {
        let mut output = vec![7.0; outputs];
        let errors = [
            self.kernel.run_with(arguments, &mut output).expect_err(fragment),
            self.kernel.run_parallel(arguments, &mut output, 2).expect_err(fragment),
        ];
        for error in errors {
            assert!(matches!(error, Error::Run(_)), "{error}");
            assert!(error.to_string().contains(fragment), "`{error}` lacks `{fragment}`");
        }
        assert!(output.iter().all(|x| *x == 7.0));
    }
}

#[test]
fn wrong_arguments_are_refused_with_their_numbers() {
    let right = Right::new();
    let extras = [right.residual.as_slice(), &right.scale];
    let good = right.arguments(&extras);
    let mut output = [0.0; 60];
    right.kernel.run_with(&good, &mut output).expect("everything is right");

    let bad = |slice: &'static [f32]| slice;
    right.refuses(&Arguments { input: &right.input[1..], ..good }, 60, "no multiple of the 21");
    right.refuses(&Arguments { input: &right.input[..21], ..good }, 60, "has 60 elements, 30");
    right.refuses(&Arguments { bias: None, ..good }, 60, "the problem has a bias, the call no");
    let short = bad(&[1.0; 4]);
    right.refuses(&Arguments { bias: Some(short), ..good }, 60, "bias has 4 elements, 5");
    for outputs in [0, 59, 61, 30, 120] {
        let fragment = format!("output has {outputs} elements, 60 are needed");
        right.refuses(&good, outputs, &fragment);
    }
    right.refuses(&Arguments { extras: &[], ..good }, 60, "epilogue takes 2 extra arguments");
    let one = [right.residual.as_slice()];
    right.refuses(&Arguments { extras: &one, ..good }, 60, "epilogue takes 2 extra arguments");
    let three = [right.residual.as_slice(), &right.scale, &right.scale];
    right.refuses(&Arguments { extras: &three, ..good }, 60, "epilogue takes 2 extra arguments");
    let many = [right.scale.as_slice(); 100];
    right.refuses(&Arguments { extras: &many, ..good }, 60, "");
    let swapped = [right.scale.as_slice(), &right.residual];
    right.refuses(&Arguments { extras: &swapped, ..good }, 60, "epilogue argument has 5 elements");
}

#[test]
fn wrong_weights_are_refused() {
    let right = Right::new();
    for length in [0, 29, 31] {
        let error = right.kernel.pack_weights(&vec![1.0; length]).expect_err("a wrong length");
        let expected = RunError::Length { what: "weights", given: length, expected: 30 };
        assert_eq!(error, Error::Run(expected));
    }
    // Of the same length, by a kernel of another problem, and of another schedule.
    let other = compiler().compile(&"conv1d ic6 oc5 iw7 kw1".parse().expect("legal"));
    let plain =
        compiler().compile_with(right.kernel.problem(), Algorithm::Direct, &Schedule::default());
    for stranger in [other, plain] {
        let weights = stranger.expect("compiles").pack_weights(&[1.0; 30]).expect("30 elements");
        let extras = [right.residual.as_slice(), &right.scale];
        let arguments = Arguments { weights: &weights, ..right.arguments(&extras) };
        right.refuses(&arguments, 60, "the weights were packed for `direct-f32-");
    }
    // By a kernel of the same problem at another batch: the same weights.
    let batch = right.kernel.problem().with_batch(9).expect("legal");
    let weights = compiler().compile(&batch).expect("compiles").pack_weights(&[1.0; 30]);
    let extras = [right.residual.as_slice(), &right.scale];
    let weights = weights.expect("30 elements");
    let arguments = Arguments { weights: &weights, ..right.arguments(&extras) };
    right.kernel.run_with(&arguments, &mut [0.0; 60]).expect("the batch packs nothing");
}

#[test]
fn a_bias_that_the_problem_does_not_have_is_refused() {
    let kernel = compiler().compile(&"conv1d ic1 oc1 iw4 kw1".parse().expect("legal"));
    let kernel = kernel.expect("compiles");
    let weights = kernel.pack_weights(&[1.0]).expect("one element");
    let error = kernel.run(&[1.0; 4], &weights, Some(&[1.0]), &mut [0.0; 4]);
    let error = error.expect_err("a bias").to_string();
    assert_eq!(error, "the problem has no bias, the call a");
    // No image is a batch, too.
    kernel.run(&[], &weights, None, &mut []).expect("an empty batch");
}

/// For the last instruction set that this host has: the least plain one.
fn compiler() -> Compiler {
    let host = Host::detect();
    let mut compilers = Isa::ALL.into_iter().filter_map(|isa| Compiler::new(&host, isa).ok());
    compilers.next_back().expect("a host Cranelift knows")
}

/// What became of many damaged texts.
#[derive(Debug)]
struct Fates {
    accepted: usize,
    run: usize,
}

/// Damages seeds and judges each; panics with the texts that were not dealt with.
fn damage(
    count: u64,
    seeds: &[String],
    judge: impl Fn(&str, &mut Random) -> Outcome + Sync,
) -> Fates {
    let counts = [(); 3].map(|()| AtomicUsize::new(0));
    let failures: Vec<String> = (0..count)
        .into_par_iter()
        .filter_map(|case| {
            let mut random = Random::new(case);
            let [one, other]: [&String; 2] = [random.pick(seeds), random.pick(seeds)];
            let text = mutant(one, other, &mut random);
            let judged = catch_unwind(AssertUnwindSafe(|| judge(&text, &mut random)));
            let error = match judged {
                Ok(Ok(fate)) => {
                    counts[fate as usize].fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Ok(Err(error)) => error,
                Err(_) => "panicked, see above".to_string(),
            };
            Some(format!("case {case}: {error}\n{text}"))
        })
        .collect();
    let shown = failures[..failures.len().min(3)].join("\n\n");
    assert!(failures.is_empty(), "{} texts:\n{shown}", failures.len());
    let [refused, accepted, run] = counts.map(AtomicUsize::into_inner);
    println!("refused {refused}, accepted {accepted}, run {run}");
    Fates { accepted: accepted + run, run }
}

/// Problems that are quick to interpret, and one nest each.
fn small_problems(seeds: &[String]) -> Vec<ConvProblem> {
    let parsed = seeds.iter().filter_map(|text| text.parse::<ConvProblem>().ok());
    let one_nest = |problem: &ConvProblem| {
        Algorithm::Direct.parts(problem).is_ok_and(|parts| parts.len() == 1)
    };
    let small: Vec<ConvProblem> =
        parsed.filter(|problem| problem.macs() <= 10_000 && one_nest(problem)).collect();
    assert!(small.len() > 20);
    small
}

/// The nests of the problems under as many directives of the schedules as apply.
fn scheduled_nests(problems: &[ConvProblem], schedules: &[String]) -> Vec<String> {
    let parsed: Vec<Schedule> =
        schedules.iter().filter_map(|text| parse_schedule(text).ok()).collect();
    let pairs = problems.iter().zip(parsed.iter().cycle());
    pairs.map(|(problem, schedule)| print_nest(&apply(problem, schedule))).collect()
}

fn apply(problem: &ConvProblem, schedule: &Schedule) -> Nest {
    let parts = Algorithm::Direct.parts(problem).expect("direct takes every problem");
    let nest = parts.into_iter().next().expect("a part").nest;
    schedule
        .directives
        .iter()
        .fold(nest, |nest, directive| transform::apply_one(&nest, directive).unwrap_or(nest))
}

/// The images that damaged nests are run on.
const BATCH: i64 = 2;

/// Statements that a run of the nest executes, roughly.
fn work(nest: &VerifiedNest) -> u128 {
    fn block(stmts: &[Stmt]) -> u128 {
        let stmt = |stmt: &Stmt| match stmt {
            Stmt::Loop(l) => {
                let trips = (l.hi.at(BATCH) - l.lo).max(0) as u128;
                trips.saturating_mul(block(&l.body).saturating_add(1))
            }
            Stmt::If(_, body) | Stmt::MicroKernel(body) => block(body),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => 1,
        };
        stmts.iter().map(stmt).fold(0, u128::saturating_add)
    }
    block(&nest.nest().pack).saturating_add(block(&nest.nest().body))
}

fn elements(nest: &Nest) -> u128 {
    let size = |shape: &[convgen_ir::nest::Dim]| {
        shape.iter().fold(1_u128, |size, dim| size.saturating_mul(dim.at(BATCH) as u128))
    };
    nest.buffers.iter().map(|buffer| size(&buffer.shape)).fold(0, u128::saturating_add)
}

/// The output of an accepted nest, on values that count up.
fn run(nest: &VerifiedNest) -> Result<Vec<f32>, String> {
    let ir = nest.nest();
    let count = |id| {
        let length = ir.buffer(id).len(BATCH).unwrap();
        (1..=length).map(|x| x as f32 / 8.0).collect::<Vec<f32>>()
    };
    let weights: Vec<Vec<f32>> = ir.find_all(Role::Weights).map(count).collect();
    let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
    let packed = interpret::pack_all(nest, &weights).map_err(|error| error.to_string())?;
    let mut packed = packed.into_iter();
    let given: Vec<Vec<f32>> = interpret::arguments(ir)
        .into_iter()
        .map(|id| match ir.buffer(id).role {
            Role::Packed => packed.next().unwrap_or_default(),
            _ => count(id),
        })
        .collect();
    let slices: Vec<&[f32]> = given.iter().map(Vec::as_slice).collect();
    let output = ir.find_role(Role::Output).ok_or("an accepted nest without output")?;
    let mut values = vec![f32::NAN; ir.buffer(output).len(BATCH).unwrap() as usize];
    interpret::run(nest, BATCH, 0..ir.tasks(BATCH).unwrap(), &slices, &mut values)
        .map_err(|error| error.to_string())?;
    Ok(values)
}

/// Splits of splits: a sum of many terms, and tails that double what they are in. Each is refused
/// at once.
#[test]
fn schedules_that_lowering_would_take_minutes_for_are_refused() {
    let chain = |axis: &str, sizes: &[u64], tail: &str| {
        let mut name = axis.to_string();
        let mut text = String::new();
        for size in sizes {
            text += &format!("split {name} by {size}{tail}\n");
            name += ".i";
        }
        text
    };
    let falling: Vec<u64> = (0..60).map(|i| 100_003 - 7 * i).collect();
    let halved = |count: u32| (0..count).map(|i| 3 * 2_u64.pow(count - i) + 1).collect::<Vec<_>>();
    let six = |count| {
        let axes = ["ow", "oc", "oh", "kh", "kw", "ic"];
        axes.map(|axis| chain(axis, &halved(count), " tail=cut")).concat()
    };
    let long = "conv1d ic1 oc1 iw1000003 kw3";
    let wide = "conv2d ic1009 oc1009 ih3007 iw3007 kw1009 kh1009";
    let cases = [
        (long, chain("ow", &falling, ""), "a sum of more terms, the limit is 16"),
        (long, chain("ow", &falling, " tail=cut"), "a sum of more terms, the limit is 16"),
        (wide, six(8), "a sum of more terms, the limit is 16"),
        (wide, six(6), "more statements, the limit is 16384"),
        (wide, six(5), "more statements, the limit is 16384"),
    ];
    let compiler = compiler();
    for (problem, schedule, why) in cases {
        let problem: ConvProblem = problem.parse().unwrap();
        let schedule = parse_schedule(&schedule).unwrap();
        let error = compiler.lower(&problem, Algorithm::Direct, &schedule).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
