//! The one-line descriptor: a problem, and perhaps its name, as text.
//!
//! ```text
//! conv2d f32 nhwc n1 g32 ic128 oc128 ih56 iw56 kh3 kw3 sh2 sw2 dh2 dw2 ph1:2 pw1 reflect bias | relu | add "resnext50:conv2"
//! ```
//! The kind comes first: `conv1d` (axis `w`), `conv2d` (`h w`), `conv3d` (`d h w`), or `deconv1d` and so on for a transposed
//! convolution, which states the sizes of what it reads (`ic ih`) and writes (`oc oh`). The words after it come in any order;
//! `f32`, `nhwc`, `n1`, `g1`, stride 1, dilation 1 (dense) and padding 0 may be left out. `p` is the padding of both sides or
//! `before:after`. A stated output size (`oh`, `ow`) is checked; one of a transposed convolution decides the output padding.
//! `reflect`, `replicate` and `circular` are what padding holds in place of zeros;
//! `flip` is true convolution; `bwd_d`, `bwd_w` and `bwd_b` are the gradients of input, weights and bias. Then the epilogue, each operation after a `|`, then the name.
//!
//! Promises: printing is canonical (the order above, defaults left out except element, layout and batch) and parses back to
//! the same problem; parsing then printing canonical text changes nothing; errors carry the byte where the blame lies.
//! Text that does not begin with a kind is read as a line of benchdnn (`benchdnn.rs`).

use std::fmt;
use std::str::FromStr;

use super::{
    AxisWords, ConvProblem, ConvSpec, Direction, PADDING_MODE, ProblemError, SpatialAxis,
    axis_words, benchdnn,
};
use crate::elem::{ElemType, Layout};
use crate::epilogue::{EpilogueError, EpilogueOp};
use crate::padding::PaddingMode;

/// A problem and the name it goes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// The problem.
    pub problem: ConvProblem,
    /// The name; printed with quotes and line breaks, which the grammar cannot hold, as spaces.
    pub name: Option<String>,
}

/// Why a line is no descriptor, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("column {}: {kind}", .at + 1)]
pub struct DescriptorError {
    /// The byte offset of the word to blame.
    pub at: usize,
    /// What is wrong with it.
    pub kind: DescriptorErrorKind,
}

/// What is wrong with a descriptor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DescriptorErrorKind {
    /// Nothing there.
    #[error("empty descriptor")]
    Empty,
    /// A word the grammar does not have, or not for this kind.
    #[error("unknown word `{word}`")]
    UnknownWord {
        /// The word.
        word: String,
    },
    /// A word without a readable number.
    #[error("`{field}` needs a number, found `{given}`")]
    BadNumber {
        /// The field.
        field: String,
        /// The text in the number's place.
        given: String,
    },
    /// A field given twice.
    #[error("`{field}` is given twice")]
    Repeated {
        /// The field.
        field: String,
    },
    /// A field without a default is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// The stated output size is not what comes out.
    #[error("`{field}` is stated as {stated}, but {actual} comes out")]
    Output {
        /// The field.
        field: &'static str,
        /// The size stated.
        stated: u64,
        /// The size computed.
        actual: u64,
    },
    /// A line of benchdnn states an output of nothing.
    #[error("`{field}` is stated as 0, which no convolution has")]
    ZeroOutput {
        /// The field.
        field: &'static str,
    },
    /// A field of a line of benchdnn exceeds [`MAX_SIZE`](super::MAX_SIZE).
    #[error("`{field}` is {given}, expected at most {}", super::MAX_SIZE)]
    SizeTooLarge {
        /// The field.
        field: String,
        /// Its value.
        given: u64,
    },
    /// A name without its closing quote.
    #[error("the name has no closing quote")]
    UnclosedName,
    /// Text after the name.
    #[error("`{text}` follows the name")]
    AfterName {
        /// The text.
        text: String,
    },
    /// An option of benchdnn, which sets what a descriptor here says itself.
    #[error("`{option}` is an option of benchdnn, not a problem")]
    Option {
        /// The option.
        option: String,
    },
    /// An operation of the epilogue is wrong.
    #[error(transparent)]
    Epilogue(#[from] EpilogueError),
    /// The words are readable but describe no legal problem.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

/// Reads a list: one descriptor a line, `#` begins a comment. Lines without a descriptor, and benchdnn's `--reset`, are
/// skipped; the others come with their number, counted from 1. Lines of benchdnn are convolutions.
pub fn parse_list(text: &str) -> Vec<(usize, Result<Descriptor, DescriptorError>)> {
    parse_list_as(text, Driver::Conv)
}

/// As [`parse_list`], with lines of benchdnn read as the given driver reads them.
pub fn parse_list_as(
    text: &str,
    driver: Driver,
) -> Vec<(usize, Result<Descriptor, DescriptorError>)> {
    let lines = text.lines().map(without_comment).enumerate();
    let wanted = lines.filter(|(_, line)| !matches!(line.trim(), "" | "--reset"));
    wanted.map(|(index, line)| (index + 1, Descriptor::parse_as(line, driver))).collect()
}

/// What a line of benchdnn, which does not say it, is a problem of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Driver {
    /// `--conv`: a convolution.
    #[default]
    Conv,
    /// `--deconv`: a transposed convolution.
    Deconv,
}

