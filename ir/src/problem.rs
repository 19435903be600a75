//! What is to be computed: one convolution, validated on construction.
//!
//! ```text
//! output[n, oc, o] = epilogue( bias[oc] + sum over ic in 0..IC/G, k:
//!                    input[n, g*IC/G + ic, o*stride - pad_before + k*dilation] * weights[oc, ic, k] )
//! ```
//! with `g = oc / (OC/G)`, `o` and `k` tuples of 1 to 3 spatial coordinates, and input outside its
//! bounds read as its [`PaddingMode`] says. The other [`Direction`]s compute an adjoint of this
//! map; their problems hold the sizes of the forward convolution. With `flip` the weights are read
//! at `kernel - 1 - k`.
//!
//! Promises: every [`ConvProblem`] has at least one output position on each axis, groups that
//! divide both channel counts, finite epilogue parameters, and element and multiply-add counts that
//! fit the limits below, so no index computed from it overflows an `i64`. A refusal names the field
//! and the numbers.
//!
//! Does not: know a machine, hold data, or say how to compute. Padding may be negative (it crops
//! the input) and may exceed the kernel; a batch may be empty. Padding that is made of the input is
//! at most what the mode finds in it; whatever is cropped on the other side is still there to be
//! found. An adjoint of such padding, which adds several positions up to one, is refused.

mod check;
mod descriptor;
mod error;
mod spec;
mod words;

use self::check::{check_axis, check_channels, check_elements, check_padding, checked_product};
pub use self::descriptor::{
    Descriptor, DescriptorError, DescriptorErrorKind, Driver, parse_list, parse_list_as,
};
pub use self::error::ProblemError;
use self::spec::Misfit;
pub use self::spec::{ConvSpec, Direction, SpatialAxis};
use self::words::axis_words;
use crate::elem::{ElemType, Layout};
use crate::epilogue::{EpilogueOp, ExtraArg};
use crate::padding::PaddingMode;

/// The most spatial dimensions a problem has.
pub const MAX_RANK: usize = 3;
/// Bound on every size, stride, dilation, channel count, group count and batch.
pub const MAX_SIZE: u64 = 1 << 31;
/// Bound on the absolute value of each padding.
pub const MAX_PADDING: i64 = 1 << 24;
/// Each tensor has fewer elements than this.
pub const MAX_ELEMENTS: u64 = 1 << 40;
/// The most operations of an epilogue: several times those of any network.
pub const MAX_EPILOGUE: usize = 16;
/// A problem has fewer multiply-adds than this.
pub const MAX_MACS: u64 = 1 << 62;

/// A legal convolution. Only [`ConvProblem::new`] and the descriptor parsers make one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct ConvProblem {
    spec: ConvSpec,
}

impl ConvProblem {
    /// Checks every promise of the module header.
    pub fn new(spec: ConvSpec) -> Result<Self, ProblemError> {
        let rank = spec.spatial.len();
        if rank == 0 || rank > MAX_RANK {
            return Err(ProblemError::Rank { given: rank });
        }
        if let Some(Misfit { field, given }) = spec.misfit {
            return Err(ProblemError::AxisValues { field, given, rank });
        }
        check_channels(&spec)?;
        for (axis, words) in spec.spatial.iter().zip(axis_words(rank)) {
            check_axis(axis, &words.of(spec.direction))?;
        }
        let (given, limit) = (spec.epilogue.len(), MAX_EPILOGUE);
        if given > limit {
            return Err(ProblemError::LongEpilogue { given, limit });
        }
        for op in &spec.epilogue {
            op.validate()?;
        }
        let problem = Self { spec };
        problem.check_direction()?;
        for (axis, words) in problem.spatial().iter().zip(axis_words(rank)) {
            check_padding(axis, words.padding, problem.padding_mode())?;
        }
        problem.check_counts()?;
        Ok(problem)
    }

    /// What is computed. The other methods describe the forward convolution that this is a
    /// direction of, but for the shapes: those are of what is read and written.
    pub fn direction(&self) -> Direction {
        self.spec.direction
    }

    /// Whether the kernel is flipped along every axis.
    pub fn flip(&self) -> bool {
        self.spec.flip
    }

