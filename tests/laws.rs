//! The laws of convolution, held by the kernels of this host on random problems: on integers, whose
//! products and sums are exact, both sides of a law are equal.
//!
//! ```text
//! a * b = b * a    (a * b) * c = a * (b * c)    a * (b + c) = a * b + a * c    a * delta = a
//! shift(x) * w = shift(x * w)
//! rotate(x) * w = rotate(x * w)      constant * w = constant      x * w = pad(x) * w
//! <conv(x, w), y> = <x, bwd_d(y, w)> = <w, bwd_w(x, y)>      <b, y> = <b, bwd_b(y)>
//! DFT(a * b) = DFT(a) DFT(b)
//! ```
//! and each kind of convolution as a plain one of other tensors. The star is full true convolution;
//! those of the second line are of the same size as their input, with padding made of it: circular
//! in the first law, any in the others.

use convgen_ir::problem::{ConvProblem, ConvSpec, Direction, SpatialAxis};
use convgen_ir::reference::{input_index, input_position, output_index, output_position};
use convgen_ir::{Layout, PaddingMode};
use proptest::prelude::*;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

#[path = "common/problems.rs"]
mod problems;

#[path = "common/linear.rs"]
mod linear;

use linear::{Integers, biased_output, kernel_output, plain, zero_padded};

const CASES: u32 = 1000;

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

/// A signal of one channel, along one to three axes.
#[derive(Clone, Debug, PartialEq)]
struct Signal {
    sizes: Vec<u64>,
    values: Vec<f32>,
}

impl Signal {
    fn new(sizes: &[u64], integers: &mut Integers) -> Signal {
        Signal { sizes: sizes.to_vec(), values: integers.tensor(sizes) }
    }

    fn plus(&self, other: &Signal) -> Signal {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a + b).collect();
        Signal { values, ..self.clone() }
    }

    /// Full true convolution, by a kernel with this signal as input and the other one as weights.
    fn star(&self, other: &Signal) -> Signal {
        let axes = self.sizes.iter().zip(&other.sizes).map(|(m, n)| SpatialAxis::new(*m, *n));
        let spec = ConvSpec::new(1, 1, axes.collect()).flip(true).full();
        let problem = ConvProblem::new(spec).unwrap();
        let sizes = problem.spatial().iter().map(SpatialAxis::output).collect();
        let values = kernel_output(&problem, &self.values, &other.values, &[]);
        Signal { sizes, values: values.into_iter().map(|x| x as f32).collect() }
    }
}

/// The sizes of three signals along the same axes.
fn three_sizes() -> impl Strategy<Value = [Vec<u64>; 3]> {
    let sizes = |largest: u64, rank: usize| prop::collection::vec(1..=largest, rank);
    let three =
        move |largest, rank| [sizes(largest, rank), sizes(largest, rank), sizes(largest, rank)];
    prop_oneof![three(30, 1), three(8, 2), three(4, 3)]
}

/// Any forward problem of one image with zero padding, without bias and epilogue.
fn problem() -> impl Strategy<Value = ConvProblem> {
    problems::problem().prop_map(|problem| plain(&zero_padded(&problem), Direction::Forward))
}

/// As [`problem`], with padding of that mode on every side that has some.
fn extended(mode: PaddingMode) -> impl Strategy<Value = ConvProblem> {
    problem().prop_map(move |problem| {
        derived(&problem, |spec| {
            spec.padding_mode = mode;
            spec.spatial.iter_mut().for_each(|axis| problems::found_inside(axis, mode));
        })
    })
}

/// The modes whose padding is made of the input.
fn mode() -> impl Strategy<Value = PaddingMode> {
    prop::sample::select(&PaddingMode::ALL[1..])
}

/// The element of a dimension that stands at a place outside of it, by walking there: a step at a
/// time, turning round at the last element, staying on it, or going on at the other end.
fn walked(mode: PaddingMode, place: i64, size: i64) -> i64 {
    let (mut at, mut step) = (0, place.signum());
    for _ in 0..place.abs() {
        let inside = (0..size).contains(&(at + step));
        match mode {
            PaddingMode::Zeros => at += step,
            PaddingMode::Replicate => at += if inside { step } else { 0 },
            PaddingMode::Circular => at = (at + step).rem_euclid(size),
            PaddingMode::Reflect => {
                step = if inside { step } else { -step };
                at += step;
            }
        }
    }
    at
}

fn derived(problem: &ConvProblem, change: impl FnOnce(&mut ConvSpec)) -> ConvProblem {
    let mut spec = problem.to_spec();
    change(&mut spec);
    ConvProblem::new(spec).unwrap()
}

