//! Kernels between pages without access: nothing beyond a buffer is read or written, whatever the
//! problem, the layout, the instruction set, the direction, the algorithm and the schedule.
//!
//! Each kernel is run in four ways: by the calls of its user and by the kernel ABI
//! (`common/raw.rs`, where packed weights and scratch are fenced too), with buffers that end at
//! such a page and with buffers that begin after one. Tasks run alone, from the last to the first;
//! outputs are NaNs before, scratch is NaNs or what another kernel left. The bits must be those of
//! the interpreter. A fault ends the process, and prints the case.
#![cfg(unix)]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/fence.rs"]
mod fence;
#[path = "common/pairs.rs"]
mod pairs;
#[path = "common/problems.rs"]
mod problems;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/schedules.rs"]
mod schedules;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use convgen::algorithm::Algorithm;
use convgen::record::{Database, Key, Record};
use convgen::{
    Accuracy, Arguments, Compiler, Error, Host, Isa, Kernel, PackedWeights, SeparableArguments,
    SeparableKernel,
};
use convgen::{Call, Scratch};
use convgen_ir::Layout;
use convgen_ir::interpret;
use convgen_ir::nest::Role;
use convgen_ir::parse::parse_nest;
use convgen_ir::problem::{ConvProblem, ConvSpec, Direction, SpatialAxis};
use convgen_ir::schedule::Schedule;
use convgen_ir::verify::{VerifiedNest, verify};
use fault::named;
use fence::{Edge, Fenced};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use raw::{Machine, real_values, same};
use rayon::prelude::*;
use schedules::{Step, steps};

#[test]
fn two_thousand_kernels_touch_nothing_beyond_their_buffers() {
    hold_kernels(0, 2_000);
}

/// Some minutes: `cargo test --release --test guard -- --ignored`.
#[test]
#[ignore = "long"]
fn twenty_thousand_kernels_touch_nothing_beyond_their_buffers() {
    hold_kernels(1 << 32, 20_000);
}

/// The condition holds in no lane of most tasks, where the element that all lanes read lies
/// outside.
#[test]
fn a_block_that_runs_in_no_lane_reads_nothing() {
    let text = "nest lanes {
  input f32[15001]
  output f32[16]
  parallel t in 0..100 {
    reg acc f32[8]
    vector v in 0..8 { acc[v] = 1.0 }
    vector v in 0..8 {
      if 8*t+v < 16 { output[8*t+v] = add(acc[v], input[8000*t]) }
    }
  }
}";
    for (compiler, isa, machine) in &Machines::new().0 {
        let (nest, _) = parse_nest(text).expect("a nest");
        let nest = verify(nest, &compiler.target().limits()).expect("inside by the condition");
        raw::hold(&nest, machine, 1, text).unwrap_or_else(|error| panic!("{isa}: {error}"));
    }
}

/// What a case compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A random problem under a random schedule.
    Scheduled,
    /// A random problem with the default pick of sums.
    Default,
    /// Channels and pixels as layers have them, with the default pick of any algorithm.
    Layer,
    /// Minimal filtering.
    Winograd,
    /// Fourier transforms, and their stages alone.
    Fourier,
    /// A tuning record with a random schedule.
    Record,
    /// A depthwise and a pointwise convolution.
    Pair,
}

/// How many of each kind there are among a few cases.
const KINDS: [(Kind, u64); 7] = [
    (Kind::Scheduled, 8),
    (Kind::Default, 3),
    (Kind::Layer, 2),
    (Kind::Winograd, 3),
    (Kind::Fourier, 2),
    (Kind::Record, 3),
    (Kind::Pair, 3),
];

impl Kind {
    fn of(case: u64) -> Kind {
        let all: Vec<Kind> =
            KINDS.iter().flat_map(|(kind, share)| vec![*kind; *share as usize]).collect();
        all[(case % all.len() as u64) as usize]
    }
}

