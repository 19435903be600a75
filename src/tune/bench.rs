//! One problem's bench: its data, its threads, and kernels that are verified before they are timed.
//!
//! Promises: [`Bench::admit`] gives a kernel only if its whole output is that of the oracle, so
//! nothing wrong is ever timed; timings of one [`Bench::race`] take turns, and all kernels write
//! the same memory, so that none has better pages than another. On a cold bench the caches are
//! emptied before every timed call, those of every thread's core.

use std::cell::{Cell, RefCell};

use convgen_ir::problem::ConvProblem;
use rayon::ThreadPool;

use crate::algorithm::Algorithm;
use crate::check::{self, CheckError, Data, Oracle};
use crate::compiler::Compiler;
use crate::cost::{self, Rates};
use crate::error::Error;
use crate::eviction::Evictor;
use crate::runtime::aligned::Aligned;
use crate::runtime::{Kernel, PackedWeights};
use crate::scheduler::space::Candidate;
use crate::timing::{self, CacheState, Timing, once};

/// Calls by which a kernel is judged before it races: of two, one is rarely interrupted.
const FIRST_CALLS: usize = 2;

/// Why a problem or a candidate cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A stage of the compiler refuses it.
    #[error(transparent)]
    Compile(#[from] Error),
    /// There is nothing to choose among.
    #[error("no algorithm computes the problem")]
    NoAlgorithm,
    /// It computes something wrong.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The threads could not be started.
    #[error("{threads} threads could not be started: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The operating system's words.
        reason: String,
    },
}

/// A kernel that may be timed.
pub struct Entrant {
    /// What it was made from.
    pub candidate: Candidate,
    /// The kernel.
    pub kernel: Kernel,
    /// Seconds that the cost model predicts.
    pub predicted: f64,
    /// Seconds of the shorter of its first calls.
    pub first: f64,
    weights: PackedWeights,
}

/// The data and the threads of one problem.
pub struct Bench<'c> {
    compiler: &'c Compiler,
    problem: ConvProblem,
    rates: Rates,
    threads: usize,
    pool: Option<ThreadPool>,
    data: Data,
    /// What every kernel writes.
    output: RefCell<Aligned>,
    oracle: Oracle,
    /// If calls are cold.
    evictor: Option<Evictor>,
    /// Seconds that emptying the caches takes.
    emptying: f64,
}

