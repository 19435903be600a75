//! Holds a kernel against its oracles: the interpreter, bit for bit, and the formula.
//!
//! Small integers make every sum exact, so the formula must be met with equality whatever the order
//! of the sum; an algorithm that rounds otherwise must meet it within its derived bound. Random
//! reals must give the interpreter's bits. Problems too large to interpret are compared with the
//! formula at sampled outputs (corners and tile seams among them) and with the interpreter on whole
//! tasks.

pub mod separable;

use std::fmt;

use convgen_ir::epilogue::{EpilogueOp, LARGEST_ERROR};
use convgen_ir::interpret;
use convgen_ir::nest::Role;
use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::reference::{ConvData, Reference, result_channel};
use convgen_ir::verify::VerifiedNest;

use crate::algorithm::Algorithm;
use crate::error::Error;
use crate::fourier::{Memory, Plan};
use crate::jit::{Inputs, MAX_SUMS};
use crate::runtime::aligned::Aligned;
use crate::runtime::{Arguments, Kernel, PackedWeights};

/// Multiply-adds that are interpreted or summed by the formula in one check of one kernel.
const FULL_MACS: u64 = 2 << 20;

/// Multiply-adds of a single task that are interpreted even if they exceed [`FULL_MACS`].
const TASK_MACS: u64 = 24 << 20;

/// Outputs compared with the formula where not all are.
const SAMPLES: u64 = 256;

/// Outputs compared with the formula at most, however short their sums.
const MAX_SAMPLES: u64 = 1 << 16;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Check {
    /// Outputs compared with the formula.
    pub elements: usize,
    /// Outputs compared bit for bit with the interpreter.
    pub bitwise: usize,
    /// Whether these were samples of a larger output.
    pub sampled: bool,
    /// The largest absolute error against the formula; 0 unless the epilogue or the algorithm
    /// rounds.
    pub max_error: f64,
}

/// An output that differs. Its text is a test case.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// What the kernel was compared with.
    pub oracle: &'static str,
    /// The flat index of the output.
    pub index: usize,
    /// The kernel's value.
    pub kernel: f32,
    /// The oracle's value.
    pub expected: f64,
    /// The problem, its batch included.
    pub problem: String,
    /// The schedule.
    pub schedule: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "output {} is {:?}, by the {} {:?}; as a test case:",
            self.index, self.kernel, self.oracle, self.expected
        )?;
        writeln!(f, "# output {} must be {:?}", self.index, self.expected)?;
        writeln!(f, "test jit\nproblem:\n{}\nschedule:\n{}", self.problem, self.schedule)
    }
}

impl std::error::Error for Mismatch {}

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CheckError {
    /// The kernel is wrong.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// The kernel could not be run.
    #[error(transparent)]
    Run(#[from] Error),
}

/// Checks a kernel on its problem, at the problem's batch.
///
/// # Errors
/// The first output that differs, with a test case that shows it.
pub fn check(kernel: &Kernel) -> Result<Check, CheckError> {
    let problem = kernel.problem();
    let macs = problem.macs();
    let mut result = Check::default();
    let integers = Data::integers(problem);
    let output = integers.run(kernel)?;
    (result.elements, result.max_error) = against_formula(kernel, &integers, &output)?;
    let reals = Data::reals(problem);
    let output = reals.run(kernel)?;
    result.bitwise = against_interpreter(kernel, &reals, &output)?;
    result.sampled = macs > FULL_MACS;
    Ok(result)
}

/// A kernel that passed [`check`] and its output on small integers: what other kernels of the
/// problem must compute too, in every element.
pub struct Oracle {
    algorithm: Algorithm,
    data: Data,
    output: Vec<f32>,
}

impl Oracle {
    /// Holds the kernel against the formula and the interpreter.
    ///
    /// # Errors
    /// As [`check`].
    pub fn new(kernel: &Kernel) -> Result<Oracle, CheckError> {
        check(kernel)?;
        let data = Data::integers(kernel.problem());
        let output = data.run(kernel)?;
        Ok(Oracle { algorithm: kernel.algorithm(), data, output })
    }

    /// Holds another kernel of the same problem against this one's output: sums of integers are
    /// exact in every order. A kernel of another algorithm may round, and gets a check of its own.
    ///
    /// # Errors
    /// The first output that differs.
    pub fn check(&self, kernel: &Kernel) -> Result<(), CheckError> {
        if kernel.algorithm() != self.algorithm {
            return check(kernel).map(|_| ());
        }
        let output = self.data.run(kernel)?;
        let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan());
        let differs = output.iter().zip(&self.output).position(|(a, b)| !same(*a, *b));
        match differs {
            None => Ok(()),
            Some(at) => {
                let expected = f64::from(self.output[at]);
                Err(mismatch(kernel, "verified kernel", at, output[at], expected))
            }
        }
    }
}

