//! The one-line descriptor: a problem, and perhaps its name, as text.
//!
//! ```text
//! conv2d f32 nhwc n1 g32 ic128 oc128 ih56 iw56 kh3 kw3 sh2 sw2 dh2 dw2 ph1:2 pw1 reflect bias | relu | add "resnext50:conv2"
//! ```
//! The kind comes first: `conv1d` (axis `w`), `conv2d` (`h w`), `conv3d` (`d h w`), or `deconv1d`
//! and so on for a transposed convolution, which states the sizes of what it reads (`ic ih`) and
//! writes (`oc oh`). The words after it come in any order; `f32`, `nhwc`, `n1`, `g1`, stride 1,
//! dilation 1 (dense) and padding 0 may be left out. `p` is the padding of both sides or
//! `before:after`. A stated output size (`oh`, `ow`) is checked; one of a transposed convolution
//! decides the output padding. `reflect`, `replicate` and `circular` are what padding holds in
//! place of zeros; `flip` is true convolution; `bwd_d`, `bwd_w` and `bwd_b` are the gradients of
//! input, weights and bias. Then the epilogue, each operation after a `|`, then the name.
//!
//! Promises: printing is canonical (the order above, defaults left out except element, layout and
//! batch) and parses back to the same problem; parsing then printing canonical text changes
//! nothing; errors carry the byte where the blame lies. Text that does not begin with a kind is
//! read as a line of benchdnn (`descriptor/benchdnn.rs`).

mod benchdnn;
mod error;
mod print;
mod read;
pub(super) mod text;

use std::str::FromStr;

pub(super) use self::error::error;
pub use self::error::{DescriptorError, DescriptorErrorKind};
use self::text::words;
use super::ConvProblem;

/// A problem and the name it goes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// The problem.
    pub problem: ConvProblem,
    /// The name; printed with quotes and line breaks, which the grammar cannot hold, as spaces.
    pub name: Option<String>,
}

/// Reads a list: one descriptor a line, `#` begins a comment. Lines without a descriptor, and
/// benchdnn's `--reset`, are skipped; the others come with their number, counted from 1. Lines of
/// benchdnn are convolutions.
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
        match read::kind(first.text) {
            Some((direction, rank)) => read::parse_words(text, direction, rank),
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

/// The line without its comment; a `#` inside quotes begins none.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let comment = line.find(|c| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    &line[..comment.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::elem::Layout;
    use crate::epilogue::EpilogueOp;
    use crate::problem::{ConvSpec, SpatialAxis};

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
        let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/suites");
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
            3 => prop::sample::select(&EpilogueOp::ALL[..]),
            1 => (any::<f32>(), any::<f32>())
                .prop_filter_map("finite", |(a, b)| { EpilogueOp::clamp(a.min(b), a.max(b)).ok() }),
            1 => any::<f32>().prop_filter_map("finite", |slope| EpilogueOp::leaky_relu(slope).ok()),
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