impl<'c> Bench<'c> {
    /// A bench of warm calls whose oracle is a kernel of this candidate, held against the formula
    /// and the interpreter.
    ///
    /// # Errors
    /// If the candidate is refused or wrong, or the threads are.
    pub fn new(
        compiler: &'c Compiler,
        problem: &ConvProblem,
        reference: &Candidate,
        rates: Rates,
        threads: usize,
    ) -> Result<Bench<'c>, TuneError> {
        let kernel = compiler.compile_with(problem, reference.algorithm, &reference.schedule)?;
        let oracle = Oracle::new(&kernel)?;
        let pool = match threads {
            0 | 1 => None,
            _ => Some(start(threads)?),
        };
        let problem = problem.clone();
        let data = Data::reals(&problem);
        let output = RefCell::new(Aligned::zeros(data.output_len()));
        Ok(Bench {
            compiler,
            problem,
            rates,
            threads: threads.max(1),
            pool,
            data,
            output,
            oracle,
            evictor: None,
            emptying: 0.0,
        })
    }

    /// The bench with calls that begin with the caches in this state.
    pub fn with_caches(mut self, caches: CacheState) -> Bench<'c> {
        self.evictor = match caches {
            CacheState::Warm => None,
            CacheState::Cold => Some(Evictor::new(self.compiler.target().caches())),
        };
        // The first walk gives the pages their memory.
        self.empty();
        self.emptying = once(|| self.empty()).1;
        self
    }

    /// The problem.
    pub fn problem(&self) -> &ConvProblem {
        &self.problem
    }

    /// The compiler.
    pub fn compiler(&self) -> &'c Compiler {
        self.compiler
    }

    /// Seconds of a call by the cost model.
    ///
    /// # Errors
    /// The stage that refuses the candidate.
    pub fn predict(&self, candidate: &Candidate) -> Result<f64, Error> {
        let Candidate { algorithm, schedule, .. } = candidate;
        let (target, batch) = (self.compiler.target(), self.problem.batch());
        if *algorithm == Algorithm::Fourier {
            let (plan, _) = self.compiler.stages(&self.problem, schedule)?;
            return Ok(plan.estimate(&self.problem, target, &self.rates).seconds());
        }
        let nest = self.compiler.lower(&self.problem, *algorithm, schedule)?;
        Ok(cost::cost(&nest, target, &self.rates, batch, self.threads).seconds)
    }

    /// Seconds in which a kernel is timed so often, if a call takes that long.
    pub fn seconds_for(&self, calls: f64, call: f64) -> f64 {
        calls * (self.emptying + call)
    }

    /// Compiles a candidate and compares its output with the oracle's.
    ///
    /// # Errors
    /// If it is refused, or computes something else.
    pub fn admit(&self, candidate: Candidate, predicted: f64) -> Result<Entrant, TuneError> {
        let Candidate { algorithm, schedule, .. } = &candidate;
        let kernel = self.compiler.compile_with(&self.problem, *algorithm, schedule)?;
        self.oracle.check(&kernel)?;
        let weights = kernel.pack_weights(self.data.weights())?;
        let mut entrant = Entrant { candidate, kernel, predicted, first: 0.0, weights };
        let mut output = self.output.borrow_mut();
        let extras = self.data.extras();
        let arguments = self.data.arguments(&entrant.weights, &extras);
        entrant.first = f64::INFINITY;
        for _ in 0..FIRST_CALLS {
            self.empty();
            let (called, seconds) = once(|| self.call(&entrant, &arguments, &mut output));
            called?;
            entrant.first = entrant.first.min(seconds);
        }
        Ok(entrant)
    }

    /// Holds a kernel against the formula and the interpreter, in full.
    ///
    /// # Errors
    /// The first output that differs.
    pub fn verify(&self, entrant: &Entrant) -> Result<(), TuneError> {
        Ok(check::check(&entrant.kernel).map(|_| ())?)
    }

    /// Times kernels in turns, each for so many seconds in so many rounds.
    ///
    /// # Errors
    /// If a call fails.
    pub fn race(
        &self,
        entrants: &[&Entrant],
        seconds_each: f64,
        rounds: usize,
    ) -> Result<Vec<Timing>, TuneError> {
        let extras = self.data.extras();
        let failed = Cell::new(None);
        let mut calls: Vec<_> = entrants
            .iter()
            .map(|entrant| {
                let arguments = self.data.arguments(&entrant.weights, &extras);
                let failed = &failed;
                move || {
                    let mut output = self.output.borrow_mut();
                    if let Err(error) = self.call(entrant, &arguments, &mut output) {
                        failed.set(Some(error));
                    }
                }
            })
            .collect();
        let mut functions: Vec<&mut dyn FnMut()> =
            calls.iter_mut().map(|call| call as &mut dyn FnMut()).collect();
        let empty = || self.empty();
        let empty = self.evictor.as_ref().map(|_| &empty as &dyn Fn());
        let timings = timing::turns(empty, seconds_each, rounds, &mut functions);
        match failed.take() {
            Some(error) => Err(error.into()),
            None => Ok(timings),
        }
    }

    /// Empties the caches of all threads' cores, if calls are cold.
    fn empty(&self) {
        let Some(evictor) = &self.evictor else { return };
        match &self.pool {
            None => evictor.empty(),
            Some(pool) => pool.install(|| evictor.empty()),
        };
    }

    fn call(
        &self,
        entrant: &Entrant,
        arguments: &crate::runtime::Arguments,
        output: &mut [f32],
    ) -> Result<(), Error> {
        let threads = self.threads;
        match &self.pool {
            None => entrant.kernel.run_with(arguments, output),
            Some(pool) => pool.install(|| entrant.kernel.run_parallel(arguments, output, threads)),
        }
    }
}

fn start(threads: usize) -> Result<ThreadPool, TuneError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| TuneError::Threads { threads, reason: error.to_string() })
}
