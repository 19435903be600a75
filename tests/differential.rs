//! Random problems under random schedules: every rung of the ladder against the one below.
//!
//! formula -> interpreted unscheduled nest -> interpreted scheduled nest -> kernel. The last step
//! is to the bit whatever the values; so is the middle one unless the schedule moved a reduction;
//! on integers all are equal. Cases are drawn by proptest, each from its own number, so they run on
//! all cores and a failure is shrunk and repeats. What is printed is a `.conv` file.

#[path = "common/problems.rs"]
mod problems;
#[path = "common/schedules.rs"]
mod schedules;
#[path = "common/values.rs"]
mod values;

use std::cell::RefCell;
use std::ops::Add;
use std::sync::atomic::{AtomicUsize, Ordering};

use convgen::algorithm::Algorithm;
use convgen::check::{self, CheckError};
use convgen::{Compiler, Error, Host, Isa, Kernel};
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::schedule::Schedule;
use convgen_ir::verify::VerifiedNest;
use problems::problem;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rayon::iter::Either;
use rayon::prelude::*;
use schedules::{Applied, Step, steps};
use values::{Kind, Values, compare_bits, compare_values};

/// Kernels of random pairs of a problem and a schedule, shared out among the host's instruction
/// sets.
const KERNELS: u64 = 15_300;

/// One pair in so many is also compiled without fused multiply-add instructions, which is slow.
const WITHOUT_FMA: u64 = 20;

/// Failures after which no more cases are drawn: making each small takes seconds.
const ENOUGH: usize = 3;

/// Problems that get the default schedule.
const DEFAULTS: u64 = 2000;

#[test]
fn random_schedules_keep_the_meaning() {
    let host = Host::detect();
    let compilers = compilers(|isa| Compiler::new(&host, isa));
    let plain = compilers_without_fma(&host);
    let cases = KERNELS.div_ceil(compilers.len() as u64);
    let total = all_cases(cases, (problem(), steps()), |case, (problem, steps)| {
        let sums = Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_sum());
        let sums: Vec<Algorithm> = sums.collect();
        let algorithm = sums[case as usize % sums.len()];
        let pair = Pair { problem, algorithm, steps, seed: case };
        let mut counts = Counts::default();
        for compiler in &compilers {
            counts = counts + pair.check(compiler)?;
        }
        if case.is_multiple_of(WITHOUT_FMA) {
            for compiler in &plain {
                let slow = pair.check(compiler)?;
                counts = counts + Counts { without_fma: slow.pairs, ..Counts::default() };
            }
        }
        Ok(counts)
    });
    println!("{total:?}");
    // A test whose schedules do nothing passes whatever the transforms do.
    assert!(total.pairs >= 5000, "{total:?}");
    assert!(total.changed * 5 >= total.pairs * 4, "{total:?}");
    assert!(total.long * 3 >= total.pairs * 2, "{total:?}");
    assert!(total.without_fma >= 300, "{total:?}");
    for some in [total.tiled, total.vectors, total.packed, total.copied, total.tasks] {
        assert!(some * 10 >= total.pairs, "{total:?}");
    }
    assert!(total.sums * 50 >= total.pairs, "{total:?}");
    assert!(total.same_order * 2 >= total.pairs, "{total:?}");
    assert!(total.refused * 3 <= total.pairs, "{total:?}");
}

#[test]
fn default_schedules_are_right() {
    let host = Host::detect();
    let compilers = compilers(|isa| Compiler::new(&host, isa));
    all_cases(DEFAULTS, problem(), |_, problem| {
        for compiler in &compilers {
            let kernel = compiler.compile(problem).map_err(|error| {
                format!("{error}; as a test case:\n{}", test_case(problem, &Schedule::default()))
            })?;
            match check::check(&kernel) {
                Ok(_) => {}
                Err(CheckError::Mismatch(mismatch)) => return Err(mismatch.to_string()),
                Err(CheckError::Run(error)) => {
                    return Err(format!("{error}\n{}", test_case(problem, kernel.schedule())));
                }
            }
        }
        Ok(Counts::default())
    });
}

fn compilers_without_fma(host: &Host) -> Vec<Compiler> {
    compilers(|isa| Compiler::without_fma(host, isa))
}

/// A compiler for each instruction set that this host has; at least one.
fn compilers(new: impl Fn(Isa) -> Result<Compiler, convgen::Error>) -> Vec<Compiler> {
    let made = Isa::ALL.into_iter().filter_map(|isa| match new(isa) {
        Ok(compiler) => Some(compiler),
        Err(error) => {
            println!("skipped {isa}: {error}");
            None
        }
    });
    let made: Vec<Compiler> = made.collect();
    assert!(!made.is_empty());
    made
}

