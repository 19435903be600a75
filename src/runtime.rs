//! Kernels as their users see them: packed weights, the call, threads.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

pub mod aligned;
mod callable;
mod nest;
pub mod separable;
mod threads;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use convgen_ir::nest::Role;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;
use convgen_ir::verify::VerifiedNest;

use self::aligned::Aligned;
use self::callable::Callable;
pub use self::nest::NestKernel;
pub(crate) use self::threads::run_alone;
use crate::algorithm::{Algorithm, winograd};
use crate::error::Error;
use crate::fourier::{Plan, Transforms};
use crate::jit::{Call, Code};
use crate::target::Target;

/// A compiled convolution. Holds its own code; may be shared and called by any number of threads.
pub struct Kernel {
    problem: ConvProblem,
    algorithm: Algorithm,
    schedule: Schedule,
    callable: Callable,
}

/// Weights in the order in which one kernel reads them.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedWeights {
    values: Aligned,
    kernel: String,
    fingerprint: u64,
}

impl PackedWeights {
    /// The number of elements, zeros of incomplete tiles included.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The elements.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Whether there are no elements; never true.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// The inputs of a call.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    /// The activations, in the problem's layout; any number of images.
    pub input: &'a [f32],
    /// Weights packed by the same kernel.
    pub weights: &'a PackedWeights,
    /// One value an output channel, if the problem has a bias.
    pub bias: Option<&'a [f32]>,
    /// What [`ConvProblem::extra_shapes`] lists, in order: the output's gradient, where that of the
    /// weights is computed; else one slice for each `add` (a tensor of the output's shape) and
    /// `scale` (one value a channel of the output) of the epilogue.
    pub extras: &'a [&'a [f32]],
}

impl Kernel {
    pub(crate) fn new(
        problem: ConvProblem,
        algorithm: Algorithm,
        schedule: Schedule,
        target: &Target,
        code: Code,
        transforms: Option<Arc<Transforms>>,
    ) -> Kernel {
        let plan = transforms.as_deref().map(Transforms::plan);
        let tile = plan.map_or_else(|| tile_name(&code), points_name);
        let name = format!("{algorithm}-{}-{}{tile}", problem.elem(), target.isa());
        let fingerprint = fingerprint(&problem, algorithm, &schedule, plan, &code);
        let callable = Callable::new(name, fingerprint, &problem, None, target, transforms, code);
        Kernel { problem, algorithm, schedule, callable }
    }

