//! Writes lowered nests as a stream for the checker: `cargo run --example nests -- KIND`.
//!
//! | kind | the kernels written |
//! |---|---|
//! | `suites [STEP]` | every problem of the suites, or every STEP-th: default pick, both layouts |
//! | `pairs` | every fused pair of neighbours in the suites, both layouts |
//! | `gradients [STEP]` | the gradients of the input and of the weights of the suites' problems |
//! | `random COUNT SEED` | random problems: default pick, random schedule, Winograd, Fourier |
//! | `mutants COUNT SEED` | nests of random problems, damaged, that the verifier accepts nevertheless |
//!
//! Each for clif, avx2 and avx512 of a typical machine, whatever the host is. A line `#! label`
//! begins a kernel; the nests of its parts follow. What a stage refuses is left out; standard error
//! says how often.

#[path = "../common/mutants.rs"]
#[allow(dead_code, reason = "the files of test cases are for other tests")]
mod mutants;
#[path = "../common/problems.rs"]
#[allow(dead_code, reason = "only whole problems are drawn")]
mod problems;
#[path = "../common/schedules.rs"]
mod schedules;
#[path = "../common/suites.rs"]
mod suites;

use std::io::{self, Write};

use convgen::algorithm::Algorithm;
use convgen::fourier::Plan;
use convgen::scheduler::decision::Weighing;
use convgen::scheduler::{self, separable};
use convgen::target::Caches;
use convgen::{Compiler, Error, Isa, Target, lower};
use convgen_ir::Layout;
use convgen_ir::nest::Nest;
use convgen_ir::parse::parse_nest;
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::Schedule;
use convgen_ir::separable::Separable;
use convgen_ir::verify::{Limits, VerifiedNest, verify};
use mutants::{Random, mutant};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use schedules::{Step, steps};

const USAGE: &str =
    "nests suites [STEP] | gradients [STEP] | pairs | random COUNT SEED | mutants COUNT SEED";

const GRADIENTS: [Direction; 2] = [Direction::BackwardData, Direction::BackwardWeights];

/// Damaged texts tried for one nest: about one in twenty is legal.
const MUTANTS: usize = 100;

/// What a mutant may need: more than any target grants.
const LIMITS: Limits = Limits::INTERPRETER;

type Nests = Result<Vec<VerifiedNest>, Error>;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    let mut stream = Stream { out: io::stdout().lock(), written: 0, refused: 0 };
    match (arguments.first().map(String::as_str), number(1), number(2)) {
        (Some("suites"), step, _) => stream.suites(step.unwrap_or(1), &[Direction::Forward])?,
        (Some("gradients"), step, _) => stream.suites(step.unwrap_or(1), &GRADIENTS)?,
        (Some("pairs"), _, _) => stream.pairs()?,
        (Some("random"), Some(count), Some(seed)) => stream.random(count, seed)?,
        (Some("mutants"), Some(count), Some(seed)) => stream.mutants(count, seed)?,
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
    eprintln!("{} kernels, {} refused", stream.written, stream.refused);
    Ok(())
}

struct Stream<W> {
    out: W,
    written: usize,
    refused: usize,
}

impl<W: Write> Stream<W> {
    fn suites(&mut self, step: u64, directions: &[Direction]) -> io::Result<()> {
        for (at, problem) in (0..).zip(suite_problems()) {
            for (layout, direction) in both(Layout::ALL, directions) {
                let problem = problem.with_layout(layout).with_direction(direction);
                let Ok(problem) = problem else { continue };
                for isa in Isa::ALL.into_iter().filter(|_| at % step == 0) {
                    let target = target(isa);
                    self.kernels(&format!("{isa} {problem}"), default_pick(&problem, &target))?;
                }
            }
        }
        Ok(())
    }

    fn pairs(&mut self) -> io::Result<()> {
        let problems = suite_problems();
        for (neighbours, layout) in both_of(problems.windows(2), Layout::ALL) {
            let [first, second] = neighbours else { continue };
            let pair = Separable::new(first.with_layout(layout), second.with_layout(layout));
            let Ok(pair) = pair else { continue };
            for isa in Isa::ALL {
                self.kernel(&format!("{isa} {pair}"), fused(&pair, &target(isa)))?;
            }
        }
        Ok(())
    }

    fn random(&mut self, count: u64, seed: u64) -> io::Result<()> {
        for case in 0..count {
            let (problem, steps) = draw(case, seed);
            for isa in Isa::ALL {
                let target = target(isa);
                let label = format!("{isa} case {case} {problem}");
                self.kernels(&format!("{label} default"), default_pick(&problem, &target))?;
                let (schedule, nests) = scheduled(&problem, &steps, &target);
                let directives = schedule.to_string().replace('\n', "; ");
                self.kernel(&format!("{label} schedule {directives}"), nests)?;
                let winograd = nests_of(&problem, Algorithm::Winograd, &target);
                self.kernels(&format!("{label} winograd"), winograd)?;
                let fourier = nests_of(&problem, Algorithm::Fourier, &target);
                self.kernels(&format!("{label} fourier"), fourier)?;
            }
        }
        Ok(())
    }

    fn mutants(&mut self, count: u64, seed: u64) -> io::Result<()> {
        let mut random = Random::new(seed);
        let mut other = String::new();
        for case in 0..count {
            let (problem, steps) = draw(case, seed);
            let (_, nests) = scheduled(&problem, &steps, &target(*random.pick(&Isa::ALL)));
            for nest in nests.into_iter().flatten() {
                let text = nest.nest().to_string();
                let (mutant, tries) = accepted_mutant(&text, &other, &mut random);
                self.refused += tries;
                if let Some(mutant) = mutant {
                    self.kernel(&format!("case {case} {problem}"), Ok(vec![mutant]))?;
                }
                other = text;
            }
        }
        Ok(())
    }