    /// The type of every tensor element.
    pub fn elem(&self) -> ElemType {
        self.spec.elem
    }

    /// The order of the input's and the output's dimensions.
    pub fn layout(&self) -> Layout {
        self.spec.layout
    }

    /// Images at a time; may be 0.
    pub fn batch(&self) -> u64 {
        self.spec.batch
    }

    /// Independent slices of the channels.
    pub fn groups(&self) -> u64 {
        self.spec.groups
    }

    /// Input channels of all groups together.
    pub fn in_channels(&self) -> u64 {
        self.spec.in_channels
    }

    /// Output channels of all groups together.
    pub fn out_channels(&self) -> u64 {
        self.spec.out_channels
    }

    /// The spatial axes, outermost first.
    pub fn spatial(&self) -> &[SpatialAxis] {
        &self.spec.spatial
    }

    /// What the positions that padding adds to the input hold.
    pub fn padding_mode(&self) -> PaddingMode {
        self.spec.padding_mode
    }

    /// Whether some tap of some output falls outside the input.
    pub fn reads_padding(&self) -> bool {
        self.spatial().iter().any(|axis| axis.reads_padding(axis.output()))
    }

    /// Whether padding that is read is made of the input.
    pub fn extends_input(&self) -> bool {
        self.padding_mode() != PaddingMode::Zeros && self.reads_padding()
    }

    /// Whether a bias is added, one value a channel of the output.
    pub fn bias(&self) -> bool {
        self.spec.bias
    }

    /// What happens to each sum, in order.
    pub fn epilogue(&self) -> &[EpilogueOp] {
        &self.spec.epilogue
    }

    /// The number of spatial dimensions, 1 to 3.
    pub fn rank(&self) -> usize {
        self.spec.spatial.len()
    }

