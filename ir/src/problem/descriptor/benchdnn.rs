//! The descriptor of oneDNN's benchdnn, as input only.
//!
//! ```text
//! g32mb1_ic128ih56_oc128oh56_kh3ph1dh0_n"resnext:conv2"
//! ```
//! Fields are letters and a number, in any order, with `_` ignored between them, and the name last.
//! Unlike our own form, dilation counts from 0 (dense), and `mb` is 2 if left out. What is left out
//! is deduced, an axis at a time:
//!
//! - an axis is absent if it states nothing but defaults; an absent axis copies the one outside it
//!   (`ih` alone is a square, `id` alone a cube), absent outer axes lower the rank (`iw` alone is
//!   one-dimensional);
//! - an axis that is present needs its input and its kernel;
//! - output missing: `o = (i + 2p - extent) / s + 1`, with p = 0 if that is missing too; padding
//!   missing: half, rounded towards zero, of what the stated output needs;
//! - the padding after is what makes the output come out, so it may differ from the one before, and
//!   be negative.
//!
//! As the driver for transposed convolutions reads it, input and output change places in these
//! rules.
//!
//! Promises: what it accepts is the problem benchdnn means, in f32 without a bias. The layout,
//! which benchdnn leaves open, is channels last, as in our own form. A field given twice is
//! refused, and so is a kernel that does not fit its padded input, where benchdnn's own rounding
//! lets some pass. Does not: read benchdnn's options.

use super::text::{Given, Word, number};
use super::{Descriptor, DescriptorError, DescriptorErrorKind, Driver, error};
use crate::problem::words::{AXIS_WORDS, AxisWords};
use crate::problem::{ConvSpec, Direction, MAX_RANK, MAX_SIZE, SpatialAxis};

/// The batch of a line that states none.
const DEFAULT_BATCH: u64 = 2;

/// Reads one line.
pub(super) fn parse(text: &str, driver: Driver) -> Result<Descriptor, DescriptorError> {
    let mut line = BenchLine::default();
    let mut rest = skip(Word { at: 0, text });
    let mut name = None;
    while !rest.text.is_empty() {
        if rest.text.starts_with('n') {
            name = Some(read_name(advance(rest, 1))?);
            break;
        }
        rest = skip(line.field(rest)?);
    }
    let spec = line.deduce(driver)?;
    Ok(Descriptor { problem: line.given.build(spec)?, name })
}

/// The fields as stated.
#[derive(Default)]
struct BenchLine<'a> {
    groups: Option<u64>,
    batch: Option<u64>,
    in_channels: Option<u64>,
    out_channels: Option<u64>,
    axes: [StatedAxis; MAX_RANK],
    given: Given<'a>,
}

#[derive(Clone, Copy, Default)]
struct StatedAxis {
    input: Option<u64>,
    output: Option<u64>,
    kernel: Option<u64>,
    stride: Option<u64>,
    /// Counted from 0.
    dilation: Option<u64>,
    padding: Option<u64>,
}

impl<'a> BenchLine<'a> {
    /// Reads one field off the front and returns what follows it.
    fn field(&mut self, rest: Word<'a>) -> Result<Word<'a>, DescriptorError> {
        let letters = rest.text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.text.len());
        let (field, after) = rest.text.split_at(letters);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let Some(slot) = self.slot(field) else {
            let word = match field {
                "" => rest.text.to_owned(),
                field => field.to_owned(),
            };
            return Err(error(rest.at, DescriptorErrorKind::UnknownWord { word }));
        };
        let given = number(field, Word { at: rest.at, text: &after[..digits] })?;
        if given > MAX_SIZE {
            let refusal = DescriptorErrorKind::SizeTooLarge { field: field.to_owned(), given };
            return Err(error(rest.at, refusal));
        }
        *slot = Some(given);
        self.given.note(field, rest.at)?;
        Ok(advance(rest, letters + digits))
    }

    fn slot(&mut self, field: &str) -> Option<&mut Option<u64>> {
        match field {
            "g" => Some(&mut self.groups),
            "mb" => Some(&mut self.batch),
            "ic" => Some(&mut self.in_channels),
            "oc" => Some(&mut self.out_channels),
            _ => {
                let mut axes = self.axes.iter_mut().zip(&AXIS_WORDS);
                axes.find_map(|(axis, words)| axis.slot(words, field))
            }
        }
    }

