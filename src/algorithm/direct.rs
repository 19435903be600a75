//! The defining sum of a convolution as nests, forward or transposed.
//!
//! ```text
//! for n, g, oc, o..: acc = bias; for ic, k..: acc = fma(input[o*s + k*d - p], weights[oc,ic,k], acc);
//!                    output[o] = epilogue(acc)
//! ```
//! A transposed convolution of stride `s` is `s` dense ones an axis: the outputs `i = e (mod s)` read
//! only every `s`-th tap, neighbours of them read neighbours of the input, and nothing is scattered
//! or multiplied by inserted zeros. Each of these [phases](crate::algorithm::Part) is a sum like the
//! forward one, whose tap `k` has the weight at `base + step*k` and whose output `o` is written at
//! `from + by*o`. A phase without taps writes the epilogue of the bias. Where all phases of an axis have
//! as many taps and outputs, and begin at even distances, they are one sum with a loop over them: what
//! they read is then copied once for all.
//!
//! Loads that can fall on padding are `pad` loads, or those of the problem's other mode; all others are plain. A variable of a loop of
//! length one is left out of every index, so that later rewrites see the dimensions as they are.

use convgen_ir::PaddingMode;
use convgen_ir::nest::{Access, Affine, AxisKind, BufferId, Dim, Expr, Nest, Role, Stmt, Stripe};
use convgen_ir::problem::{ConvProblem, ConvSpec, SpatialAxis};

use super::build::{Iteration, fixed, nested, ordered};
use super::tensors::{Tensors, buffer};

/// One of the dense sums that make up a problem: a forward convolution, and where its taps find
/// their weights and its outputs their place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DenseSum {
    /// Channels of a group that are read, and written.
    pub(super) channels: (u64, u64),
    /// Whether the weights' first dimension is that of the channels read.
    weights_by_input: bool,
    /// What is read outside of the input: of a transposed sum zeros, as no output reads there.
    pub(super) padding: PaddingMode,
    pub(super) axes: Vec<SumAxis>,
}

/// One spatial axis of a [`DenseSum`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SumAxis {
    /// The convolution; no taps where nothing is read.
    pub(super) conv: SpatialAxis,
    /// Its outputs.
    pub(super) outputs: u64,
    /// The weight of tap `k` is at `first + step*k`.
    first_tap: i64,
    tap_step: i64,
    /// Extent of the output tensor, and where in it the outputs are.
    pub(super) written: u64,
    pub(super) stripe: Stripe,
    /// The phases that this one stands for; what is said above is said of the first.
    phases: Phases,
}

/// Phases of an axis that differ by a multiple of their number, and write neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Phases {
    count: u64,
    /// What each adds to the padding before, and to the first tap.
    padding: i64,
    tap: i64,
}

impl Phases {
    /// One, by itself.
    const ONE: Phases = Phases { count: 1, padding: 0, tap: 0 };
}

impl SumAxis {
    /// All phases of an axis as one, if they differ evenly.
    fn of_phases(phases: &[SumAxis]) -> Option<SumAxis> {
        let [first, second, ..] = phases else { return None };
        let padding = second.conv.pad_before - first.conv.pad_before;
        let tap = second.first_tap - first.first_tap;
        let expected = |number: i64| SumAxis {
            conv: SpatialAxis {
                pad_before: first.conv.pad_before + number * padding,
                ..first.conv
            },
            first_tap: first.first_tap + number * tap,
            stripe: Stripe { from: first.stripe.from + number, ..first.stripe },
            ..*first
        };
        let even = (0..).zip(phases).all(|(number, phase)| *phase == expected(number));
        let phases = Phases { count: phases.len() as u64, padding, tap };
        (even && first.conv.kernel > 0).then_some(SumAxis { phases, ..*first })
    }

    /// How many phases it stands for.
    pub(super) fn phases(&self) -> u64 {
        self.phases.count
    }

    /// What of the output tensor is written.
    pub(super) fn written_stripe(&self) -> Stripe {
        if self.phases() > 1 { Stripe::ALL } else { self.stripe }
    }

    /// How far the inputs of the first and the last phase lie apart.
    pub(super) fn shift(&self) -> u64 {
        (self.phases.count - 1) * self.phases.padding.unsigned_abs()
    }

