//! Reads the words of a descriptor, in any order, into a description to be judged.

use super::Descriptor;
use super::error::{DescriptorError, DescriptorErrorKind, error};
use super::text::{Given, Word, number, segments, words};
use crate::elem::{ElemType, Layout};
use crate::epilogue::{EpilogueError, EpilogueOp};
use crate::padding::PaddingMode;
use crate::problem::words::{AxisWords, PADDING_MODE, axis_words};
use crate::problem::{ConvProblem, ConvSpec, Direction, SpatialAxis};

pub(super) fn kind(word: &str) -> Option<(Direction, usize)> {
    match word {
        "conv1d" => Some((Direction::Forward, 1)),
        "conv2d" => Some((Direction::Forward, 2)),
        "conv3d" => Some((Direction::Forward, 3)),
        "deconv1d" => Some((Direction::Transposed, 1)),
        "deconv2d" => Some((Direction::Transposed, 2)),
        "deconv3d" => Some((Direction::Transposed, 3)),
        _ => None,
    }
}

pub(super) fn parse_words(
    text: &str,
    direction: Direction,
    rank: usize,
) -> Result<Descriptor, DescriptorError> {
    let (body, name) = split_name(text)?;
    let mut segments = segments(body);
    let head = segments.next().unwrap_or(Word { at: 0, text: "" });
    let mut reader = Reader::new(direction, rank);
    for word in words(head.text, head.at).skip(1) {
        reader.word(word)?;
    }
    for segment in segments {
        reader.epilogue_op(segment)?;
    }
    Ok(Descriptor { problem: reader.finish()?, name })
}

/// The state of reading our own form.
struct Reader<'a> {
    spec: ConvSpec,
    outputs: Vec<Option<u64>>,
    given: Given<'a>,
}

impl<'a> Reader<'a> {
    fn new(direction: Direction, rank: usize) -> Self {
        let spec = ConvSpec::new(0, 0, vec![SpatialAxis::new(0, 0); rank]).direction(direction);
        Self { spec, outputs: vec![None; rank], given: Given::default() }
    }

    fn word(&mut self, word: Word<'a>) -> Result<(), DescriptorError> {
        if let Some(elem) = ElemType::from_name(word.text) {
            self.spec.elem = elem;
            return self.given.note("element type", word.at);
        }
        if let Some(layout) = Layout::from_name(word.text) {
            self.spec.layout = layout;
            return self.given.note("layout", word.at);
        }
        if word.text == "bias" {
            self.spec.bias = true;
            return self.given.note("bias", word.at);
        }
        if word.text == "flip" {
            self.spec.flip = true;
            return self.given.note("flip", word.at);
        }
        if let Some(mode) = PaddingMode::from_name(word.text) {
            self.spec.padding_mode = mode;
            return self.given.note(PADDING_MODE, word.at);
        }
        if let Some(direction) = self.direction(word.text) {
            self.spec.direction = direction;
            return self.given.note("direction", word.at);
        }
        let letters = word.text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(word.text.len());
        let (field, text) = word.text.split_at(letters);
        let value = Word { at: word.at, text };
        if !self.number_field(field, value)? {
            let word_text = word.text.to_owned();
            return Err(error(word.at, DescriptorErrorKind::UnknownWord { word: word_text }));
        }
        self.given.note(field, word.at)
    }

    /// The direction a word states; a transposed convolution is a kind of its own.
    fn direction(&self, word: &str) -> Option<Direction> {
        let stated = Direction::from_name(word)?;
        match (self.spec.direction, stated) {
            (Direction::Transposed, _) | (_, Direction::Transposed) => None,
            (_, stated) => Some(stated),
        }
    }

    /// Sets a field with a number; false if there is no such field.
    fn number_field(&mut self, field: &str, value: Word<'_>) -> Result<bool, DescriptorError> {
        match field {
            "n" => self.spec.batch = number(field, value)?,
            "g" => self.spec.groups = number(field, value)?,
            "ic" => self.spec.in_channels = number(field, value)?,
            "oc" => self.spec.out_channels = number(field, value)?,
            _ => return self.axis_field(field, value),
        }
        Ok(true)
    }

    fn axis_field(&mut self, field: &str, value: Word<'_>) -> Result<bool, DescriptorError> {
        let rank = self.spec.spatial.len();
        let axes = self.spec.spatial.iter_mut().zip(&mut self.outputs).zip(axis_words(rank));
        for ((axis, output), words) in axes {
            if set_axis_field(axis, output, words, field, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn epilogue_op(&mut self, segment: Word<'_>) -> Result<(), DescriptorError> {
        let at = segment.at + (segment.text.len() - segment.text.trim_start().len());
        let op: EpilogueOp =
            segment.text.parse().map_err(|e: EpilogueError| error(at, e.into()))?;
        self.spec.epilogue.push(op);
        Ok(())
    }

    fn finish(mut self) -> Result<ConvProblem, DescriptorError> {
        let words = axis_words(self.spec.spatial.len());
        let needed = ["ic", "oc"].into_iter().chain(words.iter().flat_map(|w| [w.input, w.kernel]));
        for field in needed {
            if !self.given.has(field) {
                return Err(error(0, DescriptorErrorKind::Missing { field }));
            }
        }
        if self.spec.direction == Direction::Transposed {
            self.transpose();
            return self.given.build(self.spec);
        }
        let problem = self.given.build(self.spec)?;
        for ((axis, stated), words) in problem.spatial().iter().zip(&self.outputs).zip(words) {
            match *stated {
                Some(stated) if stated != axis.output() => {
                    let (field, actual) = (words.output, axis.output());
                    let kind = DescriptorErrorKind::Output { field, stated, actual };
                    return Err(error(self.given.at(field), kind));
                }
                Some(_) | None => {}
            }
        }
        Ok(problem)
    }
}

impl Reader<'_> {
    /// From the sizes of the transposed convolution to those of the forward one.
    fn transpose(&mut self) {
        let spec = &mut self.spec;
        std::mem::swap(&mut spec.in_channels, &mut spec.out_channels);
        for (axis, stated) in spec.spatial.iter_mut().zip(&self.outputs) {
            axis.transpose(*stated);
        }
    }
}

fn set_axis_field(
    axis: &mut SpatialAxis,
    output: &mut Option<u64>,
    words: &AxisWords,
    field: &str,
    value: Word<'_>,
) -> Result<bool, DescriptorError> {
    if field == words.input {
        axis.input = number(field, value)?;
    } else if field == words.output {
        *output = Some(number(field, value)?);
    } else if field == words.kernel {
        axis.kernel = number(field, value)?;
    } else if field == words.stride {
        axis.stride = number(field, value)?;
    } else if field == words.dilation {
        axis.dilation = number(field, value)?;
    } else if field == words.padding {
        let (before, after) = value.text.split_once(':').unwrap_or((value.text, value.text));
        axis.pad_before = number(field, Word { text: before, ..value })?;
        axis.pad_after = number(field, Word { text: after, ..value })?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Splits the quoted name off the end.
fn split_name(text: &str) -> Result<(&str, Option<String>), DescriptorError> {
    let Some((body, quoted)) = text.split_once('"') else {
        return Ok((text, None));
    };
    let Some((name, rest)) = quoted.split_once('"') else {
        return Err(error(body.len(), DescriptorErrorKind::UnclosedName));
    };
    if let Some(word) = words(rest, body.len() + name.len() + 2).next() {
        let text = rest.trim().to_owned();
        return Err(error(word.at, DescriptorErrorKind::AfterName { text }));
    }
    Ok((body, Some(name.to_owned())))
}