/// Kernels that were held, by what they are like.
type Counts = BTreeMap<String, usize>;

/// Runs cases from the first number on until there are so many kernels.
fn hold_kernels(first: u64, kernels: usize) {
    let machines = Machines::new();
    let (mut counts, mut next) = (Counts::new(), first);
    let mut failures = vec![];
    while counts.get("kernels").copied().unwrap_or(0) < kernels && failures.len() < 3 {
        let cases = 256;
        let outcomes: Vec<Result<Counts, String>> =
            (next..next + cases).into_par_iter().map(|case| hold_case(case, &machines)).collect();
        for (case, outcome) in (next..).zip(outcomes) {
            match outcome {
                Ok(more) => {
                    more.into_iter().for_each(|(key, n)| *counts.entry(key).or_default() += n)
                }
                Err(failure) => failures.push(format!("case {case}: {failure}")),
            }
        }
        next += cases;
    }
    println!("{counts:#?}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
    // A test of the kernels that nobody writes would pass whatever the others do.
    let all = counts["kernels"];
    let share = |key: &str| counts.get(key).copied().unwrap_or(0) as f64 / all as f64;
    let kinds = KINDS.map(|(kind, _)| format!("{kind:?}"));
    let layouts = Layout::ALL.iter().map(|layout| layout.to_string());
    let isas = machines.0.iter().map(|(_, isa, _)| isa.name().to_string());
    for key in kinds.into_iter().chain(layouts).chain(isas) {
        assert!(share(&key) > 0.03, "{key}: {counts:?}");
    }
    for direction in ["fwd", "deconv", "bwd_d", "bwd_w", "bwd_b"] {
        assert!(share(direction) > 0.015, "{direction}: {counts:?}");
    }
    assert!(share("packed") > 0.1 && share("scratch") > 0.1, "{counts:?}");
    assert!(share("refused") < 0.1, "{counts:?}");
}

/// The instruction sets of this host.
struct Machines(Vec<(Compiler, Isa, Machine)>);

impl Machines {
    fn new() -> Machines {
        let host = Host::detect();
        let made = Isa::ALL.into_iter().filter_map(|isa| {
            let compiler = Compiler::new(&host, isa).ok()?.with_database(Arc::default());
            Some((compiler, isa, Machine::new(&host, isa).ok()?))
        });
        let made: Vec<_> = made.collect();
        assert!(!made.is_empty(), "no instruction set");
        Machines(made)
    }
}

/// Compiles and holds the kernels of one case.
fn hold_case(case: u64, machines: &Machines) -> Result<Counts, String> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&case.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut draw = Draw { runner: TestRunner::new_with_rng(config, rng), text: String::new() };
    let kind = Kind::of(case);
    let mut counts = Counts::new();
    // A panic is a failure as any other: the case is in its text.
    let drawn = catch_unwind(AssertUnwindSafe(|| draw.subjects(kind, machines)));
    let subjects = drawn.unwrap_or_else(|_| Err("a panic, see above".into()));
    let subjects = subjects.map_err(|error| format!("{kind:?}: {error}: {}", draw.text))?;
    for (isa, machine, subject) in subjects {
        let Some(subject) = subject else {
            *counts.entry("refused".into()).or_default() += 1;
            continue;
        };
        let text = subject.test_case();
        let held = catch_unwind(AssertUnwindSafe(|| subject.hold(machine)));
        let held = held.unwrap_or_else(|_| Err("a panic, see above".into()));
        held.map_err(|error| format!("{kind:?} {isa}: {error}\n{text}"))?;
        if kind == Kind::Fourier {
            subject.hold_stages(machine, machines)?;
        }
        for key in subject.properties(isa).chain([format!("{kind:?}"), "kernels".into()]) {
            *counts.entry(key).or_default() += 1;
        }
    }
    Ok(counts)
}

/// A kernel for each instruction set; none where its text is refused.
type Subjects<'m> = Vec<(Isa, &'m Machine, Option<Subject>)>;

