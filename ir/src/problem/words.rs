//! What the fields of a problem are called, in descriptors and in messages.

use super::{Direction, MAX_RANK};

/// What the padding mode is called in messages.
pub(super) const PADDING_MODE: &str = "padding mode";

/// The descriptor's words for the fields of one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisWords {
    pub(super) input: &'static str,
    pub(super) output: &'static str,
    pub(super) kernel: &'static str,
    pub(super) stride: &'static str,
    pub(super) dilation: &'static str,
    pub(super) padding: &'static str,
}

impl AxisWords {
    /// A transposed convolution reads what the forward one writes, and says so.
    pub(super) fn of(self, direction: Direction) -> AxisWords {
        match direction {
            Direction::Transposed => AxisWords { input: self.output, output: self.input, ..self },
            Direction::Forward
            | Direction::BackwardData
            | Direction::BackwardWeights
            | Direction::BackwardBias => self,
        }
    }
}

pub(super) const AXIS_WORDS: [AxisWords; MAX_RANK] = [
    AxisWords {
        input: "id",
        output: "od",
        kernel: "kd",
        stride: "sd",
        dilation: "dd",
        padding: "pd",
    },
    AxisWords {
        input: "ih",
        output: "oh",
        kernel: "kh",
        stride: "sh",
        dilation: "dh",
        padding: "ph",
    },
    AxisWords {
        input: "iw",
        output: "ow",
        kernel: "kw",
        stride: "sw",
        dilation: "dw",
        padding: "pw",
    },
];

/// The words of a problem with `rank <= MAX_RANK` axes, outermost first.
pub(super) fn axis_words(rank: usize) -> &'static [AxisWords] {
    &AXIS_WORDS[MAX_RANK - rank..]
}