    /// The padding before the first and the last phase.
    fn paddings(&self) -> [i64; 2] {
        let last = self.phases.count as i64 - 1;
        [self.conv.pad_before, self.conv.pad_before + last * self.phases.padding]
    }

    /// Whether some tap of some phase falls outside the input.
    fn reads_padding(&self) -> bool {
        let reads =
            |pad_before| SpatialAxis { pad_before, ..self.conv }.reads_padding(self.outputs);
        self.paddings().into_iter().any(reads)
    }
}

impl DenseSum {
    /// The sum of a forward problem.
    pub(super) fn forward(problem: &ConvProblem) -> DenseSum {
        let axis = |s: &SpatialAxis| {
            let (first_tap, tap_step) = turned(problem, s, 0, 1);
            let (outputs, stripe) = (s.output(), Stripe::ALL);
            let (conv, written, phases) = (*s, outputs, Phases::ONE);
            SumAxis { conv, outputs, first_tap, tap_step, written, stripe, phases }
        };
        DenseSum {
            channels: (problem.in_channels_per_group(), problem.out_channels_per_group()),
            weights_by_input: false,
            padding: problem.padding_mode(),
            axes: problem.spatial().iter().map(axis).collect(),
        }
    }

    /// The sums of a transposed problem, one a phase, the innermost axis's phases fastest.
    pub(super) fn phases(problem: &ConvProblem) -> Vec<DenseSum> {
        DenseSum::products(problem, |s| phases_of(problem, s))
    }

    /// The sums of a transposed problem, the phases of an axis as one where they can be.
    pub(super) fn transposed(problem: &ConvProblem) -> Vec<DenseSum> {
        DenseSum::products(problem, |s| {
            let phases = phases_of(problem, s);
            SumAxis::of_phases(&phases).map_or(phases, |all| vec![all])
        })
    }

    /// A sum for each choice of one of the parts of every axis.
    fn products(
        problem: &ConvProblem,
        parts: impl Fn(&SpatialAxis) -> Vec<SumAxis>,
    ) -> Vec<DenseSum> {
        let channels = (problem.out_channels_per_group(), problem.in_channels_per_group());
        let mut sums = vec![DenseSum {
            channels,
            weights_by_input: true,
            padding: PaddingMode::Zeros,
            axes: vec![],
        }];
        for s in problem.spatial() {
            let parts = parts(s);
            let longer = |sum: &DenseSum| -> Vec<DenseSum> {
                let with = |part: &SumAxis| {
                    let axes = sum.axes.iter().chain([part]).copied().collect();
                    DenseSum { axes, ..sum.clone() }
                };
                parts.iter().map(with).collect()
            };
            sums = sums.iter().flat_map(longer).collect();
        }
        sums
    }

    /// Whether some axis has no tap: then nothing is summed.
    pub(super) fn is_empty(&self) -> bool {
        self.axes.iter().any(|axis| axis.conv.kernel == 0)
    }

    /// The forward convolution that has this sum's loops but those over phases.
    pub(super) fn as_forward(&self, problem: &ConvProblem) -> ConvSpec {
        let (reads, writes) = self.channels;
        let spatial = self.axes.iter().map(|axis| {
            let reach = (axis.outputs - 1) * axis.conv.stride + axis.conv.extent();
            let [first, last] = axis.paddings();
            let pad_before = first.max(last);
            let pad_after = reach as i64 - axis.conv.input as i64 - pad_before;
            SpatialAxis { pad_before, pad_after, ..axis.conv }
        });
        let groups = problem.groups();
        let spec = ConvSpec::new(reads * groups, writes * groups, spatial.collect());
        spec.groups(groups).batch(problem.batch()).layout(problem.layout()).elem(problem.elem())
    }

    /// The index of a weight in the first phases, given what is read and written of the channels, and the taps.
    pub(super) fn weight_index(
        &self,
        [group, reads, writes]: [&Affine; 3],
        taps: &[Affine],
    ) -> Vec<Affine> {
        let of_all = |within: &Affine, per_group: u64| &group.scaled(per_group as i64) + within;
        let channels = match self.weights_by_input {
            true => [of_all(reads, self.channels.0), writes.clone()],
            false => [of_all(writes, self.channels.1), reads.clone()],
        };
        let place = |(tap, s): (&Affine, &SumAxis)| tap.scaled(s.tap_step).plus(s.first_tap);
        channels.into_iter().chain(taps.iter().zip(&self.axes).map(place)).collect()
    }

