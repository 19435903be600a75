//! Layers one after the other, and the gradients of a loss, with the batch shared among threads.
//!
//! A batch is cut into shards of [`SHARD`] images, however many threads there are. Each runs
//! through all layers, forth and back, on one thread, and the gradients of the shards are added in
//! order: so the bits do not depend on the threads, and threads meet once a batch instead of once a
//! layer.

use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;

use super::{Layer, Loss, NetworkError, Parameter, Pass, check_len, images_in};

/// Images that stay together: enough to share the weights they read, few enough that two threads
/// share a batch of 32.
const SHARD: usize = 16;

/// A layer with its name.
struct Named {
    name: String,
    layer: Box<dyn Layer>,
}

/// A list of layers.
#[derive(Default)]
pub struct Network {
    layers: Vec<Named>,
    /// Memory of shards, kept from batch to batch.
    spaces: Mutex<Vec<Space>>,
}

/// The gradients of a loss at the parameters of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// The loss.
    pub loss: f64,
    /// For each layer, one gradient a parameter.
    pub layers: Vec<Vec<Vec<f32>>>,
}

/// What a shard computes.
#[derive(Default)]
struct Space {
    /// The output of each layer.
    outputs: Vec<Vec<f32>>,
    /// The gradient of each output.
    output_gradients: Vec<Vec<f32>>,
    sums: Gradients,
}

impl Network {
    /// No layers yet.
    pub fn new() -> Network {
        Network::default()
    }

    /// Puts a layer behind the others.
    ///
    /// # Errors
    /// [`NetworkError::Layers`] if it does not read what the last one writes.
    pub fn add(
        &mut self,
        name: &str,
        layer: impl Layer + 'static,
    ) -> Result<&mut Network, NetworkError> {
        let expected = layer.input_len();
        if let Some(given) = self.layers.last().map(|last| last.layer.output_len())
            && given != expected
        {
            return Err(NetworkError::Layers { name: name.to_string(), given, expected });
        }
        self.layers.push(Named { name: name.to_string(), layer: Box::new(layer) });
        Ok(self)
    }

