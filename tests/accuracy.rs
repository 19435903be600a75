//! What the page of `Accuracy` says: errors are bounded by the norm of the tile and not by that of
//! the window; NaNs reach what is said; the bits of reproducible kernels are those of the plain
//! nest on every instruction set, whatever the values.

#[path = "common/problems.rs"]
mod problems;
#[path = "common/random.rs"]
mod random;

use std::sync::Arc;

use convgen::accuracy::ERROR_BUDGET;
use convgen::algorithm::{Algorithm, winograd};
use convgen::check::separable::PairData;
use convgen::ir::interpret;
use convgen::ir::nest::Role;
use convgen::ir::parse::parse_schedule;
use convgen::ir::problem::{ConvProblem, Direction};
use convgen::ir::reference::{ConvData, Reference};
use convgen::ir::schedule::{Directive, Schedule};
use convgen::ir::separable::Separable;
use convgen::record::{Database, Key, Record};
use convgen::scheduler::order;
use convgen::{Accuracy, Arguments, Compiler, Host, Isa, Kernel, Origin};
use proptest::prelude::*;

/// One for each instruction set of this host, without records.
fn compilers(accuracy: Accuracy) -> Vec<Compiler> {
    let host = Host::detect();
    let made = Isa::ALL.into_iter().filter_map(|isa| Compiler::new(&host, isa).ok());
    made.map(|compiler| compiler.with_database(Arc::default()).with_accuracy(accuracy)).collect()
}

fn problem(text: &str) -> ConvProblem {
    text.parse().expect(text)
}

/// Reals around one, of both signs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0
    }

    fn fill(&mut self, shape: &[u64]) -> Vec<f32> {
        (0..shape.iter().product::<u64>()).map(|_| self.next()).collect()
    }
}

fn run(kernel: &Kernel, input: &[f32], weights: &[f32]) -> Vec<f32> {
    let packed = kernel.pack_weights(weights).expect("weights of the problem");
    let mut output =
        vec![f32::NAN; kernel.problem().output_shape(1).iter().product::<u64>() as usize];
    kernel.run(input, &packed, None, &mut output).expect("fits");
    output
}

/// A 3x3 problem of stride one and padding one, channels last, brighter from a column on.
struct Picture {
    problem: ConvProblem,
    input: Vec<f32>,
    weights: Vec<f32>,
    expected: Vec<f64>,
    size: [usize; 2],
    channels: usize,
}

impl Picture {
    fn new(text: &str, from: usize, brighter: f32) -> Picture {
        let problem = problem(text);
        let size = [0, 1].map(|axis| problem.spatial()[axis].input as usize);
        let channels = problem.in_channels() as usize;
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut input = random.fill(&problem.input_shape(1));
        for (i, value) in input.iter_mut().enumerate() {
            if i / channels % size[1] >= from {
                *value *= brighter;
            }
        }
        let weights = random.fill(&problem.weights_shape());
        let data = ConvData { input: &input, weights: &weights, bias: None, extras: &[] };
        let reference = Reference::new(&problem, 1, data).expect("lengths");
        let outputs = problem.output_shape(1).iter().product::<u64>();
        let expected = (0..outputs).map(|i| reference.output_at(i)).collect();
        Picture { problem, input, weights, expected, size, channels }
    }

    /// The largest magnitude of the input in rows and columns.
    fn largest(&self, rows: std::ops::Range<i64>, columns: std::ops::Range<i64>) -> f64 {
        let inside = |range: std::ops::Range<i64>, size: usize| {
            range.start.max(0) as usize..range.end.min(size as i64) as usize
        };
        let mut most = 0.0_f32;
        for row in inside(rows, self.size[0]) {
            for column in inside(columns.clone(), self.size[1]) {
                let at = (row * self.size[1] + column) * self.channels;
                most = self.input[at..at + self.channels].iter().fold(most, |m, x| m.max(x.abs()));
            }
        }
        f64::from(most)
    }