/// Draws what a case needs.
struct Draw {
    runner: TestRunner,
    /// What was drawn last.
    text: String,
}

impl Draw {
    fn value<T: Clone + std::fmt::Debug>(&mut self, strategy: impl Strategy<Value = T>) -> T {
        strategy.new_tree(&mut self.runner).expect("a strategy without filters").current()
    }

    fn subjects<'m>(&mut self, kind: Kind, machines: &'m Machines) -> Result<Subjects<'m>, String> {
        let mut made = vec![];
        match kind {
            Kind::Scheduled | Kind::Record => {
                let (problem, steps) = self.value((problems::problem(), steps()));
                self.text = format!("{problem} under {steps:?}");
                for (compiler, isa, machine) in &machines.0 {
                    let schedule = legal_schedule(compiler, &problem, &steps)?;
                    let kernel = match kind == Kind::Record {
                        true => by_record(compiler, &problem, &schedule)?,
                        false => compiler.compile_with(&problem, Algorithm::Direct, &schedule),
                    };
                    made.push((*isa, machine, Some(Subject::kernel(&problem, kernel)?)));
                }
            }
            Kind::Default | Kind::Layer => {
                let (problem, accuracy) = match kind == Kind::Layer {
                    true => (self.value(layer()), Accuracy::Default),
                    false => (self.value(problems::problem()), Accuracy::Strict),
                };
                self.text = problem.to_string();
                for (compiler, isa, machine) in &machines.0 {
                    let kernel = compiler.clone().with_accuracy(accuracy).compile(&problem);
                    made.push((*isa, machine, Some(Subject::kernel(&problem, kernel)?)));
                }
            }
            Kind::Winograd | Kind::Fourier => {
                let (problem, algorithm) = match kind == Kind::Winograd {
                    true => (self.value(layer()), Algorithm::Winograd),
                    false => (self.value(problems::problem()), Algorithm::Fourier),
                };
                self.text = problem.to_string();
                for (compiler, isa, machine) in &machines.0 {
                    let kernel = compiler.compile_with(&problem, algorithm, &Schedule::default());
                    if matches!(kernel, Err(Error::Unsupported(_))) {
                        continue;
                    }
                    made.push((*isa, machine, Some(Subject::kernel(&problem, kernel)?)));
                }
            }
            Kind::Pair => {
                let pair = self.value(pairs::pair());
                self.text = pair.to_string();
                for (compiler, isa, machine) in &machines.0 {
                    // A row that does not fit the scratch is refused.
                    let kernel = compiler.compile_separable(&pair).ok();
                    made.push((
                        *isa,
                        machine,
                        kernel.map(|kernel| Subject::Pair(Box::new(kernel))),
                    ));
                }
            }
        }
        Ok(made)
    }
}

/// Problems as layers are: whole vectors of channels as often as not, kernels of few taps, every
/// direction.
fn layer() -> impl Strategy<Value = ConvProblem> {
    let channels = || prop_oneof![prop::sample::select(&[3, 16, 32, 64][..]), 1..=70u64];
    let axis = || (3..=24u64, prop::sample::select(&[1, 2, 3, 3, 5, 7][..]), 1..=2u64, 0..=2i64);
    let axes = prop::collection::vec(axis(), 1..=2);
    let rest = (prop::sample::select(Layout::ALL), prop::sample::select(&DIRECTIONS[..]));
    (channels(), channels(), axes, rest, 1..=2u64).prop_map(|(ic, oc, axes, rest, batch)| {
        let spatial = axes.into_iter().map(|(input, kernel, stride, pad)| {
            let (input, pad_before, pad_after) = (input.max(kernel), pad, pad);
            SpatialAxis { stride, pad_before, pad_after, ..SpatialAxis::new(input, kernel) }
        });
        let (layout, direction) = rest;
        let spec = ConvSpec::new(ic, oc, spatial.collect::<Vec<_>>()).layout(layout);
        ConvProblem::new(spec.direction(direction).batch(batch)).expect("legal by construction")
    })
}

