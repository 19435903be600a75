//! Convolution by its formula: the bottom oracle, trusted because it can be read in a minute.
//!
//! ```text
//! forward            y[n, oc, o] = bias[oc] + sum over k, ic: x[n, ic, i] * w[oc, ic, k]
//! transposed, bwd_d  x[n, ic, i] = bias[ic] + sum over k, oc: y[n, oc, o] * w[oc, ic, k]
//! bwd_w              w[oc, ic, k] = sum over n, o: x[n, ic, i] * y[n, oc, o]
//! bwd_b              b[oc] = sum over n, o: y[n, oc, o]
//! ```
//! over all `i`, `o`, `k` with `i = o*stride - pad_before + k*dilation` on every axis and `ic`,
//! `oc` of one group; flipped, `w` is read at `kernel - 1 - k`. Then the epilogue. So the adjoints
//! are the forward formula, read for another factor.
//!
//! Padding that is no zeros is read from the input that goes on for ever: mirrored, or repeated, or
//! its last element.
//!
//! Everything is evaluated in f64: a product of two f32 is exact there, and the sum of integers
//! below 2^53 is too. Taps on zero padding are skipped, so an infinite weight on padding adds
//! nothing.
//!
//! Promises: [`Reference::new`] checks every length, after which only an index outside the output
//! panics. Does not: try to be fast, or share a line with the interpreter.

use crate::elem::Layout;
use crate::epilogue::ExtraArg;
use crate::padding::PaddingMode;
use crate::problem::{ConvProblem, Direction, SpatialAxis};

/// The tensors of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvData<'a> {
    /// What [`ConvProblem::input_shape`] describes.
    pub input: &'a [f32],
    /// The weights: output channels, input channels a group, kernel; empty where none are read.
    pub weights: &'a [f32],
    /// The bias, one value a channel of the output; present exactly if the problem has one.
    pub bias: Option<&'a [f32]>,
    /// What [`ConvProblem::extra_shapes`] lists: a gradient, or one buffer for each epilogue
    /// operation that takes one.
    pub extras: &'a [&'a [f32]],
}

/// A problem over a batch together with tensors of the right lengths.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    problem: &'a ConvProblem,
    batch: u64,
    data: ConvData<'a>,
}

/// Why tensors do not belong to a problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A tensor has the wrong length.
    #[error("{tensor} has {given} elements, expected {expected}")]
    Length {
        /// Which tensor.
        tensor: &'static str,
        /// Its length.
        given: usize,
        /// The product of its dimensions.
        expected: u64,
    },
    /// There is a bias and should be none, or the other way round.
    #[error("bias given: {given}, expected: {expected}")]
    Bias {
        /// Whether there is one.
        given: bool,
        /// Whether the problem has one.
        expected: bool,
    },
    /// The wrong number of extra buffers.
    #[error("{given} extra buffers, expected {expected}")]
    Extras {
        /// How many there are.
        given: usize,
        /// How many the epilogue takes.
        expected: usize,
    },
}

/// A position of an input or an output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The image.
    pub n: u64,
    /// The channel, counted over all groups.
    pub channel: u64,
    /// The spatial coordinates, outermost first.
    pub spatial: Vec<u64>,
}

impl<'a> Reference<'a> {
    /// Checks the lengths.
    pub fn new(
        problem: &'a ConvProblem,
        batch: u64,
        data: ConvData<'a>,
    ) -> Result<Self, ReferenceError> {
        expect_length("input", data.input, length(&problem.input_shape(batch)))?;
        expect_length("weights", data.weights, length(&problem.weights_shape()))?;
        let (given, expected) = (data.bias.is_some(), problem.bias());
        if given != expected {
            return Err(ReferenceError::Bias { given, expected });
        }
        if let Some(bias) = data.bias {
            expect_length("bias", bias, problem.result_channels())?;
        }
        let shapes = problem.extra_shapes(batch);
        let (given, expected) = (data.extras.len(), shapes.len());
        if given != expected {
            return Err(ReferenceError::Extras { given, expected });
        }
        for (extra, (name, shape)) in data.extras.iter().zip(shapes) {
            expect_length(name, extra, length(&shape))?;
        }
        Ok(Self { problem, batch, data })
    }

