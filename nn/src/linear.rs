//! A fully connected layer: a convolution of one position.
//!
//! A kernel shares its weights among the positions of an image, so images are handed to it in rows:
//! as pictures of [`ROWS`] positions, as long as there are that many, and then one by one. Each
//! output is the same sum in the same order either way.

use convgen_ir::problem::{ConvProblem, ConvSpec, Direction};

use super::conv::Weighted;
use super::{Generator, Layer, NetworkError, Parameter, Pass, change_each, check_len, images_in};
use convgen::Compiler;

/// Images that share the weights they read.
const ROWS: usize = 16;

/// One map, for rows and for single images.
struct Rows {
    rows: Weighted,
    single: Weighted,
    /// Elements of an image that are read and written.
    lens: (usize, usize),
}

impl Rows {
    fn new(
        compiler: &Compiler,
        problem: impl Fn(usize) -> Result<ConvProblem, NetworkError>,
        weights: &[f32],
        lens: (usize, usize),
    ) -> Result<Rows, NetworkError> {
        Ok(Rows {
            rows: Weighted::new(compiler, &problem(ROWS)?, weights)?,
            single: Weighted::new(compiler, &problem(1)?, weights)?,
            lens,
        })
    }

    fn run(
        &self,
        input: &[f32],
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<(), NetworkError> {
        let images = images_in(input.len(), self.lens.0)?;
        check_len("output", output.len(), images * self.lens.1)?;
        let whole = images / ROWS * ROWS;
        let (input, input_rest) = input.split_at(whole * self.lens.0);
        let (output, output_rest) = output.split_at_mut(whole * self.lens.1);
        self.rows.run(input, bias, &[], output)?;
        self.single.run(input_rest, bias, &[], output_rest)
    }

    fn repack(&mut self, weights: &[f32]) -> Result<(), NetworkError> {
        self.rows.repack(weights)?;
        self.single.repack(weights)
    }
}

/// `y = weight * x + bias`, with weights `[output, input]`.
pub struct Linear {
    forward: Rows,
    input_gradient: Rows,
    weight_gradient: Weighted,
    bias_gradient: Weighted,
    parameters: [Parameter; 2],
}

impl Linear {
    /// A layer with weights and a bias, drawn as PyTorch draws them.
    ///
    /// # Errors
    /// [`NetworkError::Kernel`] if there are no inputs or no outputs.
    pub fn new(
        compiler: &Compiler,
        inputs: usize,
        outputs: usize,
        generator: &mut Generator,
    ) -> Result<Linear, NetworkError> {
        let (ic, oc) = (inputs as u64, outputs as u64);
        let problem = |rows: usize, bias: bool, direction: Direction| {
            let spec = ConvSpec::conv1d(ic, oc, rows as u64, 1).bias(bias).direction(direction);
            Ok(ConvProblem::new(spec)?)
        };
        // Refuses sizes that no weights can have, before they are drawn.
        problem(1, true, Direction::Forward)?;
        let weight = Parameter::drawn("weight", &[oc, ic], ic, generator);
        let bias = Parameter::drawn("bias", &[oc], ic, generator);
        let forward = |rows| problem(rows, true, Direction::Forward);
        let adjoint = |rows| problem(rows, false, Direction::BackwardData);
        let sum = |direction| Weighted::without_weights(compiler, &problem(1, false, direction)?);
        Ok(Linear {
            forward: Rows::new(compiler, forward, &weight.values, (inputs, outputs))?,
            input_gradient: Rows::new(compiler, adjoint, &weight.values, (outputs, inputs))?,
            weight_gradient: sum(Direction::BackwardWeights)?,
            bias_gradient: sum(Direction::BackwardBias)?,
            parameters: [weight, bias],
        })
    }
}

impl Layer for Linear {
    fn input_len(&self) -> usize {
        self.parameters[0].shape[1]
    }

    fn output_len(&self) -> usize {
        self.parameters[0].shape[0]
    }

    fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), NetworkError> {
        self.forward.run(input, Some(&self.parameters[1].values), output)
    }

    fn backward(
        &self,
        pass: &Pass,
        input_gradient: Option<&mut [f32]>,
        gradients: &mut [Vec<f32>],
    ) -> Result<(), NetworkError> {
        check_len("the list of gradients", gradients.len(), self.parameters.len())?;
        if let Some(input_gradient) = input_gradient {
            self.input_gradient.run(pass.gradient, None, input_gradient)?;
        }
        self.weight_gradient.run(pass.input, None, &[pass.gradient], &mut gradients[0])?;
        self.bias_gradient.run(pass.gradient, None, &[], &mut gradients[1])
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn update(&mut self, change: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), NetworkError> {
        change_each(&mut self.parameters, change);
        self.forward.repack(&self.parameters[0].values)?;
        self.input_gradient.repack(&self.parameters[0].values)
    }
}
