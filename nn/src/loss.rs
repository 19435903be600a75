//! What is to become small, with its gradient.

use std::ops::Range;

use super::{NetworkError, check_len};

/// A mean over the images of a batch.
pub trait Loss: Sync {
    /// The number of images.
    fn images(&self) -> usize;

    /// What some of the images add to the loss; writes the gradient of their outputs.
    ///
    /// # Errors
    /// If the outputs do not fit the loss.
    fn add(
        &self,
        images: Range<usize>,
        outputs: &[f32],
        gradient: &mut [f32],
    ) -> Result<f64, NetworkError>;
}

/// The mean of `-ln softmax(y)[label]`.
#[derive(Clone, Debug)]
pub struct CrossEntropy<'a> {
    labels: &'a [u8],
    classes: usize,
}

impl<'a> CrossEntropy<'a> {
    /// One label an image.
    ///
    /// # Errors
    /// [`NetworkError::Label`] if a label is none of the classes.
    pub fn new(labels: &'a [u8], classes: usize) -> Result<CrossEntropy<'a>, NetworkError> {
        match labels.iter().position(|&label| usize::from(label) >= classes) {
            None => Ok(CrossEntropy { labels, classes }),
            Some(image) => {
                let given = usize::from(labels[image]);
                Err(NetworkError::Label { image, given, classes })
            }
        }
    }
}

impl Loss for CrossEntropy<'_> {
    fn images(&self) -> usize {
        self.labels.len()
    }

    fn add(
        &self,
        images: Range<usize>,
        outputs: &[f32],
        gradient: &mut [f32],
    ) -> Result<f64, NetworkError> {
        check_len("output", outputs.len(), images.len() * self.classes)?;
        check_len("gradient", gradient.len(), outputs.len())?;
        let count = self.labels.len() as f32;
        let rows = outputs.chunks_exact(self.classes).zip(gradient.chunks_exact_mut(self.classes));
        let mut loss = 0.0;
        for ((y, dy), label) in rows.zip(&self.labels[images]) {
            let label = usize::from(*label);
            loss += f64::from(softmax(y, dy) - y[label]);
            dy[label] -= 1.0;
            dy.iter_mut().for_each(|value| *value /= count);
        }
        Ok(loss / f64::from(count))
    }
}

/// Writes `exp(y) / sum(exp(y))` and returns the logarithm of that sum. The largest is taken out of
/// the exponents, so that none overflows.
fn softmax(y: &[f32], out: &mut [f32]) -> f32 {
    let largest = y.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (out, y) in out.iter_mut().zip(y) {
        *out = (y - largest).exp();
    }
    let sum: f32 = out.iter().sum();
    out.iter_mut().for_each(|value| *value /= sum);
    largest + sum.ln()
}

/// The mean over images and outputs of `(y - target)^2`.
#[derive(Clone, Debug)]
pub struct SquaredError<'a> {
    targets: &'a [f32],
    outputs: usize,
}

impl<'a> SquaredError<'a> {
    /// The targets of all images, of that many outputs each.
    ///
    /// # Errors
    /// If they are no whole number of images.
    pub fn new(targets: &'a [f32], outputs: usize) -> Result<SquaredError<'a>, NetworkError> {
        super::images_in(targets.len(), outputs.max(1))?;
        Ok(SquaredError { targets, outputs: outputs.max(1) })
    }
}

impl Loss for SquaredError<'_> {
    fn images(&self) -> usize {
        self.targets.len() / self.outputs
    }

    fn add(
        &self,
        images: Range<usize>,
        outputs: &[f32],
        gradient: &mut [f32],
    ) -> Result<f64, NetworkError> {
        let targets = &self.targets[images.start * self.outputs..images.end * self.outputs];
        check_len("output", outputs.len(), targets.len())?;
        check_len("gradient", gradient.len(), targets.len())?;
        let mut loss = 0.0;
        for ((y, dy), target) in outputs.iter().zip(gradient).zip(targets) {
            let error = y - target;
            loss += f64::from(error) * f64::from(error);
            *dy = 2.0 * error / self.targets.len() as f32;
        }
        Ok(loss / self.targets.len() as f64)
    }
}
