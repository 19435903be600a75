//! Layers without parameters that look at single elements: plain loops, no kernels.

use super::{Layer, NetworkError, Pass, check_len, images_in};

/// `max(0, x)`. Its derivative at zero is taken as zero; a NaN stays one.
#[derive(Clone, Debug)]
pub struct Relu {
    len: usize,
}

impl Relu {
    /// For images of that many elements.
    pub fn new(len: usize) -> Relu {
        Relu { len }
    }
}

impl Layer for Relu {
    fn input_len(&self) -> usize {
        self.len
    }

    fn output_len(&self) -> usize {
        self.len
    }

    fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), NetworkError> {
        check_len("output", output.len(), input.len())?;
        for (y, x) in output.iter_mut().zip(input) {
            *y = if 0.0 > *x { 0.0 } else { *x };
        }
        Ok(())
    }

    fn backward(
        &self,
        pass: &Pass,
        input_gradient: Option<&mut [f32]>,
        _gradients: &mut [Vec<f32>],
    ) -> Result<(), NetworkError> {
        let Some(input_gradient) = input_gradient else { return Ok(()) };
        check_len("gradient", pass.gradient.len(), pass.output.len())?;
        check_len("input gradient", input_gradient.len(), pass.output.len())?;
        for ((dx, dy), y) in input_gradient.iter_mut().zip(pass.gradient).zip(pass.output) {
            // Read first, so that the compiler need not branch around it.
            let dy = *dy;
            *dx = if *y > 0.0 { dy } else { 0.0 };
        }
        Ok(())
    }
}

/// From `[row, column, channel]`, the order of this crate, to `[channel, row, column]`, the order
/// in which a fully connected layer of most frameworks reads a picture.
#[derive(Clone, Debug)]
pub struct Flatten {
    positions: usize,
    channels: usize,
}

impl Flatten {
    /// For images of rows, columns and channels.
    pub fn new([rows, columns, channels]: [usize; 3]) -> Flatten {
        Flatten { positions: rows * columns, channels }
    }
}

impl Layer for Flatten {
    fn input_len(&self) -> usize {
        self.positions * self.channels
    }

    fn output_len(&self) -> usize {
        self.input_len()
    }

    fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), NetworkError> {
        transpose(input, output, self.positions, self.channels)
    }

    fn backward(
        &self,
        pass: &Pass,
        input_gradient: Option<&mut [f32]>,
        _gradients: &mut [Vec<f32>],
    ) -> Result<(), NetworkError> {
        let Some(input_gradient) = input_gradient else { return Ok(()) };
        transpose(pass.gradient, input_gradient, self.channels, self.positions)
    }
}

/// Each image from `rows` of `columns` to `columns` of `rows`.
fn transpose(
    from: &[f32],
    to: &mut [f32],
    rows: usize,
    columns: usize,
) -> Result<(), NetworkError> {
    images_in(from.len(), rows * columns)?;
    check_len("output", to.len(), from.len())?;
    for (from, to) in from.chunks_exact(rows * columns).zip(to.chunks_exact_mut(rows * columns)) {
        for (column, line) in to.chunks_exact_mut(rows).enumerate() {
            for (row, value) in line.iter_mut().enumerate() {
                *value = from[row * columns + column];
            }
        }
    }
    Ok(())
}