    /// Completes the line by the rules of the module header.
    fn deduce(&self, driver: Driver) -> Result<ConvSpec, DescriptorError> {
        let missing = |field| error(0, DescriptorErrorKind::Missing { field });
        let ic = self.in_channels.ok_or_else(|| missing("ic"))?;
        let oc = self.out_channels.ok_or_else(|| missing("oc"))?;
        let axes = self.present_axes()?;
        let words = &AXIS_WORDS[MAX_RANK - axes.len()..];
        let mut spatial = Vec::with_capacity(axes.len());
        for (axis, words) in axes.iter().zip(words) {
            spatial.push(axis.deduce(words, &self.given, driver)?);
        }
        let spec = match driver {
            Driver::Conv => ConvSpec::new(ic, oc, spatial),
            Driver::Deconv => ConvSpec::new(oc, ic, spatial).direction(Direction::Transposed),
        };
        Ok(spec.groups(self.groups.unwrap_or(1)).batch(self.batch.unwrap_or(DEFAULT_BATCH)))
    }

    /// The axes of the problem, absent inner ones copied from the outermost.
    fn present_axes(&self) -> Result<Vec<StatedAxis>, DescriptorError> {
        let missing = |field| Err(error(0, DescriptorErrorKind::Missing { field }));
        let [d, h, w] = self.axes;
        match self.axes.map(|axis| axis.is_present()) {
            [true, true, true] => Ok(vec![d, h, w]),
            [true, false, false] => Ok(vec![d, d, d]),
            [true, false, true] => missing("ih"),
            [true, true, false] => missing("iw"),
            [false, true, true] => Ok(vec![h, w]),
            [false, true, false] => Ok(vec![h, h]),
            [false, false, true] => Ok(vec![w]),
            [false, false, false] => missing("iw"),
        }
    }
}

impl StatedAxis {
    fn slot(&mut self, words: &AxisWords, field: &str) -> Option<&mut Option<u64>> {
        let slots = [
            (words.input, &mut self.input),
            (words.output, &mut self.output),
            (words.kernel, &mut self.kernel),
            (words.stride, &mut self.stride),
            (words.dilation, &mut self.dilation),
            (words.padding, &mut self.padding),
        ];
        slots.into_iter().find_map(|(word, slot)| (word == field).then_some(slot))
    }

    /// Whether the axis states anything but a default; a size of 0 is none stated.
    fn is_present(&self) -> bool {
        let sizes = [self.input, self.output, self.kernel, self.dilation, self.padding];
        sizes.iter().any(|size| size.unwrap_or(0) != 0) || self.stride.unwrap_or(1) != 1
    }

    fn deduce(
        &self,
        words: &AxisWords,
        given: &Given<'_>,
        driver: Driver,
    ) -> Result<SpatialAxis, DescriptorError> {
        let missing = |field| error(0, DescriptorErrorKind::Missing { field });
        let mut axis = SpatialAxis {
            input: self.input.ok_or_else(|| missing(words.input))?,
            kernel: self.kernel.ok_or_else(|| missing(words.kernel))?,
            stride: self.stride.unwrap_or(1),
            dilation: self.dilation.unwrap_or(0) + 1,
            pad_before: 0,
            pad_after: 0,
        };
        if self.output == Some(0) {
            let kind = DescriptorErrorKind::ZeroOutput { field: words.output };
            return Err(error(given.at(words.output), kind));
        }
        if driver == Driver::Deconv {
            self.deduce_transposed(&mut axis);
            return Ok(axis);
        }
        let output = match (self.output, self.padding) {
            (Some(output), Some(padding)) => {
                axis.pad_before = saturate(i128::from(padding));
                output
            }
            (Some(output), None) => {
                axis.pad_before = saturate(total_padding(&axis, output) / 2);
                output
            }
            (None, padding) => {
                axis.pad_before = saturate(i128::from(padding.unwrap_or(0)));
                axis.pad_after = axis.pad_before;
                axis.output()
            }
        };
        if output > 0 {
            let before = i128::from(axis.pad_before);
            axis.pad_after = saturate(total_padding(&axis, output) - before);
        }
        Ok(axis)
    }
}

