//! Values for every buffer of a problem, and what each rung makes of them.
//!
//! Sums of the integers are exact in f32 in any order, so every rung must equal the formula. Reals
//! round at every step, so a kernel that has the interpreter's bits does the same steps.

use convgen::{Arguments, Kernel};
use convgen_ir::interpret;
use convgen_ir::nest::Role;
use convgen_ir::problem::ConvProblem;
use convgen_ir::reference::{ConvData, Reference};
use convgen_ir::verify::VerifiedNest;

/// The arguments of one call.
pub struct Data {
    problem: ConvProblem,
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub extras: Vec<Vec<f32>>,
}

impl Data {
    /// From -3 to 3.
    pub fn integers(problem: &ConvProblem) -> Data {
        Data::new(problem, |random| (random % 7) as f32 - 3.0)
    }

    /// From -1 to 1.
    pub fn reals(problem: &ConvProblem) -> Data {
        Data::new(problem, |random| random as f32 / (1_u64 << 47) as f32 - 1.0)
    }

    fn new(problem: &ConvProblem, value: fn(u64) -> f32) -> Data {
        let values = |seed, length| values(seed, length, value);
        let batch = problem.batch();
        let extras = problem.extra_shapes(batch).into_iter();
        Data {
            problem: problem.clone(),
            input: values(1, product(&problem.input_shape(batch))),
            weights: values(2, product(&problem.weights_shape())),
            bias: problem.bias().then(|| values(3, problem.result_channels())),
            extras: extras.zip(4..).map(|((_, s), seed)| values(seed, product(&s))).collect(),
        }
    }

    /// The bottom oracle.
    pub fn reference(&self) -> Result<Vec<f64>, String> {
        let extras: Vec<&[f32]> = self.extras.iter().map(Vec::as_slice).collect();
        let (input, weights) = (self.input.as_slice(), self.weights.as_slice());
        let data = ConvData { input, weights, bias: self.bias.as_deref(), extras: &extras };
        let reference = Reference::new(&self.problem, self.problem.batch(), data);
        Ok(reference.map_err(|error| error.to_string())?.convolve())
    }

    /// The interpreter on the nests of a kernel: all tasks in a row, which must agree with one at a
    /// time, last first.
    pub fn interpret<'n>(
        &self,
        nests: impl IntoIterator<Item = &'n VerifiedNest>,
    ) -> Result<Vec<f32>, String> {
        let batch = self.problem.batch() as i64;
        let mut output = vec![f32::NAN; product(&self.problem.output_shape(batch as u64)) as usize];
        let mut backwards = output.clone();
        for nest in nests {
            let packed = interpret::pack(nest, &self.weights).map_err(|error| error.to_string())?;
            let reads_weights = nest.nest().find_role(Role::Weights).is_some();
            let mut given = vec![self.input.as_slice()];
            given.extend(reads_weights.then_some(packed.as_slice()));
            given.extend(self.bias.as_deref());
            given.extend(self.extras.iter().map(Vec::as_slice));
            let tasks = nest.nest().tasks(batch).unwrap();
            let run = |range, output: &mut [f32]| {
                interpret::run(nest, batch, range, &given, output)
                    .map_err(|error| error.to_string())
            };
            run(0..tasks, &mut output)?;
            for task in (0..tasks).rev() {
                run(task..task + 1, &mut backwards)?;
            }
        }
        match bits(&output) == bits(&backwards) {
            true => Ok(output),
            false => Err("the order of the tasks changes the result".to_string()),
        }
    }
}

impl Data {
    /// A kernel, on one thread and on two, which must agree.
    pub fn run(&self, kernel: &Kernel) -> Result<Vec<f32>, String> {
        let weights = kernel.pack_weights(&self.weights).map_err(|error| error.to_string())?;
        let extras: Vec<&[f32]> = self.extras.iter().map(Vec::as_slice).collect();
        let (input, bias) = (self.input.as_slice(), self.bias.as_deref());
        let arguments = Arguments { input, weights: &weights, bias, extras: &extras };
        let length = product(&self.problem.output_shape(self.problem.batch()));
        let [mut alone, mut together] = [(); 2].map(|()| vec![f32::NAN; length as usize]);
        kernel.run_with(&arguments, &mut alone).map_err(|error| error.to_string())?;
        // Small calls would not be shared by themselves.
        let call = kernel.prepare(&arguments, &mut together).map_err(|error| error.to_string())?;
        call.share(2);
        match bits(&alone) == bits(&together) {
            true => Ok(alone),
            false => Err("the number of threads changes the result".to_string()),
        }
    }
}

/// The first element that is not exactly what the reference has.
pub fn compare(got: &[f32], want: &[f64]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} elements instead of {}", got.len(), want.len()));
    }
    match got.iter().zip(want).position(|(got, want)| f64::from(*got) != *want) {
        Some(i) => Err(format!("element {i} is {} instead of {}", got[i], want[i])),
        None => Ok(()),
    }
}

/// Every NaN counts as the same NaN.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Made of 48 random bits each, by a linear congruential generator.
fn values(seed: u64, length: u64, value: fn(u64) -> f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        value(state >> 16)
    };
    (0..length).map(|_| next()).collect()
}

fn product(shape: &[u64]) -> u64 {
    shape.iter().product()
}