    /// The largest error of an output in multiples of the norms of the weights and of the input
    /// that tiles of so many outputs read; tiles of one output read windows.
    fn error(&self, output: &[f32], tile: [u64; 2]) -> f64 {
        let outputs = self.problem.out_channels() as usize;
        let norms: Vec<f64> = self
            .weights
            .chunks(self.weights.len() / outputs)
            .map(|own| own.iter().map(|w| f64::from(w.abs())).sum())
            .collect();
        let range = |at: usize, tile: u64| {
            let first = at as i64 / tile as i64 * tile as i64;
            first - 1..first + tile as i64 + 1
        };
        let mut most = 0.0_f64;
        for row in 0..self.size[0] {
            for column in 0..self.size[1] {
                let largest = self.largest(range(row, tile[0]), range(column, tile[1]));
                for (channel, norm) in norms.iter().enumerate() {
                    let at = (row * self.size[1] + column) * outputs + channel;
                    let error = (f64::from(output[at]) - self.expected[at]).abs();
                    assert!(error.is_finite());
                    most = most.max(error / (largest * norm));
                }
            }
        }
        most
    }

    /// The errors of the pick of a compiler, by tile and by window, and the worst case by tile.
    fn errors(&self, compiler: &Compiler) -> (f64, f64, f64) {
        let kernel = compiler.compile(&self.problem).expect("compiles");
        assert_eq!(kernel.algorithm(), Algorithm::Winograd);
        let target = compiler.target();
        let plans = winograd::planned(&self.problem, kernel.schedule(), target).expect("applies");
        let tile = [plans[0].axes[0].tile, plans[0].axes[1].tile];
        assert!(plans[0].error() <= ERROR_BUDGET);
        let output = run(&kernel, &self.input, &self.weights);
        let bound = kernel.sum_bound().expect("transforms");
        (self.error(&output, tile), self.error(&output, [1, 1]), bound)
    }
}

/// The edge lies inside of a tile of four columns and of one of six.
const PICTURES: [(&str, usize, f32); 2] = [
    ("conv2d ic64 oc64 ih16 iw48 kh3 kw3 ph1 pw1", 22, 65_535.0),
    ("conv2d ic64 oc64 ih28 iw28 kh3 kw3 ph1 pw1", 10, 1e6),
];

#[test]
fn errors_are_within_the_norm_of_the_tile_and_not_of_the_window() {
    for (text, from, brighter) in PICTURES {
        let picture = Picture::new(text, from, brighter);
        for compiler in compilers(Accuracy::Default) {
            let (tile, window, bound) = picture.errors(&compiler);
            println!("{}: {tile:.1e} of {bound:.1e}, {window:.1e}", compiler.target());
            assert!(tile <= bound, "{text}: {tile} exceeds {bound}");
            // What is expected is met as well.
            assert!(tile <= ERROR_BUDGET, "{text}: {tile}");
            assert!(window > ERROR_BUDGET, "{text}: {window} of the window");
        }
        // Sums are exact beside what each output reads: 576 products, rounded once each.
        for compiler in compilers(Accuracy::Strict) {
            let kernel = compiler.compile(&picture.problem).expect("compiles");
            let output = run(&kernel, &picture.input, &picture.weights);
            let window = picture.error(&output, [1, 1]);
            assert!(window <= 576.0 * f64::from(f32::EPSILON) / 2.0, "{window}");
        }
    }
}

#[test]
fn local_errors_are_within_the_norm_of_the_window() {
    for (text, from, brighter) in PICTURES {
        for from in [from, from + 1] {
            let picture = Picture::new(text, from, brighter);
            for compiler in compilers(Accuracy::Local) {
                let chosen = winograd::choose(&picture.problem, compiler.target());
                let plans = chosen.expect("applies").plans;
                assert!(plans[0].is_local() && plans[0].axes.iter().all(|axis| axis.tile == 2));
                let kernel = winograd(&compiler, &picture.problem);
                let output = run(&kernel, &picture.input, &picture.weights);
                let bound = kernel.sum_bound().expect("transforms");
                let window = picture.error(&output, [1, 1]);
                println!("{}: {window:.1e} of {bound:.1e}", compiler.target());
                assert!(window <= bound, "{text}: {window} exceeds {bound}");
                assert!(window <= plans[0].error(), "{text}: {window} is not expected");
            }
        }
    }
    let long = problem("conv1d ic16 oc16 iw65536 kw1023");
    for compiler in compilers(Accuracy::Local) {
        assert!(!compiler.decision(&long, Algorithm::Fourier).is_for());
    }
}