impl Descriptor {
    /// Reads a descriptor, or a line of that driver of benchdnn.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse_as(text: &str, driver: Driver) -> Result<Self, DescriptorError> {
        let first = words(text, 0).next().ok_or_else(|| error(0, DescriptorErrorKind::Empty))?;
        if first.text.starts_with("--") {
            let option = first.text.to_owned();
            return Err(error(first.at, DescriptorErrorKind::Option { option }));
        }
        match kind(first.text) {
            Some((direction, rank)) => parse_words(text, direction, rank),
            None => benchdnn::parse(text, driver),
        }
    }
}

impl FromStr for Descriptor {
    type Err = DescriptorError;

    fn from_str(text: &str) -> Result<Self, DescriptorError> {
        Descriptor::parse_as(text, Driver::Conv)
    }
}

impl FromStr for ConvProblem {
    type Err = DescriptorError;

    /// Reads a descriptor; its name, if it has one, is dropped.
    fn from_str(text: &str) -> Result<Self, DescriptorError> {
        text.parse().map(|descriptor: Descriptor| descriptor.problem)
    }
}

impl TryFrom<String> for ConvProblem {
    type Error = DescriptorError;

    fn try_from(text: String) -> Result<Self, DescriptorError> {
        text.parse()
    }
}

impl From<ConvProblem> for String {
    fn from(problem: ConvProblem) -> Self {
        problem.to_string()
    }
}

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

/// A piece of the text and the byte where it begins.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) at: usize,
    pub(super) text: &'a str,
}

/// Where each field was given, for blame.
#[derive(Default)]
pub(super) struct Given<'a>(Vec<(&'a str, usize)>);

impl<'a> Given<'a> {
    /// Notes a field; a second time is an error.
    pub(super) fn note(&mut self, field: &'a str, at: usize) -> Result<(), DescriptorError> {
        if self.0.iter().any(|(seen, _)| *seen == field) {
            return Err(error(at, DescriptorErrorKind::Repeated { field: field.to_owned() }));
        }
        self.0.push((field, at));
        Ok(())
    }

    /// Where the field was given, or the beginning of the text.
    pub(super) fn at(&self, field: &str) -> usize {
        self.0.iter().find(|(seen, _)| *seen == field).map_or(0, |(_, at)| *at)
    }

    /// Builds the problem; a refusal is blamed on the word of its field.
    pub(super) fn build(&self, spec: ConvSpec) -> Result<ConvProblem, DescriptorError> {
        ConvProblem::new(spec)
            .map_err(|refusal| error(refusal.field().map_or(0, |f| self.at(f)), refusal.into()))
    }
}

pub(super) fn error(at: usize, kind: DescriptorErrorKind) -> DescriptorError {
    DescriptorError { at, kind }
}

/// The number that follows a field's letters.
pub(super) fn number<T: FromStr>(field: &str, word: Word<'_>) -> Result<T, DescriptorError> {
    word.text.parse().map_err(|_| {
        let (field, given) = (field.to_owned(), word.text.to_owned());
        error(word.at, DescriptorErrorKind::BadNumber { field, given })
    })
}