    /// Every output element, in the order of [`ConvProblem::output_shape`].
    pub fn convolve(&self) -> Vec<f64> {
        (0..length(&self.problem.output_shape(self.batch))).map(|i| self.output_at(i)).collect()
    }

    /// The output element at a flat index.
    pub fn output_at(&self, index: u64) -> f64 {
        let mut extras = self.data.extras.iter();
        self.problem.epilogue().iter().fold(self.sum_at(index), |x, op| {
            let extra = match op.takes_extra() {
                Some(ExtraArg::Residual) => extras.next().map(|e| e[usize_of(index)]),
                Some(ExtraArg::ChannelScale) => {
                    extras.next().map(|e| e[usize_of(result_channel(self.problem, index))])
                }
                None => None,
            };
            op.apply(x, f64::from(extra.unwrap_or(0.0)))
        })
    }

    /// Bias and sum at a flat index, before the epilogue.
    pub fn sum_at(&self, index: u64) -> f64 {
        let mut sum = self.bias_at(index);
        self.each_product(index, &mut |product| sum += product);
        sum
    }

    /// `|bias| + sum |x * w|` at a flat index: what a rounding error bound is a multiple of.
    pub fn magnitude_at(&self, index: u64) -> f64 {
        let mut sum = self.bias_at(index).abs();
        self.each_product(index, &mut |product| sum += product.abs());
        sum
    }

    fn bias_at(&self, index: u64) -> f64 {
        let at = |bias: &[f32]| f64::from(bias[usize_of(result_channel(self.problem, index))]);
        self.data.bias.map_or(0.0, at)
    }

    /// Visits every product of the sum at a flat index, those on padding left out.
    fn each_product(&self, index: u64, visit: &mut dyn FnMut(f64)) {
        let shape = self.problem.output_shape(self.batch);
        assert!(index < length(&shape), "index {index} is outside {shape:?}");
        match self.problem.direction() {
            Direction::Forward => self.forward(&output_position(self.problem, index), visit),
            Direction::Transposed | Direction::BackwardData => {
                self.adjoint(&input_position(self.problem, index), visit);
            }
            Direction::BackwardWeights => self.weights_gradient(index, visit),
            Direction::BackwardBias => {
                let image = Image::y(self.problem);
                for (n, pixel) in pairs(self.batch, image.pixels) {
                    visit(f64::from(self.data.input[usize_of(image.index(n, index, pixel))]));
                }
            }
        }
    }

    /// The products of `y` at a position: taps in row-major order, within a tap the input channels.
    fn forward(&self, at: &Position, visit: &mut dyn FnMut(f64)) {
        let problem = self.problem;
        let kernel = kernel_sizes(problem);
        let image = Image::x(problem);
        let channels = problem.in_channels_per_group();
        let first_channel = at.channel / problem.out_channels_per_group() * channels;
        let taps = length(&kernel);
        for tap in 0..taps {
            let tap = coordinates(&kernel, tap);
            let Some(spatial) = tapped(problem, &at.spatial, &tap) else { continue };
            let pixel = row_major(&image.sizes, &spatial);
            let tap = row_major(&kernel, &turned(problem, &tap));
            for ic in 0..channels {
                let x = self.data.input[usize_of(image.index(at.n, first_channel + ic, pixel))];
                let w = self.data.weights[usize_of((at.channel * channels + ic) * taps + tap)];
                visit(f64::from(x) * f64::from(w));
            }
        }
    }