fn winograd(compiler: &Compiler, problem: &ConvProblem) -> Kernel {
    compiler
        .compile_with(problem, Algorithm::Winograd, &Schedule::default())
        .unwrap_or_else(|error| panic!("{problem}: {error}"))
}

/// An output of local accuracy depends on no input but those of its window, in each of a problem's
/// kinds: what a NaN reaches is what a sum reaches.
#[test]
fn a_nan_reaches_its_windows_alone_where_errors_are_local() {
    let texts = [
        "conv1d ic3 oc4 iw21 kw2",
        "conv1d ic3 oc4 iw40 kw7 pw3",
        "conv1d ic2 oc2 iw40 kw5 sw2 pw2",
        "conv2d ic3 oc4 ih11 iw13 kh3 kw3 ph1 pw1",
        "conv2d nchw ic3 oc4 ih11 iw12 kh5 kw3 ph2 pw1",
        "conv2d ic3 oc4 ih15 iw16 kh3 kw3 sh2 sw2 ph1 pw1",
        "conv2d ic3 oc4 ih15 iw16 kh3 kw4 dh2 dw3 ph2 pw3 flip",
        "deconv2d ic4 oc3 ih7 iw9 kh4 kw4 sh2 sw2 ph1 pw1",
        "conv3d ic2 oc2 id5 ih6 iw7 kd3 kh3 kw3 pd1 ph1 pw1",
    ];
    for text in texts.map(problem) {
        let mut random = Random(5);
        let clean = random.fill(&text.input_shape(1));
        let weights = random.fill(&text.weights_shape());
        let sum = compilers(Accuracy::Reproducible).remove(0).compile(&text).expect("compiles");
        for compiler in compilers(Accuracy::Local) {
            let kernel = winograd(&compiler, &text);
            for place in (0..clean.len()).step_by(clean.len() / 40 + 1) {
                let mut input = clean.clone();
                input[place] = f32::NAN;
                let reached = |kernel: &Kernel| -> Vec<bool> {
                    run(kernel, &input, &weights).into_iter().map(f32::is_nan).collect()
                };
                assert_eq!(reached(&kernel), reached(&sum), "{text}: {place}");
            }
        }
    }
}

/// One NaN: the outputs whose windows hold it, or those of whole tiles.
#[test]
fn a_nan_reaches_its_windows_or_its_tiles() {
    let problem = problem("conv2d ic64 oc64 ih28 iw28 kh3 kw3 ph1 pw1");
    let mut random = Random(7);
    let mut input = random.fill(&problem.input_shape(1));
    let weights = random.fill(&problem.weights_shape());
    let (row, column) = (13, 14);
    input[(row * 28 + column) * 64 + 5] = f32::NAN;
    let pixels = |output: &[f32]| -> Vec<(usize, usize)> {
        let nan = |pixel: &usize| output[pixel * 64..(pixel + 1) * 64].iter().all(|x| x.is_nan());
        let any = |pixel: &usize| output[pixel * 64..(pixel + 1) * 64].iter().any(|x| x.is_nan());
        let all: Vec<usize> = (0..28 * 28).filter(nan).collect();
        assert_eq!(all, (0..28 * 28).filter(any).collect::<Vec<_>>());
        all.into_iter().map(|pixel| (pixel / 28, pixel % 28)).collect()
    };
    let window = |(r, c): &(usize, usize)| r.abs_diff(row) <= 1 && c.abs_diff(column) <= 1;
    for accuracy in [Accuracy::Strict, Accuracy::Reproducible] {
        for compiler in compilers(accuracy) {
            let output = run(&compiler.compile(&problem).expect("compiles"), &input, &weights);
            let reached = pixels(&output);
            assert!(reached.len() == 9 && reached.iter().all(window), "{reached:?}");
        }
    }
    for compiler in compilers(Accuracy::Default) {
        let kernel = compiler.compile(&problem).expect("compiles");
        assert_eq!(kernel.algorithm(), Algorithm::Winograd);
        let plan = winograd::choose(&problem, compiler.target()).expect("applies").plans.remove(0);
        let reached = pixels(&run(&kernel, &input, &weights));
        let holds = |at: usize, tile: u64, place: usize| {
            let first = (at as u64 / tile * tile) as usize;
            (first..first + tile as usize + 2).contains(&(place + 1))
        };
        let tiles = |r: usize, c: usize| {
            holds(r, plan.axes[0].tile, row) && holds(c, plan.axes[1].tile, column)
        };
        let all = (0..28).flat_map(|r| (0..28).map(move |c| (r, c)));
        assert_eq!(reached, all.filter(|(r, c)| tiles(*r, *c)).collect::<Vec<_>>());
    }
}