/// The largest integer in the data.
const MAX_INTEGER: f64 = 3.0;

/// The inputs of one call, in the caller's order.
pub struct Data {
    input: Aligned,
    weights: Vec<f32>,
    bias: Option<Aligned>,
    extras: Vec<Aligned>,
    outputs: usize,
}

impl Data {
    /// Integers so small that every sum of every order is exact in single precision.
    pub fn integers(problem: &ConvProblem) -> Data {
        let values = 2 * MAX_INTEGER as u64 + 1;
        Data::generate(problem, |state| (state % values) as f32 - MAX_INTEGER as f32)
    }

    /// Reals of both signs around one.
    pub fn reals(problem: &ConvProblem) -> Data {
        Data::generate(problem, |state| (state % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0)
    }

    fn generate(problem: &ConvProblem, value: impl Fn(u64) -> f32) -> Data {
        // xorshift64*: fixed, so that a failure can be repeated.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            value(state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32)
        };
        let mut fill = |shape: &[u64]| -> Aligned {
            (0..shape.iter().product::<u64>()).map(|_| next()).collect()
        };
        let batch = problem.batch();
        Data {
            input: fill(&problem.input_shape(batch)),
            weights: fill(&problem.weights_shape()).to_vec(),
            bias: problem.bias().then(|| fill(&[problem.result_channels()])),
            extras: problem.extra_shapes(batch).iter().map(|(_, shape)| fill(shape)).collect(),
            outputs: problem.output_shape(batch).iter().product::<u64>() as usize,
        }
    }

    /// The kernel's output.
    ///
    /// # Errors
    /// [`Error::Run`] if the data is not the kernel's problem's.
    pub fn run(&self, kernel: &Kernel) -> Result<Vec<f32>, Error> {
        let weights = kernel.pack_weights(&self.weights)?;
        let extras = self.extras();
        let mut output = vec![f32::NAN; self.outputs];
        kernel.run_with(&self.arguments(&weights, &extras), &mut output)?;
        Ok(output)
    }

    /// What some tasks of a nest write.
    fn interpret(
        &self,
        nest: &VerifiedNest,
        batch: u64,
        tasks: impl Iterator<Item = i64>,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<(), Error> {
        let packed = interpret::pack(nest, &self.weights)?;
        let mut extras = self.extras.iter();
        let given: Vec<&[f32]> = interpret::arguments(nest.nest())
            .into_iter()
            .map(|id| match nest.nest().buffer(id).role {
                Role::Input => input,
                Role::Weights | Role::Packed => packed.as_slice(),
                Role::Bias => self.bias.as_deref().unwrap_or_default(),
                Role::Gradient | Role::Scale | Role::Residual => {
                    extras.next().map(|extra| &**extra).unwrap_or_default()
                }
                Role::Output | Role::Scratch | Role::Reg => &[],
            })
            .collect();
        Ok(interpret::run(nest, batch as i64, tasks, &given, output)?)
    }

    /// The weights, before packing.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// What the epilogue reads.
    pub fn extras(&self) -> Vec<&[f32]> {
        self.extras.iter().map(|extra| &**extra).collect()
    }

    /// The arguments of a call; `weights` and `extras` are this data's, packed and listed once.
    pub fn arguments<'a>(
        &'a self,
        weights: &'a PackedWeights,
        extras: &'a [&'a [f32]],
    ) -> Arguments<'a> {
        Arguments { input: &self.input, weights, bias: self.bias.as_deref(), extras }
    }

    /// The number of elements of the output.
    pub fn output_len(&self) -> usize {
        self.outputs
    }
}

