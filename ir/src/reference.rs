//! Convolution by its formula: the bottom oracle, trusted because it can be read in a minute.
//!
//! ```text
//! output[n, oc, o] = epilogue( bias[oc] + sum over k, ic: input[n, g*IC/G + ic, o*stride - pad_before + k*dilation]
//!                                                         * weights[oc, ic, k] )
//! ```
//! Everything is evaluated in f64: a product of two f32 is exact there, and the sum of integers below 2^53 is too. Taps on
//! padding are skipped, so an infinite weight on padding adds nothing.
//!
//! Promises: [`Reference::new`] checks every length, after which only a position outside the output panics.
//! Does not: try to be fast, or share a line with the interpreter.

use crate::elem::Layout;
use crate::epilogue::ExtraArg;
use crate::problem::{ConvProblem, SpatialAxis};

/// The tensors of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvData<'a> {
    /// The input, in the problem's layout.
    pub input: &'a [f32],
    /// The weights: output channels, input channels a group, kernel.
    pub weights: &'a [f32],
    /// The bias, one value an output channel; present exactly if the problem has one.
    pub bias: Option<&'a [f32]>,
    /// One buffer for each epilogue operation that takes one, in the order of the chain.
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
        let output_len = length(&problem.output_shape(batch));
        expect_length("input", data.input, length(&problem.input_shape(batch)))?;
        expect_length("weights", data.weights, length(&problem.weights_shape()))?;
        let (given, expected) = (data.bias.is_some(), problem.bias());
        if given != expected {
            return Err(ReferenceError::Bias { given, expected });
        }
        if let Some(bias) = data.bias {
            expect_length("bias", bias, problem.out_channels())?;
        }
        let args: Vec<ExtraArg> =
            problem.epilogue().iter().filter_map(|op| op.takes_extra()).collect();
        let (given, expected) = (data.extras.len(), args.len());
        if given != expected {
            return Err(ReferenceError::Extras { given, expected });
        }
        for (extra, arg) in data.extras.iter().zip(args) {
            match arg {
                ExtraArg::Residual => expect_length("residual", extra, output_len)?,
                ExtraArg::ChannelScale => expect_length("scale", extra, problem.out_channels())?,
            }
        }
        Ok(Self { problem, batch, data })
    }

    /// Every output element, in the problem's layout.
    pub fn convolve(&self) -> Vec<f64> {
        (0..length(&self.problem.output_shape(self.batch)))
            .map(|i| self.output_at_flat(i))
            .collect()
    }

    /// The output element at a flat index of the output tensor.
    pub fn output_at_flat(&self, index: u64) -> f64 {
        self.output_at(&output_position(self.problem, index))
    }

    /// The output element at a position.
    pub fn output_at(&self, at: &Position) -> f64 {
        let mut extras = self.data.extras.iter();
        self.problem.epilogue().iter().fold(self.sum_at(at), |x, op| {
            let extra = match op.takes_extra() {
                Some(ExtraArg::Residual) => {
                    extras.next().map(|e| e[usize_of(output_index(self.problem, at))])
                }
                Some(ExtraArg::ChannelScale) => extras.next().map(|e| e[usize_of(at.channel)]),
                None => None,
            };
            op.apply(x, f64::from(extra.unwrap_or(0.0)))
        })
    }

    /// Bias and sum at a position, before the epilogue.
    pub fn sum_at(&self, at: &Position) -> f64 {
        let mut sum = self.bias_at(at);
        self.each_product(at, |product| sum += product);
        sum
    }

    /// `|bias| + sum |x * w|` at a position: what a rounding error bound is a multiple of.
    pub fn magnitude_at(&self, at: &Position) -> f64 {
        let mut sum = self.bias_at(at).abs();
        self.each_product(at, |product| sum += product.abs());
        sum
    }

    fn bias_at(&self, at: &Position) -> f64 {
        self.data.bias.map_or(0.0, |bias| f64::from(bias[usize_of(at.channel)]))
    }

    /// Visits `x * w` for every tap that is not on padding: taps in row-major order, within a tap the input channels.
    fn each_product(&self, at: &Position, mut visit: impl FnMut(f64)) {
        self.assert_inside(at);
        let (problem, axes) = (self.problem, self.problem.spatial());
        let kernel: Vec<u64> = axes.iter().map(|axis| axis.kernel).collect();
        let taps = length(&kernel);
        let image = Image::input(problem);
        let channels = problem.in_channels_per_group();
        let first_channel = at.channel / problem.out_channels_per_group() * channels;
        for tap in 0..taps {
            let Some(spatial) = tapped(axes, &at.spatial, &coordinates(&kernel, tap)) else {
                continue;
            };
            let pixel = row_major(&image.sizes, &spatial);
            for ic in 0..channels {
                let x = self.data.input[usize_of(image.index(at.n, first_channel + ic, pixel))];
                let w = self.data.weights[usize_of((at.channel * channels + ic) * taps + tap)];
                visit(f64::from(x) * f64::from(w));
            }
        }
    }

    fn assert_inside(&self, at: &Position) {
        let axes = self.problem.spatial();
        let inside = at.n < self.batch
            && at.channel < self.problem.out_channels()
            && at.spatial.len() == axes.len()
            && at.spatial.iter().zip(axes).all(|(o, axis)| *o < axis.output());
        assert!(inside, "{at:?} is outside {:?}", self.problem.output_shape(self.batch));
    }
}