/// Half of the layers are forward.
const DIRECTIONS: [Direction; 8] = [
    Direction::Forward,
    Direction::Forward,
    Direction::Forward,
    Direction::Forward,
    Direction::Transposed,
    Direction::BackwardData,
    Direction::BackwardWeights,
    Direction::BackwardBias,
];

/// The longest beginning of the steps that is legal on the target.
fn legal_schedule(
    compiler: &Compiler,
    problem: &ConvProblem,
    steps: &[Step],
) -> Result<Schedule, String> {
    let parts = Algorithm::Direct.parts(problem).map_err(|error| error.to_string())?;
    let summing = parts.iter().find(|part| part.schedule.is_none());
    let mut applied = summing.map_or(vec![], |part| schedules::apply(&part.nest, steps));
    loop {
        let schedule: Schedule = applied.iter().map(|step| step.directive.clone()).collect();
        match compiler.lower(problem, Algorithm::Direct, &schedule) {
            Ok(_) => return Ok(schedule),
            Err(_) if applied.pop().is_some() => {}
            Err(error) => return Err(format!("the unscheduled nest of {problem}: {error}")),
        }
    }
}

/// The kernel that a database with one record gives.
fn by_record(
    compiler: &Compiler,
    problem: &ConvProblem,
    schedule: &Schedule,
) -> Result<Result<Kernel, Error>, String> {
    let record = Record {
        key: Key::new(problem, compiler.target(), 1),
        algorithm: Algorithm::Direct,
        schedule: schedule.clone(),
        batch: 1,
        seconds: 1e-6,
        default_seconds: 2e-6,
        candidates: 1,
        date: "2027-01-15T08:00:00Z".into(),
    };
    let line = record.to_line().map_err(|error| error.to_string())?;
    let kernel = compiler.clone().with_database(Arc::new(Database::read(line.as_bytes())));
    let kernel = kernel.compile(problem);
    match &kernel {
        Ok(kernel) if kernel.schedule() != schedule => {
            Err(format!("the record is not used:\n{line}"))
        }
        Ok(_) | Err(_) => Ok(kernel),
    }
}

/// What is held.
enum Subject {
    Kernel(Box<Kernel>),
    Pair(Box<SeparableKernel>),
}

impl Subject {
    fn kernel(problem: &ConvProblem, kernel: Result<Kernel, Error>) -> Result<Subject, String> {
        kernel
            .map(|kernel| Subject::Kernel(Box::new(kernel)))
            .map_err(|e| format!("{problem}: {e}"))
    }

    /// The case as a file of the tests.
    fn test_case(&self) -> String {
        match self {
            Subject::Kernel(kernel) => format!(
                "# what would break: {}\ntest jit\nproblem:\n{}\nschedule:\n{}",
                kernel.name(),
                kernel.problem(),
                kernel.schedule()
            ),
            Subject::Pair(kernel) => {
                format!("# {}\n{}\n# {:?}", kernel.name(), kernel.separable(), kernel.plan())
            }
        }
    }

    fn problems(&self) -> Vec<&ConvProblem> {
        match self {
            Subject::Kernel(kernel) => vec![kernel.problem()],
            Subject::Pair(kernel) => {
                vec![kernel.separable().depthwise(), kernel.separable().pointwise()]
            }
        }
    }

    fn nests(&self) -> Vec<&VerifiedNest> {
        match self {
            Subject::Kernel(kernel) => kernel.nests().collect(),
            Subject::Pair(kernel) => kernel.nests().collect(),
        }
    }

