//! Kernels of nests that are no convolution's: pooling, sums, whatever the language says.

use convgen_ir::verify::VerifiedNest;

use super::run_alone;
use crate::error::RunError;
use crate::jit::{Code, Inputs, MAX_SUMS};

/// The code of a nest of the caller's own, one without weights and bias. May be shared and called
/// by any number of threads.
pub struct NestKernel {
    code: Code,
}

impl NestKernel {
    pub(crate) fn new(code: Code) -> NestKernel {
        NestKernel { code }
    }

    /// The nest, if it has a body.
    pub fn nest(&self) -> Option<&VerifiedNest> {
        self.code.nests().next()
    }

    /// Runs all tasks for a batch on the calling thread. `input` and `output` are the nest's;
    /// `extras` are its residuals, scales and gradients, in the order in which it declares them.
    ///
    /// # Errors
    /// [`RunError`] if a slice has not the length of the nest's buffer at that batch.
    pub fn run(
        &self,
        batch: usize,
        input: &[f32],
        extras: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), RunError> {
        let inputs = Inputs { input, weights: &[], biases: [None; MAX_SUMS], extras };
        run_alone(self.code.call(batch, inputs, output)?);
        Ok(())
    }
}
