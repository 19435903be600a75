//! Trains LeNet-5 on handwritten digits: two convolutions, each followed by the largest of 2 by 2,
//! then three fully connected layers.
//!
//! ```sh
//! cd nn                                           # on 1,500 digits that come with the source:
//! cargo run --release --example lenet
//! cargo run --release --example lenet -- --data DIR     # on MNIST, or anything in its format
//! cargo run --release --example lenet -- --data DIR --save lenet.npz --plot lenet.svg
//! ```

#[path = "lenet/idx.rs"]
mod idx;
#[path = "lenet/plot.rs"]
mod plot;
#[path = "lenet/weights.rs"]
mod weights;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use convgen::ir::ConvSpec;
use convgen::{Accuracy, Compiler, Host};
use convgen_nn::{
    Conv2d, CrossEntropy, Flatten, Generator, Linear, MaxPool2d, Network, Relu, Sgd, accuracy,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::idx::{Digits, PIXELS};

/// Digits from 0 to 9.
const CLASSES: usize = 10;

/// Trains LeNet-5 on handwritten digits.
#[derive(Parser)]
struct Options {
    /// Directory with the four MNIST files, `train-images-idx3-ubyte` and so on, also with `.gz`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist"))]
    data: PathBuf,
    /// How often each digit is seen.
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Digits in one step.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Length of a step.
    #[arg(long, default_value_t = 0.01)]
    rate: f32,
    /// How much of the last step is in the next one.
    #[arg(long, default_value_t = 0.9)]
    momentum: f32,
    /// Where the initial weights and the order of the digits come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; all if not given.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Begin with the weights in this `.npz` file.
    #[arg(long)]
    load: Option<PathBuf>,
    /// Write the weights to this `.npz` file at the end.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Draw the loss and the filters of the first layer into this `.svg` file.
    #[arg(long)]
    plot: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    pool.install(|| run(&options))
}

fn run(options: &Options) -> anyhow::Result<()> {
    let mut network = lenet(&mut Generator::new(options.seed))?;
    if let Some(path) = &options.load {
        weights::load(path, &mut network)?;
    }
    let train = Digits::read(&options.data, "train")?;
    let test = Digits::read(&options.data, "t10k")?;
    println!("{} digits to learn, {} to test", train.len(), test.len());
    let losses = fit(&mut network, options, &train, &test)?;
    if options.epochs == 0 {
        println!("accuracy {:.2} %", 100.0 * accuracy_on(&network, &test)?);
    }
    if let Some(path) = &options.save {
        weights::save(path, &network)?;
    }
    if let Some(path) = &options.plot {
        draw(path, &losses, &network)?;
    }
    Ok(())
}

/// 28x28 -> 6 of 24x24 -> 12x12 -> 16 of 8x8 -> 4x4 -> 120 -> 84 -> 10.
fn lenet(draw: &mut Generator) -> anyhow::Result<Network> {
    let host = Host::detect();
    // Sums as they are written, so that the training can be compared with another program's.
    let compiler = Compiler::new(&host, host.widest_isa())?.with_accuracy(Accuracy::Strict);
    let conv = |ic, oc, size| ConvSpec::conv2d(ic, oc, size, size, 5, 5).bias(true);
    let mut network = Network::new();
    network
        .add("conv1", Conv2d::new(&compiler, conv(1, 6, 28), draw)?)?
        .add("pool1", MaxPool2d::new(&compiler, [24, 24, 6], 2, 2)?)?
        // After the pooling, which gives the same, of a quarter of the elements.
        .add("relu1", Relu::new(12 * 12 * 6))?
        .add("conv2", Conv2d::new(&compiler, conv(6, 16, 12), draw)?)?
        .add("pool2", MaxPool2d::new(&compiler, [8, 8, 16], 2, 2)?)?
        .add("relu2", Relu::new(4 * 4 * 16))?
        .add("flatten", Flatten::new([4, 4, 16]))?
        .add("fc1", Linear::new(&compiler, 256, 120, draw)?)?
        .add("relu3", Relu::new(120))?
        .add("fc2", Linear::new(&compiler, 120, 84, draw)?)?
        .add("relu4", Relu::new(84))?
        .add("fc3", Linear::new(&compiler, 84, CLASSES, draw)?)?;
    Ok(network)
}

/// The loss of each step.
fn fit(
    network: &mut Network,
    options: &Options,
    train: &Digits,
    test: &Digits,
) -> anyhow::Result<Vec<f64>> {
    let batch = usize::from(options.batch);
    let mut sgd = Sgd::new(options.rate, options.momentum);
    let mut order: Vec<usize> = (0..train.len()).collect();
    let mut shuffle = Generator::new(options.seed);
    let mut losses = Vec::new();
    for epoch in 1..=options.epochs {
        shuffle.shuffle(&mut order);
        let bar = progress_bar(order.len().div_ceil(batch), epoch)?;
        let start = Instant::now();
        let first = losses.len();
        for digits in order.chunks(batch) {
            let loss = step(network, &mut sgd, train, digits)?;
            losses.push(loss);
            bar.set_message(format!("{loss:.3}"));
            bar.inc(1);
        }
        let time = start.elapsed();
        bar.finish_and_clear();
        report(epoch, &losses[first..], accuracy_on(network, test)?, time);
    }
    Ok(losses)
}

fn step(
    network: &mut Network,
    sgd: &mut Sgd,
    train: &Digits,
    digits: &[usize],
) -> anyhow::Result<f64> {
    let (images, labels) = train.pick(digits);
    let loss = CrossEntropy::new(&labels, CLASSES)?;
    let gradients = network.gradients(&images, &loss)?;
    sgd.step(network, &gradients)?;
    Ok(gradients.loss)
}

fn accuracy_on(network: &Network, test: &Digits) -> anyhow::Result<f64> {
    Ok(accuracy(&network.forward(&test.images)?, &test.labels))
}

fn report(epoch: usize, losses: &[f64], accuracy: f64, time: Duration) {
    let mean = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    let (accuracy, seconds) = (100.0 * accuracy, time.as_secs_f64());
    println!("epoch {epoch:2}  loss {mean:.5}  accuracy {accuracy:.2} %  {seconds:.3} s");
}

fn progress_bar(steps: usize, epoch: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len}  loss {msg}")?;
    let bar = ProgressBar::new(steps as u64).with_style(style);
    bar.set_prefix(format!("epoch {epoch:2}"));
    Ok(bar)
}

fn draw(path: &Path, losses: &[f64], network: &Network) -> anyhow::Result<()> {
    let mut parameters = network.parameters();
    let filters = parameters.find(|(name, _)| name == "conv1.weight").context("no conv1.weight")?.1;
    let filters: Vec<&[f32]> = filters.values.chunks_exact(5 * 5).collect();
    let picture = plot::picture(losses, &filters, 5);
    std::fs::write(path, picture).with_context(|| format!("cannot write `{}`", path.display()))
}

impl Digits {
    /// The images of some digits, and their labels.
    fn pick(&self, digits: &[usize]) -> (Vec<f32>, Vec<u8>) {
        let image = |digit: &usize| &self.images[digit * PIXELS..(digit + 1) * PIXELS];
        let images = digits.iter().flat_map(image).copied().collect();
        (images, digits.iter().map(|&digit| self.labels[digit]).collect())
    }
}