    /// What is counted.
    fn properties(&self, isa: Isa) -> impl Iterator<Item = String> {
        let [first, ..] = self.problems()[..] else { panic!("no problem") };
        let nests = self.nests();
        let packed = nests.iter().any(|nest| !nest.nest().pack.is_empty());
        let scratch = nests.iter().any(|nest| nest.scratch_bytes() > 0);
        let direction = match first.direction() {
            Direction::Forward => "fwd",
            Direction::Transposed => "deconv",
            Direction::BackwardData => "bwd_d",
            Direction::BackwardWeights => "bwd_w",
            Direction::BackwardBias => "bwd_b",
        };
        let fixed = [isa.name(), direction].map(String::from);
        let some = [(packed, "packed"), (scratch, "scratch")];
        let some = some.into_iter().filter(|(is, _)| *is).map(|(_, name)| name.to_string());
        fixed.into_iter().chain([first.layout().to_string()]).chain(some)
    }

    /// Runs it in all four ways.
    fn hold(&self, machine: &Machine) -> Result<(), String> {
        let tensors = Tensors::of(&self.problems());
        let plain = self.run(&tensors, None)?;
        let transforms = matches!(self, Subject::Kernel(k) if k.algorithm() == Algorithm::Fourier);
        if !transforms {
            let words = |error| format!("kernel and interpreter: {error}");
            same(&plain, &tensors.interpret(&self.nests())?).map_err(words)?;
        }
        for edge in Edge::BOTH {
            let words = |error| format!("{edge:?} of the buffers: {error}");
            let output = self.run(&tensors, Some(edge)).map_err(words)?;
            same(&output, &plain).map_err(words)?;
        }
        let batch = tensors.batch as i64;
        let case = self.test_case();
        // The nests of a kernel of transforms read what these leave.
        let nests = if transforms { vec![] } else { self.nests() };
        nests.into_iter().try_for_each(|nest| raw::hold(nest, machine, batch, &case))
    }

    /// The stages around transforms, by the kernel ABI.
    fn hold_stages(&self, machine: &Machine, machines: &Machines) -> Result<(), String> {
        let Subject::Kernel(kernel) = self else { return Ok(()) };
        let own = machines.0.iter().find(|(_, _, other)| std::ptr::eq(other, machine));
        let Some((compiler, ..)) = own else { return Ok(()) };
        let (_, stages) = compiler
            .stages(kernel.problem(), kernel.schedule())
            .map_err(|error| error.to_string())?;
        let batch = kernel.problem().batch() as i64;
        let case = self.test_case();
        let hold = |nest| raw::hold(nest, machine, batch, &case);
        stages.iter().try_for_each(hold).map_err(|error| format!("a stage: {error}\n{case}"))
    }

    /// The output of the kernel's own calls, on buffers at an edge or on ordinary ones.
    fn run(&self, tensors: &Tensors, edge: Option<Edge>) -> Result<Vec<f32>, String> {
        let text = |error: Error| error.to_string();
        let placed = Placed::new(tensors, edge);
        let case = format!("{}\n# buffers at {edge:?}", self.test_case());
        named(&case, || {
            let weights: Vec<&[f32]> = placed.weights.iter().map(Place::values).collect();
            let packed = match self {
                Subject::Kernel(kernel) => kernel.pack_weights(weights[0]),
                Subject::Pair(kernel) => kernel.pack_weights(weights[0], weights[1]),
            };
            let packed = packed.map_err(text)?;
            let mut output = Place::new(&vec![f32::NAN; tensors.outputs], edge);
            let extras: Vec<&[f32]> = placed.extras.iter().map(Place::values).collect();
            let call =
                self.prepare(&placed, &packed, &extras, output.values_mut()).map_err(text)?;
            run_backwards(call);
            placed.unchanged(tensors)?;
            output.intact("output")?;
            Ok(output.values().to_vec())
        })
    }