    /// The unscheduled nest.
    pub(super) fn nest(&self, problem: &ConvProblem) -> Nest {
        Builder::new(problem, self).build()
    }
}

/// The first tap's weight and the step to the next, also where the kernel is flipped.
fn turned(problem: &ConvProblem, s: &SpatialAxis, first: i64, step: i64) -> (i64, i64) {
    match problem.flip() {
        true => (s.kernel as i64 - 1 - first, -step),
        false => (first, step),
    }
}

/// The sum of the outputs `i = e + s*q` of a transposed axis. With `g = gcd(s, d)` they need the taps
/// `k` with `k*d = i + p (mod s)`: every `s/g`-th from some `k0` on, or none. The tap `k0 + t*s/g` reads
/// the input at `q + c - t*d/g`, where `c = (e + p - k0*d) / s`; so that inputs are read forwards, `t`
/// counts down.
fn phase(problem: &ConvProblem, s: &SpatialAxis, e: i64) -> SumAxis {
    let (stride, dilation, kernel) = (s.stride as i64, s.dilation as i64, s.kernel as i64);
    let common = gcd(stride, dilation);
    let (tap_step, reach) = (stride / common, dilation / common);
    let start = e + s.pad_before;
    let first = (0..tap_step.min(kernel)).find(|k| (start - k * dilation).rem_euclid(stride) == 0);
    let taps = first.map_or(0, |first| (kernel - first + tap_step - 1) / tap_step);
    let last = first.unwrap_or(0) + tap_step * (taps - 1).max(0);
    let center = (start - first.unwrap_or(0) * dilation).div_euclid(stride);
    let conv = SpatialAxis {
        input: s.output(),
        kernel: taps as u64,
        stride: 1,
        dilation: reach as u64,
        pad_before: (taps - 1).max(0) * reach - center,
        pad_after: 0,
    };
    let (first_tap, tap_step) = turned(problem, s, last, -tap_step);
    let stripe = Stripe { from: e, by: stride };
    let outputs = stripe.count(s.input as i64) as u64;
    let (written, phases) = (s.input, Phases::ONE);
    SumAxis { conv, outputs, first_tap, tap_step, written, stripe, phases }
}

/// Every phase of a transposed axis.
fn phases_of(problem: &ConvProblem, s: &SpatialAxis) -> Vec<SumAxis> {
    (0..s.stride.min(s.input)).map(|residue| phase(problem, s, residue as i64)).collect()
}

/// The name of the loop over the phases of a spatial axis.
pub(super) fn phase_loop(axis: &str) -> String {
    format!("p{axis}")
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

struct Builder<'p> {
    problem: &'p ConvProblem,
    sum: &'p DenseSum,
    nest: Nest,
    batch: Iteration,
    group: Iteration,
    out_channel: Iteration,
    in_channel: Iteration,
    /// Output position, kernel tap and phase of each spatial axis, outermost first.
    spatial: Vec<Spatial>,
}

struct Spatial {
    output: Iteration,
    tap: Iteration,
    phase: Iteration,
}

