//! The defining sum of a convolution as nests, forward or transposed.
//!
//! ```text
//! for n, g, oc, o..: acc = bias; for ic, k..: acc = fma(input[o*s + k*d - p], weights[oc,ic,k], acc);
//!                    output[o] = epilogue(acc)
//! ```
//! A transposed convolution of stride `s` is `s` dense ones an axis: the outputs `i = e (mod s)`
//! read only every `s`-th tap, neighbours of them read neighbours of the input, and nothing is
//! scattered or multiplied by inserted zeros. Each of these [phases](crate::algorithm::Part) is a
//! sum like the forward one, whose tap `k` has the weight at `base + step*k` and whose output `o`
//! is written at `from + by*o`. A phase without taps writes the epilogue of the bias. Where all
//! phases of an axis have as many taps and outputs, and begin at even distances, they are one sum
//! with a loop over them: what they read is then copied once for all. So are phases of any kind
//! where they would be too many nests; each then leaves out, by guards, what others have.
//!
//! Loads that can fall on padding are `pad` loads, or those of the problem's other mode; all others
//! are plain. A variable of a loop of length one is left out of every index, so that later rewrites
//! see the dimensions as they are.

use convgen_ir::PaddingMode;
use convgen_ir::nest::{
    Access, Affine, AxisKind, BufferId, Dim, Expr, Guard, Loop, Nest, Role, Stmt, Stripe,
    visit_exprs_mut,
};
use convgen_ir::problem::{ConvProblem, ConvSpec, SpatialAxis};

use super::build::{Iteration, fixed, nested, ordered};
use super::sum::{DenseSum, Phases, SumAxis};
use super::tensors::{Tensors, buffer};

/// Nests of a problem at most: each is compiled on its own, in somewhat under a millisecond. Eight
/// phases of two axes, as networks for images have, and four of three.
const MAX_PARTS: u64 = 64;

