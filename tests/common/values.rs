//! Values for the buffers of a problem, and what each rung of the ladder makes of them.
//!
//! Every slice a kernel is given lies between guard values that must survive the call: a store
//! beyond an end is seen as a changed guard, a load beyond an end as a NaN in the output.

use convgen::check::same_bits;
use convgen::{Arguments, Kernel};
use convgen_ir::epilogue::{EpilogueOp, LARGEST_ERROR};
use convgen_ir::interpret;
use convgen_ir::nest::Role;
use convgen_ir::problem::ConvProblem;
use convgen_ir::reference::{ConvData, Reference, result_channel};
use convgen_ir::verify::VerifiedNest;
use std::cmp::Ordering;

/// What the values are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From -3 to 3: sums are exact in any order.
    Integers,
    /// From -1 to 1: every operation rounds.
    Reals,
    /// Zeros of both signs, denormals, the smallest normal number.
    Tiny,
    /// Reals, and now and then an infinity, a NaN or the largest number.
    Wild,
}

impl Kind {
    fn value(self, random: u64) -> f32 {
        let real = (random >> 8) as f32 / (1_u64 << 55) as f32 - 1.0;
        let choose = |from: &[f32]| from[(random >> 20) as usize % from.len()];
        match self {
            Kind::Integers => ((random >> 20) % 7) as f32 - 3.0,
            Kind::Reals => real,
            Kind::Tiny => choose(&[0.0, -0.0, -0.0, 1e-45, -1e-40, f32::MIN_POSITIVE, real]),
            Kind::Wild if random.is_multiple_of(32) => {
                choose(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, -f32::MAX, -0.0])
            }
            Kind::Wild => real,
        }
    }
}

/// The arguments of one call.
pub struct Values {
    problem: ConvProblem,
    batch: u64,
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// What a call reads besides, and whether that is a tensor of the batch.
    extras: Vec<(bool, Vec<f32>)>,
}

impl Values {
    /// The same for the same seed.
    pub fn new(problem: &ConvProblem, kind: Kind, seed: u64) -> Values {
        let mut state = seed;
        let mut fill = |shape: &[u64]| -> Vec<f32> {
            (0..product(shape)).map(|_| kind.value(splitmix(&mut state))).collect()
        };
        let batch = problem.batch();
        let extras = problem.extra_shapes(batch);
        Values {
            problem: problem.clone(),
            batch,
            input: fill(&problem.input_shape(batch)),
            weights: fill(&problem.weights_shape()),
            bias: problem.bias().then(|| fill(&[problem.result_channels()])),
            extras: extras.iter().map(|(name, shape)| (*name != "scale", fill(shape))).collect(),
        }
    }

    /// The call for one image of the batch.
    pub fn image(&self, image: u64) -> Values {
        let part = |values: &[f32]| {
            let length = values.len() / self.batch as usize;
            values[image as usize * length..][..length].to_vec()
        };
        let extras = self.extras.iter().map(|(batched, values)| match batched {
            true => (true, part(values)),
            false => (false, values.clone()),
        });
        Values {
            problem: self.problem.clone(),
            batch: 1,
            input: part(&self.input),
            weights: self.weights.clone(),
            bias: self.bias.clone(),
            extras: extras.collect(),
        }
    }

    /// What the nests of a kernel mean.
    pub fn interpret(&self, nests: &[VerifiedNest]) -> Result<Vec<f32>, String> {
        let batch = self.batch as i64;
        let mut output = vec![f32::NAN; self.outputs()];
        for nest in nests {
            let packed = interpret::pack(nest, &self.weights).map_err(|error| error.to_string())?;
            let reads_weights = nest.nest().find_role(Role::Weights).is_some();
            let mut given = vec![self.input.as_slice()];
            given.extend(reads_weights.then_some(packed.as_slice()));
            given.extend(self.bias.as_deref());
            given.extend(self.extras.iter().map(|(_, values)| values.as_slice()));
            let tasks = 0..nest.nest().tasks(batch).unwrap();
            interpret::run(nest, batch, tasks, &given, &mut output)
                .map_err(|error| error.to_string())?;
        }
        Ok(output)
    }