/// What the cases were like, summed.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    pairs: usize,
    /// The scheduled nest differs from the unscheduled one.
    changed: usize,
    /// At least three directives.
    long: usize,
    directives: usize,
    /// The nest or its code was refused until directives were taken away.
    refused: usize,
    /// No reduction moved.
    same_order: usize,
    /// Nests with a register tile, vectors, packed weights, a copied input, several tasks.
    tiled: usize,
    vectors: usize,
    packed: usize,
    copied: usize,
    tasks: usize,
    /// An output is several sums, which are lanes.
    sums: usize,
    without_fma: usize,
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            pairs: self.pairs + other.pairs,
            changed: self.changed + other.changed,
            long: self.long + other.long,
            directives: self.directives + other.directives,
            refused: self.refused + other.refused,
            same_order: self.same_order + other.same_order,
            tiled: self.tiled + other.tiled,
            vectors: self.vectors + other.vectors,
            packed: self.packed + other.packed,
            copied: self.copied + other.copied,
            tasks: self.tasks + other.tasks,
            sums: self.sums + other.sums,
            without_fma: self.without_fma + other.without_fma,
        }
    }
}

/// Draws and checks the cases on all cores; panics with the smallest failing form of one.
fn all_cases<T: Clone + std::fmt::Debug, S: Strategy<Value = T> + Sync>(
    cases: u64,
    strategy: S,
    check: impl Fn(u64, &T) -> Result<Counts, String> + Sync,
) -> Counts {
    let failed = AtomicUsize::new(0);
    let one = |case: u64| -> Result<Counts, String> {
        if failed.load(Ordering::Relaxed) >= ENOUGH {
            return Ok(Counts::default());
        }
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&case.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let config = Config { failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, rng);
        let tree = strategy.new_tree(&mut runner).map_err(|reason| reason.to_string())?;
        let counts = RefCell::new(Counts::default());
        let outcome = runner.run_one(tree, |value| {
            counts.replace(check(case, &value).map_err(TestCaseError::fail)?);
            Ok(())
        });
        failed.fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
        match outcome {
            Ok(_) => Ok(counts.into_inner()),
            Err(TestError::Fail(reason, value)) => {
                Err(format!("case {case}: {}\n{value:?}", reason.message()))
            }
            Err(TestError::Abort(reason)) => Err(format!("case {case}: {}", reason.message())),
        }
    };
    let (counts, failures): (Vec<Counts>, Vec<String>) =
        (0..cases).into_par_iter().map(one).partition_map(|outcome| match outcome {
            Ok(counts) => Either::Left(counts),
            Err(failure) => Either::Right(failure),
        });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    counts.into_iter().fold(Counts::default(), Add::add)
}

/// A problem, and the steps to a schedule of it.
struct Pair<'c> {
    problem: &'c ConvProblem,
    algorithm: Algorithm,
    steps: &'c [Step],
    seed: u64,
}