/// A bound of the numbers in the indices of merged phases: far above every size, and far from
/// overflow.
const FARTHEST: i128 = 1 << 40;

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
        let phases = Phases { count: phases.len() as u64, padding, tap, ..Phases::ONE };
        (even && first.conv.kernel > 0).then_some(SumAxis { phases, ..*first })
    }

    /// All phases of a transposed axis as one, whatever their taps and outputs: see [`Merged`]. As
    /// in [`phase`], the taps count down. None if numbers get too large.
    fn all_phases(problem: &ConvProblem, s: &SpatialAxis) -> Option<SumAxis> {
        let all = Merged::of(s)?;
        let conv = SpatialAxis {
            input: s.output(),
            kernel: all.taps(),
            stride: 1,
            dilation: all.reach as u64,
            pad_before: small(product(all.reach, all.high) + product(all.shift, all.first))?,
            pad_after: 0,
        };
        let last = small(product(all.inverse, all.first) + product(all.high, all.step))?;
        let (first_tap, tap_step) = turned(problem, s, last, -all.step);
        // Of the first and the last phase.
        small(product(all.shift, all.count))?;
        let phases = Phases {
            count: all.count as u64,
            padding: all.shift,
            tap: if problem.flip() { -all.inverse } else { all.inverse },
            step: all.common,
            taps: (!all.exist).then_some(s.kernel as i64),
            classes: all.common.min(s.input as i64) as u64,
            active: all.active as u64,
        };
        let (outputs, written) = (s.input.div_ceil(s.stride), s.input);
        let stripe = Stripe { from: 0, by: s.stride as i64 };
        Some(SumAxis { conv, outputs, first_tap, tap_step, written, stripe, phases })
    }

    /// How many phases it stands for.
    pub(super) fn phases(&self) -> u64 {
        self.phases.count
    }

    /// Outputs from one phase to the next, of which one has taps.
    pub(super) fn classes(&self) -> u64 {
        self.phases.classes
    }

    /// Whether some phase leaves out taps.
    pub(super) fn has_guards(&self) -> bool {
        self.phases.taps.is_some() || self.classes() > 1
    }

    /// What of the output tensor is written.
    pub(super) fn written_stripe(&self) -> Stripe {
        if self.phases() * self.classes() > 1 { Stripe::ALL } else { self.stripe }
    }

    /// The place in the output tensor of an output of a phase, and of a class.
    fn place(&self, output: Affine, phase: Affine, class: Affine) -> Affine {
        let first = output.scaled(self.stripe.by).plus(self.stripe.from);
        &(&first + &phase.scaled(self.phases.step)) + &class
    }

    /// Whether some phase has fewer outputs than the loop over them has iterations.
    fn is_short(&self) -> bool {
        let last = |count: u64| count as i64 - 1;
        let place = self.stripe.from
            + self.stripe.by * last(self.outputs)
            + self.phases.step * last(self.phases())
            + last(self.classes());
        place >= self.written as i64
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
    ///
    /// # Errors
    /// If they are more than [`MAX_PARTS`].
    pub(super) fn phases(problem: &ConvProblem) -> Result<Vec<DenseSum>, String> {
        let phases = problem.spatial().iter().map(phases).fold(1, u64::saturating_mul);
        if phases > MAX_PARTS {
            return Err(format!(
                "its strides need {phases} nests, one a phase, and at most {MAX_PARTS} are compiled"
            ));
        }
        let axes = problem.spatial().iter();
        Ok(DenseSum::products(problem, axes.map(|s| phases_of(problem, s)).collect()))
    }

    /// The sums of a transposed problem, the phases of an axis as one where they are alike, and
    /// where they would be too many sums.
    ///
    /// # Errors
    /// If a stride and a dilation put the taps of neighbouring phases too far apart.
    pub(super) fn transposed(problem: &ConvProblem) -> Result<Vec<DenseSum>, String> {
        let axes = problem.spatial();
        let alike = |s: &SpatialAxis| {
            let phases = if phases(s) > MAX_PARTS { return None } else { phases_of(problem, s) };
            Some(SumAxis::of_phases(&phases).map_or(phases, |all| vec![all]))
        };
        let mut parts: Vec<Option<Vec<SumAxis>>> = axes.iter().map(alike).collect();
        let number = |part: &Option<Vec<SumAxis>>| part.as_ref().map_or(1, Vec::len) as u64;
        while parts.iter().map(number).product::<u64>() > MAX_PARTS {
            // The first of those with the most phases.
            let most = (0..parts.len()).rev().max_by_key(|axis| number(&parts[*axis]));
            most.into_iter().for_each(|axis| parts[axis] = None);
        }
        let one = |s: &SpatialAxis| {
            let all = SumAxis::all_phases(problem, s).ok_or_else(|| too_far(s))?;
            Ok::<Vec<SumAxis>, String>(vec![all])
        };
        let parts = parts.into_iter().zip(axes).map(|(part, s)| part.map_or_else(|| one(s), Ok));
        Ok(DenseSum::products(problem, parts.collect::<Result<_, _>>()?))
    }

    /// A sum for each choice of one of the parts of every axis.
    fn products(problem: &ConvProblem, parts: Vec<Vec<SumAxis>>) -> Vec<DenseSum> {
        let channels = (problem.out_channels_per_group(), problem.in_channels_per_group());
        let mut sums = vec![DenseSum {
            channels,
            weights_by_input: true,
            padding: PaddingMode::Zeros,
            axes: vec![],
        }];
        for parts in parts {
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

    /// The index of a weight in the first phases, given what is read and written of the channels,
    /// and the taps.
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

/// The phases of a transposed axis as numbers of one loop over them. With `g = gcd(s, d)` the
/// outputs `i = e + g*p + s*o` have taps, one class in `g`: `q + g*p + s*o` for `q = e`. With
/// `c*d/g = 1 + m*s/g` and `r = p + (e + pad)/g` they need the taps `k = c*r + j*s/g` that exist,
/// for every integer `j`, and these read the input at `o - m*r - j*d/g`.
struct Merged {
    /// `g`, and the class that has taps, `e`.
    common: i64,
    active: i64,
    /// `s/g`, `d/g`, `c` and `m`.
    step: i64,
    reach: i64,
    inverse: i64,
    shift: i64,
    /// The phases, and `r` of the first.
    count: i64,
    first: i64,
    /// The range of `j`, both ends included, and whether all its taps exist in every phase.
    low: i64,
    high: i64,
    exist: bool,
}

impl Merged {
    /// None if numbers get too large.
    fn of(s: &SpatialAxis) -> Option<Merged> {
        let (stride, dilation, kernel) = (s.stride as i64, s.dilation as i64, s.kernel as i64);
        let common = gcd(stride, dilation);
        let (step, reach) = (stride / common, dilation / common);
        let active = (-s.pad_before).rem_euclid(common);
        let count = step.min((s.input as i64 + common - 1) / common);
        let first = (active + s.pad_before) / common;
        let inverse = nearest_inverse(reach, step);
        let shift = small((product(inverse, reach) - 1) / i128::from(step))?;
        let ends = [first, first + count - 1].map(|r| product(inverse, r));
        let (least, most) = (small(ends[0].min(ends[1]))?, small(ends[0].max(ends[1]))?);
        let (low, high) = (-most.div_euclid(step), (kernel - 1 - least).div_euclid(step));
        let exist = least + low * step >= 0 && most + high * step < kernel;
        Some(Merged { common, active, step, reach, inverse, shift, count, first, low, high, exist })
    }

    /// Iterations of the loop over taps.
    fn taps(&self) -> u64 {
        (self.high - self.low + 1).max(0) as u64
    }
}

fn product(a: i64, b: i64) -> i128 {
    i128::from(a) * i128::from(b)
}

/// The number, if it is one that an index may have.
fn small(number: i128) -> Option<i64> {
    (number.abs() < FARTHEST).then_some(number as i64)
}

/// The first tap's weight and the step to the next, also where the kernel is flipped.
fn turned(problem: &ConvProblem, s: &SpatialAxis, first: i64, step: i64) -> (i64, i64) {
    match problem.flip() {
        true => (s.kernel as i64 - 1 - first, -step),
        false => (first, step),
    }
}

/// The sum of the outputs `i = e + s*q` of a transposed axis. With `g = gcd(s, d)` they need the
/// taps `k` with `k*d = i + p (mod s)`: every `s/g`-th from some `k0` on, or none. The tap
/// `k0 + t*s/g` reads the input at `q + c - t*d/g`, where `c = (e + p - k0*d) / s`; so that inputs
/// are read forwards, `t` counts down.
fn phase(problem: &ConvProblem, s: &SpatialAxis, e: i64) -> SumAxis {
    let (stride, dilation, kernel) = (s.stride as i64, s.dilation as i64, s.kernel as i64);
    let common = gcd(stride, dilation);
    let (tap_step, reach) = (stride / common, dilation / common);
    let start = e + s.pad_before;
    let first = first_tap(start, common, nearest_inverse(reach, tap_step), tap_step);
    let first = first.filter(|k| *k < kernel);
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

/// The least `k` for which `k * reach * common = start (mod step * common)`, if there is one.
fn first_tap(start: i64, common: i64, inverse: i64, step: i64) -> Option<i64> {
    let multiple = start % common == 0;
    let residue = i128::from(start / common) * i128::from(inverse);
    multiple.then(|| residue.rem_euclid(i128::from(step)) as i64)
}

/// How many phases a transposed axis has.
fn phases(s: &SpatialAxis) -> u64 {
    s.stride.min(s.input)
}

/// Every phase of a transposed axis.
fn phases_of(problem: &ConvProblem, s: &SpatialAxis) -> Vec<SumAxis> {
    (0..phases(s)).map(|residue| phase(problem, s, residue as i64)).collect()
}

fn too_far(s: &SpatialAxis) -> String {
    let SpatialAxis { stride, dilation, .. } = s;
    format!(
        "the taps of neighbouring phases of stride {stride} and dilation {dilation} lie too far apart"
    )
}

/// The name of the loop over the phases of a spatial axis.
pub(super) fn phase_loop(axis: &str) -> String {
    format!("p{axis}")
}

/// The name of the loop over what lies between two phases of a spatial axis.
pub(super) fn class_loop(axis: &str) -> String {
    format!("q{axis}")
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The number nearest to zero whose product with `number` is one more than a multiple of `modulus`,
/// to which it is coprime.
fn nearest_inverse(number: i64, modulus: i64) -> i64 {
    // Euclid's algorithm: `remainders = factors * number (mod modulus)`.
    let mut remainders = (modulus, number.rem_euclid(modulus));
    let mut factors = (0, 1);
    while remainders.1 > 0 {
        let quotient = remainders.0 / remainders.1;
        remainders = (remainders.1, remainders.0 - quotient * remainders.1);
        factors = (factors.1, factors.0 - quotient * factors.1);
    }
    let inverse = factors.0.rem_euclid(modulus);
    if 2 * inverse > modulus { inverse - modulus } else { inverse }
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
    class: Iteration,
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
                let class = match s.classes() {
                    1 => phase,
                    classes => axis(class_loop(name), AxisKind::Spatial, classes),
                };
                Spatial { output, tap, phase, class }
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
        let store = Stmt::Store(Access { buffer: tensors.output, index }, result);
        let guards = self.output_guards();
        if guards.is_empty() {
            body.push(store);
        } else {
            self.pad_residuals(&mut body);
            let mut store = [store];
            self.pad_residuals(&mut store);
            body.push(Stmt::If(guards, store.into()));
        }
        self.nest.body = self.spatial_loops(body);
        self.nest
    }

    /// The conditions under which an output exists.
    fn output_guards(&self) -> Vec<Guard> {
        let axes = self.spatial.iter().zip(&self.sum.axes).filter(|(_, s)| s.is_short());
        axes.map(|(at, s)| Guard::Below(self.place(at, s), s.written as i64)).collect()
    }

    /// Reads zeros where there is no output.
    fn pad_residuals(&self, block: &mut [Stmt]) {
        visit_exprs_mut(block, &mut |expr| {
            if let Expr::Load(access) = expr
                && self.nest.buffer(access.buffer).role == Role::Residual
            {
                *expr = Expr::Pad(PaddingMode::Zeros, access.clone());
            }
        });
    }

    /// Where an axis of the output is written.
    fn place(&self, at: &Spatial, s: &SumAxis) -> Affine {
        let class = if s.classes() > 1 { at.class.index() } else { Affine::constant(0) };
        s.place(at.output.index(), at.phase.index(), class)
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
        let positions = axes.map(|(at, s)| self.place(at, s)).collect();
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
        let places = index[first..].to_vec();
        let weight = Expr::Load(Access { buffer: weights, index });
        let value = Expr::fma(self.input_load(input), weight, Expr::Load(sum.clone()));
        let body = nested([self.in_channel].into_iter(), vec![Stmt::Store(sum.clone(), value)]);
        let taps = self.spatial.iter().zip(&self.sum.axes).zip(&places).rev();
        taps.fold(body, |body, ((at, s), place)| {
            let guards = tap_guards(at, s, place);
            vec![Stmt::Loop(Loop { guards, ..Loop::new(at.tap.axis, at.tap.extent, body) })]
        })
    }

    fn spatial_loops(&self, body: Vec<Stmt>) -> Vec<Stmt> {
        let phases = self.spatial.iter().zip(&self.sum.axes).flat_map(|(at, s)| {
            let phase = (s.phases() > 1).then_some(at.phase);
            phase.into_iter().chain((s.classes() > 1).then_some(at.class))
        });
        let phases: Vec<Iteration> = phases.collect();
        let positions = self.spatial.iter().map(|at| at.output);
        let channels = [self.group, self.out_channel];
        nested([self.batch].into_iter().chain(phases).chain(channels).chain(positions), body)
    }
}

/// The conditions under which a tap, whose weight lies there, is one of the output.
fn tap_guards(at: &Spatial, s: &SumAxis, place: &Affine) -> Vec<Guard> {
    let taps = s
        .phases
        .taps
        .map(|taps| [Guard::AtLeast(place.clone(), 0), Guard::Below(place.clone(), taps)]);
    let class = (s.classes() > 1).then(|| {
        let (class, active) = (at.class.index(), s.phases.active as i64);
        [Guard::AtLeast(class.clone(), active), Guard::Below(class, active + 1)]
    });
    taps.into_iter().chain(class).flatten().collect()
}