impl StatedAxis {
    /// The same rules with input and output in each other's place.
    fn deduce_transposed(&self, axis: &mut SpatialAxis) {
        let read = axis.input;
        let total = |output: u64| {
            let forward = SpatialAxis { input: output, ..*axis };
            total_padding(&forward, read)
        };
        let before = match (self.output, self.padding) {
            (_, Some(padding)) => i128::from(padding),
            (Some(output), None) => total(output) / 2,
            (None, None) => 0,
        };
        let after = self.output.map_or(before, |output| total(output) - before);
        (axis.pad_before, axis.pad_after) = (saturate(before), saturate(after));
        axis.transpose(self.output);
    }
}

/// The padding of both sides together with which exactly this output comes out.
fn total_padding(axis: &SpatialAxis, output: u64) -> i128 {
    (i128::from(output) - 1) * i128::from(axis.stride) + i128::from(axis.extent())
        - i128::from(axis.input)
}

/// A padding for [`ConvProblem::new`](crate::problem::ConvProblem::new) to judge; what an `i64`
/// cannot hold is beyond its limit anyway.
fn saturate(padding: i128) -> i64 {
    i64::try_from(padding).unwrap_or(if padding < 0 { i64::MIN } else { i64::MAX })
}

/// The name after its `n`: quoted, or the rest of the line.
fn read_name(rest: Word<'_>) -> Result<String, DescriptorError> {
    let Some(quoted) = rest.text.strip_prefix('"') else {
        return Ok(rest.text.trim_end().to_owned());
    };
    let Some((name, after)) = quoted.split_once('"') else {
        return Err(error(rest.at, DescriptorErrorKind::UnclosedName));
    };
    let after = skip(Word { at: rest.at + name.len() + 2, text: after });
    if !after.text.is_empty() {
        let text = after.text.trim_end().to_owned();
        return Err(error(after.at, DescriptorErrorKind::AfterName { text }));
    }
    Ok(name.to_owned())
}