    /// The letters of the spatial axes, outermost first.
    pub fn axis_names(&self) -> &'static [&'static str] {
        &["d", "h", "w"][MAX_RANK - self.rank()..]
    }

    /// Input channels one output channel reads.
    pub fn in_channels_per_group(&self) -> u64 {
        self.in_channels() / self.groups()
    }

    /// Output channels that read the same input channels.
    pub fn out_channels_per_group(&self) -> u64 {
        self.out_channels() / self.groups()
    }

    /// Whether every group has one input channel, and there is more than one group.
    pub fn is_depthwise(&self) -> bool {
        self.groups() > 1 && self.in_channels_per_group() == 1
    }

    /// The taps of the kernel, over all spatial axes, of one pair of channels.
    pub fn taps(&self) -> u64 {
        self.spatial().iter().map(|axis| axis.kernel).product()
    }

    /// Multiply-adds of the formula over the whole batch, in whatever direction; taps on padding
    /// count. The gradient of the bias counts one an element it adds.
    pub fn macs(&self) -> u64 {
        let outputs: u64 = self.spatial().iter().map(SpatialAxis::output).product();
        let sums = self.batch() * self.out_channels() * outputs;
        match self.direction() {
            Direction::Forward
            | Direction::Transposed
            | Direction::BackwardData
            | Direction::BackwardWeights => sums * self.in_channels_per_group() * self.taps(),
            Direction::BackwardBias => sums,
        }
    }

    /// Floating-point operations: two a multiply-add.
    pub fn flops(&self) -> u64 {
        2 * self.macs()
    }

    /// Bytes that a call has to move whatever its algorithm: what it reads (input, weights, bias,
    /// and what a gradient or the epilogue takes) and what it writes, each once.
    pub fn traffic_bytes(&self) -> u64 {
        let count = |shape: Vec<u64>| shape.iter().product::<u64>();
        let batch = self.batch();
        let bias = if self.bias() { self.result_channels() } else { 0 };
        let extras: u64 = self.extra_shapes(batch).into_iter().map(|(_, shape)| count(shape)).sum();
        let read = count(self.input_shape(batch)) + count(self.weights_shape()) + bias + extras;
        (read + count(self.output_shape(batch))) * self.elem().bytes() as u64
    }

    /// The dimensions of what is read besides the weights, for this batch, in the layout's order:
    /// `x`, or `dy` where a gradient is read alone.
    pub fn input_shape(&self, batch: u64) -> Vec<u64> {
        match self.direction() {
            Direction::Forward | Direction::BackwardWeights => self.x_shape(batch),
            Direction::Transposed | Direction::BackwardData | Direction::BackwardBias => {
                self.y_shape(batch)
            }
        }
    }

    /// The dimensions of what is written, for this batch; activations in the layout's order.
    pub fn output_shape(&self, batch: u64) -> Vec<u64> {
        match self.direction() {
            Direction::Forward => self.y_shape(batch),
            Direction::Transposed | Direction::BackwardData => self.x_shape(batch),
            Direction::BackwardWeights => self.kernel_shape(),
            Direction::BackwardBias => vec![self.out_channels()],
        }
    }

    /// The dimensions of the weights as the user holds them: output channels, input channels a
    /// group, kernel (of the forward convolution, so a transposed one has its input channels
    /// first). Without dimensions, and without elements, where none are read.
    pub fn weights_shape(&self) -> Vec<u64> {
        match self.direction() {
            Direction::Forward | Direction::Transposed | Direction::BackwardData => {
                self.kernel_shape()
            }
            Direction::BackwardWeights | Direction::BackwardBias => vec![0],
        }
    }

    /// The dimensions of the gradient that is read besides `x`, for this batch: only where the
    /// gradient of the weights is computed.
    pub fn gradient_shape(&self, batch: u64) -> Option<Vec<u64>> {
        match self.direction() {
            Direction::BackwardWeights => Some(self.y_shape(batch)),
            Direction::Forward
            | Direction::Transposed
            | Direction::BackwardData
            | Direction::BackwardBias => None,
        }
    }

    /// What a call reads besides input, weights and bias, in order, each with its dimensions for
    /// this batch: the gradient, or what the epilogue takes.
    pub fn extra_shapes(&self, batch: u64) -> Vec<(&'static str, Vec<u64>)> {
        let gradient = self.gradient_shape(batch).map(|shape| ("gradient", shape));
        let extras = self.epilogue().iter().filter_map(EpilogueOp::takes_extra);
        let extras = extras.map(|extra| match extra {
            ExtraArg::Residual => ("residual", self.output_shape(batch)),
            ExtraArg::ChannelScale => ("scale", vec![self.result_channels()]),
        });
        gradient.into_iter().chain(extras).collect()
    }

    /// Channels of what is written: the length of the bias and of channel scales.
    pub fn result_channels(&self) -> u64 {
        match self.direction() {
            Direction::Forward | Direction::BackwardWeights | Direction::BackwardBias => {
                self.out_channels()
            }
            Direction::Transposed | Direction::BackwardData => self.in_channels(),
        }
    }

    /// The dimensions of `x` of the forward convolution.
    fn x_shape(&self, batch: u64) -> Vec<u64> {
        self.activation_shape(batch, self.in_channels(), |axis| axis.input)
    }

    /// The dimensions of `y` of the forward convolution.
    fn y_shape(&self, batch: u64) -> Vec<u64> {
        self.activation_shape(batch, self.out_channels(), SpatialAxis::output)
    }

    /// The dimensions of the weights, read or written.
    fn kernel_shape(&self) -> Vec<u64> {
        let channels = [self.out_channels(), self.in_channels_per_group()];
        channels.into_iter().chain(self.spatial().iter().map(|axis| axis.kernel)).collect()
    }

    /// The same problem over another batch.
    pub fn with_batch(&self, batch: u64) -> Result<Self, ProblemError> {
        Self::new(self.to_spec().batch(batch))
    }

    /// The same problem over another layout.
    pub fn with_layout(&self, layout: Layout) -> Self {
        Self { spec: self.to_spec().layout(layout) }
    }

    /// The same sizes in another direction. A gradient is that of the sum: bias and epilogue are
    /// left out.
    ///
    /// # Errors
    /// [`ProblemError`] if the sizes that are then written exceed a limit.
    pub fn with_direction(&self, direction: Direction) -> Result<Self, ProblemError> {
        let spec = self.to_spec().direction(direction);
        Self::new(match direction.is_gradient() {
            true => spec.bias(false).epilogue([]),
            false => spec,
        })
    }

    /// The plain description, to derive another problem from.
    pub fn to_spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn activation_shape(
        &self,
        batch: u64,
        channels: u64,
        size: impl Fn(&SpatialAxis) -> u64,
    ) -> Vec<u64> {
        let spatial = self.spatial().iter().map(size);
        match self.layout() {
            Layout::ChannelsFirst => [batch, channels].into_iter().chain(spatial).collect(),
            Layout::ChannelsLast => [batch].into_iter().chain(spatial).chain([channels]).collect(),
        }
    }

    fn check_direction(&self) -> Result<(), ProblemError> {
        let direction = self.direction();
        let adjoint = match direction {
            Direction::Transposed => self.padding_mode() != PaddingMode::Zeros,
            Direction::BackwardData => self.extends_input(),
            Direction::Forward | Direction::BackwardWeights | Direction::BackwardBias => false,
        };
        if adjoint {
            let (mode, direction) = (self.padding_mode(), direction.name());
            return Err(ProblemError::Folded { mode, direction });
        }
        let field = match (self.bias(), self.epilogue().is_empty()) {
            (true, _) => "bias",
            (false, false) => "epilogue",
            (false, true) => return Ok(()),
        };
        match direction.is_gradient() {
            true => Err(ProblemError::Gradient { direction: direction.name(), field }),
            false => Ok(()),
        }
    }

    fn check_counts(&self) -> Result<(), ProblemError> {
        // A kernel serves any batch, so an empty one excuses no image that is too large.
        let images = self.batch().max(1);
        let (x, y) = match self.direction() {
            Direction::Transposed => ("output", "input"),
            Direction::Forward
            | Direction::BackwardData
            | Direction::BackwardWeights
            | Direction::BackwardBias => ("input", "output"),
        };
        check_elements(x, self.x_shape(images))?;
        check_elements("weights", self.kernel_shape())?;
        check_elements(y, self.y_shape(images))?;
        let mut factors = self.y_shape(images);
        factors.extend(&self.kernel_shape()[1..]);
        match checked_product(&factors) {
            Some(macs) if macs < MAX_MACS => Ok(()),
            Some(_) | None => Err(ProblemError::TooManyMacs { factors, limit: MAX_MACS }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(spec: ConvSpec) -> String {
        ConvProblem::new(spec).unwrap_err().to_string()
    }

    #[test]
    fn a_strided_grouped_problem_counts_right() {
        let spec = ConvSpec::conv2d(128, 256, 56, 28, 3, 5).groups(32).stride(&[2, 1]).batch(3);
        let problem = ConvProblem::new(spec.padding(&[1, 2])).unwrap();
        assert_eq!((problem.in_channels_per_group(), problem.out_channels_per_group()), (4, 8));
        assert_eq!(problem.output_shape(3), [3, 28, 28, 256]);
        assert_eq!(problem.input_shape(1), [1, 56, 28, 128]);
        assert_eq!(problem.weights_shape(), [256, 4, 3, 5]);
        assert_eq!(problem.macs(), 3 * 28 * 28 * 256 * 4 * 15);
        assert_eq!(problem.flops(), 2 * problem.macs());
        let first = problem.with_layout(Layout::ChannelsFirst);
        assert_eq!(first.output_shape(3), [3, 256, 28, 28]);
        assert!(!problem.is_depthwise());
    }

    #[test]
    fn everything_read_and_written_is_traffic() {
        let bytes = |text: &str| text.parse::<ConvProblem>().unwrap().traffic_bytes();
        assert_eq!(bytes("conv1d n2 ic3 oc5 iw9 kw3"), 4 * (2 * 9 * 3 + 5 * 3 * 3 + 2 * 7 * 5));
        let (output, channels) = (2 * 7 * 5, 5);
        let more = bytes("conv1d n2 ic3 oc5 iw9 kw3 bias | add | scale");
        assert_eq!(more - bytes("conv1d n2 ic3 oc5 iw9 kw3"), 4 * (output + 2 * channels));
        let gradient = bytes("conv1d n2 ic3 oc5 iw9 kw3 bwd_w");
        assert_eq!(gradient, bytes("conv1d n2 ic3 oc5 iw9 kw3"));
    }

    #[test]
    fn axes_are_named_by_rank() {
        let one = ConvProblem::new(ConvSpec::conv1d(1, 1, 5, 2)).unwrap();
        let three = ConvProblem::new(ConvSpec::conv3d(1, 1, [5; 3], [2; 3])).unwrap();
        assert_eq!(one.axis_names(), ["w"]);
        assert_eq!(three.axis_names(), ["d", "h", "w"]);
    }

    #[test]
    fn padding_may_crop_and_may_exceed_the_kernel() {
        let spec = ConvSpec::conv1d(1, 1, 10, 3).padding_sides(&[(-2, 7)]);
        assert_eq!(ConvProblem::new(spec).unwrap().spatial()[0].output(), 13);
    }

    #[test]
    fn an_empty_batch_is_legal() {
        let problem = ConvProblem::new(ConvSpec::conv1d(1, 1, 10, 3).batch(0)).unwrap();
        assert_eq!((problem.macs(), problem.output_shape(0)), (0, vec![0, 8, 1]));
    }

    #[test]
    fn depthwise_with_a_multiplier_is_depthwise() {
        let problem = ConvProblem::new(ConvSpec::conv1d(8, 16, 10, 3).groups(8)).unwrap();
        assert!(problem.is_depthwise());
    }

    #[test]
    fn refusals_name_the_field_and_the_numbers() {
        let base = || ConvSpec::conv2d(6, 8, 5, 5, 3, 3);
        assert_eq!(refusal(base().groups(4)), "ic is 6, which g 4 does not divide");
        assert_eq!(refusal(base().groups(3)), "oc is 8, which g 3 does not divide");
        assert_eq!(refusal(base().groups(0)), "g is 0, expected at least 1");
        assert_eq!(refusal(base().stride(&[1, 0])), "sw is 0, expected at least 1");
        assert_eq!(refusal(base().dilation(&[0])), "dh is 0, expected at least 1");
        assert_eq!(
            refusal(base().dilation(&[1, 4]).padding(&[0, 1])),
            "kw is 3 with dilation 4, an extent of 9, but 5 input positions with padding 1:1 are 7"
        );
        assert_eq!(
            refusal(base().padding(&[-(1 << 25)])),
            "ph is -33554432, expected -16777216 to 16777216"
        );
        assert_eq!(refusal(base().stride(&[1, 2, 3])), "stride has 3 values, expected 1 or 2");
        assert_eq!(
            refusal(base().epilogue([EpilogueOp::Relu; MAX_EPILOGUE + 1])),
            "the epilogue has 17 operations, at most 16 are fused"
        );
        assert!(ConvProblem::new(base().epilogue([EpilogueOp::GeluTanh; MAX_EPILOGUE])).is_ok());
        assert_eq!(
            refusal(base().epilogue([EpilogueOp::Clamp { lo: 2.0, hi: 1.0 }])),
            "clamp has bounds 2 > 1"
        );
        assert_eq!(refusal(ConvSpec::new(1, 1, vec![])), "0 spatial axes, expected 1 to 3");
    }

    #[test]
    fn sizes_at_the_limits() {
        let long = |iw| ConvSpec::conv1d(1, 1, iw, 1);
        assert!(ConvProblem::new(long(MAX_SIZE)).is_ok());
        assert_eq!(refusal(long(MAX_SIZE + 1)), "iw is 2147483649, expected at most 2147483648");
        assert!(refusal(long(u64::MAX)).starts_with("iw is 18446744073709551615"));
        let wide = ConvSpec::conv1d(1 << 30, 1, 1 << 10, 1);
        assert_eq!(
            refusal(wide),
            "input of shape [1, 1024, 1073741824] has too many elements, expected fewer than 1099511627776"
        );
        let padded = ConvSpec::conv2d(1, 1 << 19, 1 << 10, 1 << 10, 1, 1).padding(&[512, 0]);
        assert!(refusal(padded).starts_with("output of shape [1, 2048, 1024, 524288]"));
        let busiest = ConvSpec::conv1d(1, 1, 1 << 31, 1 << 31).padding(&[1 << 24]).batch(256);
        assert_eq!(
            refusal(busiest),
            "[256, 33554433, 1, 1, 2147483648] are too many multiply-adds, expected fewer than 4611686018427387904"
        );
    }

    #[test]
    fn a_transposed_convolution_has_the_sizes_of_the_forward_one() {
        let read = |text: &str| text.parse::<ConvProblem>().unwrap();
        let problem = read("deconv2d ic64 oc3 ih16 iw16 kh4 kw4 sh2 sw2 ph1 pw1 bias");
        assert_eq!(problem.input_shape(1), [1, 16, 16, 64]);
        assert_eq!(problem.output_shape(1), [1, 32, 32, 3]);
        assert_eq!(problem.weights_shape(), [64, 3, 4, 4]);
        assert_eq!((problem.result_channels(), problem.in_channels()), (3, 3));
        let padded = read("deconv1d ic2 oc1 iw5 ow11 kw2 sw2");
        assert_eq!(padded.to_string(), "deconv1d f32 nhwc n1 ic2 oc1 iw5 ow11 kw2 sw2");
        let beyond = read("deconv1d ic2 oc1 iw5 ow13 kw2 sw2");
        assert_eq!(beyond.to_string(), "deconv1d f32 nhwc n1 ic2 oc1 iw5 ow13 kw2 sw2 pw0:-2");
        assert_eq!(read(&beyond.to_string()), beyond);
        let error = "deconv1d ic3 oc1 iw5 kw2 g3".parse::<ConvProblem>().unwrap_err().to_string();
        assert_eq!(error, "column 14: oc is 1, which g 3 does not divide");
    }

    #[test]
    fn directions_have_shapes_of_their_own() {
        let forward: ConvProblem = "conv2d n2 ic6 oc8 g2 ih9 iw9 kh3 kw3 sh2 sw2".parse().unwrap();
        let of = |direction| forward.with_direction(direction).unwrap();
        let data = of(Direction::BackwardData);
        assert_eq!(
            (data.input_shape(2), data.output_shape(2)),
            (vec![2, 4, 4, 8], vec![2, 9, 9, 6])
        );
        let weights = of(Direction::BackwardWeights);
        assert_eq!(weights.output_shape(2), [8, 3, 3, 3]);
        assert_eq!(weights.gradient_shape(2), Some(vec![2, 4, 4, 8]));
        assert_eq!(of(Direction::BackwardBias).output_shape(2), [8]);
        let text = weights.to_string();
        assert_eq!(text, "conv2d f32 nhwc n2 g2 ic6 oc8 ih9 iw9 kh3 kw3 sh2 sw2 bwd_w");
        assert_eq!(text.parse(), Ok(weights));
        let biased = ConvSpec::conv1d(1, 1, 5, 2).bias(true).direction(Direction::BackwardData);
        assert_eq!(refusal(biased), "bwd_d is a plain sum and has no bias");
    }

    #[test]
    fn modes_of_padding() {
        let padding = |spec: ConvSpec| {
            let axis = ConvProblem::new(spec).unwrap().spatial()[0];
            (axis.pad_before, axis.pad_after, axis.output())
        };
        assert_eq!(padding(ConvSpec::conv1d(1, 1, 7, 3).full()), (2, 2, 9));
        assert_eq!(padding(ConvSpec::conv1d(1, 1, 7, 4).same()), (1, 2, 7));
        assert_eq!(padding(ConvSpec::conv1d(1, 1, 7, 3).stride(&[2]).same()), (1, 1, 4));
        assert_eq!(padding(ConvSpec::conv1d(1, 1, 7, 3).dilation(&[2]).causal()), (4, 0, 7));
    }

    #[test]
    fn serde_goes_through_the_descriptor() {
        let problem = ConvProblem::new(ConvSpec::conv1d(3, 4, 9, 3).bias(true)).unwrap();
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(text, format!("\"{problem}\""));
        assert_eq!(serde_json::from_str::<ConvProblem>(&text).unwrap(), problem);
    }
}