/// The formula's value of some or all outputs, compared exactly where the arithmetic is exact: how
/// many, and the largest absolute error.
fn against_formula(
    kernel: &Kernel,
    data: &Data,
    output: &[f32],
) -> Result<(usize, f64), CheckError> {
    let problem = kernel.problem();
    let extras = data.extras();
    let given = ConvData {
        input: &data.input,
        weights: &data.weights,
        bias: data.bias.as_deref(),
        extras: &extras,
    };
    let Ok(reference) = Reference::new(problem, problem.batch(), given) else {
        return Ok((0, 0.0));
    };
    let exact = problem.epilogue().iter().all(EpilogueOp::is_exact);
    let tolerance = if exact { 0.0 } else { LARGEST_ERROR };
    // What an inexact operation gets is at most the sum's magnitude, or one, times the integer
    // scales of the chain; a later `add` may cancel it, its error stays.
    let scale_ops = problem.epilogue().iter().filter(|op| **op == EpilogueOp::ScaleChannel);
    let scales = MAX_INTEGER.powi(scale_ops.count() as i32);
    let sums = SumError::new(kernel, data);
    let indices = sampled_outputs(problem, output.len() as u64);
    let mut max_error = 0f64;
    for index in &indices {
        let expected = reference.output_at(*index);
        let value = output[*index as usize];
        let error = (f64::from(value) - expected).abs();
        let magnitude = reference.magnitude_at(*index);
        let sum_error = sums.as_ref().map_or(0.0, |sums| sums.at(problem, *index, magnitude));
        let allowed = tolerance * (magnitude + 1.0) * scales + sum_error;
        // Not a plain `>`: a NaN must not pass.
        if error.is_nan() || error > allowed {
            return Err(mismatch(kernel, "formula", *index as usize, value, expected));
        }
        max_error = max_error.max(error);
    }
    Ok((indices.len(), max_error))
}

/// The derived error bound of sums that are computed by transforms, and what the epilogue makes of
/// it.
struct SumError {
    /// The bound for each channel of the result.
    channels: Vec<f64>,
    /// Operations of the epilogue, each of which rounds once, and how steep they are together.
    operations: f64,
    slope: f64,
}

impl SumError {
    /// None of a kernel that sums as the definition does.
    fn new(kernel: &Kernel, data: &Data) -> Option<SumError> {
        let problem = kernel.problem();
        let largest = data.input.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let channels = match (kernel.fourier_plan(), kernel.sum_bound()) {
            (Some(plan), _) => fourier_errors(plan, problem, data, f64::from(largest)),
            (None, Some(bound)) => {
                let weights = weight_sums(problem, &data.weights).into_iter();
                weights.map(|sum| bound * f64::from(largest) * sum).collect()
            }
            (None, None) => return None,
        };
        Some(SumError {
            channels,
            operations: problem.epilogue().len() as f64 + 1.0,
            slope: problem.epilogue().iter().map(|op| op.steepest(MAX_INTEGER)).product(),
        })
    }

    fn at(&self, problem: &ConvProblem, index: u64, magnitude: f64) -> f64 {
        let sum = self.channels.get(result_channel(problem, index) as usize).copied();
        // Bias, scales and residuals are integers, what they are added to is not: that rounds.
        let largest = magnitude + MAX_INTEGER * self.operations;
        let rounding = self.operations * f64::from(f32::EPSILON) * largest;
        (sum.unwrap_or(0.0) + rounding) * self.slope
    }
}

/// The bound of [`Plan::error`] for each output channel, with the norm of a tile of which every
/// element is as large as the largest of the input.
fn fourier_errors(plan: &Plan, problem: &ConvProblem, data: &Data, largest: f64) -> Vec<f64> {
    let elements: u64 = plan.axes.iter().map(|axis| axis.reach()).product();
    let tile = largest * (elements as f64).sqrt();
    let taps = problem.taps();
    let square = |weight: &f32| f64::from(*weight).powi(2);
    let norm = |kernel: &[f32]| kernel.iter().map(square).sum::<f64>().sqrt();
    let channel = |kernels: &[f32]| -> f64 {
        let norms: f64 = kernels.chunks(taps as usize).map(norm).sum();
        plan.error() * tile * norms
    };
    let reads = (taps * plan.in_channels) as usize;
    data.weights.chunks(reads).map(channel).collect()
}

/// The sum of the magnitudes of the weights of each channel of the result.
fn weight_sums(problem: &ConvProblem, weights: &[f32]) -> Vec<f64> {
    let taps: usize = problem.spatial().iter().map(|axis| axis.kernel as usize).product();
    let (ic, oc) =
        (problem.in_channels_per_group() as usize, problem.out_channels_per_group() as usize);
    let mut sums = vec![0.0; problem.result_channels() as usize];
    for (pair, kernel) in weights.chunks(taps).enumerate() {
        let channel = match problem.direction() {
            Direction::Transposed | Direction::BackwardData => pair / (ic * oc) * ic + pair % ic,
            Direction::Forward | Direction::BackwardWeights | Direction::BackwardBias => pair / ic,
        };
        sums[channel] += kernel.iter().map(|weight| f64::from(weight.abs())).sum::<f64>();
    }
    sums
}