fn kind(word: &str) -> Option<(Direction, usize)> {
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

fn parse_words(
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
            if !self.given.0.iter().any(|(seen, _)| *seen == field) {
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

/// The line without its comment; a `#` inside quotes begins none.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let comment = line.find(|c| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    &line[..comment.unwrap_or(line.len())]
}

/// The pieces between the bars.
fn segments(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    text.split('|').map(move |text| {
        let word = Word { at, text };
        at += text.len() + 1;
        word
    })
}

/// The pieces between white space.
pub(super) fn words(text: &str, base: usize) -> impl Iterator<Item = Word<'_>> {
    text.split_whitespace().map(move |word| {
        let offset = word.as_ptr().addr() - text.as_ptr().addr();
        Word { at: base + offset, text: word }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn printed(text: &str) -> String {
        text.parse::<Descriptor>().unwrap().to_string()
    }

    fn message(text: &str) -> String {
        text.parse::<Descriptor>().unwrap_err().to_string()
    }

    #[test]
    fn canonical_text_prints_as_itself() {
        for text in [
            "conv2d f32 nhwc n1 g32 ic128 oc128 ih56 iw56 kh3 kw3 sh2 sw2 dh2 dw2 ph1:2 pw1 bias | relu | add",
            "conv1d f32 nchw n0 ic1 oc1 iw16000 kw10 sw5",
            "conv1d f32 nhwc n1 g4 ic4 oc4 iw9 kw4 pw3:0 \"mamba:#1|a\"",
            "conv3d f32 nhwc n2 ic3 oc4 id5 ih6 iw7 kd1 kh2 kw3 sh2 dd2 pd-1:3 pw-1 | clamp(0,6) \"\"",
        ] {
            assert_eq!(printed(text), text);
        }
    }

    #[test]
    fn words_come_in_any_order_and_defaults_may_be_left_out() {
        assert_eq!(
            printed("  conv1d bias kw3 oc2  ic1 pw1:1 sw1 iw5 ow5 ncw|relu6"),
            "conv1d f32 nchw n1 ic1 oc2 iw5 kw3 pw1 bias | clamp(0,6)"
        );
    }

    #[test]
    fn refusals_point_at_the_word() {
        assert_eq!(message("  "), "column 1: empty descriptor");
        assert_eq!(message("conv1d ic1 oc1 iw5 kw3 kh3"), "column 24: unknown word `kh3`");
        assert_eq!(message("conv1d ic1 oc1 iw5 kw3 Relu"), "column 24: unknown word `Relu`");
        assert_eq!(message("conv1d ic1 ocx iw5 kw3"), "column 12: unknown word `ocx`");
        assert_eq!(message("conv1d ic1 oc iw5 kw3"), "column 12: `oc` needs a number, found ``");
        assert_eq!(
            message("conv1d ic1 oc1 iw5 kw3 pw1:"),
            "column 24: `pw` needs a number, found ``"
        );
        assert_eq!(
            message("conv1d ic1 oc-1 iw5 kw3"),
            "column 12: `oc` needs a number, found `-1`"
        );
        assert_eq!(message("conv1d ic1 oc1 iw5 kw3 iw6"), "column 24: `iw` is given twice");
        assert_eq!(message("conv1d nwc nhwc"), "column 12: `layout` is given twice");
        assert_eq!(message("conv1d ic1 oc1 iw5"), "column 1: `kw` is missing");
        assert_eq!(
            message("conv1d ic1 oc1 iw5 ow4 kw3"),
            "column 20: `ow` is stated as 4, but 3 comes out"
        );
        assert_eq!(
            message("conv1d g3 ic6 oc1 iw5 kw3"),
            "column 15: oc is 1, which g 3 does not divide"
        );
        assert_eq!(
            message("conv1d ic1 oc1 iw5 kw6 pw-1:1"),
            "column 20: kw is 6 with dilation 1, an extent of 6, but 5 input positions with padding -1:1 are 5"
        );
        assert_eq!(
            message("conv1d ic1 oc1 iw5 kw3 | relu |  clamp(2,1)"),
            "column 34: clamp has bounds 2 > 1"
        );
        assert!(message("conv1d ic1 oc1 iw5 kw3 |").starts_with("column 25: unknown epilogue"));
        assert_eq!(
            message("conv1d ic1 oc1 iw5 kw3 \"a"),
            "column 24: the name has no closing quote"
        );
        assert_eq!(
            message("conv1d ic1 oc1 iw5 kw3 \"a\" sw2"),
            "column 28: `sw2` follows the name"
        );
        assert_eq!(
            message("--batch=shapes_1d"),
            "column 1: `--batch=shapes_1d` is an option of benchdnn, not a problem"
        );
    }

    #[test]
    fn a_list_skips_comments_and_counts_lines() {
        let list =
            "# head\n\nconv1d ic1 oc1 iw5 kw3 \"a#1\" # tail\n--reset\nconv1d\nic1oc1iw5kw3\n";
        let read = parse_list(list);
        let lines: Vec<usize> = read.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 5, 6]);
        assert_eq!(read[0].1.as_ref().unwrap().name.as_deref(), Some("a#1"));
        assert!(read[1].1.is_err());
        assert_eq!(read[2].1.as_ref().unwrap().problem.batch(), 2);
    }

    #[test]
    fn the_suites_are_canonical() {
        let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/shapes");
        let mut suites = 0;
        for entry in std::fs::read_dir(shapes).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let read = parse_list(&text);
            assert!(lines[0].starts_with("# ") && read.len() > 1, "{}", path.display());
            for (line, descriptor) in read {
                let descriptor =
                    descriptor.unwrap_or_else(|e| panic!("{}:{line}: {e}", path.display()));
                assert_eq!(descriptor.to_string(), lines[line - 1], "{}:{line}", path.display());
                let suite = path.file_stem().unwrap().to_str().unwrap();
                assert!(descriptor.name.unwrap().starts_with(&format!("{suite}:")));
            }
            suites += 1;
        }
        assert!(suites >= 10, "{suites} suites found");
    }

    fn axis() -> impl Strategy<Value = SpatialAxis> {
        (1..40u64, 1..6u64, 1..4u64, 1..4u64, -3..8i64, -3..8i64).prop_map(
            |(input, kernel, stride, dilation, pad_before, pad_after)| SpatialAxis {
                input,
                kernel,
                stride,
                dilation,
                pad_before,
                pad_after,
            },
        )
    }

    fn op() -> impl Strategy<Value = EpilogueOp> {
        prop_oneof![
            Just(EpilogueOp::Relu),
            Just(EpilogueOp::AddResidual),
            Just(EpilogueOp::GeluTanh),
            (any::<f32>(), any::<f32>())
                .prop_filter_map("finite", |(a, b)| { EpilogueOp::clamp(a.min(b), a.max(b)).ok() }),
            any::<f32>().prop_filter_map("finite", |slope| EpilogueOp::leaky_relu(slope).ok()),
        ]
    }

    fn descriptor() -> impl Strategy<Value = Descriptor> {
        let axes = prop::collection::vec(axis(), 1..=3);
        let channels = (1..5u64, 1..9u64, 1..9u64, 0..4u64);
        let rest = (any::<bool>(), any::<bool>(), prop::collection::vec(op(), 0..3));
        let name = prop::option::of("[a-z0-9:#|_ ]{0,8}");
        (axes, channels, rest, name).prop_filter_map(
            "legal",
            |(axes, (groups, ic, oc, batch), (bias, first, epilogue), name)| {
                let layout = if first { Layout::ChannelsFirst } else { Layout::ChannelsLast };
                let spec = ConvSpec::new(groups * ic, groups * oc, axes)
                    .groups(groups)
                    .batch(batch)
                    .bias(bias)
                    .layout(layout)
                    .epilogue(epilogue);
                Some(Descriptor { problem: ConvProblem::new(spec).ok()?, name })
            },
        )
    }

    proptest! {
        #[test]
        fn descriptors_round_trip(descriptor in descriptor()) {
            let text = descriptor.to_string();
            let back: Descriptor = text.parse().unwrap();
            prop_assert_eq!(back.to_string(), text);
            prop_assert_eq!(back, descriptor);
        }

        #[test]
        fn no_text_panics(text in "(conv[123]d )?([a-z]{1,2}[0-9:-]{0,3}[ _]?){0,6}[|\"a(,#é]{0,3}") {
            let _ = text.parse::<Descriptor>();
            let _ = parse_list(&text);
        }
    }
}
