//! Layers with forward and backward passes, losses and gradient descent: what a chapter on
//! convolutional networks needs, over the kernels of `convgen`.
//!
//! Promises: convolutions, transposed convolutions, fully connected layers and pooling run as
//! compiled kernels, each compiled once a layer, for any batch; a result depends neither on the
//! number of threads nor on the machine's timing. Does not: record a graph, differentiate foreign
//! code, or know a GPU. A network is a list of layers, each of which knows its own adjoint.
//!
//! Activations are slices, as everywhere in this crate: `[image, row, column, channel]`, any number
//! of images. Weights are `[output channel, input channel, row, column]`, those of a transposed
//! convolution with both channels exchanged, those of a fully connected layer `[output, input]`.
//!
//! With `y = f(x, w)` and a loss `L(y)`, a layer's [`backward`](Layer::backward) takes `dL/dy` and
//! gives `dL/dx` and `dL/dw`: for a convolution, its [directions](convgen_ir::Direction) `bwd_d`,
//! `bwd_w` and `bwd_b`.
//!
//! # Example
//!
//! ```
//! use convgen::ir::ConvSpec;
//! use convgen_nn::{Conv2d, CrossEntropy, Flatten, Generator, Linear, MaxPool2d, Network, Relu, Sgd};
//! use convgen::Compiler;
//!
//! let compiler = Compiler::host()?;
//! let mut draw = Generator::new(1);
//! // Pictures of 6 by 6: two filters of 3 by 3, the largest of each 2 by 2, three classes.
//! let mut network = Network::new();
//! network.add("conv", Conv2d::new(&compiler, ConvSpec::conv2d(1, 2, 6, 6, 3, 3).bias(true), &mut draw)?)?;
//! network.add("pool", MaxPool2d::new(&compiler, [4, 4, 2], 2, 2)?)?;
//! network.add("relu", Relu::new(2 * 2 * 2))?;
//! network.add("flatten", Flatten::new([2, 2, 2]))?;
//! network.add("classes", Linear::new(&compiler, 8, 3, &mut draw)?)?;
//!
//! let images: Vec<f32> = (0..2 * 36).map(|i| (i % 7) as f32 / 7.0).collect();
//! let loss = CrossEntropy::new(&[0, 2], 3)?;
//! let mut sgd = Sgd::new(0.1, 0.9);
//! let before = network.gradients(&images, &loss)?;
//! sgd.step(&mut network, &before)?;
//! assert!(network.gradients(&images, &loss)?.loss < before.loss);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]

mod activation;
mod conv;
mod error;
mod generator;
mod linear;
mod loss;
mod network;
mod pool;
mod sgd;

pub use activation::{Flatten, Relu};
pub use conv::{Conv2d, ConvTranspose2d, Convolution};
pub use error::NetworkError;
pub use generator::Generator;
pub use linear::Linear;
pub use loss::{CrossEntropy, Loss, SquaredError};
pub use network::{Gradients, Network, accuracy};
pub use pool::{AvgPool2d, MaxPool2d, Pool2d};
pub use sgd::Sgd;

/// A step of a network: a function of an image and of its own parameters, with its adjoint.
///
/// A call runs on the calling thread; [`Network`] shares a batch among threads.
pub trait Layer: Send + Sync {
    /// Elements of one image that it reads.
    fn input_len(&self) -> usize;

    /// Elements of one image that it writes.
    fn output_len(&self) -> usize;

    /// The output of any number of images.
    ///
    /// # Errors
    /// If a slice does not fit the layer.
    fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), NetworkError>;

    /// The gradient of the input, if it is asked for, and of each parameter, summed over the
    /// images. What the slices held before is overwritten.
    ///
    /// # Errors
    /// If a slice does not fit the layer.
    fn backward(
        &self,
        pass: &Pass,
        input_gradient: Option<&mut [f32]>,
        gradients: &mut [Vec<f32>],
    ) -> Result<(), NetworkError>;

    /// What is learned.
    fn parameters(&self) -> &[Parameter] {
        &[]
    }

    /// Changes the parameters; `change` gets the number of each with its values.
    ///
    /// # Errors
    /// If the kernels refuse the changed values.
    fn update(&mut self, _change: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), NetworkError> {
        Ok(())
    }
}

/// What a backward pass knows of the forward pass of the same images.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What the layer read.
    pub input: &'a [f32],
    /// What it wrote.
    pub output: &'a [f32],
    /// The gradient of what it wrote.
    pub gradient: &'a [f32],
}

/// A tensor that is learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// `weight` or `bias`.
    pub name: &'static str,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub values: Vec<f32>,
}

impl Parameter {
    /// Drawn evenly from between plus and minus `1 / sqrt(fan_in)`, with `fan_in` the terms of one
    /// sum: how PyTorch begins, for weights and for biases.
    fn drawn(name: &'static str, shape: &[u64], fan_in: u64, generator: &mut Generator) -> Self {
        let bound = 1.0 / (fan_in as f32).sqrt();
        let len = shape.iter().product::<u64>();
        let values = (0..len).map(|_| (2.0 * generator.unit() - 1.0) * bound).collect();
        Parameter { name, shape: shape.iter().map(|&size| size as usize).collect(), values }
    }
}

/// Hands the values of each parameter to `change`, with its number.
fn change_each(parameters: &mut [Parameter], change: &mut dyn FnMut(usize, &mut [f32])) {
    for (number, parameter) in parameters.iter_mut().enumerate() {
        change(number, &mut parameter.values);
    }
}

/// Refuses a slice of the wrong length.
fn check_len(what: &'static str, given: usize, expected: usize) -> Result<(), NetworkError> {
    match given == expected {
        true => Ok(()),
        false => Err(convgen::RunError::Length { what, given, expected }.into()),
    }
}

/// The images that a slice holds.
fn images_in(given: usize, image: usize) -> Result<usize, NetworkError> {
    match given.is_multiple_of(image) {
        true => Ok(given / image),
        false => Err(convgen::RunError::Batch { given, image }.into()),
    }
}

#[doc = include_str!("../../docs/src/training.md")]
#[cfg(doctest)]
struct Chapter;