/// All outputs, or the first, the last and evenly spread ones (a step coprime to powers of two
/// meets every residue of every tile).
fn sampled_outputs(problem: &ConvProblem, outputs: u64) -> Vec<u64> {
    if problem.macs() <= FULL_MACS || outputs <= SAMPLES {
        return (0..outputs).collect();
    }
    let per_output = (problem.macs() / outputs).max(1);
    let samples = (FULL_MACS / per_output).clamp(SAMPLES, MAX_SAMPLES).min(outputs);
    let step = (outputs / samples).max(1) | 1;
    (0..outputs).step_by(step as usize).chain([outputs - 1]).collect()
}

/// Whole tasks of the interpreted nest, as many as the budget allows, compared bit for bit.
fn against_interpreter(kernel: &Kernel, data: &Data, output: &[f32]) -> Result<usize, CheckError> {
    let problem = kernel.problem();
    let batch = problem.batch();
    let tasks = kernel.tasks(batch as usize) as u64;
    if tasks == 0 {
        return Ok(0);
    }
    let per_task = match kernel.fourier_plan() {
        Some(plan) => 2 * plan.in_channels * plan.block * plan.spectrum(),
        None => (problem.macs() / tasks).max(1),
    };
    let affordable = (FULL_MACS / per_task).min(tasks);
    let chosen: Vec<u64> = match affordable {
        0 if per_task <= TASK_MACS => vec![tasks - 1],
        0 => vec![],
        n if n == tasks => (0..tasks).collect(),
        n => (0..n).map(|i| i * (tasks - 1) / (n - 1).max(1)).collect(),
    };
    let mut expected = vec![f32::from_bits(UNWRITTEN); output.len()];
    if kernel.transforms().is_some() {
        interpret_stages(kernel, data, &chosen, &mut expected)?;
        return same_as_interpreted(kernel, output, &expected);
    }
    let mut first = 0;
    for nest in kernel.nests() {
        let tasks = nest.nest().tasks(batch as i64).unwrap_or(0);
        let own = |task: u64| Some(task as i64 - first).filter(|task| (0..tasks).contains(task));
        let chosen = chosen.iter().copied().filter_map(own);
        data.interpret(nest, batch, chosen, &data.input, &mut expected)?;
        first += tasks;
    }
    same_as_interpreted(kernel, output, &expected)
}

/// What no chosen task writes keeps this NaN.
const UNWRITTEN: u32 = 0x7fc5_a5a5;

/// Carries out the generated stages of some tasks by the interpreter; the transforms are the
/// kernel's.
fn interpret_stages(
    kernel: &Kernel,
    data: &Data,
    tasks: &[u64],
    expected: &mut [f32],
) -> Result<(), Error> {
    let Some(transforms) = kernel.transforms() else { return Ok(()) };
    let weights = kernel.pack_weights(&data.weights)?;
    let inputs = Inputs {
        input: &data.input,
        weights: weights.values(),
        biases: [None; MAX_SUMS],
        extras: &[],
    };
    let mut memory = Memory::default();
    for task in tasks {
        let sums = transforms.interpret(&inputs, *task as usize, &mut memory)?;
        for nest in kernel.nests() {
            let one = std::iter::once(*task as i64);
            data.interpret(nest, kernel.problem().batch(), one, sums, expected)?;
        }
    }
    Ok(())
}

fn same_as_interpreted(
    kernel: &Kernel,
    output: &[f32],
    expected: &[f32],
) -> Result<usize, CheckError> {
    let mut compared = 0;
    for (index, (value, expected)) in output.iter().zip(expected).enumerate() {
        if expected.to_bits() == UNWRITTEN {
            continue;
        }
        compared += 1;
        if !same_bits(*value, *expected) {
            let expected = f64::from(*expected);
            return Err(mismatch(kernel, "interpreter", index, *value, expected));
        }
    }
    Ok(compared)
}

/// Equal bits, NaNs as a class.
pub fn same_bits(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn mismatch(
    kernel: &Kernel,
    oracle: &'static str,
    index: usize,
    value: f32,
    expected: f64,
) -> CheckError {
    CheckError::Mismatch(Box::new(Mismatch {
        oracle,
        index,
        kernel: value,
        expected,
        problem: kernel.problem().to_string(),
        schedule: kernel.schedule().to_string(),
    }))
}
