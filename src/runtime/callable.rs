//! What all kernels have in common: code with a name, and calls that are checked before they run.

use std::sync::{Arc, OnceLock};

use convgen_ir::problem::ConvProblem;

use super::aligned::Aligned;
use super::{PackedWeights, threads};
use crate::cost;
use crate::error::{Error, RunError};
use crate::fourier::Transforms;
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
    /// The first problem that it computes, and what for.
    problem: ConvProblem,
    target: Target,
    /// Predicted seconds of an image on one thread: from the first shared call on.
    seconds: OnceLock<f64>,
    /// The stage before the nests, of a kernel of Fourier transforms.
    transforms: Option<Arc<Transforms>>,
    code: Code,
}

impl Callable {
    /// Code that computes a problem, and perhaps a second one from what the first leaves.
    pub(super) fn new(
        name: String,
        fingerprint: u64,
        first: &ConvProblem,
        second: Option<&ConvProblem>,
        target: &Target,
        transforms: Option<Arc<Transforms>>,
        code: Code,
    ) -> Callable {
        let problems = || [first].into_iter().chain(second);
        // Fewer than `MAX_ELEMENTS`; on a machine that cannot address so many no input has an
        // image.
        let image = first.input_shape(1).iter().product::<u64>();
        let image = usize::try_from(image).unwrap_or(usize::MAX);
        threads::note_process();
        let extras = problems().map(|problem| problem.extra_shapes(1).len()).sum();
        let mut biases = [false; MAX_SUMS];
        for (bias, problem) in biases.iter_mut().zip(problems()) {
            *bias = problem.bias();
        }
        let (problem, target, seconds) = (first.clone(), target.clone(), OnceLock::new());
        Callable {
            name,
            fingerprint,
            image,
            biases,
            extras,
            problem,
            target,
            seconds,
            transforms,
            code,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn code(&self) -> &Code {
        &self.code
    }

    pub(super) fn transforms(&self) -> Option<&Transforms> {
        self.transforms.as_deref()
    }

    /// How many of so many threads a call with that many images is shared by.
    pub(super) fn threads(&self, batch: usize, most: usize) -> usize {
        if most <= 1 {
            return 1;
        }
        let seconds = self.seconds() * batch as f64;
        threads::paying(seconds, most).min(self.tasks(batch).max(1))
    }

    /// Tasks of a call with that many images; `usize::MAX` if they cannot be counted.
    pub(super) fn tasks(&self, batch: usize) -> usize {
        let tasks = self.code.tasks(batch).and_then(|tasks| usize::try_from(tasks).ok());
        tasks.unwrap_or(usize::MAX)
    }

    /// Bytes of scratch that a thread of a call needs.
    pub(super) fn workspace_bytes(&self) -> usize {
        usize::try_from(self.code.scratch_bytes()).unwrap_or(usize::MAX)
    }

    /// Predicted seconds of an image on one thread.
    fn seconds(&self) -> f64 {
        *self.seconds.get_or_init(|| {
            let rates = self.target.rates();
            match self.transforms() {
                // The nests of such code are its last stage only.
                Some(transforms) => {
                    let images = self.problem.batch().max(1) as f64;
                    let plan = transforms.plan();
                    plan.estimate(&self.problem, &self.target, rates).seconds() / images
                }
                None => cost::cost(self.code.nests(), &self.target, rates, 1, 1).seconds,
            }
        })
    }

    /// Packs the weights of each problem.
    pub(super) fn pack(&self, weights: &[&[f32]]) -> Result<PackedWeights, Error> {
        self.code.check_weights(weights)?;
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
        let images = given.checked_div(image).filter(|_| given.is_multiple_of(image));
        let Some(images) = images else { return Err(RunError::Batch { given, image }.into()) };
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
        Ok(self.code.call(images, inputs, output)?)
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