impl Pair<'_> {
    fn check(&self, compiler: &Compiler) -> Result<Counts, String> {
        let show = |error: String| format!("{error}; as a test case:\n{}", self.problem);
        let Ok(parts) = self.algorithm.parts(self.problem) else {
            return Ok(Counts::default());
        };
        let lower = |schedule: &Schedule| compiler.lower(self.problem, self.algorithm, schedule);
        let summing = parts.iter().find(|part| part.schedule.is_none());
        let mut applied = summing.map_or(vec![], |part| schedules::apply(&part.nest, self.steps));
        let proposed = applied.len();
        let plain = lower(&Schedule::default())
            .map_err(|error| show(format!("the unscheduled nest: {error}")))?;
        // The longest beginning that is legal for all parts, and no more code than a kernel may
        // have.
        let (schedule, scheduled, kernel) = loop {
            let schedule: Schedule = applied.iter().map(|a| a.directive.clone()).collect();
            let compile = || compiler.compile_with(self.problem, self.algorithm, &schedule);
            match lower(&schedule).map(|nests| (nests, compile())) {
                Ok((nests, Ok(kernel))) => break (schedule, nests, kernel),
                Err(_) | Ok((_, Err(Error::CodeSize { .. }))) if applied.pop().is_some() => {}
                Ok((_, Err(error))) => {
                    let test_case = test_case(self.problem, &schedule);
                    return Err(format!("{error}; as a test case:\n{test_case}"));
                }
                Err(error) => return Err(show(error.to_string())),
            }
        };
        let show =
            |error| format!("{error}; as a test case:\n{}", test_case(self.problem, &schedule));
        let rungs = Rungs { pair: self, plain: &plain, scheduled: &scheduled, kernel: &kernel };
        let same_order = applied.last().is_none_or(|last| !last.reassociated);
        rungs.check(same_order).map_err(show)?;
        Ok(self.counts(&applied, proposed, &plain, &kernel))
    }

    fn counts(
        &self,
        applied: &[Applied],
        proposed: usize,
        plain: &[VerifiedNest],
        kernel: &Kernel,
    ) -> Counts {
        let Some(nest) = kernel.nests().next().map(VerifiedNest::nest) else {
            return Counts::default();
        };
        let name = |name: &str| nest.find_buffer(name).is_some();
        let text = convgen_ir::print::print_nest(nest);
        Counts {
            pairs: 1,
            changed: usize::from(!kernel.nests().eq(plain)),
            long: usize::from(applied.len() >= 3),
            directives: applied.len(),
            refused: usize::from(applied.len() < proposed),
            same_order: usize::from(applied.last().is_none_or(|last| !last.reassociated)),
            tiled: usize::from(!text.contains("reg acc f32[]")),
            vectors: usize::from(text.contains("vector ")),
            packed: usize::from(!nest.pack.is_empty()),
            copied: usize::from(name("rows")),
            tasks: usize::from(kernel.tasks(1) > 1),
            sums: usize::from(text.contains("let sum") && text.contains("vector ic")),
            without_fma: 0,
        }
    }
}

/// Everything that computes one problem.
struct Rungs<'c> {
    pair: &'c Pair<'c>,
    plain: &'c [VerifiedNest],
    scheduled: &'c [VerifiedNest],
    kernel: &'c Kernel,
}

impl Rungs<'_> {
    fn check(&self, same_order: bool) -> Result<(), String> {
        self.integers()?;
        let special = if self.pair.seed.is_multiple_of(2) { Kind::Tiny } else { Kind::Wild };
        for kind in [Kind::Reals, special] {
            let values = Values::new(self.pair.problem, kind, self.pair.seed);
            let in_words = |error: String| format!("{kind:?}: {error}");
            self.bits(&values, same_order).map_err(in_words)?;
        }
        Ok(())
    }

    fn integers(&self) -> Result<(), String> {
        let values = Values::new(self.pair.problem, Kind::Integers, self.pair.seed);
        let want = values.reference()?;
        let interpreted = values.interpret(self.scheduled)?;
        compare_values(&interpreted, &want).map_err(in_words("interpreter and formula"))?;
        let got = values.run(self.kernel, 1)?;
        compare_bits(&got, &interpreted).map_err(in_words("kernel and interpreter on integers"))
    }

    fn bits(&self, values: &Values, same_order: bool) -> Result<(), String> {
        let want = values.interpret(self.scheduled)?;
        if same_order {
            let unscheduled = values.interpret(self.plain)?;
            compare_bits(&want, &unscheduled)
                .map_err(in_words("scheduled and unscheduled nest"))?;
        }
        let got = values.run(self.kernel, 1)?;
        compare_bits(&got, &want).map_err(in_words("kernel and interpreter"))?;
        let again = values.run(self.kernel, 1)?;
        compare_bits(&again, &got).map_err(in_words("second run and first"))?;
        let threads = values.run(self.kernel, 2)?;
        compare_bits(&threads, &got).map_err(in_words("two threads and one"))?;
        match self.pair.problem.direction() {
            Direction::Forward | Direction::Transposed | Direction::BackwardData => {}
            // One sum over all images.
            Direction::BackwardWeights | Direction::BackwardBias => return Ok(()),
        }
        let batch = self.pair.problem.batch();
        let images: Result<Vec<Vec<f32>>, String> =
            (0..batch).map(|image| values.image(image).run(self.kernel, 1)).collect();
        compare_bits(&images?.concat(), &got).map_err(in_words("images alone and in a batch"))
    }
}

fn in_words(which: &'static str) -> impl Fn(String) -> String {
    move |error| format!("{which}: {error}")
}

fn test_case(problem: &ConvProblem, schedule: &Schedule) -> String {
    format!("# what would break\ntest jit\nproblem:\n{problem}\nschedule:\n{schedule}")
}