fn dot(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}

/// A kernel with other sizes, each weight where `place` puts it: from output channel, input channel
/// of the group and tap to the same of the other kernel.
fn placed(
    problem: &ConvProblem,
    other: &ConvProblem,
    weights: &[f32],
    place: impl Fn(u64, u64, &[u64]) -> (u64, u64, Vec<u64>),
) -> Vec<f32> {
    let (shape, target) = (problem.weights_shape(), other.weights_shape());
    let mut moved = vec![0.0; target.iter().product::<u64>() as usize];
    for (index, weight) in (0..).zip(weights) {
        let at = coordinates(&shape, index);
        let (oc, ic, tap) = place(at[0], at[1], &at[2..]);
        let at = [oc, ic].into_iter().chain(tap);
        let index = at.zip(&target).fold(0, |flat, (x, size)| flat * size + x);
        moved[index as usize] = *weight;
    }
    moved
}

fn coordinates(sizes: &[u64], mut flat: u64) -> Vec<u64> {
    let mut at = vec![0; sizes.len()];
    for (x, size) in at.iter_mut().zip(sizes).rev() {
        *x = flat % size;
        flat /= size;
    }
    at
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn commutative_and_with_an_identity([m, n, _] in three_sizes(), seed: u64) {
        let mut integers = Integers::new(seed);
        let (a, b) = (Signal::new(&m, &mut integers), Signal::new(&n, &mut integers));
        prop_assert_eq!(a.star(&b), b.star(&a));
        let delta = Signal { sizes: vec![1; m.len()], values: vec![1.0] };
        prop_assert_eq!(&a.star(&delta), &a);
        prop_assert_eq!(delta.star(&a), a);
    }

    #[test]
    fn associative([m, n, o] in three_sizes(), seed: u64) {
        let mut integers = Integers::new(seed);
        let [a, b, c] = [m, n, o].map(|sizes| Signal::new(&sizes, &mut integers));
        prop_assert_eq!(a.star(&b).star(&c), a.star(&b.star(&c)));
    }

    #[test]
    fn distributive([m, n, _] in three_sizes(), seed: u64) {
        let mut integers = Integers::new(seed);
        let [a, b, c] = [&m, &n, &n].map(|sizes| Signal::new(sizes, &mut integers));
        prop_assert_eq!(a.star(&b.plus(&c)), a.star(&b).plus(&a.star(&c)));
        prop_assert_eq!(b.plus(&c).star(&a), b.star(&a).plus(&c.star(&a)));
    }

    /// The transform is in doubles; the bound is that of a sum of products in single precision,
    /// and of two transforms and their inverse.
    #[test]
    fn the_convolution_theorem([m, n, _] in three_sizes(), seed: u64) {
        let mut integers = Integers::new(seed);
        let real = |signal: Signal| {
            let values = signal.values.iter().map(|x| (x + 0.1).sin()).collect();
            Signal { values, ..signal }
        };
        let (a, b) = (real(Signal::new(&m, &mut integers)), real(Signal::new(&n, &mut integers)));
        let product = a.star(&b);
        let by_transform = circular(&spread(&a, &product.sizes), &spread(&b, &product.sizes));
        let magnitude = |s: &Signal| Signal { values: s.values.iter().map(|x| x.abs()).collect(), ..s.clone() };
        let magnitudes = circular(
            &spread(&magnitude(&a), &product.sizes),
            &spread(&magnitude(&b), &product.sizes),
        );
        let terms = a.values.len().min(b.values.len()) as f64;
        let single = f64::from(f32::EPSILON) / 2.0;
        let gamma = terms * single / (1.0 - terms * single);
        let norm = |s: &Signal| dot(&s.values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), &s.values).sqrt();
        // An FFT of length n errs by less than 10 log2(n) units relative to the norm (Higham,
        // section 24.1); two forward ones and, as |y|_2 <= sqrt(n) |a|_2 |b|_2, the inverse one.
        let length = product.values.len() as f64;
        let each = 10.0 * length.log2().max(1.0) * f64::EPSILON;
        let transform = each * (2.0 + length.sqrt()) * norm(&a) * norm(&b);
        for ((given, expected), size) in product.values.iter().zip(&by_transform).zip(&magnitudes) {
            let (error, bound) = ((f64::from(*given) - expected).abs(), gamma * size.abs() + transform * (1.0 + gamma));
            prop_assert!(error <= bound, "{given} and {expected}: {error:e} > {bound:e}");
        }
    }

    #[test]
    fn equivariant_under_shifts(problem in problem(), by in prop::collection::vec(0..=3u64, 3), seed: u64) {
        let problem = derived(&problem, |spec| *spec = spec.clone().full());
        let shifted = derived(&problem, |spec| {
            for (axis, by) in spec.spatial.iter_mut().zip(&by) {
                axis.input += axis.stride * by;
            }
        });
        let mut integers = Integers::new(seed);
        let (x, w) = (integers.tensor(&problem.input_shape(1)), integers.tensor(&problem.weights_shape()));
        let mut moved = vec![0.0; shifted.input_shape(1).iter().product::<u64>() as usize];
        for (index, x) in (0..).zip(&x) {
            let mut at = input_position(&problem, index);
            for ((i, axis), by) in at.spatial.iter_mut().zip(problem.spatial()).zip(&by) {
                *i += axis.stride * by;
            }
            moved[input_index(&shifted, &at) as usize] = *x;
        }
        let y = kernel_output(&problem, &x, &w, &[]);
        let mut expected = vec![0.0; shifted.output_shape(1).iter().product::<u64>() as usize];
        for (index, y) in (0..).zip(&y) {
            let mut at = output_position(&problem, index);
            at.spatial.iter_mut().zip(&by).for_each(|(o, by)| *o += by);
            expected[output_index(&shifted, &at) as usize] = *y;
        }
        prop_assert_eq!(kernel_output(&shifted, &moved, &w, &[]), expected);
    }

    #[test]
    fn circular_is_equivariant_under_rotations(
        problem in extended(PaddingMode::Circular),
        by in prop::collection::vec(0..=9u64, 3),
        seed: u64,
    ) {
        let problem = derived(&problem, |spec| {
            for axis in &mut spec.spatial {
                // A kernel that fits the input has as much padding as makes the output as long.
                axis.input = axis.input.max(axis.extent());
                axis.stride = 1;
                axis.pad_before = axis.pad_before.clamp(0, axis.extent() as i64 - 1);
                axis.pad_after = axis.extent() as i64 - 1 - axis.pad_before;
            }
        });
        let mut integers = Integers::new(seed);
        let (x, w) = (integers.tensor(&problem.input_shape(1)), integers.tensor(&problem.weights_shape()));
        let turned = |at: &mut Vec<u64>| {
            let axes = at.iter_mut().zip(problem.spatial()).zip(&by);
            axes.for_each(|((i, axis), by)| *i = (*i + by) % axis.input);
        };
        let mut rotated = x.clone();
        for (index, x) in (0..).zip(&x) {
            let mut at = input_position(&problem, index);
            turned(&mut at.spatial);
            rotated[input_index(&problem, &at) as usize] = *x;
        }
        let y = kernel_output(&problem, &x, &w, &[]);
        let mut expected = y.clone();
        for (index, y) in (0..).zip(&y) {
            let mut at = output_position(&problem, index);
            turned(&mut at.spatial);
            expected[output_index(&problem, &at) as usize] = *y;
        }
        prop_assert_eq!(kernel_output(&problem, &rotated, &w, &[]), expected);
    }

    #[test]
    fn a_constant_stays_constant(problem in mode().prop_flat_map(extended), seed: u64) {
        let w = Integers::new(seed).tensor(&problem.weights_shape());
        let x = vec![2.0; problem.input_shape(1).iter().product::<u64>() as usize];
        let each = w.len() / problem.out_channels() as usize;
        for (index, y) in (0..).zip(kernel_output(&problem, &x, &w, &[])) {
            let channel = output_position(&problem, index).channel as usize;
            let sum: f32 = w[channel * each..(channel + 1) * each].iter().sum();
            prop_assert_eq!(y, f64::from(2.0 * sum));
        }
    }

    /// The gradient of the weights too: it reads the same input.
    #[test]
    fn padding_is_a_longer_input(problem in mode().prop_flat_map(extended), batch in 1..=2u64, seed: u64) {
        let longer = derived(&problem, |spec| {
            spec.padding_mode = PaddingMode::Zeros;
            for axis in &mut spec.spatial {
                axis.input = axis.padded_input() as u64;
                (axis.pad_before, axis.pad_after) = (0, 0);
            }
        });
        let mut integers = Integers::new(seed);
        let (x, w) = (integers.tensor(&problem.input_shape(batch)), integers.tensor(&problem.weights_shape()));
        let mut padded = vec![0.0; longer.input_shape(batch).iter().product::<u64>() as usize];
        for (index, place) in (0..).zip(&mut padded) {
            let mut at = input_position(&longer, index);
            for (i, axis) in at.spatial.iter_mut().zip(problem.spatial()) {
                let outside = *i as i64 - axis.pad_before;
                *i = walked(problem.padding_mode(), outside, axis.input as i64) as u64;
            }
            *place = x[input_index(&problem, &at) as usize];
        }
        prop_assert_eq!(kernel_output(&problem, &x, &w, &[]), kernel_output(&longer, &padded, &w, &[]));
        let gradient = |problem: &ConvProblem| problem.with_direction(Direction::BackwardWeights).unwrap();
        let y = integers.tensor(&problem.output_shape(batch));
        prop_assert_eq!(
            kernel_output(&gradient(&problem), &x, &[], &[&y]),
            kernel_output(&gradient(&longer), &padded, &[], &[&y])
        );
    }

    #[test]
    fn the_gradients_are_adjoint(problem in problem(), batch in 1..=3u64, seed: u64) {
        let mut integers = Integers::new(seed);
        let x = integers.tensor(&problem.input_shape(batch));
        let w = integers.tensor(&problem.weights_shape());
        let y = integers.tensor(&problem.output_shape(batch));
        let to = |direction| problem.with_direction(direction).unwrap();
        let expected = dot(&kernel_output(&problem, &x, &w, &[]), &y);
        let data = kernel_output(&to(Direction::BackwardData), &y, &w, &[]);
        prop_assert_eq!(dot(&data, &x), expected);
        prop_assert_eq!(&kernel_output(&to(Direction::Transposed), &y, &w, &[]), &data);
        let weights = kernel_output(&to(Direction::BackwardWeights), &x, &[], &[&y]);
        prop_assert_eq!(dot(&weights, &w), expected);
    }

    #[test]
    fn the_gradient_of_the_bias_is_adjoint(problem in problem(), batch in 1..=3u64, seed: u64) {
        let mut integers = Integers::new(seed);
        let x = integers.tensor(&problem.input_shape(batch));
        let w = integers.tensor(&problem.weights_shape());
        let y = integers.tensor(&problem.output_shape(batch));
        let b = integers.tensor(&[problem.out_channels()]);
        let biased = derived(&problem, |spec| spec.bias = true);
        let gradient = kernel_output(&problem.with_direction(Direction::BackwardBias).unwrap(), &y, &[], &[]);
        let without = dot(&kernel_output(&problem, &x, &w, &[]), &y);
        prop_assert_eq!(dot(&biased_output(&biased, &x, &w, &b), &y), without + dot(&gradient, &b));
    }

    #[test]
    fn groups_are_a_block_diagonal_kernel(problem in problem(), seed: u64) {
        let mut integers = Integers::new(seed);
        let (x, w) = (integers.tensor(&problem.input_shape(1)), integers.tensor(&problem.weights_shape()));
        let dense = derived(&problem, |spec| spec.groups = 1);
        let (reads, writes) = (problem.in_channels_per_group(), problem.out_channels_per_group());
        let wide = placed(&problem, &dense, &w, |oc, ic, tap| (oc, oc / writes * reads + ic, tap.to_vec()));
        prop_assert_eq!(kernel_output(&problem, &x, &w, &[]), kernel_output(&dense, &x, &wide, &[]));
    }

    /// Depthwise above all: as often as not the groups have one input channel each.
    #[test]
    fn a_group_is_a_convolution_by_itself(problem in problem(), depthwise: bool, seed: u64) {
        let problem = derived(&problem, |spec| {
            if depthwise {
                (spec.groups, spec.out_channels) = (spec.in_channels, spec.in_channels * (spec.out_channels % 3 + 1));
            }
            // Then the channels of a group are neighbours in memory.
            spec.layout = Layout::ChannelsFirst;
        });
        let mut integers = Integers::new(seed);
        let (x, w) = (integers.tensor(&problem.input_shape(1)), integers.tensor(&problem.weights_shape()));
        let one = derived(&problem, |spec| {
            (spec.in_channels, spec.out_channels) = (spec.in_channels / spec.groups, spec.out_channels / spec.groups);
            spec.groups = 1;
        });
        let groups = problem.groups() as usize;
        let pairs = x.chunks(x.len() / groups).zip(w.chunks(w.len() / groups));
        let each: Vec<f64> = pairs.flat_map(|(x, w)| kernel_output(&one, x, w, &[])).collect();
        prop_assert_eq!(kernel_output(&problem, &x, &w, &[]), each);
    }

    #[test]
    fn dilation_inserts_zeros_into_the_kernel(problem in problem(), seed: u64) {
        let mut integers = Integers::new(seed);
        let (x, w) = (integers.tensor(&problem.input_shape(1)), integers.tensor(&problem.weights_shape()));
        let dense = derived(&problem, |spec| {
            for axis in &mut spec.spatial {
                (axis.kernel, axis.dilation) = (axis.extent(), 1);
            }
        });
        let wide = placed(&problem, &dense, &w, |oc, ic, tap| {
            (oc, ic, tap.iter().zip(problem.spatial()).map(|(k, axis)| k * axis.dilation).collect())
        });
        prop_assert_eq!(kernel_output(&problem, &x, &w, &[]), kernel_output(&dense, &x, &wide, &[]));
    }

    #[test]
    fn a_stride_leaves_outputs_out(problem in problem(), seed: u64) {
        let mut integers = Integers::new(seed);
        let (x, w) = (integers.tensor(&problem.input_shape(1)), integers.tensor(&problem.weights_shape()));
        let dense = derived(&problem, |spec| spec.spatial.iter_mut().for_each(|axis| axis.stride = 1));
        let all = kernel_output(&dense, &x, &w, &[]);
        for (index, y) in (0..).zip(kernel_output(&problem, &x, &w, &[])) {
            let mut at = output_position(&problem, index);
            at.spatial.iter_mut().zip(problem.spatial()).for_each(|(o, axis)| *o *= axis.stride);
            prop_assert_eq!(y, all[output_index(&dense, &at) as usize]);
        }
    }

    #[test]
    fn transposed_is_a_flipped_kernel_over_inserted_zeros(problem in problem(), seed: u64) {
        let transposed = problem.with_direction(Direction::Transposed).unwrap();
        let mut integers = Integers::new(seed);
        let y = integers.tensor(&transposed.input_shape(1));
        let w = integers.tensor(&problem.weights_shape());
        let over = derived(&problem, |spec| {
            (spec.in_channels, spec.out_channels, spec.flip) = (spec.out_channels, spec.in_channels, !spec.flip);
            spec.spatial.iter_mut().for_each(inserted);
        });
        let (reads, writes) = (problem.out_channels_per_group(), problem.in_channels_per_group());
        let turned = placed(&problem, &over, &w, |oc, ic, tap| {
            (oc / reads * writes + ic, oc % reads, tap.to_vec())
        });
        let mut spaced = vec![0.0; over.input_shape(1).iter().product::<u64>() as usize];
        for (index, y) in (0..).zip(&y) {
            let mut at = output_position(&problem, index);
            at.spatial.iter_mut().zip(problem.spatial()).for_each(|(o, axis)| *o *= axis.stride);
            spaced[input_index(&over, &at) as usize] = *y;
        }
        prop_assert_eq!(kernel_output(&transposed, &y, &w, &[]), kernel_output(&over, &spaced, &turned, &[]));
    }
}