/// The flat index of a position of the input tensor.
pub fn input_index(problem: &ConvProblem, at: &Position) -> u64 {
    Image::input(problem).flatten(at)
}

/// The flat index of a position of the output tensor.
pub fn output_index(problem: &ConvProblem, at: &Position) -> u64 {
    Image::output(problem).flatten(at)
}

/// The position of a flat index of the input tensor.
pub fn input_position(problem: &ConvProblem, index: u64) -> Position {
    Image::input(problem).unflatten(index)
}

/// The position of a flat index of the output tensor.
pub fn output_position(problem: &ConvProblem, index: u64) -> Position {
    Image::output(problem).unflatten(index)
}

/// How one image of the input or the output lies in memory.
struct Image {
    layout: Layout,
    channels: u64,
    sizes: Vec<u64>,
    pixels: u64,
}

impl Image {
    fn input(problem: &ConvProblem) -> Self {
        let sizes = problem.spatial().iter().map(|axis| axis.input).collect();
        Self::new(problem.layout(), problem.in_channels(), sizes)
    }

    fn output(problem: &ConvProblem) -> Self {
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

/// Where a tap of an output lands in the input, or nothing if it lands on padding.
fn tapped(axes: &[SpatialAxis], output: &[u64], tap: &[u64]) -> Option<Vec<u64>> {
    let mut input = Vec::with_capacity(axes.len());
    for ((axis, o), k) in axes.iter().zip(output).zip(tap) {
        let i = i128::from(o * axis.stride + k * axis.dilation) - i128::from(axis.pad_before);
        input.push(u64::try_from(i).ok().filter(|i| *i < axis.input)?);
    }
    Some(input)
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
        // Two groups of two input channels and one output channel; channels last: pixels (1,2,3,4) and (5,6,7,8).
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
            assert_eq!(by_last.output_at_flat(i), by_first.output_at(&at), "{at:?}");
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
        let at = output_position(&problem, 3);
        assert_eq!((reference.sum_at(&at), reference.magnitude_at(&at)), (-6., 14.));
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
    #[should_panic(expected = "is outside [1, 2, 1]")]
    fn a_position_outside_panics() {
        let problem: ConvProblem = "conv1d ic1 oc1 iw3 kw2".parse().unwrap();
        let data = ConvData { input: &[0.; 3], weights: &[0.; 2], bias: None, extras: &[] };
        let at = Position { n: 0, channel: 0, spatial: vec![2] };
        Reference::new(&problem, 1, data).unwrap().output_at(&at);
    }
}