/// Drops separators: `_`, and the white space around the line.
fn skip(rest: Word<'_>) -> Word<'_> {
    let kept = rest.text.trim_start_matches(|c: char| c == '_' || c.is_whitespace());
    Word { at: rest.at + rest.text.len() - kept.len(), text: kept }
}

fn advance(rest: Word<'_>, bytes: usize) -> Word<'_> {
    Word { at: rest.at + bytes, text: &rest.text[bytes..] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        parse(text, Driver::Conv).unwrap().to_string()
    }

    fn message(text: &str) -> String {
        parse(text, Driver::Conv).unwrap_err().to_string()
    }

    #[test]
    fn a_full_line() {
        assert_eq!(
            printed(r#"g32mb1_ic128oc64_ih56oh28kh3sh2dh0ph1_iw40ow19kw3sw2dw1pw2_n"grouped:1*2""#),
            "conv2d f32 nhwc n1 g32 ic128 oc64 ih56 iw40 kh3 kw3 sh2 sw2 dw2 ph1:0 pw2:-1 \"grouped:1*2\""
        );
    }

    #[test]
    fn absent_axes_are_copied_or_lower_the_rank() {
        assert_eq!(
            printed("ic3oc4ih9kh3sh2ph1dh1"),
            "conv2d f32 nhwc n2 ic3 oc4 ih9 iw9 kh3 kw3 sh2 sw2 dh2 dw2 ph1 pw1"
        );
        assert_eq!(printed("ic3oc4id9kd3"), "conv3d f32 nhwc n2 ic3 oc4 id9 ih9 iw9 kd3 kh3 kw3");
        assert_eq!(printed("ic3oc4iw9kw3"), "conv1d f32 nhwc n2 ic3 oc4 iw9 kw3");
        assert_eq!(printed("ic3oc4ih9kh3iw5kw1"), "conv2d f32 nhwc n2 ic3 oc4 ih9 iw5 kh3 kw1");
        assert_eq!(
            printed("ic3oc4id0ih9kh3sw1dw0pw0"),
            "conv2d f32 nhwc n2 ic3 oc4 ih9 iw9 kh3 kw3"
        );
    }

    #[test]
    fn missing_padding_is_half_of_what_the_output_needs() {
        assert_eq!(printed("ic1oc1iw10ow10kw3"), "conv1d f32 nhwc n2 ic1 oc1 iw10 kw3 pw1");
        assert_eq!(printed("ic1oc1iw10ow10kw4"), "conv1d f32 nhwc n2 ic1 oc1 iw10 kw4 pw1:2");
        assert_eq!(
            printed("ic1oc1iw10ow5kw1sw2"),
            "conv1d f32 nhwc n2 ic1 oc1 iw10 kw1 sw2 pw0:-1"
        );
        assert_eq!(printed("ic1oc1iw10ow5kw3"), "conv1d f32 nhwc n2 ic1 oc1 iw10 kw3 pw-1:-2");
    }

    #[test]
    fn the_output_decides_the_padding_after() {
        assert_eq!(printed("ic1oc1iw16ow15kw3pw0"), "conv1d f32 nhwc n2 ic1 oc1 iw16 kw3 pw0:1");
        assert_eq!(printed("ic1oc1iw8kw3pw1sw2"), "conv1d f32 nhwc n2 ic1 oc1 iw8 kw3 sw2 pw1:0");
    }

    #[test]
    fn refusals_point_at_the_field() {
        assert_eq!(message("ic3oc4ih9"), "column 1: `kh` is missing");
        assert_eq!(message("ic3oc4oh9kh3"), "column 1: `ih` is missing");
        assert_eq!(message("ic3oc4"), "column 1: `iw` is missing");
        assert_eq!(message("ic3oc4id9kd3ih9kh3"), "column 1: `iw` is missing");
        assert_eq!(message("oc4iw9kw3"), "column 1: `ic` is missing");
        assert_eq!(message("ic3oc4iw9kw3zz5"), "column 13: unknown word `zz`");
        assert_eq!(message("ic3oc4iw9kw3-1"), "column 13: unknown word `-1`");
        assert_eq!(message("ic3oc4iwkw3"), "column 7: unknown word `iwkw`");
        assert_eq!(message("ic3oc4_iw_kw3"), "column 8: `iw` needs a number, found ``");
        assert_eq!(message("ic3oc4iw9kw3iw9"), "column 13: `iw` is given twice");
        assert_eq!(
            message("ic3oc4iw9ow0kw3"),
            "column 10: `ow` is stated as 0, which no convolution has"
        );
        assert_eq!(message("g2ic3oc4iw9kw3"), "column 3: ic is 3, which g 2 does not divide");
        assert_eq!(
            message("ic3oc4iw9kw12sw4pw1"),
            "column 10: kw is 12 with dilation 1, an extent of 12, but 9 input positions with padding 1:1 are 11"
        );
        assert_eq!(
            message("ic3oc4iw9kw4294967296"),
            "column 10: `kw` is 4294967296, expected at most 2147483648"
        );
        assert_eq!(message("ic3oc4iw9kw3n\"a"), "column 14: the name has no closing quote");
        assert_eq!(message("ic3oc4iw9kw3n\"a\"sw2"), "column 17: `sw2` follows the name");
    }

    #[test]
    fn transposed_lines() {
        let printed = |text: &str| parse(text, Driver::Deconv).unwrap().to_string();
        assert_eq!(
            printed("g2mb1oc3oh227ic96ih55kh11sh4ph0n\"alexnet\"".replace("g2", "").as_str()),
            "deconv2d f32 nhwc n1 ic96 oc3 ih55 iw55 kh11 kw11 sh4 sw4 \"alexnet\""
        );
        assert_eq!(
            printed("ic8iw5oc8ow2kw3pw3dw2"),
            "deconv1d f32 nhwc n2 ic8 oc8 iw5 kw3 dw3 pw3:6"
        );
        assert_eq!(printed("ic8iw5oc4kw3sw2"), "deconv1d f32 nhwc n2 ic8 oc4 iw5 kw3 sw2");
        assert_eq!(
            printed("ic8iw5ow12oc4kw3sw2"),
            "deconv1d f32 nhwc n2 ic8 oc4 iw5 kw3 sw2 pw0:-1"
        );
    }

    #[test]
    fn names_need_no_quotes() {
        assert_eq!(
            parse("ic3oc4iw9kw3nlenet:1 ", Driver::Conv).unwrap().name.as_deref(),
            Some("lenet:1")
        );
    }
}