/// An infinite weight at a corner of the kernel, which meets padding at fifteen outputs of its
/// channel: NaNs there if they are multiplied, as the plain nest does, or by the choice of a
/// schedule at some or none.
#[test]
fn an_infinite_weight_on_padding_is_reproducible() {
    let nans = |kernel: &Kernel| {
        let input = vec![1.0; 16 * 64];
        let mut weights = vec![1.0; 16 * 16 * 9];
        weights[0] = f32::INFINITY;
        run(kernel, &input, &weights).into_iter().filter(|x| x.is_nan()).count()
    };
    let mut strict = Vec::new();
    for layout in ["nhwc", "nchw"] {
        let problem = problem(&format!("conv2d {layout} ic16 oc16 ih8 iw8 kh3 kw3 ph1 pw1"));
        for compiler in compilers(Accuracy::Reproducible) {
            assert_eq!(nans(&compiler.compile(&problem).expect("compiles")), 15);
        }
        for compiler in compilers(Accuracy::Strict) {
            strict.push(nans(&compiler.compile(&problem).expect("compiles")));
        }
        for compiler in compilers(Accuracy::Default) {
            assert_eq!(nans(&winograd(&compiler, &problem)), 64);
        }
    }
    assert!(strict.iter().all(|count| [0, 7, 8, 15].contains(count)), "{strict:?}");
    assert!(strict.len() == 2 || strict.iter().any(|count| *count < 15), "{strict:?}");
}

/// Values that tell orders, skipped taps and flushed denormals apart.
fn values(shape: &[u64], seed: u64, special: bool) -> Vec<f32> {
    let mut random = Random(seed);
    let mut values = random.fill(shape);
    if special {
        let specials = [f32::INFINITY, -0.0, f32::NAN, 1e-41, -3e38, 0.0, f32::MIN_POSITIVE];
        let step = values.len() / specials.len() + 1;
        for (i, value) in values.iter_mut().step_by(step).enumerate() {
            *value = specials[(i + seed as usize) % specials.len()];
        }
    }
    values
}

/// What the plain nest of a problem computes, by the interpreter.
fn plain(problem: &ConvProblem, arguments: &[(Role, &[f32])], weights: &[f32]) -> Vec<f32> {
    let compiler = compilers(Accuracy::Reproducible).remove(0);
    let nests = compiler.lower(problem, Algorithm::Direct, &Schedule::default()).expect("legal");
    let batch = problem.batch();
    let mut output = vec![f32::NAN; problem.output_shape(batch).iter().product::<u64>() as usize];
    for nest in &nests {
        let packed = interpret::pack(nest, weights).expect("lengths");
        let mut extras = arguments.iter().filter(|(role, _)| *role == Role::Residual);
        let given: Vec<&[f32]> = interpret::arguments(nest.nest())
            .into_iter()
            .map(|id| match nest.nest().buffer(id).role {
                Role::Weights | Role::Packed => packed.as_slice(),
                Role::Gradient | Role::Scale | Role::Residual => {
                    extras.next().map(|(_, slice)| *slice).unwrap_or_default()
                }
                role => {
                    let found = arguments.iter().find(|(given, _)| *given == role);
                    found.map(|(_, slice)| *slice).unwrap_or_default()
                }
            })
            .collect();
        let tasks = 0..nest.nest().tasks(batch as i64).unwrap();
        interpret::run(nest, batch as i64, tasks, &given, &mut output).expect("lengths");
    }
    output
}

