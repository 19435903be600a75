//! The unchecked description of a convolution, and the arithmetic of one spatial axis.
//!
//! Promises: setters never fail and never panic; whatever they were given is judged by
//! [`ConvProblem::new`](super::ConvProblem::new). Axis arithmetic saturates instead of overflowing.

use crate::elem::{ElemType, Layout};
use crate::epilogue::EpilogueOp;
use crate::every;
use crate::padding::PaddingMode;

/// One spatial dimension of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpatialAxis {
    /// Input size.
    pub input: u64,
    /// Kernel size: taps along this axis.
    pub kernel: u64,
    /// Input positions between neighbouring outputs.
    pub stride: u64,
    /// Input positions between neighbouring taps; 1 is dense.
    pub dilation: u64,
    /// Positions added before the first of the input; negative drops input positions.
    pub pad_before: i64,
    /// Positions added after the last of the input; negative drops input positions.
    pub pad_after: i64,
}

impl SpatialAxis {
    /// A dense, unpadded axis of stride 1.
    pub fn new(input: u64, kernel: u64) -> Self {
        Self { input, kernel, stride: 1, dilation: 1, pad_before: 0, pad_after: 0 }
    }

    /// Input positions between the first and the last tap, both included.
    pub fn extent(&self) -> u64 {
        self.kernel.saturating_sub(1).saturating_mul(self.dilation).saturating_add(1)
    }

    /// Input size with both paddings; not positive if the padding crops everything.
    pub fn padded_input(&self) -> i128 {
        i128::from(self.input) + i128::from(self.pad_before) + i128::from(self.pad_after)
    }

    /// Output size: the number of window positions inside the padded input. Zero on an axis that
    /// fits none, which no validated problem has.
    pub fn output(&self) -> u64 {
        let slack = self.padded_input() - i128::from(self.extent());
        if slack < 0 || self.stride == 0 {
            return 0;
        }
        u64::try_from(slack / i128::from(self.stride)).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Whether some tap of the first `outputs` outputs falls outside the input.
    pub fn reads_padding(&self, outputs: u64) -> bool {
        let first_taps = outputs.saturating_sub(1).saturating_mul(self.stride);
        let end = i128::from(first_taps.saturating_add(self.extent()));
        self.pad_before > 0 || end - i128::from(self.pad_before) > i128::from(self.input)
    }
}

impl SpatialAxis {
    /// The output size of a transposed convolution that reads that many positions, without output
    /// padding: what a forward one with as many outputs reaches. The `input` is not looked at.
    pub fn transposed_size(&self, read: u64) -> i128 {
        (i128::from(read) - 1) * i128::from(self.stride) + i128::from(self.extent())
            - i128::from(self.pad_before)
            - i128::from(self.pad_after)
    }

    /// Makes an axis whose `input` is what a transposed convolution reads one of the forward
    /// convolution, whose `input` is what the transposed one writes. A written size that is a
    /// stride or more beyond the last window, or falls short of it, moves the padding after, which
    /// computes the same.
    pub(super) fn transpose(&mut self, written: Option<u64>) {
        let read = self.input;
        let plain = self.transposed_size(read);
        let written = written.map_or(plain, i128::from);
        let stride = i128::from(self.stride.max(1));
        let beyond = (written - plain).div_euclid(stride) * stride;
        // A padding or a size beyond every limit is refused by `ConvProblem::new`.
        let after = i128::from(self.pad_after) - beyond;
        self.pad_after = i64::try_from(after).unwrap_or(i64::MAX);
        self.input = if read == 0 { 0 } else { u64::try_from(written).unwrap_or(0) };
    }
}

/// What is computed of a convolution `y = conv(x, w)`.
///
/// A convolution is linear in `x` and in `w`; the others are its adjoints, which are the gradients
/// of `<y, dy>` and, as an operation in its own right, the transposed convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// `y` from `x` and `w`.
    #[default]
    Forward,
    /// The adjoint as a layer: from a tensor of the shape of `y` and `w`, one of the shape of `x`.
    /// Written with the sizes of what it reads and writes (`deconv2d`); may have a bias and an
    /// epilogue.
    Transposed,
    /// `dx` from `dy` and `w`: what [`Direction::Transposed`] computes, as the gradient of `x`.
    BackwardData,
    /// `dw` from `x` and `dy`, summed over the batch.
    BackwardWeights,
    /// `db` from `dy`, summed over the batch and the positions.
    BackwardBias,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Direction; 5] =
        every!(Direction { Forward, Transposed, BackwardData, BackwardWeights, BackwardBias });

    /// The word in descriptors, also benchdnn's, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "fwd",
            Direction::Transposed => "transposed",
            Direction::BackwardData => "bwd_d",
            Direction::BackwardWeights => "bwd_w",
            Direction::BackwardBias => "bwd_b",
        }
    }

    /// The direction with that name.
    pub fn from_name(name: &str) -> Option<Direction> {
        Direction::ALL.into_iter().find(|direction| direction.name() == name)
    }

    /// Whether it is a gradient: a plain sum, without bias or epilogue.
    pub fn is_gradient(self) -> bool {
        match self {
            Direction::Forward | Direction::Transposed => false,
            Direction::BackwardData | Direction::BackwardWeights | Direction::BackwardBias => true,
        }
    }
}