/// The axis of a convolution over the outputs of another, a stride apart, whose outputs are its
/// inputs: `i = o*s - p + k*d` is `o*s = i - (extent-1 - p) + (K-1-k)*d`.
fn inserted(axis: &mut SpatialAxis) {
    let (extent, written) = (axis.extent() as i64, axis.input as i64);
    let input = (axis.output() - 1) * axis.stride + 1;
    let before = extent - 1 - axis.pad_before;
    let after = written + extent - 1 - input as i64 - before;
    *axis = SpatialAxis { input, stride: 1, pad_before: before, pad_after: after, ..*axis };
}

/// The signal in a larger grid of these sizes, zeros elsewhere: what wraps around in a circular
/// convolution of such grids as one row adds only zeros.
fn spread(signal: &Signal, sizes: &[u64]) -> Vec<f64> {
    let mut grid = vec![0.0; sizes.iter().product::<u64>() as usize];
    for (index, value) in (0..).zip(&signal.values) {
        let at = coordinates(&signal.sizes, index);
        let index = at.iter().zip(sizes).fold(0, |flat, (x, size)| flat * size + x);
        grid[index as usize] = f64::from(*value);
    }
    grid
}

/// The circular convolution of two rows of one length, by their transforms.
fn circular(a: &[f64], b: &[f64]) -> Vec<f64> {
    let length = a.len();
    let mut planner = FftPlanner::new();
    let (forward, inverse) = (planner.plan_fft_forward(length), planner.plan_fft_inverse(length));
    let transform = |row: &[f64]| {
        let mut row: Vec<Complex<f64>> = row.iter().map(|x| Complex::new(*x, 0.0)).collect();
        forward.process(&mut row);
        row
    };
    let mut product: Vec<_> = transform(a).iter().zip(transform(b)).map(|(a, b)| a * b).collect();
    inverse.process(&mut product);
    product.iter().map(|z| z.re / length as f64).collect()
}