    /// The products of `x` at a position: for each tap the one output that reads it there, if one
    /// does. Of a kernel as large as the image these are few of its taps, so they are found axis by
    /// axis.
    fn adjoint(&self, at: &Position, visit: &mut dyn FnMut(f64)) {
        let (problem, axes) = (self.problem, self.problem.spatial());
        let kernel = kernel_sizes(problem);
        let image = Image::y(problem);
        let (reads, writes) = (problem.out_channels_per_group(), problem.in_channels_per_group());
        let (group, ic) = (at.channel / writes, at.channel % writes);
        let taps = length(&kernel);
        let reached: Vec<Vec<(u64, u64)>> =
            axes.iter().zip(&at.spatial).map(|(axis, i)| untapped(axis, *i)).collect();
        let counts: Vec<u64> = reached.iter().map(|found| found.len() as u64).collect();
        for choice in 0..length(&counts) {
            let choice = coordinates(&counts, choice);
            let pairs = reached.iter().zip(choice).map(|(found, which)| found[usize_of(which)]);
            let (tap, spatial): (Vec<u64>, Vec<u64>) = pairs.unzip();
            let pixel = row_major(&image.sizes, &spatial);
            let tap = row_major(&kernel, &turned(problem, &tap));
            for oc in group * reads..(group + 1) * reads {
                let y = self.data.input[usize_of(image.index(at.n, oc, pixel))];
                let w = self.data.weights[usize_of((oc * writes + ic) * taps + tap)];
                visit(f64::from(y) * f64::from(w));
            }
        }
    }

    /// The products of one weight: every output, with the input that its tap reads there.
    fn weights_gradient(&self, index: u64, visit: &mut dyn FnMut(f64)) {
        let problem = self.problem;
        let kernel = kernel_sizes(problem);
        let channels = problem.in_channels_per_group();
        let (channel, tap) = (index / length(&kernel), index % length(&kernel));
        let (oc, ic) = (channel / channels, channel % channels);
        let tap = turned(problem, &coordinates(&kernel, tap));
        let (x, y) = (Image::x(problem), Image::y(problem));
        let first_channel = oc / problem.out_channels_per_group() * channels;
        for (n, pixel) in pairs(self.batch, y.pixels) {
            let Some(at) = tapped(problem, &coordinates(&y.sizes, pixel), &tap) else { continue };
            let read = x.index(n, first_channel + ic, row_major(&x.sizes, &at));
            let gradient = self.data.extras[0][usize_of(y.index(n, oc, pixel))];
            visit(f64::from(self.data.input[usize_of(read)]) * f64::from(gradient));
        }
    }
}

/// The channel of the output at a flat index: of bias and channel scales.
pub fn result_channel(problem: &ConvProblem, index: u64) -> u64 {
    match problem.direction() {
        Direction::Forward => output_position(problem, index).channel,
        Direction::Transposed | Direction::BackwardData => input_position(problem, index).channel,
        Direction::BackwardWeights => {
            index / (problem.in_channels_per_group() * length(&kernel_sizes(problem)))
        }
        Direction::BackwardBias => index,
    }
}

fn kernel_sizes(problem: &ConvProblem) -> Vec<u64> {
    problem.spatial().iter().map(|axis| axis.kernel).collect()
}

/// Where the weight of a tap is stored: elsewhere if the kernel is flipped.
fn turned(problem: &ConvProblem, tap: &[u64]) -> Vec<u64> {
    let axes = tap.iter().zip(problem.spatial());
    axes.map(|(k, axis)| if problem.flip() { axis.kernel - 1 - k } else { *k }).collect()
}

/// Every pair below the two limits, the second number fastest.
fn pairs(first: u64, second: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..first).flat_map(move |a| (0..second).map(move |b| (a, b)))
}

/// The flat index of a position of the forward convolution's input.
pub fn input_index(problem: &ConvProblem, at: &Position) -> u64 {
    Image::x(problem).flatten(at)
}

/// The flat index of a position of the forward convolution's output.
pub fn output_index(problem: &ConvProblem, at: &Position) -> u64 {
    Image::y(problem).flatten(at)
}

/// The position of a flat index of the forward convolution's input.
pub fn input_position(problem: &ConvProblem, index: u64) -> Position {
    Image::x(problem).unflatten(index)
}