/// The unchecked description of a convolution: plain data on the way to
/// [`ConvProblem::new`](super::ConvProblem::new).
///
/// ```
/// use convgen_ir::problem::{ConvProblem, ConvSpec};
/// let spec = ConvSpec::conv2d(64, 128, 56, 56, 3, 3).stride(&[2]).padding(&[1]).bias(true);
/// let problem = ConvProblem::new(spec)?;
/// assert_eq!(problem.output_shape(1), [1, 28, 28, 128]);
/// # Ok::<(), convgen_ir::problem::ProblemError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvSpec {
    /// What is computed. All other fields describe the forward convolution `y = conv(x, w)`, also
    /// of a transposed one, whose input is `y` and whose output is `x`.
    pub direction: Direction,
    /// Whether the kernel is flipped along every axis: true convolution, in place of the
    /// cross-correlation that the field calls convolution.
    pub flip: bool,
    /// The type of every tensor element.
    pub elem: ElemType,
    /// The order of the input's and the output's dimensions.
    pub layout: Layout,
    /// Images at a time; may be 0.
    pub batch: u64,
    /// Independent slices of the channels.
    pub groups: u64,
    /// Input channels of all groups together.
    pub in_channels: u64,
    /// Output channels of all groups together.
    pub out_channels: u64,
    /// The spatial axes, outermost first: `w`, `h w` or `d h w`.
    pub spatial: Vec<SpatialAxis>,
    /// What the positions added to the input hold.
    pub padding_mode: PaddingMode,
    /// Whether a bias is added, one value an output channel.
    pub bias: bool,
    /// What happens to each sum, in order.
    pub epilogue: Vec<EpilogueOp>,
    /// A setter was given neither one value nor one an axis; the first such call is refused by
    /// [`ConvProblem::new`](super::ConvProblem::new).
    pub(super) misfit: Option<Misfit>,
}

/// A setter's name and how many values it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Misfit {
    pub(super) field: &'static str,
    pub(super) given: usize,
}

impl ConvSpec {
    /// Batch 1, one group, f32, channels last, no bias, no epilogue.
    pub fn new(in_channels: u64, out_channels: u64, spatial: Vec<SpatialAxis>) -> Self {
        Self {
            direction: Direction::Forward,
            flip: false,
            elem: ElemType::F32,
            layout: Layout::ChannelsLast,
            batch: 1,
            groups: 1,
            in_channels,
            out_channels,
            spatial,
            padding_mode: PaddingMode::Zeros,
            bias: false,
            epilogue: Vec::new(),
            misfit: None,
        }
    }

    /// A transposed convolution. Each axis holds the size that is read as its `input`; the output
    /// goes on for `output_padding` positions (none, one value for all axes, or one an axis) beyond
    /// the last window.
    ///
    /// ```
    /// use convgen_ir::problem::{ConvProblem, ConvSpec, SpatialAxis};
    /// let axis = SpatialAxis { stride: 2, pad_before: 1, pad_after: 1, ..SpatialAxis::new(16, 4) };
    /// let problem = ConvProblem::new(ConvSpec::transposed(64, 3, vec![axis; 2], &[0]))?;
    /// assert_eq!(problem.output_shape(1), [1, 32, 32, 3]);
    /// assert_eq!(problem.weights_shape(), [64, 3, 4, 4]);
    /// # Ok::<(), convgen_ir::problem::ProblemError>(())
    /// ```
    pub fn transposed(
        in_channels: u64,
        out_channels: u64,
        mut axes: Vec<SpatialAxis>,
        output_padding: &[u64],
    ) -> Self {
        let rank = axes.len();
        for (i, axis) in axes.iter_mut().enumerate() {
            let padding = output_padding.get(i).or(output_padding.first()).unwrap_or(&0);
            let written = axis.transposed_size(axis.input) + i128::from(*padding);
            // What is no size becomes 0, which no problem has.
            axis.transpose(Some(u64::try_from(written).unwrap_or(0)));
        }
        let mut spec = Self::new(out_channels, in_channels, axes);
        spec.direction = Direction::Transposed;
        let given = output_padding.len();
        if given > 1 && given != rank {
            spec.misfit = Some(Misfit { field: "output_padding", given });
        }
        spec
    }

    /// One spatial dimension: input width, kernel width.
    pub fn conv1d(ic: u64, oc: u64, iw: u64, kw: u64) -> Self {
        Self::new(ic, oc, vec![SpatialAxis::new(iw, kw)])
    }

    /// Two spatial dimensions.
    pub fn conv2d(ic: u64, oc: u64, ih: u64, iw: u64, kh: u64, kw: u64) -> Self {
        Self::new(ic, oc, vec![SpatialAxis::new(ih, kh), SpatialAxis::new(iw, kw)])
    }