    fn prepare<'a>(
        &'a self,
        placed: &'a Placed,
        weights: &'a PackedWeights,
        extras: &'a [&'a [f32]],
        output: &'a mut [f32],
    ) -> Result<Call<'a>, Error> {
        let input = placed.input.values();
        let mut biases = placed.biases.iter().map(|bias| bias.as_ref().map(Place::values));
        let mut bias = || biases.next().flatten();
        match self {
            Subject::Kernel(kernel) => {
                kernel.prepare(&Arguments { input, weights, bias: bias(), extras }, output)
            }
            Subject::Pair(kernel) => {
                let (depthwise_bias, pointwise_bias) = (bias(), bias());
                let arguments =
                    SeparableArguments { input, weights, depthwise_bias, pointwise_bias, extras };
                kernel.prepare(&arguments, output)
            }
        }
    }
}

/// Runs each task of a call alone, from the last to the first, on scratch that other kernels used.
fn run_backwards(mut call: Call) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let mut tasks = call.tasks();
        while !tasks.is_empty() {
            let others = tasks.len() - 1;
            let (before, last) = tasks.split_at(others);
            last.run(scratch);
            tasks = before;
        }
    });
}

/// The values of a call.
struct Tensors {
    batch: u64,
    input: Vec<f32>,
    weights: Vec<Vec<f32>>,
    biases: Vec<Option<Vec<f32>>>,
    extras: Vec<Vec<f32>>,
    outputs: usize,
}

impl Tensors {
    /// Of one problem, or of several of which each reads what the one before it computes.
    fn of(problems: &[&ConvProblem]) -> Tensors {
        let [first, ..] = problems[..] else { panic!("no problem") };
        let last = problems[problems.len() - 1];
        let batch = first.batch();
        let mut state = 7;
        let mut fill = |shape: &[u64]| real_values(product(shape), &mut state);
        let input = fill(&first.input_shape(batch));
        let weights = problems.iter().map(|problem| fill(&problem.weights_shape())).collect();
        let biases = problems.iter().map(|p| p.bias().then(|| fill(&[p.result_channels()])));
        let biases = biases.collect();
        let extras = problems.iter().flat_map(|problem| problem.extra_shapes(batch));
        let extras = extras.map(|(_, shape)| fill(&shape)).collect();
        let outputs = product(&last.output_shape(batch));
        Tensors { batch, input, weights, biases, extras, outputs }
    }

    /// What the nests mean.
    fn interpret(&self, nests: &[&VerifiedNest]) -> Result<Vec<f32>, String> {
        let batch = self.batch as i64;
        let mut output = vec![f32::NAN; self.outputs];
        for nest in nests {
            let ir = nest.nest();
            let read = ir.find_all(Role::Weights).count();
            let weights: Vec<&[f32]> = self.weights.iter().take(read).map(Vec::as_slice).collect();
            let packed = interpret::pack_all(nest, &weights).map_err(|error| error.to_string())?;
            let mut packed = packed.iter().map(Vec::as_slice);
            let mut biases = self.biases.iter().flatten().map(Vec::as_slice);
            let mut extras = self.extras.iter().map(Vec::as_slice);
            let given: Option<Vec<&[f32]>> = interpret::arguments(ir)
                .into_iter()
                .map(|id| match ir.buffer(id).role {
                    Role::Input => Some(self.input.as_slice()),
                    Role::Weights | Role::Packed => packed.next(),
                    Role::Bias => biases.next(),
                    Role::Gradient | Role::Scale | Role::Residual => extras.next(),
                    Role::Output | Role::Scratch | Role::Reg => None,
                })
                .collect();
            let given = given.ok_or("a nest that reads more than its problem has")?;
            interpret::run(nest, batch, 0..ir.tasks(batch).unwrap(), &given, &mut output)
                .map_err(|error| error.to_string())?;
        }
        Ok(output)
    }
}

fn product(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}

/// The values of a call where it reads them.
struct Placed {
    input: Place,
    weights: Vec<Place>,
    biases: Vec<Option<Place>>,
    extras: Vec<Place>,
}