    /// The layers in order.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &dyn Layer)> {
        self.layers.iter().map(|named| (named.name.as_str(), &*named.layer))
    }

    /// The outputs of the last layer.
    ///
    /// # Errors
    /// If the images are not what the first layer reads.
    pub fn forward(&self, images: &[f32]) -> Result<Vec<f32>, NetworkError> {
        let (image, result) = self.ends()?;
        let count = images_in(images.len(), image)?;
        let mut outputs = vec![0.0; count * result];
        let shards = images.par_chunks(image * SHARD).zip(outputs.par_chunks_mut(result * SHARD));
        shards.try_for_each(|(images, outputs)| {
            let mut space = self.space();
            self.run_forward(images, &mut space)?;
            outputs.copy_from_slice(space.outputs.last().map_or(&[], Vec::as_slice));
            self.keep([space]);
            Ok::<(), NetworkError>(())
        })?;
        Ok(outputs)
    }

    /// The loss and its gradient at each parameter.
    ///
    /// # Errors
    /// If the images do not fit the first layer, or the loss the last one.
    pub fn gradients(&self, images: &[f32], loss: &dyn Loss) -> Result<Gradients, NetworkError> {
        let (image, _) = self.ends()?;
        let count = images_in(images.len(), image)?;
        check_len("the list of targets", loss.images(), count)?;
        let shards = images.par_chunks(image * SHARD).enumerate();
        let spaces = shards.map(|(number, images)| {
            let first = number * SHARD;
            let mut space = self.space();
            self.run_forward(images, &mut space)?;
            let range = first..first + images.len() / image;
            self.run_backward(images, range, loss, &mut space)?;
            Ok(space)
        });
        let mut spaces = spaces.collect::<Result<Vec<Space>, NetworkError>>()?;
        let mut sums = match spaces.first_mut() {
            Some(first) => std::mem::take(&mut first.sums),
            None => self.zeros(),
        };
        spaces.iter().skip(1).for_each(|space| sums.add(&space.sums));
        self.keep(spaces);
        Ok(sums)
    }

    /// Changes all parameters, layers at the same time. Each layer has a state, which `change` gets
    /// with the numbers of the layer and of the parameter and the values.
    ///
    /// # Errors
    /// If the kernels refuse the changed weights.
    pub fn update<S: Send>(
        &mut self,
        states: &mut [S],
        change: impl Fn(usize, usize, &mut S, &mut [f32]) + Sync,
    ) -> Result<(), NetworkError> {
        check_len("the list of states", states.len(), self.layers.len())?;
        let layers = self.layers.par_iter_mut().zip(states.par_iter_mut()).enumerate();
        layers.try_for_each(|(number, (named, state))| {
            named.layer.update(&mut |parameter, values| change(number, parameter, state, values))
        })
    }

    /// What is learned, each with its name, `layer.parameter`.
    pub fn parameters(&self) -> impl Iterator<Item = (String, &Parameter)> {
        self.layers.iter().flat_map(|named| {
            let parameters = named.layer.parameters().iter();
            parameters.map(|parameter| (format!("{}.{}", named.name, parameter.name), parameter))
        })
    }

    /// Replaces the parameter of that name.
    ///
    /// # Errors
    /// [`NetworkError::NoParameter`], or a wrong number of values.
    pub fn set_parameter(&mut self, name: &str, values: &[f32]) -> Result<(), NetworkError> {
        for named in &mut self.layers {
            let parameters = named.layer.parameters().iter();
            let names = parameters.map(|parameter| format!("{}.{}", named.name, parameter.name));
            let Some(wanted) = names.into_iter().position(|own| own == name) else { continue };
            check_len("parameter", values.len(), named.layer.parameters()[wanted].values.len())?;
            return named.layer.update(&mut |number, own| {
                if number == wanted {
                    own.copy_from_slice(values);
                }
            });
        }
        Err(NetworkError::NoParameter { name: name.to_string() })
    }

    /// Elements of one image of the input and of the output.
    fn ends(&self) -> Result<(usize, usize), NetworkError> {
        match (self.layers.first(), self.layers.last()) {
            (Some(first), Some(last)) => Ok((first.layer.input_len(), last.layer.output_len())),
            (None, _) | (_, None) => Err(NetworkError::Empty),
        }
    }

    /// Gradients of no images.
    fn zeros(&self) -> Gradients {
        let of = |named: &Named| -> Vec<Vec<f32>> {
            let parameters = named.layer.parameters().iter();
            parameters.map(|parameter| vec![0.0; parameter.values.len()]).collect()
        };
        Gradients { loss: 0.0, layers: self.layers.iter().map(of).collect() }
    }

    /// Memory for a shard. A lock that a panic elsewhere has poisoned still guards a usable list.
    fn space(&self) -> Space {
        let mut spaces = self.spaces.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut space = spaces.pop().unwrap_or_default();
        drop(spaces);
        space.outputs.resize_with(self.layers.len(), Vec::new);
        space.output_gradients.resize_with(self.layers.len(), Vec::new);
        if space.sums.layers.len() != self.layers.len() {
            space.sums = self.zeros();
        }
        space
    }

    fn keep(&self, spaces: impl IntoIterator<Item = Space>) {
        let mut kept = self.spaces.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.extend(spaces);
    }

    fn run_forward(&self, images: &[f32], space: &mut Space) -> Result<(), NetworkError> {
        let (image, _) = self.ends()?;
        let count = images.len() / image;
        for (number, named) in self.layers.iter().enumerate() {
            let (before, rest) = space.outputs.split_at_mut(number);
            let input = before.last().map_or(images, Vec::as_slice);
            rest[0].resize(count * named.layer.output_len(), 0.0);
            named.layer.forward(input, &mut rest[0])?;
        }
        Ok(())
    }

    fn run_backward(
        &self,
        images: &[f32],
        range: Range<usize>,
        loss: &dyn Loss,
        space: &mut Space,
    ) -> Result<(), NetworkError> {
        let Space { outputs, output_gradients, sums } = space;
        for (output, gradient) in outputs.iter().zip(&mut *output_gradients) {
            gradient.resize(output.len(), 0.0);
        }
        if let (Some(output), Some(gradient)) = (outputs.last(), output_gradients.last_mut()) {
            sums.loss = loss.add(range, output, gradient)?;
        }
        for (number, named) in self.layers.iter().enumerate().rev() {
            let (before, own) = output_gradients.split_at_mut(number);
            let input = number.checked_sub(1).map_or(images, |before| &outputs[before]);
            let pass = Pass { input, output: &outputs[number], gradient: &own[0] };
            let input_gradient = before.last_mut().map(Vec::as_mut_slice);
            named.layer.backward(&pass, input_gradient, &mut sums.layers[number])?;
        }
        Ok(())
    }
}

impl Gradients {
    fn add(&mut self, other: &Gradients) {
        self.loss += other.loss;
        let values = other.layers.iter().flatten().flatten();
        for (sum, value) in self.layers.iter_mut().flatten().flatten().zip(values) {
            *sum += value;
        }
    }
}

/// How many of the outputs are largest at the label, as a part of all; ties count for the first
/// class.
pub fn accuracy(outputs: &[f32], labels: &[u8]) -> f64 {
    let classes = outputs.len() / labels.len().max(1);
    let is_right = |(y, label): (&[f32], &u8)| {
        let first = |best: usize, class: usize| if y[class] > y[best] { class } else { best };
        (0..classes).reduce(first) == Some(usize::from(*label))
    };
    let right = outputs.chunks(classes.max(1)).zip(labels).filter(|pair| is_right(*pair)).count();
    right as f64 / labels.len().max(1) as f64
}