    /// Three spatial dimensions: input sizes and kernel sizes, depth first.
    pub fn conv3d(ic: u64, oc: u64, input: [u64; 3], kernel: [u64; 3]) -> Self {
        let axis = |i: usize| SpatialAxis::new(input[i], kernel[i]);
        Self::new(ic, oc, vec![axis(0), axis(1), axis(2)])
    }

    /// The stride: one value for all axes, or one an axis.
    pub fn stride(self, strides: &[u64]) -> Self {
        self.per_axis("stride", strides, |axis, stride| axis.stride = stride)
    }

    /// The dilation, 1 for dense: one value for all axes, or one an axis.
    pub fn dilation(self, dilations: &[u64]) -> Self {
        self.per_axis("dilation", dilations, |axis, dilation| axis.dilation = dilation)
    }

    /// The padding, the same on both sides: one value for all axes, or one an axis.
    pub fn padding(self, paddings: &[i64]) -> Self {
        self.per_axis("padding", paddings, |axis, padding| {
            axis.pad_before = padding;
            axis.pad_after = padding;
        })
    }

    /// The padding `(before, after)`: one pair for all axes, or one an axis.
    pub fn padding_sides(self, paddings: &[(i64, i64)]) -> Self {
        self.per_axis("padding", paddings, |axis, (before, after)| {
            axis.pad_before = before;
            axis.pad_after = after;
        })
    }

    /// What the positions that padding adds hold: zeros, or elements of the input.
    ///
    /// ```
    /// use convgen_ir::PaddingMode;
    /// use convgen_ir::problem::{ConvProblem, ConvSpec};
    /// let spec = ConvSpec::conv1d(1, 1, 8, 3).same().padding_mode(PaddingMode::Circular);
    /// let problem = ConvProblem::new(spec)?;
    /// assert_eq!(problem.to_string(), "conv1d f32 nhwc n1 ic1 oc1 iw8 kw3 pw1 circular");
    /// # Ok::<(), convgen_ir::problem::ProblemError>(())
    /// ```
    pub fn padding_mode(mut self, mode: PaddingMode) -> Self {
        self.padding_mode = mode;
        self
    }

    /// The number of groups.
    pub fn groups(mut self, groups: u64) -> Self {
        self.groups = groups;
        self
    }

    /// The batch.
    pub fn batch(mut self, batch: u64) -> Self {
        self.batch = batch;
        self
    }

    /// Whether a bias is added.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// What happens to each sum, in order.
    pub fn epilogue(mut self, epilogue: impl Into<Vec<EpilogueOp>>) -> Self {
        self.epilogue = epilogue.into();
        self
    }

    /// The layout of input and output.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// What is computed.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// Whether the kernel is flipped along every axis: true convolution.
    pub fn flip(mut self, flip: bool) -> Self {
        self.flip = flip;
        self
    }

    /// Padding `extent - 1` on both sides: every overlap of input and kernel gives an output, of
    /// length `m + (n-1)*dilation` for an input of `m` and a kernel of `n` at stride 1.
    pub fn full(self) -> Self {
        self.padded_by(|axis| {
            let all = i64::try_from(axis.extent() - 1).unwrap_or(i64::MAX);
            (all, all)
        })
    }

    /// The padding that gives `ceil(input / stride)` outputs; an odd zero goes after the input
    /// (ONNX's `SAME_UPPER`).
    pub fn same(self) -> Self {
        self.padded_by(|axis| {
            let outputs = i128::from(axis.input.div_ceil(axis.stride.max(1)));
            let reach = (outputs - 1) * i128::from(axis.stride) + i128::from(axis.extent());
            let total = (reach - i128::from(axis.input)).max(0);
            let side = |zeros: i128| i64::try_from(zeros).unwrap_or(i64::MAX);
            (side(total / 2), side(total - total / 2))
        })
    }

    /// Padding before only, so that no output depends on what comes after it: `extent - 1` zeros.
    pub fn causal(self) -> Self {
        self.padded_by(|axis| (i64::try_from(axis.extent() - 1).unwrap_or(i64::MAX), 0))
    }

    fn padded_by(mut self, padding: impl Fn(&SpatialAxis) -> (i64, i64)) -> Self {
        for axis in &mut self.spatial {
            (axis.pad_before, axis.pad_after) = padding(axis);
        }
        self
    }

    /// The element type.
    pub fn elem(mut self, elem: ElemType) -> Self {
        self.elem = elem;
        self
    }

    fn per_axis<T: Copy>(
        mut self,
        field: &'static str,
        values: &[T],
        set: impl Fn(&mut SpatialAxis, T),
    ) -> Self {
        let rank = self.spatial.len();
        if values.len() != 1 && values.len() != rank {
            self.misfit = self.misfit.or(Some(Misfit { field, given: values.len() }));
        }
        for (axis, &value) in self.spatial.iter_mut().zip(values.iter().cycle()) {
            set(axis, value);
        }
        self
    }
}