impl Placed {
    fn new(tensors: &Tensors, edge: Option<Edge>) -> Placed {
        let place = |values: &Vec<f32>| Place::new(values, edge);
        Placed {
            input: place(&tensors.input),
            weights: tensors.weights.iter().map(place).collect(),
            biases: tensors.biases.iter().map(|bias| bias.as_ref().map(place)).collect(),
            extras: tensors.extras.iter().map(place).collect(),
        }
    }

    /// Whether a call left alone what it only reads.
    fn unchanged(&self, tensors: &Tensors) -> Result<(), String> {
        self.input.unchanged("input", &tensors.input)?;
        let weights = self.weights.iter().zip(&tensors.weights);
        let extras = self.extras.iter().zip(&tensors.extras);
        let biases = self.biases.iter().flatten().zip(tensors.biases.iter().flatten());
        let mut rest = weights.chain(extras).chain(biases);
        rest.try_for_each(|(place, values)| place.unchanged("weights, bias or extras", values))
    }
}

/// Memory of a buffer.
enum Place {
    Ordinary(Vec<f32>),
    Fenced(Fenced),
}

impl Place {
    fn new(values: &[f32], edge: Option<Edge>) -> Place {
        match edge {
            Some(edge) => Place::Fenced(Fenced::new(values, edge)),
            None => Place::Ordinary(values.to_vec()),
        }
    }

    fn values(&self) -> &[f32] {
        match self {
            Place::Ordinary(values) => values,
            Place::Fenced(fenced) => fenced.values(),
        }
    }

    fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Place::Ordinary(values) => values,
            Place::Fenced(fenced) => fenced.values_mut(),
        }
    }

    fn intact(&self, what: &str) -> Result<(), String> {
        match self {
            Place::Ordinary(_) => Ok(()),
            Place::Fenced(fenced) => fenced.intact(what),
        }
    }

    fn unchanged(&self, what: &str, values: &[f32]) -> Result<(), String> {
        self.intact(what)?;
        match self.values().iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()) {
            true => Ok(()),
            false => Err(format!("a store into {what}")),
        }
    }
}

/// A subject that touches what it must not is noticed: the tests above can fail.
mod fences_bite {
    use super::*;

    #[test]
    fn a_store_on_the_accessible_side_is_seen() {
        for edge in Edge::BOTH {
            let fenced = Fenced::new(&[1.0, 2.0, 3.0], edge);
            assert_eq!(fenced.intact("x"), Ok(()));
            let beyond = match edge {
                Edge::End => fenced.pointer().wrapping_sub(1),
                Edge::Begin => fenced.pointer().wrapping_add(12),
            };
            // SAFETY: the byte lies in the accessible page of the buffer.
            unsafe { beyond.write(0) };
            assert!(fenced.intact("x").is_err(), "{edge:?}");
        }
    }

    #[test]
    fn an_access_beyond_the_edge_ends_the_process_with_the_case() {
        for edge in ["End", "Begin"] {
            let test = "fences_bite::one_byte_beyond";
            let child = std::process::Command::new(std::env::current_exe().expect("a test"))
                .args(["--exact", "--ignored", "--nocapture", test])
                .env("CONVGEN_GUARD_EDGE", edge)
                .output()
                .expect("the test runs again");
            let text = String::from_utf8_lossy(&child.stderr);
            assert!(!child.status.success() && text.contains("signal 0"), "{edge}: {text}");
            assert!(text.contains("conv1d of the case"), "{edge}: {text}");
        }
    }

    /// Run by the test above, in a process of its own.
    #[test]
    #[ignore = "ends the process"]
    fn one_byte_beyond() {
        let Ok(edge) = std::env::var("CONVGEN_GUARD_EDGE") else { return };
        let last = edge == "End";
        let fenced = Fenced::new(&[1.0; 5], if last { Edge::End } else { Edge::Begin });
        let beyond = if last { fenced.addresses().len() } else { usize::MAX };
        named("conv1d of the case", || {
            // SAFETY: none: the test is that this ends the process.
            unsafe { fenced.pointer().wrapping_add(beyond).read_volatile() };
        });
    }
}