    /// The problem it computes, for any batch.
    pub fn problem(&self) -> &ConvProblem {
        &self.problem
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Of a kernel of minimal filtering, the bound of the error of a sum, in multiples of the
    /// largest input times the sum of the magnitudes of the weights.
    pub fn sum_bound(&self) -> Option<f64> {
        match self.algorithm {
            Algorithm::Direct | Algorithm::Fourier => None,
            Algorithm::Winograd => {
                let target = self.callable.target();
                let plans = winograd::planned(&self.problem, &self.schedule, target).ok()?;
                Some(plans.iter().map(winograd::Plan::bound).fold(0.0, f64::max))
            }
        }
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The nests the code was made from, one a part; most kernels have one.
    pub fn nests(&self) -> impl ExactSizeIterator<Item = &VerifiedNest> {
        self.callable.code().nests()
    }

    /// The tiles of a kernel of Fourier transforms; none of any other.
    pub fn fourier_plan(&self) -> Option<&Plan> {
        self.transforms().map(Transforms::plan)
    }

    /// The stage before the nests, of a kernel of Fourier transforms.
    pub(crate) fn transforms(&self) -> Option<&Transforms> {
        self.callable.transforms()
    }

    /// `{algorithm}-{type}-{isa}-{register tile}`.
    pub fn name(&self) -> &str {
        self.callable.name()
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.callable.code().bytes()
    }

    /// Bytes of memory that it holds, about: machine code in whole pages, nests, tables.
    pub fn held_bytes(&self) -> usize {
        let schedule = size_of_val(&self.schedule.directives[..]);
        let code = self.callable.code().held_bytes();
        size_of::<Kernel>().saturating_add(schedule).saturating_add(code)
    }

    /// Bytes of scratch each thread of a call needs; the only memory a call uses besides its
    /// arguments.
    pub fn workspace_bytes(&self) -> usize {
        self.callable.workspace_bytes()
    }

    /// Bytes of stack that a call needs on the thread that runs it, besides those of the library's
    /// own functions. Code that needs more than
    /// 256 KiB is not made.
    pub fn stack_bytes(&self) -> usize {
        self.callable.code().stack_bytes() as usize
    }

    /// The number of elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.callable.code().packed_len()
    }

    /// The number of independent tasks of a call with that many images; `usize::MAX` for more
    /// images than a call can have.
    pub fn tasks(&self, batch: usize) -> usize {
        self.callable.tasks(batch)
    }

    /// How many of `most` threads share a call with that many images: no more than have tasks, and
    /// than have enough to do, by the cost model's prediction for one thread. A small call takes
    /// one, which is then the fastest.
    pub fn threads(&self, batch: usize, most: usize) -> usize {
        self.callable.threads(batch, most)
    }

    /// Copies oihw weights into the kernel's own order; done once a set of weights. A kernel that
    /// reads none, that of a weights' gradient, packs an empty slice.
    ///
    /// # Errors
    /// [`RunError::Length`](crate::error::RunError::Length) if there are too few or too many
    /// weights.
    pub fn pack_weights(&self, weights: &[f32]) -> Result<PackedWeights, Error> {
        self.callable.pack(&[weights])
    }

    /// As [`Kernel::pack_weights`], into the place of weights that this kernel packed before: for
    /// weights that change from step to step.
    ///
    /// # Errors
    /// As [`Kernel::pack_weights`], or [`RunError::Packed`](crate::error::RunError::Packed) if
    /// another kernel packed them.
    pub fn repack_weights(&self, weights: &[f32], packed: &mut PackedWeights) -> Result<(), Error> {
        self.callable.repack(&[weights], packed)
    }

    /// Convolves `input` into `output` on the calling thread. The batch is what `input` holds.
    ///
    /// # Errors
    /// [`Error::Run`] if a slice does not fit the problem.
    pub fn run(
        &self,
        input: &[f32],
        weights: &PackedWeights,
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<(), Error> {
        self.run_with(&Arguments { input, weights, bias, extras: &[] }, output)
    }

    /// As [`Kernel::run`], for problems whose epilogue takes arguments.
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub fn run_with(&self, arguments: &Arguments, output: &mut [f32]) -> Result<(), Error> {
        run_alone(self.prepare(arguments, output)?);
        Ok(())
    }

    /// As [`Kernel::run_with`], on up to `threads` threads of the current rayon pool: on as many as
    /// [`Kernel::threads`] says. The result does not depend on the number of threads. In a child
    /// that this process forked after it had made kernels, the calling thread does all the work,
    /// unless it belongs to a pool that the child has made.
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub fn run_parallel(
        &self,
        arguments: &Arguments,
        output: &mut [f32],
        threads: usize,
    ) -> Result<(), Error> {
        self.callable.run_parallel(self.prepare(arguments, output)?, threads);
        Ok(())
    }

    /// Checks the buffers of a call and leaves its tasks to the caller: for thread pools of one's
    /// own. See [`Call::tasks`].
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub fn prepare<'a>(
        &'a self,
        arguments: &Arguments<'a>,
        output: &'a mut [f32],
    ) -> Result<Call<'a>, Error> {
        let Arguments { input, weights, bias, extras } = *arguments;
        self.callable.prepare(input, weights, [bias, None], extras, output)
    }
}

/// The same for kernels that differ in nothing but the batch they were compiled for.
fn fingerprint(
    problem: &ConvProblem,
    algorithm: Algorithm,
    schedule: &Schedule,
    plan: Option<&Plan>,
    code: &Code,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    problem.with_batch(1).as_ref().unwrap_or(problem).hash(&mut hasher);
    (algorithm, schedule, plan).hash(&mut hasher);
    // An algorithm may order its weights as the target has registers.
    for nest in code.nests().map(VerifiedNest::nest) {
        for packed in nest.find_all(Role::Packed) {
            nest.buffer(packed).shape.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// `-64x64`: the points of the transforms.
fn points_name(plan: &Plan) -> String {
    let points: Vec<String> = plan.axes.iter().map(|axis| axis.points.to_string()).collect();
    format!("-{}", points.join("x"))
}

/// `-14x32`: the largest register tile, or nothing if the sum stays one element.
fn tile_name(code: &Code) -> String {
    let buffers = code.nests().flat_map(|nest| &nest.nest().buffers);
    let tiles = buffers.filter(|buffer| buffer.role == Role::Reg);
    let Some(tile) = tiles.max_by_key(|buffer| buffer.len(1)) else { return String::new() };
    let dims: Vec<String> = tile.shape.iter().map(ToString::to_string).collect();
    if dims.is_empty() { String::new() } else { format!("-{}", dims.join("x")) }
}
