//! Holds the kernel of a separable convolution against the kernels of its halves, run one after the
//! other, bit for bit; these are held against their own oracles.

use convgen_ir::problem::ConvProblem;
use convgen_ir::separable::Separable;

use super::{CheckError, Data};
use crate::algorithm::Algorithm;
use crate::compiler::Compiler;
use crate::error::Error;
use crate::runtime::aligned::Aligned;
use crate::runtime::separable::{SeparableArguments, SeparableKernel};
use crate::runtime::{Arguments, Kernel, PackedWeights};

/// Why a fused kernel is not accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SeparableCheckError {
    /// The kernel of one half is wrong.
    #[error(transparent)]
    Half(#[from] CheckError),
    /// The fused kernel has other bits.
    #[error("output {index} is {fused:?}, by the two kernels {halves:?}; {separable}")]
    Differs {
        /// The flat index of the output.
        index: usize,
        /// The fused kernel's value.
        fused: f32,
        /// That of the two kernels.
        halves: f32,
        /// The pair.
        separable: String,
    },
    /// A kernel could not be compiled or run.
    #[error(transparent)]
    Run(#[from] Error),
}

/// Checks a kernel on its problem, at the problem's batch; returns the number of outputs compared.
///
/// # Errors
/// The first output that differs, of the halves or of the whole.
pub fn check(compiler: &Compiler, kernel: &SeparableKernel) -> Result<usize, SeparableCheckError> {
    let separable = kernel.separable();
    let plan = kernel.plan();
    let half = |problem: &ConvProblem, schedule| {
        let half = compiler.compile_with(problem, Algorithm::Direct, schedule)?;
        super::check(&half)?;
        Ok::<Kernel, SeparableCheckError>(half)
    };
    let depthwise = half(separable.depthwise(), &plan.depthwise)?;
    let pointwise = half(separable.pointwise(), &plan.pointwise)?;
    let mut compared = 0;
    for data in [PairData::integers(separable), PairData::reals(separable)] {
        let fused = data.run(kernel)?;
        let halves = data.run_halves(&depthwise, &pointwise)?;
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        if let Some(index) = fused.iter().zip(&*halves).position(|(a, b)| !same(*a, *b)) {
            let (fused, halves) = (fused[index], halves[index]);
            let separable = separable.to_string();
            return Err(SeparableCheckError::Differs { index, fused, halves, separable });
        }
        compared += fused.len();
    }
    Ok(compared)
}

/// The inputs of one call of a separable convolution.
pub struct PairData {
    depthwise: Data,
    pointwise: Data,
}

impl PairData {
    /// Small integers.
    pub fn integers(separable: &Separable) -> PairData {
        PairData {
            depthwise: Data::integers(separable.depthwise()),
            pointwise: Data::integers(separable.pointwise()),
        }
    }

    /// Reals of both signs around one.
    pub fn reals(separable: &Separable) -> PairData {
        PairData {
            depthwise: Data::reals(separable.depthwise()),
            pointwise: Data::reals(separable.pointwise()),
        }
    }

    /// Of the depthwise half: input, weights, bias and extras.
    pub fn depthwise(&self) -> &Data {
        &self.depthwise
    }

    /// Of the pointwise half: weights, bias and extras; its input is what the other half writes.
    pub fn pointwise(&self) -> &Data {
        &self.pointwise
    }

    /// Both sets of weights, packed.
    ///
    /// # Errors
    /// [`Error::Run`] if the data is not the kernel's problem's.
    pub fn pack(&self, kernel: &SeparableKernel) -> Result<PackedWeights, Error> {
        kernel.pack_weights(&self.depthwise.weights, &self.pointwise.weights)
    }

    /// What the epilogues read.
    pub fn extras(&self) -> Vec<&[f32]> {
        self.depthwise.extras().into_iter().chain(self.pointwise.extras()).collect()
    }

    /// The arguments of a call; `weights` and `extras` are this data's, packed and listed once.
    pub fn arguments<'a>(
        &'a self,
        weights: &'a PackedWeights,
        extras: &'a [&'a [f32]],
    ) -> SeparableArguments<'a> {
        SeparableArguments {
            input: &self.depthwise.input,
            weights,
            depthwise_bias: self.depthwise.bias.as_deref(),
            pointwise_bias: self.pointwise.bias.as_deref(),
            extras,
        }
    }

    /// The kernel's output.
    ///
    /// # Errors
    /// As [`PairData::pack`].
    pub fn run(&self, kernel: &SeparableKernel) -> Result<Aligned, Error> {
        let (weights, extras) = (self.pack(kernel)?, self.extras());
        let mut output = undefined(self.pointwise.outputs);
        kernel.run(&self.arguments(&weights, &extras), &mut output)?;
        Ok(output)
    }

    /// The output of the halves' kernels, one after the other.
    ///
    /// # Errors
    /// As [`PairData::pack`].
    pub fn run_halves(&self, depthwise: &Kernel, pointwise: &Kernel) -> Result<Aligned, Error> {
        let weights = depthwise.pack_weights(&self.depthwise.weights)?;
        let extras = self.depthwise.extras();
        let mut middle = undefined(self.depthwise.outputs);
        depthwise.run_with(&self.depthwise.arguments(&weights, &extras), &mut middle)?;
        let weights = pointwise.pack_weights(&self.pointwise.weights)?;
        let extras = self.pointwise.extras();
        let mut output = undefined(self.pointwise.outputs);
        let arguments = self.pointwise.arguments(&weights, &extras);
        pointwise.run_with(&Arguments { input: &middle, ..arguments }, &mut output)?;
        Ok(output)
    }
}

fn undefined(len: usize) -> Aligned {
    std::iter::repeat_n(f32::NAN, len).collect()
}