    /// Stages of a kernel, each with an output of its own, or its parts, which share one.
    fn kernels(&mut self, label: &str, stages: Vec<Nests>) -> io::Result<()> {
        stages.into_iter().try_for_each(|nests| self.kernel(label, nests))
    }

    fn kernel(&mut self, label: &str, nests: Nests) -> io::Result<()> {
        let Ok(nests) = nests else {
            self.refused += 1;
            return Ok(());
        };
        self.written += 1;
        writeln!(self.out, "#! {label}")?;
        nests.iter().try_for_each(|nest| write!(self.out, "{}", nest.nest()))
    }
}

fn both<A: Copy, B: Copy>(a: &[A], b: &[B]) -> Vec<(A, B)> {
    both_of(a.iter().copied(), b)
}

fn both_of<A: Copy, B: Copy>(a: impl Iterator<Item = A>, b: &[B]) -> Vec<(A, B)> {
    a.flat_map(|a| b.iter().map(move |b| (a, *b))).collect()
}

fn suite_problems() -> Vec<ConvProblem> {
    let descriptors = suites::names().into_iter().flat_map(|name| suites::suite(&name));
    descriptors.map(|descriptor| descriptor.problem).collect()
}

/// A typical x86-64 of that instruction set, whatever the host is.
fn target(isa: Isa) -> Target {
    let triple = "x86_64-unknown-linux-gnu".parse().expect("a triple");
    Target::new(triple, isa, true, Caches::TYPICAL, 1).expect("x86-64 is known")
}

/// A random problem, and the steps of a schedule of it.
fn draw(case: u64, seed: u64) -> (ConvProblem, Vec<Step>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&case.to_le_bytes());
    bytes[8..16].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let tree = (problems::problem(), steps()).new_tree(&mut runner);
    tree.expect("nothing is rejected").current()
}

/// What a problem without a tuning record gets.
fn default_pick(problem: &ConvProblem, target: &Target) -> Vec<Nests> {
    match Weighing::new(problem, target).chosen() {
        Some(tiles) => nests_of(problem, tiles.algorithm(), target),
        None => {
            let (algorithm, schedule) = scheduler::default_schedule(problem, target);
            vec![lowered(problem, algorithm, &schedule, target)]
        }
    }
}

/// The nests of an algorithm by its default sizes; none where it does not apply.
fn nests_of(problem: &ConvProblem, algorithm: Algorithm, target: &Target) -> Vec<Nests> {
    match algorithm {
        Algorithm::Direct | Algorithm::Winograd => {
            let nests = lowered(problem, algorithm, &Schedule::default(), target);
            if matches!(nests, Err(Error::Unsupported(_))) { vec![] } else { vec![nests] }
        }
        Algorithm::Fourier => {
            let Ok(plan) = Plan::new(problem, target) else { return vec![] };
            let stages = [plan.products(), Ok(plan.finish(problem))];
            let lower = |nest: Result<Nest, Error>| lower_all(vec![nest?], &target.limits());
            stages.into_iter().map(lower).collect()
        }
    }
}

fn lowered(
    problem: &ConvProblem,
    algorithm: Algorithm,
    schedule: &Schedule,
    target: &Target,
) -> Nests {
    let nests = Compiler::schedule_for(target, problem, algorithm, schedule)?;
    let outline = |nest| lower::outline(nest, target);
    Ok(lower_all(nests, &target.limits())?.into_iter().map(outline).collect())
}

fn lower_all(nests: Vec<Nest>, limits: &Limits) -> Nests {
    nests.into_iter().map(|nest| Ok(lower::lower(nest, limits)?)).collect()
}

/// The longest beginning of a random schedule that is legal for all parts, and the nests it makes.
fn scheduled(problem: &ConvProblem, steps: &[Step], target: &Target) -> (Schedule, Nests) {
    let parts = Algorithm::Direct.parts(problem).expect("accepts every problem");
    let summing = parts.iter().find(|part| part.schedule.is_none());
    let mut applied = summing.map_or(vec![], |part| schedules::apply(&part.nest, steps));
    loop {
        let schedule: Schedule = applied.iter().map(|a| a.directive.clone()).collect();
        let nests = lowered(problem, Algorithm::Direct, &schedule, target);
        if nests.is_ok() || applied.pop().is_none() {
            return (schedule, nests);
        }
    }
}

/// A damaged text that the verifier accepts, if one is found, and how many it refused.
fn accepted_mutant(text: &str, other: &str, random: &mut Random) -> (Option<VerifiedNest>, usize) {
    for refused in 0..MUTANTS {
        let damaged = mutant(text, other, random);
        let verified = parse_nest(&damaged).ok().and_then(|(nest, _)| verify(nest, &LIMITS).ok());
        let verified = verified.filter(|nest| nest.nest().to_string() != text);
        if verified.is_some() {
            return (verified, refused);
        }
    }
    (None, MUTANTS)
}

/// Both halves of a pair in one nest, whose code may be as long as that of two.
fn fused(pair: &Separable, target: &Target) -> Nests {
    let plan = separable::plan(pair, target);
    let nest = Compiler::schedule_separable(pair, &plan)?;
    let limits = target.limits();
    lower_all(vec![nest], &Limits { unrolled: 2 * limits.unrolled, ..limits })
}
