//! Gradient descent.

use super::{Gradients, Network, NetworkError};

/// Stochastic gradient descent with momentum, as PyTorch has it: `v = momentum * v + g`,
/// `w = w - rate * v`, where `v` begins as the first `g`.
#[derive(Clone, Debug)]
pub struct Sgd {
    rate: f32,
    momentum: f32,
    /// One value a parameter of the network, in its order; empty before the first step.
    velocity: Vec<Vec<Vec<f32>>>,
}

impl Sgd {
    /// At a rate, and with a momentum, 0 for none.
    pub fn new(rate: f32, momentum: f32) -> Sgd {
        Sgd { rate, momentum, velocity: vec![] }
    }

    /// The rate.
    pub fn rate(&self) -> f32 {
        self.rate
    }

    /// Another rate for the steps to come.
    pub fn set_rate(&mut self, rate: f32) {
        self.rate = rate;
    }

    /// One step down. The gradients are those of the same network.
    ///
    /// # Errors
    /// If the kernels refuse the changed weights.
    pub fn step(
        &mut self,
        network: &mut Network,
        gradients: &Gradients,
    ) -> Result<(), NetworkError> {
        let (rate, momentum) = (self.rate, self.momentum);
        if self.velocity.is_empty() {
            let zeros = |layer: &Vec<Vec<f32>>| layer.iter().map(|g| vec![0.0; g.len()]).collect();
            self.velocity = gradients.layers.iter().map(zeros).collect();
        }
        network.update(&mut self.velocity, |layer, number, velocity, values| {
            let velocity = &mut velocity[number];
            let gradient = &gradients.layers[layer][number];
            for ((value, v), g) in values.iter_mut().zip(velocity).zip(gradient) {
                *v = momentum * *v + g;
                *value -= rate * *v;
            }
        })
    }
}
