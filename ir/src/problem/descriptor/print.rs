//! The canonical text of a problem: the order of the grammar, defaults left out.

use std::fmt;

use super::Descriptor;
use crate::padding::PaddingMode;
use crate::problem::words::axis_words;
use crate::problem::{ConvProblem, Direction, SpatialAxis};

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)?;
        match &self.name {
            Some(name) => write!(f, " \"{}\"", name.replace(['"', '\n', '\r'], " ")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConvProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (elem, layout) = (self.elem(), self.layout());
        let (kind, read, written, word) = match self.direction() {
            Direction::Transposed => ("deconv", self.out_channels(), self.in_channels(), None),
            Direction::Forward => ("conv", self.in_channels(), self.out_channels(), None),
            gradient @ (Direction::BackwardData
            | Direction::BackwardWeights
            | Direction::BackwardBias) => {
                ("conv", self.in_channels(), self.out_channels(), Some(gradient.name()))
            }
        };
        write!(f, "{kind}{}d {elem} {layout} n{}", self.rank(), self.batch())?;
        if self.groups() != 1 {
            write!(f, " g{}", self.groups())?;
        }
        write!(f, " ic{read} oc{written}")?;
        self.write_axes(f)?;
        if self.padding_mode() != PaddingMode::Zeros {
            write!(f, " {}", self.padding_mode())?;
        }
        if self.flip() {
            f.write_str(" flip")?;
        }
        if let Some(word) = word {
            write!(f, " {word}")?;
        }
        if self.bias() {
            f.write_str(" bias")?;
        }
        self.epilogue().iter().try_for_each(|op| write!(f, " | {op}"))
    }
}

impl ConvProblem {
    fn write_axes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = || self.spatial().iter().zip(axis_words(self.rank()));
        let transposed = self.direction() == Direction::Transposed;
        let read = |axis: &SpatialAxis| if transposed { axis.output() } else { axis.input };
        axes().try_for_each(|(axis, words)| write!(f, " {}{}", words.input, read(axis)))?;
        for (axis, words) in axes() {
            if transposed && axis.transposed_size(axis.output()) != i128::from(axis.input) {
                write!(f, " {}{}", words.output, axis.input)?;
            }
        }
        axes().try_for_each(|(axis, words)| write!(f, " {}{}", words.kernel, axis.kernel))?;
        for (axis, words) in axes().filter(|(axis, _)| axis.stride != 1) {
            write!(f, " {}{}", words.stride, axis.stride)?;
        }
        for (axis, words) in axes().filter(|(axis, _)| axis.dilation != 1) {
            write!(f, " {}{}", words.dilation, axis.dilation)?;
        }
        for (axis, words) in axes() {
            match (axis.pad_before, axis.pad_after) {
                (0, 0) => {}
                (before, after) if before == after => write!(f, " {}{before}", words.padding)?,
                (before, after) => write!(f, " {}{before}:{after}", words.padding)?,
            }
        }
        Ok(())
    }
}