/// Holds every instruction set against the plain nest.
fn same_bits(problem: &ConvProblem, special: bool) -> Result<(), TestCaseError> {
    let batch = problem.batch();
    let input = values(&problem.input_shape(batch), 3, special);
    let weights = values(&problem.weights_shape(), 5, special);
    let bias = problem.bias().then(|| values(&[problem.result_channels()], 9, special));
    let shapes = problem.extra_shapes(batch);
    let extras: Vec<Vec<f32>> =
        shapes.iter().map(|(_, shape)| values(shape, 11, special)).collect();
    let extras: Vec<&[f32]> = extras.iter().map(Vec::as_slice).collect();
    let mut arguments = vec![(Role::Input, input.as_slice())];
    arguments.extend(bias.as_deref().map(|bias| (Role::Bias, bias)));
    arguments.extend(extras.iter().map(|extra| (Role::Residual, *extra)));
    let expected = plain(problem, &arguments, &weights);
    for compiler in compilers(Accuracy::Reproducible) {
        let kernel = compiler.compile(problem).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let packed = kernel.pack_weights(&weights).expect("weights of the problem");
        let mut output = vec![0.0; expected.len()];
        let bias = bias.as_deref();
        let given = Arguments { input: &input, weights: &packed, bias, extras: &extras };
        kernel.run_with(&given, &mut output).expect("fits");
        for (i, (found, wanted)) in output.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == wanted.to_bits() || (found.is_nan() && wanted.is_nan());
            prop_assert!(
                same,
                "{}: {}: output {} is {:?}, by the plain nest {:?}\n{}",
                problem,
                compiler.target(),
                i,
                found,
                wanted,
                kernel.schedule().one_line()
            );
        }
        prop_assert!(order::kept(problem, kernel.schedule()).is_ok());
    }
    Ok(())
}

#[test]
fn reproducible_kernels_have_the_bits_of_the_plain_nest_on_every_instruction_set() {
    let cases = (problems::problem(), any::<bool>());
    random::for_each(500, &cases, |(problem, special)| same_bits(&problem, special));
}

/// Where the strict pick adds in another order, or leaves taps on padding out: by parts in lanes,
/// by taps within channels, by rows, in the gradient of weights.
#[test]
fn reproducible_kernels_keep_the_order_where_strict_ones_do_not() {
    let texts = [
        "conv2d ic144 oc24 ih7 iw9 kh1 kw1",
        "conv2d ic32 oc3 ih12 iw12 kh3 kw3 ph1 pw1",
        "conv2d g8 ic64 oc64 ih9 iw9 kh3 kw3 ph1 pw1",
        "conv2d ic64 oc64 ih7 iw7 kh3 kw3 ph1 pw1 bias | relu",
        "conv2d g32 ic32 oc32 ih11 iw11 kh3 kw3 ph1 pw1",
        "conv2d nchw ic8 oc12 ih9 iw21 kh3 kw3 ph1 pw1",
        "conv2d ic16 oc16 ih9 iw9 kh3 kw3 ph1 pw1 bwd_w",
        "conv2d g16 ic16 oc16 ih9 iw9 kh3 kw3 ph1 pw1 bwd_w",
        "conv2d ic16 oc24 ih8 iw8 kh4 kw4 sh2 sw2 ph1 pw1 bwd_d",
    ];
    let mut changed = 0;
    for text in texts.map(problem) {
        for special in [false, true] {
            same_bits(&text, special).unwrap_or_else(|error| panic!("{error}"));
        }
        for compiler in compilers(Accuracy::Strict) {
            changed += usize::from(order::kept(&text, &compiler.pick(&text).schedule).is_err());
        }
    }
    assert!(changed >= texts.len(), "only {changed} strict picks change the order");
    let rfactored = |accuracy| {
        let picks = compilers(accuracy).into_iter().map(|c| c.pick(&problem(texts[0])).schedule);
        let has = |schedule: Schedule| {
            schedule.directives.iter().any(|d| matches!(d, Directive::Rfactor { .. }))
        };
        picks.map(has).collect::<Vec<bool>>()
    };
    // What README says of strict: the bits may depend on the instruction set.
    let strict = rfactored(Accuracy::Strict);
    assert!(strict.len() == 1 || strict.contains(&true) && strict.contains(&false), "{strict:?}");
    assert!(!rfactored(Accuracy::Reproducible).contains(&true));
}

