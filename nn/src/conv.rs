//! Convolutions and transposed convolutions as layers.
//!
//! A transposed convolution is the adjoint of a forward one, so both layers have the same four
//! kernels: the gradient of one's input is the other's forward map, and the gradient of the weights
//! is that of the forward convolution, with its input and its output's gradient exchanged.

use convgen_ir::problem::{ConvProblem, ConvSpec, Direction, SpatialAxis};

use super::{Generator, Layer, NetworkError, Parameter, Pass, change_each, check_len};
use convgen::Compiler;
use convgen::{Arguments, Kernel, PackedWeights};

/// A kernel with its weights as it reads them.
pub(super) struct Weighted {
    kernel: Kernel,
    packed: PackedWeights,
}

impl Weighted {
    pub(super) fn new(
        compiler: &Compiler,
        problem: &ConvProblem,
        weights: &[f32],
    ) -> Result<Weighted, NetworkError> {
        let kernel = compiler.compile(problem)?;
        let packed = kernel.pack_weights(weights)?;
        Ok(Weighted { kernel, packed })
    }

    /// One that reads no weights: the gradient of weights or bias.
    pub(super) fn without_weights(
        compiler: &Compiler,
        problem: &ConvProblem,
    ) -> Result<Weighted, NetworkError> {
        Weighted::new(compiler, problem, &[])
    }

    pub(super) fn repack(&mut self, weights: &[f32]) -> Result<(), NetworkError> {
        Ok(self.kernel.repack_weights(weights, &mut self.packed)?)
    }

    pub(super) fn run(
        &self,
        input: &[f32],
        bias: Option<&[f32]>,
        extras: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), NetworkError> {
        let arguments = Arguments { input, weights: &self.packed, bias, extras };
        Ok(self.kernel.run_with(&arguments, output)?)
    }
}

/// The layer of a convolution, or of a transposed one: the adjoint of the convolution whose weights
/// it has. Its maps are compiled once; the bias and its gradient are there if the layer has one.
pub struct Convolution<const TRANSPOSED: bool> {
    forward: Weighted,
    input_gradient: Weighted,
    weight_gradient: Weighted,
    bias_gradient: Option<Weighted>,
    parameters: Vec<Parameter>,
    input_len: usize,
    output_len: usize,
}

/// A convolution. The specification may have groups, strides, dilations, zero padding, and any
/// number of axes.
pub type Conv2d = Convolution<false>;

/// A transposed convolution, of a specification made by [`ConvSpec::transposed`].
pub type ConvTranspose2d = Convolution<true>;

impl<const TRANSPOSED: bool> Convolution<TRANSPOSED> {
    /// A layer with weights, and a bias if the specification has one, drawn as PyTorch draws them.
    ///
    /// # Errors
    /// [`NetworkError::NotPlain`] if the specification has an epilogue or is of another direction.
    pub fn new(
        compiler: &Compiler,
        spec: ConvSpec,
        generator: &mut Generator,
    ) -> Result<Self, NetworkError> {
        check_plain(&spec, TRANSPOSED)?;
        let problem = ConvProblem::new(spec)?;
        // The formula's sizes without a bias, which belongs to one of its directions only.
        let bare = ConvProblem::new(problem.to_spec().bias(false))?;
        let parameters = drawn(&problem, generator);
        let weights = &parameters[0].values;
        let adjoint = match TRANSPOSED {
            true => bare.with_direction(Direction::Forward)?,
            false => bare.with_direction(Direction::BackwardData)?,
        };
        let len = |shape: Vec<u64>| shape.iter().product::<u64>() as usize;
        let bias_gradient =
            problem.bias().then(|| Weighted::without_weights(compiler, &bias_gradient(&problem)?));
        Ok(Convolution {
            forward: Weighted::new(compiler, &problem, weights)?,
            input_gradient: Weighted::new(compiler, &adjoint, weights)?,
            weight_gradient: Weighted::without_weights(
                compiler,
                &bare.with_direction(Direction::BackwardWeights)?,
            )?,
            bias_gradient: bias_gradient.transpose()?,
            input_len: len(problem.input_shape(1)),
            output_len: len(problem.output_shape(1)),
            parameters,
        })
    }
}

impl<const TRANSPOSED: bool> Layer for Convolution<TRANSPOSED> {
    fn input_len(&self) -> usize {
        self.input_len
    }

    fn output_len(&self) -> usize {
        self.output_len
    }

    fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), NetworkError> {
        let bias = self.parameters.get(1).map(|bias| bias.values.as_slice());
        self.forward.run(input, bias, &[], output)
    }

    fn backward(
        &self,
        pass: &Pass,
        input_gradient: Option<&mut [f32]>,
        gradients: &mut [Vec<f32>],
    ) -> Result<(), NetworkError> {
        check_len("the list of gradients", gradients.len(), self.parameters.len())?;
        let Pass { input, gradient, .. } = *pass;
        if let Some(input_gradient) = input_gradient {
            self.input_gradient.run(gradient, None, &[], input_gradient)?;
        }
        let (x, y_gradient) = if TRANSPOSED { (gradient, input) } else { (input, gradient) };
        self.weight_gradient.run(x, None, &[y_gradient], &mut gradients[0])?;
        match &self.bias_gradient {
            Some(sum) => sum.run(gradient, None, &[], &mut gradients[1]),
            None => Ok(()),
        }
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn update(&mut self, change: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), NetworkError> {
        change_each(&mut self.parameters, change);
        let weights = &self.parameters[0].values;
        self.forward.repack(weights)?;
        self.input_gradient.repack(weights)
    }
}

/// Refuses an epilogue, and any direction but the layer's.
fn check_plain(spec: &ConvSpec, transposed: bool) -> Result<(), NetworkError> {
    let direction = if transposed { Direction::Transposed } else { Direction::Forward };
    let given = match spec.epilogue.first() {
        Some(operation) => format!("`{operation}`"),
        None if spec.direction == direction => return Ok(()),
        None => format!("the direction `{}`", spec.direction.name()),
    };
    Err(NetworkError::NotPlain { given })
}

/// Weights and bias as PyTorch begins. It counts the terms of a sum by the second dimension of the
/// weights, also where the convolution is transposed.
fn drawn(problem: &ConvProblem, generator: &mut Generator) -> Vec<Parameter> {
    let shape = problem.weights_shape();
    let fan_in = shape[1..].iter().product();
    let mut parameters = vec![Parameter::drawn("weight", &shape, fan_in, generator)];
    if problem.bias() {
        let channels = [problem.result_channels()];
        parameters.push(Parameter::drawn("bias", &channels, fan_in, generator));
    }
    parameters
}

/// The sum over images and positions of what a problem writes: that of a convolution that looks at
/// single positions of it.
fn bias_gradient(problem: &ConvProblem) -> Result<ConvProblem, NetworkError> {
    let size = |axis: &SpatialAxis| match problem.direction() {
        Direction::Forward => axis.output(),
        Direction::Transposed
        | Direction::BackwardData
        | Direction::BackwardWeights
        | Direction::BackwardBias => axis.input,
    };
    let axes = problem.spatial().iter().map(|axis| SpatialAxis::new(size(axis), 1)).collect();
    let spec = ConvSpec::new(1, problem.result_channels(), axes).layout(problem.layout());
    Ok(ConvProblem::new(spec.direction(Direction::BackwardBias))?)
}
