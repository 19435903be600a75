//! The unchecked description of a convolution, and the arithmetic of one spatial axis.
//!
//! Promises: setters never fail and never panic; whatever they were given is judged by
//! [`ConvProblem::new`](super::ConvProblem::new). Axis arithmetic saturates instead of overflowing.

use crate::elem::{ElemType, Layout};
use crate::epilogue::EpilogueOp;

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
    /// Zeros before the first input position; negative drops input positions.
    pub pad_before: i64,
    /// Zeros after the last input position; negative drops input positions.
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

    /// Output size: the number of window positions inside the padded input. Zero on an axis that fits none, which no
    /// validated problem has.
    pub fn output(&self) -> u64 {
        let slack = self.padded_input() - i128::from(self.extent());
        if slack < 0 || self.stride == 0 {
            return 0;
        }
        u64::try_from(slack / i128::from(self.stride)).unwrap_or(u64::MAX).saturating_add(1)
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
    /// Whether a bias is added, one value an output channel.
    pub bias: bool,
    /// What happens to each sum, in order.
    pub epilogue: Vec<EpilogueOp>,
    /// A setter was given neither one value nor one an axis; the first such call is refused by [`ConvProblem::new`](super::ConvProblem::new).
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
            elem: ElemType::F32,
            layout: Layout::ChannelsLast,
            batch: 1,
            groups: 1,
            in_channels,
            out_channels,
            spatial,
            bias: false,
            epilogue: Vec::new(),
            misfit: None,
        }
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