impl<'p> Builder<'p> {
    fn new(problem: &'p ConvProblem, sum: &'p DenseSum) -> Builder<'p> {
        let mut nest = Nest::new("direct");
        let (reads, writes) = sum.channels;
        let mut axis =
            |name: String, kind, extent: u64| Iteration::new(&mut nest, name, kind, fixed(extent));
        let mut batch = axis("n".to_string(), AxisKind::Spatial, 1);
        batch.extent = Dim::Batch;
        let group = axis("g".to_string(), AxisKind::Spatial, problem.groups());
        let out_channel = axis("oc".to_string(), AxisKind::Spatial, writes);
        let names = problem.axis_names();
        let outputs: Vec<Iteration> = names
            .iter()
            .zip(&sum.axes)
            .map(|(name, s)| axis(format!("o{name}"), AxisKind::Spatial, s.outputs))
            .collect();
        let in_channel = axis("ic".to_string(), AxisKind::Reduction, reads);
        let spatial = names
            .iter()
            .zip(&sum.axes)
            .zip(outputs)
            .map(|((name, s), output)| {
                let tap = axis(format!("k{name}"), AxisKind::Reduction, s.conv.kernel);
                let phase = axis(phase_loop(name), AxisKind::Spatial, s.phases.count);
                Spatial { output, tap, phase }
            })
            .collect();
        Builder { problem, sum, nest, batch, group, out_channel, in_channel, spatial }
    }

    fn build(mut self) -> Nest {
        let elem = self.problem.elem();
        let tensors = Tensors::declare(&mut self.nest, self.problem, self.sum);
        let channel = self.output_channel_index();
        let start = tensors.bias(&channel).unwrap_or(Expr::f32(0.0));
        let mut body = Vec::new();
        let value = match tensors.weights {
            Some(weights) => {
                let acc = buffer(&mut self.nest, Role::Reg, "acc", elem, vec![]);
                let sum = Access { buffer: acc, index: vec![] };
                body.extend([Stmt::Declare(acc), Stmt::Store(sum.clone(), start)]);
                body.extend(self.reduction(tensors.input, weights, &sum));
                Expr::Load(sum)
            }
            None => start,
        };
        let index = self.output_index();
        let result = tensors.epilogue(&mut self.nest, value, &channel, &index, &mut body);
        body.push(Stmt::Store(Access { buffer: tensors.output, index }, result));
        self.nest.body = self.spatial_loops(body);
        self.nest
    }

    fn channel_index(&self, within: Iteration, per_group: u64) -> Affine {
        &self.group.index().scaled(per_group as i64) + &within.index()
    }

    fn output_channel_index(&self) -> Affine {
        self.channel_index(self.out_channel, self.sum.channels.1)
    }

    fn input_channel_index(&self) -> Affine {
        self.channel_index(self.in_channel, self.sum.channels.0)
    }

    fn output_index(&self) -> Vec<Affine> {
        let axes = self.spatial.iter().zip(&self.sum.axes);
        let positions = axes
            .map(|(at, s)| {
                let first = at.output.index().scaled(s.stripe.by).plus(s.stripe.from);
                &first + &at.phase.index()
            })
            .collect();
        ordered(self.problem.layout(), self.batch.index(), self.output_channel_index(), positions)
    }

    fn input_load(&self, input: BufferId) -> Expr {
        let mut padded = false;
        let mut positions = Vec::new();
        for (axis, at) in self.sum.axes.iter().zip(&self.spatial) {
            let s = &axis.conv;
            let at_output = at.output.index().scaled(s.stride as i64);
            let at_tap = at.tap.index().scaled(s.dilation as i64);
            let at_phase = at.phase.index().scaled(-axis.phases.padding);
            positions.push((&(&at_output + &at_tap) + &at_phase).plus(-s.pad_before));
            padded |= axis.reads_padding();
        }
        let channel = self.input_channel_index();
        let index = ordered(self.problem.layout(), self.batch.index(), channel, positions);
        let access = Access { buffer: input, index };
        if padded { Expr::Pad(self.sum.padding, access) } else { Expr::Load(access) }
    }

    fn reduction(&self, input: BufferId, weights: BufferId, sum: &Access) -> Vec<Stmt> {
        let taps: Vec<Affine> = self.spatial.iter().map(|at| at.tap.index()).collect();
        let channels = [&self.group.index(), &self.in_channel.index(), &self.out_channel.index()];
        let phases = self.spatial.iter().zip(&self.sum.axes);
        let phases = phases.map(|(at, s)| at.phase.index().scaled(s.phases.tap));
        let mut index = self.sum.weight_index(channels, &taps);
        // The places of the taps are the last dimensions.
        let first = index.len() - taps.len();
        for (place, phase) in index[first..].iter_mut().zip(phases) {
            *place = &*place + &phase;
        }
        let weight = Expr::Load(Access { buffer: weights, index });
        let value = Expr::fma(self.input_load(input), weight, Expr::Load(sum.clone()));
        let taps = self.spatial.iter().map(|at| at.tap);
        nested(taps.chain([self.in_channel]), vec![Stmt::Store(sum.clone(), value)])
    }

    fn spatial_loops(&self, body: Vec<Stmt>) -> Vec<Stmt> {
        let phases = self.spatial.iter().zip(&self.sum.axes).filter(|(_, s)| s.phases() > 1);
        let phases = phases.map(|(at, _)| at.phase);
        let positions = self.spatial.iter().map(|at| at.output);
        let channels = [self.group, self.out_channel];
        nested([self.batch].into_iter().chain(phases).chain(channels).chain(positions), body)
    }
}
