//! What all kernels have in common: code with a name, and calls that are checked before they run.

use convgen_ir::problem::ConvProblem;

use super::aligned::Aligned;
use super::{PackedWeights, threads};
use crate::cost::{self, Rates};
use crate::error::{Error, RunError};
use crate::jit::{Call, Code, Inputs, MAX_SUMS};
use crate::target::Target;

/// Code, and what a call of it must bring.
pub(super) struct Callable {
    name: String,
    /// Tells apart kernels whose packed weights differ in order.
    fingerprint: u64,
    /// Elements of one image of the input.
    image: usize,
    /// Whether each sum has a bias.
    biases: [bool; MAX_SUMS],
    /// Extra arguments of a call.
    extras: usize,
    /// Predicted seconds of an image on one thread.
    seconds: f64,
    code: Code,
}

impl Callable {
    /// Code that computes these problems, each from what the one before it leaves.
    pub(super) fn new(
        name: String,
        fingerprint: u64,
        problems: &[&ConvProblem],
        target: &Target,
        code: Code,
    ) -> Callable {
        let image = problems.first().map_or(vec![], |first| first.input_shape(1));
        let extras = problems.iter().map(|problem| problem.extra_shapes(1).len()).sum();
        let mut biases = [false; MAX_SUMS];
        for (bias, problem) in biases.iter_mut().zip(problems) {
            *bias = problem.bias();
        }
        let seconds = problems.first().map_or(0.0, |first| seconds(first, target, &code));
        let image = image.iter().product::<u64>() as usize;
        Callable { name, fingerprint, image, biases, extras, seconds, code }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn code(&self) -> &Code {
        &self.code
    }

    /// How many of so many threads a call with that many images is shared by.
    pub(super) fn threads(&self, batch: usize, most: usize) -> usize {
        threads::paying(self.seconds * batch as f64, most).min(self.code.tasks(batch).max(1))
    }

    /// Packs the weights of each problem.
    pub(super) fn pack(&self, weights: &[&[f32]]) -> Result<PackedWeights, Error> {
        let mut values = Aligned::zeros(self.code.packed_len());
        self.code.pack(weights, &mut values)?;
        Ok(PackedWeights { values, kernel: self.name.clone(), fingerprint: self.fingerprint })
    }

    /// Packs other weights into the same place.
    pub(super) fn repack(
        &self,
        weights: &[&[f32]],
        packed: &mut PackedWeights,
    ) -> Result<(), Error> {
        self.check_packed(packed)?;
        Ok(self.code.pack(weights, &mut packed.values)?)
    }

    /// Binds the buffers of a call.
    pub(super) fn prepare<'a>(
        &'a self,
        input: &'a [f32],
        weights: &'a PackedWeights,
        biases: [Option<&'a [f32]>; MAX_SUMS],
        extras: &'a [&'a [f32]],
        output: &'a mut [f32],
    ) -> Result<Call<'a>, Error> {
        let (given, image) = (input.len(), self.image);
        if !given.is_multiple_of(image) {
            return Err(RunError::Batch { given, image }.into());
        }
        self.check_packed(weights)?;
        let word = |has: bool| if has { "a" } else { "no" };
        for (bias, expected) in biases.iter().zip(self.biases) {
            if bias.is_some() != expected {
                let (expected, given) = (word(expected), word(bias.is_some()));
                return Err(RunError::Bias { expected, given }.into());
            }
        }
        if extras.len() != self.extras {
            let (given, expected) = (extras.len(), self.extras);
            return Err(RunError::Extras { given, expected }.into());
        }
        let inputs = Inputs { input, weights: &weights.values, biases, extras };
        Ok(self.code.call(given / image, inputs, output)?)
    }

    /// Runs a call of this code on as many of so many threads as pay.
    pub(super) fn run_parallel(&self, call: Call, most: usize) {
        let threads = self.threads(call.batch(), most);
        call.share(threads);
    }

    fn check_packed(&self, packed: &PackedWeights) -> Result<(), RunError> {
        match packed.fingerprint == self.fingerprint {
            true => Ok(()),
            false => {
                let (given, expected) = (packed.kernel.clone(), self.name.clone());
                Err(RunError::Packed { given, expected })
            }
        }
    }
}

/// Predicted seconds of an image on one thread of an ordinary core.
fn seconds(problem: &ConvProblem, target: &Target, code: &Code) -> f64 {
    let rates = Rates::nominal(target);
    match code.source() {
        // The nests of such code are its last stage only.
        Some(source) => {
            let images = problem.batch().max(1) as f64;
            source.plan().seconds(problem, target, &rates) / images
        }
        None => cost::cost(code.nests(), target, &rates, 1, 1).seconds,
    }
}
