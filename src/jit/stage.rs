//! A stage before the code of a kernel: what computes the input of its nest for each task.

use std::any::Any;

use super::Inputs;
use crate::error::RunError;

/// Computes the input of a nest, task by task, from the caller's input.
pub(crate) trait Stage: Send + Sync {
    /// Elements of the caller's input of a call, if this machine can address so many.
    fn input_len(&self, batch: usize) -> Option<usize>;

    /// Elements that it leaves for a task.
    fn output_len(&self) -> usize;

    /// Elements of its packed weights.
    fn packed_len(&self) -> usize;

    /// Compares weights with what [`pack`](Stage::pack) reads.
    ///
    /// # Errors
    /// If there are too few or too many.
    fn check_weights(&self, weights: &[f32]) -> Result<(), RunError>;

    /// Packs weights in the order in which it reads them.
    ///
    /// # Errors
    /// If `weights` or `packed` is not of the right length.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) -> Result<(), RunError>;

    /// Bytes of machine code.
    fn code_bytes(&self) -> usize;

    /// Bytes of memory held, about.
    fn held_bytes(&self) -> usize;

    /// Bytes of stack that it needs.
    fn stack_bytes(&self) -> u32;

    /// Bytes that a thread needs to work in.
    fn workspace_bytes(&self) -> usize;

    /// Memory to work in, which has nothing of another call: `held` if it is this stage's.
    fn workspace(&self, held: Option<Box<dyn Workspace>>) -> Box<dyn Workspace>;

    /// The nest's input of a task, in memory from [`workspace`](Stage::workspace); nothing if the
    /// data or the memory are not this stage's.
    fn run<'w>(
        &self,
        inputs: &Inputs,
        task: usize,
        workspace: &'w mut dyn Workspace,
    ) -> Option<&'w [f32]>;
}

/// What a stage writes on one thread: grows to what kernels ask for and is kept.
pub(crate) trait Workspace: Any + Send {
    /// Bytes held.
    fn bytes(&self) -> usize;
}