#[test]
fn records_that_change_the_order_are_refused_with_the_directive() {
    let text = "conv2d ic8 oc8 ih6 iw6 kh3 kw3 ph1 pw1";
    let cases = [
        ("split ic by 2; rfactor ic.i; vectorize ic.i", Some("`rfactor ic.i` changes the sum")),
        ("skip padding at kh", Some("`skip padding at kh` changes the sum")),
        ("reorder ic kh", Some("the loop of `kw` in that of `ic`")),
        ("reorder kw kh", Some("the loop of `kh` in that of `kw`")),
        ("split ic by 2; reorder ic.i ic.o", Some("the loop of `ic.o` in that of `ic.i`")),
        (
            "split ic by 4; split ic.i by 2; reorder ic.i.i ic.i.o",
            Some("`ic.i.o` in that of `ic.i.i`"),
        ),
        ("split ic by 2; split kw by 2; unroll kw.i; parallel n", None),
        ("reorder oh oc ow; accumulate output at oc; vectorize ow", None),
        ("reorder kh kw ic", None),
    ];
    for (schedule, reason) in cases {
        for compiler in compilers(Accuracy::Reproducible) {
            let record = Record {
                key: Key::new(&problem(text), compiler.target(), 1),
                algorithm: Algorithm::Direct,
                schedule: parse_schedule(schedule).unwrap(),
                batch: 1,
                seconds: 1e-6,
                default_seconds: 2e-6,
                candidates: 4,
                date: "2026-11-30T06:00:00Z".to_owned(),
            };
            let mut records = Database::new();
            records.insert(&record).unwrap();
            let compiler = compiler.with_database(Arc::new(records));
            let strict = compiler.clone().with_accuracy(Accuracy::Strict);
            let origin = strict.pick(&problem(text)).origin;
            assert!(matches!(origin, Origin::Record(_)), "{schedule}: {origin:?}");
            match (compiler.pick(&problem(text)).origin, reason) {
                (Origin::Record(_), None) => {}
                (Origin::Refused { reason }, Some(part)) if reason.contains(part) => {}
                (origin, _) => panic!("{schedule}: {origin:?}"),
            }
        }
    }
    assert_eq!(problem(text).direction(), Direction::Forward);
}

/// Pairs are made of the schedules of their halves.
#[test]
fn reproducible_pairs_have_the_bits_of_reproducible_halves() {
    let texts = [
        "conv2d g32 ic32 oc32 ih9 iw9 kh3 kw3 ph1 pw1 | relu6 -> conv2d ic32 oc24 ih9 iw9 kh1 kw1",
        "conv2d nchw g24 ic24 oc24 ih7 iw8 kh3 kw3 ph1 pw1 -> conv2d nchw ic24 oc40 ih7 iw8 kh1 kw1",
    ];
    for text in texts {
        let pair: Separable = text.parse().expect(text);
        let data = PairData::reals(&pair);
        let mut outputs = compilers(Accuracy::Reproducible).into_iter().map(|compiler| {
            let kernel = compiler.compile_separable(&pair).expect("compiles");
            let compile = |half| compiler.compile(half).expect("compiles");
            let halves = [pair.depthwise(), pair.pointwise()].map(compile);
            let output = data.run(&kernel).expect("runs").to_vec();
            assert_eq!(output, data.run_halves(&halves[0], &halves[1]).expect("runs").to_vec());
            output
        });
        let first = outputs.next().expect("a host Cranelift knows");
        assert!(outputs.all(|output| output == first), "{text}");
    }
}

/// What `explain` prints names both errors and the norm that they are multiples of.
#[test]
fn decisions_say_which_norm_errors_are_multiples_of() {
    let problem = problem(PICTURES[0].0);
    for (accuracy, norm) in [(Accuracy::Default, "tile"), (Accuracy::Local, "window")] {
        for compiler in compilers(accuracy) {
            let chosen = winograd::choose(&problem, compiler.target());
            let plan = chosen.expect("applies").plans.remove(0);
            let text = compiler.decision(&problem, Algorithm::Winograd).to_string();
            let [expected, worst] = [plan.error(), plan.bound()].map(|c| format!("{c:.1e}"));
            let said = format!(
                "error expected {expected} of a budget of 1.0e-4, in the worst case {worst}, of the \
                 norm of the {norm}"
            );
            assert!(text.ends_with(&said), "{text}, expected {said}");
        }
    }
}

#[test]
fn every_accuracy_has_a_word() {
    for accuracy in Accuracy::ALL {
        assert_eq!(accuracy.name().parse(), Ok(accuracy));
    }
    let refused = "exact".parse::<Accuracy>().unwrap_err().to_string();
    assert_eq!(refused, "no accuracy `exact`; there is: reproducible, strict, local, default");
}