    /// What the kernel computes, on that many threads.
    pub fn run(&self, kernel: &Kernel, threads: usize) -> Result<Vec<f32>, String> {
        let [input, weights] = [&self.input, &self.weights].map(|values| Guarded::new(values));
        let bias = self.bias.as_deref().map(Guarded::new);
        let extras: Vec<Guarded> =
            self.extras.iter().map(|(_, values)| Guarded::new(values)).collect();
        let mut output = Guarded::new(&vec![f32::NAN; self.outputs()]);

        let packed = kernel.pack_weights(weights.values()).map_err(|error| error.to_string())?;
        let slices: Vec<&[f32]> = extras.iter().map(Guarded::values).collect();
        let arguments = Arguments {
            input: input.values(),
            weights: &packed,
            bias: bias.as_ref().map(Guarded::values),
            extras: &slices,
        };
        let result = match threads {
            1 => kernel.run_with(&arguments, output.values_mut()),
            // Small calls would not be shared by themselves.
            threads => {
                kernel.prepare(&arguments, output.values_mut()).map(|call| call.share(threads))
            }
        };
        result.map_err(|error| error.to_string())?;

        input.unchanged("input", &self.input)?;
        weights.unchanged("weights", &self.weights)?;
        if let (Some(guarded), Some(values)) = (&bias, &self.bias) {
            guarded.unchanged("bias", values)?;
        }
        for (guarded, (_, values)) in extras.iter().zip(&self.extras) {
            guarded.unchanged("an epilogue argument", values)?;
        }
        output.guards_hold("output")?;
        Ok(output.values().to_vec())
    }

    /// The formula's outputs, each with the error that f32 may make on integers: none, but for what
    /// the epilogue rounds.
    pub fn reference(&self) -> Result<Vec<(f64, f64)>, String> {
        let extras: Vec<&[f32]> = self.extras.iter().map(|(_, v)| v.as_slice()).collect();
        let (input, weights) = (self.input.as_slice(), self.weights.as_slice());
        let data = ConvData { input, weights, bias: self.bias.as_deref(), extras: &extras };
        let reference = Reference::new(&self.problem, self.batch, data);
        let reference = reference.map_err(|error| error.to_string())?;
        let output = |index| {
            let mut extras = self.extras.iter();
            self.problem.epilogue().iter().fold((reference.sum_at(index), 0.0), |(x, error), op| {
                let extra = op.takes_extra().and_then(|_| extras.next());
                let extra = extra.map_or(0.0, |(batched, values)| match batched {
                    true => values[index as usize],
                    false => values[result_channel(&self.problem, index) as usize],
                });
                rounded(op, x, error, f64::from(extra))
            })
        };
        Ok((0..self.outputs() as u64).map(output).collect())
    }

    fn outputs(&self) -> usize {
        product(&self.problem.output_shape(self.batch)) as usize
    }
}

/// An operation on a value that is known up to an error.
fn rounded(op: &EpilogueOp, x: f64, error: f64, extra: f64) -> (f64, f64) {
    let y = op.apply(x, extra);
    let exact = op.is_exact() && error == 0.0;
    let own = if exact { 0.0 } else { LARGEST_ERROR * y.abs().max(LARGEST_ERROR) };
    (y, error * op.steepest(extra) + own)
}

/// The first element whose bits differ.
pub fn compare_bits(got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} elements instead of {}", got.len(), want.len()));
    }
    match got.iter().zip(want).position(|(got, want)| !same_bits(*got, *want)) {
        Some(i) => Err(format!("element {i} is {:?} instead of {:?}", got[i], want[i])),
        None => Ok(()),
    }
}

/// The first element that is not within its error.
pub fn compare_values(got: &[f32], want: &[(f64, f64)]) -> Result<(), String> {
    // Not a plain `>`: a NaN must not pass.
    let wrong = |(got, (want, error)): (&f32, &(f64, f64))| {
        (f64::from(*got) - want).abs().partial_cmp(error).is_none_or(Ordering::is_gt)
    };
    match got.iter().zip(want).position(wrong) {
        Some(i) => Err(format!("element {i} is {:?} instead of {:?}", got[i], want[i])),
        None => Ok(()),
    }
}

/// Values with guards before and after them.
struct Guarded {
    memory: Vec<f32>,
}

/// Longer than a vector of any ISA, and odd: nothing is aligned by accident.
const GUARDS: usize = 37;

/// A NaN that nothing computes.
const GUARD: u32 = 0x7fc5_a5a5;

impl Guarded {
    fn new(values: &[f32]) -> Guarded {
        let guards = [f32::from_bits(GUARD); GUARDS];
        Guarded { memory: [&guards, values, &guards].concat() }
    }

    fn values(&self) -> &[f32] {
        &self.memory[GUARDS..self.memory.len() - GUARDS]
    }

    fn values_mut(&mut self) -> &mut [f32] {
        let end = self.memory.len() - GUARDS;
        &mut self.memory[GUARDS..end]
    }

    fn guards_hold(&self, what: &str) -> Result<(), String> {
        let (before, rest) = self.memory.split_at(GUARDS);
        let after = &rest[rest.len() - GUARDS..];
        match before.iter().chain(after).all(|guard| guard.to_bits() == GUARD) {
            true => Ok(()),
            false => Err(format!("a store beyond {what}")),
        }
    }

    fn unchanged(&self, what: &str, values: &[f32]) -> Result<(), String> {
        self.guards_hold(what)?;
        match self.values().iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()) {
            true => Ok(()),
            false => Err(format!("a store into {what}")),
        }
    }
}

/// The generator of Steele, Lea and Flood: every seed is as good as another.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn product(shape: &[u64]) -> u64 {
    shape.iter().product()
}
