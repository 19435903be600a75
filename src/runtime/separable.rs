//! Kernels of separable convolutions: two packed sets of weights, one call.

use std::hash::{DefaultHasher, Hash, Hasher};

use convgen_ir::separable::Separable;
use convgen_ir::verify::VerifiedNest;

use super::callable::Callable;
use super::{PackedWeights, run_alone, tile_name};
use crate::error::Error;
use crate::jit::{Call, Code};
use crate::scheduler::separable::SeparablePlan;
use crate::target::Target;

/// A compiled separable convolution. Holds its own code; may be shared and called by any number of
/// threads.
pub struct SeparableKernel {
    separable: Separable,
    plan: SeparablePlan,
    callable: Callable,
}

/// The inputs of a call.
#[derive(Clone, Copy, Debug)]
pub struct SeparableArguments<'a> {
    /// The activations that the depthwise half reads; any number of images.
    pub input: &'a [f32],
    /// Both sets of weights, packed by the same kernel.
    pub weights: &'a PackedWeights,
    /// One value an output channel of the depthwise half, if that has a bias.
    pub depthwise_bias: Option<&'a [f32]>,
    /// One value an output channel of the pointwise half, if that has a bias.
    pub pointwise_bias: Option<&'a [f32]>,
    /// What the epilogue of the depthwise half takes, then what that of the pointwise half does.
    pub extras: &'a [&'a [f32]],
}

impl SeparableKernel {
    pub(crate) fn new(
        separable: Separable,
        plan: SeparablePlan,
        target: &Target,
        code: Code,
    ) -> SeparableKernel {
        let [depthwise, pointwise] = [separable.depthwise(), separable.pointwise()];
        let name = format!("separable-{}-{}{}", depthwise.elem(), target.isa(), tile_name(&code));
        let mut hasher = DefaultHasher::new();
        for half in [depthwise, pointwise] {
            half.with_batch(1).as_ref().unwrap_or(half).hash(&mut hasher);
        }
        (&plan, code.packed_len()).hash(&mut hasher);
        let (first, second) = (depthwise, Some(pointwise));
        let callable = Callable::new(name, hasher.finish(), first, second, target, None, code);
        SeparableKernel { separable, plan, callable }
    }

    /// What it computes, for any batch.
    pub fn separable(&self) -> &Separable {
        &self.separable
    }

    /// The rows of a task and the schedules of the halves.
    pub fn plan(&self) -> &SeparablePlan {
        &self.plan
    }

    /// `separable-{type}-{isa}-{the larger register tile}`.
    pub fn name(&self) -> &str {
        self.callable.name()
    }

    /// The nest the code was made from: one.
    pub fn nests(&self) -> impl ExactSizeIterator<Item = &VerifiedNest> {
        self.callable.code().nests()
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.callable.code().bytes()
    }

    /// Bytes of scratch each thread of a call needs, the block of the tensor between the halves
    /// among them.
    pub fn workspace_bytes(&self) -> usize {
        self.callable.workspace_bytes()
    }

    /// The number of independent tasks of a call with that many images; `usize::MAX` for more
    /// images than a call can have.
    pub fn tasks(&self, batch: usize) -> usize {
        self.callable.tasks(batch)
    }

    /// How many of `most` threads share a call with that many images; see
    /// [`Kernel::threads`](super::Kernel::threads).
    pub fn threads(&self, batch: usize, most: usize) -> usize {
        self.callable.threads(batch, most)
    }

    /// Copies the weights of both halves into the kernel's own order; done once.
    ///
    /// # Errors
    /// [`RunError::Length`](crate::error::RunError::Length) if there are too few or too many
    /// weights.
    pub fn pack_weights(
        &self,
        depthwise: &[f32],
        pointwise: &[f32],
    ) -> Result<PackedWeights, Error> {
        self.callable.pack(&[depthwise, pointwise])
    }

    /// Convolves twice on the calling thread. The batch is what the input holds.
    ///
    /// # Errors
    /// [`Error::Run`] if a slice does not fit the problem.
    pub fn run(&self, arguments: &SeparableArguments, output: &mut [f32]) -> Result<(), Error> {
        run_alone(self.prepare(arguments, output)?);
        Ok(())
    }

    /// As [`SeparableKernel::run`], on up to `threads` threads of the current rayon pool: on as
    /// many as [`SeparableKernel::threads`] says. The result does not depend on the number of
    /// threads.
    ///
    /// # Errors
    /// As [`SeparableKernel::run`].
    pub fn run_parallel(
        &self,
        arguments: &SeparableArguments,
        output: &mut [f32],
        threads: usize,
    ) -> Result<(), Error> {
        self.callable.run_parallel(self.prepare(arguments, output)?, threads);
        Ok(())
    }

    /// Checks the buffers of a call and leaves its tasks to the caller; see [`Call::tasks`].
    ///
    /// # Errors
    /// As [`SeparableKernel::run`].
    pub fn prepare<'a>(
        &'a self,
        arguments: &SeparableArguments<'a>,
        output: &'a mut [f32],
    ) -> Result<Call<'a>, Error> {
        let SeparableArguments { input, weights, depthwise_bias, pointwise_bias, extras } =
            *arguments;
        let biases = [depthwise_bias, pointwise_bias];
        self.callable.prepare(input, weights, biases, extras, output)
    }
}