/// The position of a flat index of the forward convolution's output.
pub fn output_position(problem: &ConvProblem, index: u64) -> Position {
    Image::y(problem).unflatten(index)
}

/// How one image of the input or the output lies in memory.
struct Image {
    layout: Layout,
    channels: u64,
    sizes: Vec<u64>,
    pixels: u64,
}

impl Image {
    fn x(problem: &ConvProblem) -> Self {
        let sizes = problem.spatial().iter().map(|axis| axis.input).collect();
        Self::new(problem.layout(), problem.in_channels(), sizes)
    }

    fn y(problem: &ConvProblem) -> Self {
        let sizes = problem.spatial().iter().map(SpatialAxis::output).collect();
        Self::new(problem.layout(), problem.out_channels(), sizes)
    }

    fn new(layout: Layout, channels: u64, sizes: Vec<u64>) -> Self {
        let pixels = length(&sizes);
        Self { layout, channels, sizes, pixels }
    }

    fn index(&self, n: u64, channel: u64, pixel: u64) -> u64 {
        match self.layout {
            Layout::ChannelsFirst => (n * self.channels + channel) * self.pixels + pixel,
            Layout::ChannelsLast => (n * self.pixels + pixel) * self.channels + channel,
        }
    }

    fn flatten(&self, at: &Position) -> u64 {
        self.index(at.n, at.channel, row_major(&self.sizes, &at.spatial))
    }

    fn unflatten(&self, index: u64) -> Position {
        let n = index / (self.channels * self.pixels);
        let (channel, pixel) = match self.layout {
            Layout::ChannelsFirst => (index / self.pixels % self.channels, index % self.pixels),
            Layout::ChannelsLast => (index % self.channels, index / self.channels % self.pixels),
        };
        Position { n, channel, spatial: coordinates(&self.sizes, pixel) }
    }
}

/// Where a tap of an output lands in the input, or nothing if it lands on zeros.
fn tapped(problem: &ConvProblem, output: &[u64], tap: &[u64]) -> Option<Vec<u64>> {
    let axes = problem.spatial();
    let mut input = Vec::with_capacity(axes.len());
    for ((axis, o), k) in axes.iter().zip(output).zip(tap) {
        let i = i128::from(o * axis.stride + k * axis.dilation) - i128::from(axis.pad_before);
        input.push(endless(problem.padding_mode(), i, axis.input.into())?);
    }
    Some(input)
}

/// Which of `size` elements stands at a place of the endless row that a mode makes of them.
fn endless(mode: PaddingMode, place: i128, size: i128) -> Option<u64> {
    let element = match mode {
        PaddingMode::Zeros => Some(place).filter(|place| (0..size).contains(place)),
        PaddingMode::Replicate => Some(place.max(0).min(size - 1)),
        PaddingMode::Circular => Some(place.rem_euclid(size)),
        PaddingMode::Reflect => {
            // There and back again, without the two ends twice.
            let period = (2 * (size - 1)).max(1);
            let place = place.rem_euclid(period);
            Some(place.min(period - place)).map(|place| place.min(size - 1))
        }
    };
    element.and_then(|element| u64::try_from(element).ok())
}

/// The taps of an axis at which an output reads an input position, in order, each with that output.
fn untapped(axis: &SpatialAxis, input: u64) -> Vec<(u64, u64)> {
    let output = |k: u64| {
        let reach = i128::from(input) + i128::from(axis.pad_before) - i128::from(k * axis.dilation);
        let reach = u64::try_from(reach).ok().filter(|reach| reach.is_multiple_of(axis.stride))?;
        Some(reach / axis.stride).filter(|o| *o < axis.output())
    };
    (0..axis.kernel).filter_map(|k| Some((k, output(k)?))).collect()
}

/// The row-major coordinates of a flat index.
fn coordinates(sizes: &[u64], mut flat: u64) -> Vec<u64> {
    let mut at = vec![0; sizes.len()];
    for (x, size) in at.iter_mut().zip(sizes).rev() {
        *x = flat % size;
        flat /= size;
    }
    at
}

/// The flat index of row-major coordinates.
fn row_major(sizes: &[u64], at: &[u64]) -> u64 {
    at.iter().zip(sizes).fold(0, |flat, (x, size)| flat * size + x)
}

fn length(shape: &[u64]) -> u64 {
    shape.iter().product()
}

fn expect_length(tensor: &'static str, data: &[f32], expected: u64) -> Result<(), ReferenceError> {
    let given = data.len();
    if u64::try_from(given) != Ok(expected) {
        return Err(ReferenceError::Length { tensor, given, expected });
    }
    Ok(())
}

/// An index into a slice that exists, so it fits.
fn usize_of(index: u64) -> usize {
    usize::try_from(index).expect("an index into a checked slice fits usize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ConvSpec;

    fn convolve(descriptor: &str, input: &[f32], weights: &[f32]) -> Vec<f64> {
        let problem: ConvProblem = descriptor.parse().unwrap();
        let data = ConvData { input, weights, bias: None, extras: &[] };
        Reference::new(&problem, problem.batch(), data).unwrap().convolve()
    }

    #[test]
    fn two_taps() {
        let output = convolve("conv1d ic1 oc1 iw3 kw2", &[1., 2., 3.], &[1., 10.]);
        assert_eq!(output, [21., 32.]);
    }

    #[test]
    fn padding_reads_zero_on_both_sides() {
        let output = convolve("conv1d ic1 oc1 iw3 kw2 pw1:2", &[1., 2., 3.], &[1., 10.]);
        assert_eq!(output, [10., 21., 32., 3., 0.]);
    }

    #[test]
    fn padding_made_of_the_input() {
        let two_before_and_after = |mode: &str| {
            let problem = format!("conv1d ic1 oc1 iw4 kw1 pw2:3 {mode}");
            convolve(&problem, &[1., 2., 3., 4.], &[1.])
        };
        assert_eq!(two_before_and_after("reflect"), [3., 2., 1., 2., 3., 4., 3., 2., 1.]);
        assert_eq!(two_before_and_after("replicate"), [1., 1., 1., 2., 3., 4., 4., 4., 4.]);
        assert_eq!(two_before_and_after("circular"), [3., 4., 1., 2., 3., 4., 1., 2., 3.]);
        // What is cropped before is found after.
        let cropped = convolve("conv1d ic1 oc1 iw4 kw1 pw-1:2 circular", &[1., 2., 3., 4.], &[1.]);
        assert_eq!(cropped, [2., 3., 4., 1., 2.]);
        assert_eq!(
            convolve("conv1d ic1 oc1 iw1 kw3 pw2 replicate", &[7.], &[1., 10., 100.]),
            [777.; 3]
        );
    }

    #[test]
    fn negative_padding_crops() {
        let output = convolve("conv1d ic1 oc1 iw4 kw1 pw-1:-2", &[1., 2., 3., 4.], &[1.]);
        assert_eq!(output, [2.]);
    }

    #[test]
    fn dilation_and_stride() {
        let input = [1., 2., 3., 4., 5., 6., 7.];
        assert_eq!(
            convolve("conv1d ic1 oc1 iw7 kw2 dw3", &input, &[1., 10.]),
            [41., 52., 63., 74.]
        );
        assert_eq!(convolve("conv1d ic1 oc1 iw7 kw2 sw3", &input, &[1., 10.]), [21., 54.]);
    }

    #[test]
    fn groups_read_their_own_channels() {
        // Two groups of two input channels and one output channel; channels last: pixels (1,2,3,4)
        // and (5,6,7,8).
        let input = [1., 2., 3., 4., 5., 6., 7., 8.];
        let weights = [1., 10., 100., 1000.];
        let output = convolve("conv1d g2 ic4 oc2 iw2 kw1", &input, &weights);
        assert_eq!(output, [21., 4300., 65., 8700.]);
    }

    #[test]
    fn two_dimensions_by_hand() {
        // 1 2 3 / 4 5 6 / 7 8 9 under 1 10 / 100 1000.
        let input = [1., 2., 3., 4., 5., 6., 7., 8., 9.];
        let output = convolve("conv2d ic1 oc1 ih3 iw3 kh2 kw2", &input, &[1., 10., 100., 1000.]);
        assert_eq!(output, [5421., 6532., 8754., 9865.]);
    }

    #[test]
    fn three_dimensions_sum_a_cube() {
        let input: Vec<f32> = (1..=8u8).map(f32::from).collect();
        let output = convolve("conv3d ic1 oc1 id2 ih2 iw2 kd2 kh2 kw2", &input, &input);
        assert_eq!(output, [204.]);
    }

    #[test]
    fn layouts_agree() {
        let last: ConvProblem =
            "conv2d n2 g2 ic4 oc6 ih5 iw4 kh3 kw2 sh2 dw2 ph1 pw0:1".parse().unwrap();
        let first = last.with_layout(Layout::ChannelsFirst);
        let len = usize_of(length(&last.input_shape(2)));
        let weights: Vec<f32> = (0..72u8).map(|i| f32::from(i % 7) - 3.0).collect();
        let nhwc: Vec<f32> = (0..len).map(|i| (i * 5 % 11) as f32 - 5.0).collect();
        let mut nchw = vec![0.0; len];
        for (i, x) in (0..).zip(&nhwc) {
            nchw[usize_of(input_index(&first, &input_position(&last, i)))] = *x;
        }
        let data = |input| ConvData { input, weights: &weights, bias: None, extras: &[] };
        let by_last = Reference::new(&last, 2, data(&nhwc)).unwrap();
        let by_first = Reference::new(&first, 2, data(&nchw)).unwrap();
        for i in 0..length(&last.output_shape(2)) {
            let at = output_position(&last, i);
            let by_first = by_first.output_at(output_index(&first, &at));
            assert_eq!(by_last.output_at(i), by_first, "{at:?}");
            assert_eq!(output_index(&last, &at), i);
        }
    }

    #[test]
    fn bias_and_epilogue_follow_the_sum() {
        let problem: ConvProblem =
            "conv1d ic1 oc2 iw2 kw1 bias | scale | relu | add".parse().unwrap();
        let (scale, residual) = ([2., -1.], [100., 200., 300., 400.]);
        let data = ConvData {
            input: &[1., -2.],
            weights: &[3., 5.],
            bias: Some(&[1., 4.]),
            extras: &[&scale, &residual],
        };
        let reference = Reference::new(&problem, 1, data).unwrap();
        // Sums 4, 9 and -5, -6; scaled 8, -9 and -10, 6.
        assert_eq!(reference.convolve(), [108., 200., 300., 406.]);
        assert_eq!((reference.sum_at(3), reference.magnitude_at(3)), (-6., 14.));
    }

    #[test]
    fn a_flipped_kernel_is_true_convolution() {
        // (1 + 2z)(3 + 4z + 5z^2), and the same backwards.
        let output = convolve("conv1d ic1 oc1 iw3 kw2 pw1 flip", &[3., 4., 5.], &[1., 2.]);
        assert_eq!(output, [3., 10., 13., 10.]);
    }

    #[test]
    fn transposed_by_hand() {
        // Each input scatters a scaled kernel, two apart.
        let output = convolve("deconv1d ic1 oc1 iw2 kw3 sw2", &[1., 10.], &[1., 2., 3.]);
        assert_eq!(output, [1., 2., 13., 20., 30.]);
    }

    #[test]
    fn gradients_by_hand() {
        let problem: ConvProblem = "conv1d n2 ic1 oc1 iw3 kw2 bwd_w".parse().unwrap();
        let data = ConvData {
            input: &[1., 2., 3., 4., 5., 6.],
            weights: &[],
            bias: None,
            extras: &[&[1., 10., 100., 1000.]],
        };
        let gradient = Reference::new(&problem, 2, data).unwrap().convolve();
        assert_eq!(gradient, [21. + 5400., 32. + 6500.]);
        let bias = convolve("conv1d n2 ic1 oc2 iw3 kw3 bwd_b", &[1., 2., 3., 4.], &[]);
        assert_eq!(bias, [4., 6.]);
    }

    /// `<conv(x, w), y> = <x, bwd_d(y, w)> = <w, bwd_w(x, y)>`, on integers, so exactly.
    fn adjoint_identity(forward: &str) {
        let forward: ConvProblem = forward.parse().unwrap();
        let batch = forward.batch();
        let fill = |shape: &[u64], seed: usize| -> Vec<f32> {
            (0..usize_of(length(shape))).map(|i| ((i * seed) % 7) as f32 - 3.0).collect()
        };
        let x = fill(&forward.input_shape(batch), 5);
        let w = fill(&forward.weights_shape(), 3);
        let y = fill(&forward.output_shape(batch), 4);
        let dot = |a: Vec<f64>, b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
        };
        let by = |direction, input, weights, extras: &[&[f32]]| {
            let problem = forward.with_direction(direction).unwrap();
            let data = ConvData { input, weights, bias: None, extras };
            Reference::new(&problem, batch, data).unwrap().convolve()
        };
        let expected = dot(by(Direction::Forward, &x, &w, &[]), &y);
        assert_eq!(dot(by(Direction::BackwardData, &y, &w, &[]), &x), expected);
        assert_eq!(dot(by(Direction::Transposed, &y, &w, &[]), &x), expected);
        assert_eq!(dot(by(Direction::BackwardWeights, &x, &[], &[&y]), &w), expected);
    }

    #[test]
    fn the_adjoints_are_adjoint() {
        adjoint_identity("conv1d ic2 oc3 iw9 kw3 sw2 dw2 pw1:2");
        adjoint_identity("conv1d nchw n2 ic2 oc3 iw9 kw4 sw6 dw4 pw9 flip");
        adjoint_identity("conv2d n2 g2 ic4 oc6 ih5 iw7 kh3 kw2 sh2 dw3 ph1 pw0:-1");
        adjoint_identity("conv3d g2 ic2 oc2 id3 ih4 iw3 kd2 kh1 kw3 sd2 sh3 pd1 pw1 flip");
    }

    #[test]
    fn an_empty_batch_has_an_empty_output() {
        assert!(convolve("conv1d n0 ic1 oc1 iw3 kw2", &[], &[1., 1.]).is_empty());
    }

    #[test]
    fn wrong_lengths_are_refused_with_the_numbers() {
        let spec =
            ConvSpec::conv1d(1, 2, 3, 2).epilogue([crate::epilogue::EpilogueOp::AddResidual]);
        let problem = ConvProblem::new(spec).unwrap();
        let good = ConvData { input: &[0.; 3], weights: &[0.; 4], bias: None, extras: &[&[0.; 4]] };
        let refusal = |data| Reference::new(&problem, 1, data).unwrap_err().to_string();
        assert!(Reference::new(&problem, 1, good).is_ok());
        assert_eq!(
            refusal(ConvData { input: &[0.; 4], ..good }),
            "input has 4 elements, expected 3"
        );
        assert_eq!(
            refusal(ConvData { weights: &[], ..good }),
            "weights has 0 elements, expected 4"
        );
        assert_eq!(
            refusal(ConvData { bias: Some(&[0.; 2]), ..good }),
            "bias given: true, expected: false"
        );
        assert_eq!(refusal(ConvData { extras: &[], ..good }), "0 extra buffers, expected 1");
        assert_eq!(
            refusal(ConvData { extras: &[&[0.; 2]], ..good }),
            "residual has 2 elements, expected 4"
        );
    }

    #[test]
    #[should_panic(expected = "index 2 is outside [1, 2, 1]")]
    fn an_index_outside_panics() {
        let problem: ConvProblem = "conv1d ic1 oc1 iw3 kw2".parse().unwrap();
        let data = ConvData { input: &[0.; 3], weights: &[0.; 2], bias: None, extras: &[] };
        Reference::new(&problem, 1, data).unwrap().output_at(2);
    }
}
