//! A pair of convolutions of which the second reads what the first writes: depthwise, then
//! pointwise.
//!
//! ```text
//! conv2d g64 ic64 oc64 ih112 iw112 kh3 kw3 ph1 pw1 bias | relu6 -> conv2d ic64 oc128 ih112 iw112 kh1 kw1 | relu
//! ```
//! Promises: a [`Separable`] is legal by construction: both halves are forward convolutions, each
//! group of the first has one input channel, the second has kernels of one position, no stride,
//! padding or groups, and reads exactly the first one's output. Printing parses back to the same
//! pair; an error of a text carries the byte where the blame lies. Does not: say how the pair is
//! computed.

use std::fmt;
use std::str::FromStr;

use crate::problem::{ConvProblem, DescriptorError, Direction};

/// What joins the two descriptors.
pub const ARROW: &str = "->";

/// A depthwise convolution and the pointwise one that reads its output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Separable {
    depthwise: ConvProblem,
    pointwise: ConvProblem,
}

/// One of the two convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// The first.
    Depthwise,
    /// The second.
    Pointwise,
}

/// Why two convolutions are no separable one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeparableError {
    /// A gradient, or a transposed convolution.
    #[error("the {half} convolution is {given}, expected fwd")]
    Direction {
        /// Which.
        half: Half,
        /// Its direction.
        given: &'static str,
    },
    /// Groups of several input channels.
    #[error("the depthwise convolution has ic {channels} in g {groups}, expected one a group")]
    NotDepthwise {
        /// Its input channels.
        channels: u64,
        /// Its groups.
        groups: u64,
    },
    /// A second convolution that looks beyond the pixel.
    #[error("the pointwise convolution has {field} {given}, expected {expected}")]
    NotPointwise {
        /// The property.
        field: String,
        /// Its value.
        given: i64,
        /// What it must be.
        expected: i64,
    },
    /// The second convolution does not read what the first writes.
    #[error("the depthwise convolution writes {field} {written}, the pointwise one reads {read}")]
    Differs {
        /// What differs.
        field: String,
        /// Of the first.
        written: String,
        /// Of the second.
        read: String,
    },
}

/// Why a text is no separable convolution, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SeparableTextError {
    /// There is no arrow, or more than one.
    #[error("{given} `{ARROW}` between descriptors, expected one")]
    Arrows {
        /// How many there are.
        given: usize,
    },
    /// One of the descriptors is wrong.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The descriptors do not fit together.
    #[error("column {}: {error}", .at + 1)]
    Pair {
        /// The byte offset of the descriptor to blame.
        at: usize,
        /// What is wrong with it.
        error: SeparableError,
    },
}

impl Separable {
    /// The pair, if it is one.
    ///
    /// # Errors
    /// The first property that does not fit, with its numbers.
    pub fn new(
        depthwise: ConvProblem,
        pointwise: ConvProblem,
    ) -> Result<Separable, SeparableError> {
        for (half, problem) in [(Half::Depthwise, &depthwise), (Half::Pointwise, &pointwise)] {
            if problem.direction() != Direction::Forward {
                let given = problem.direction().name();
                return Err(SeparableError::Direction { half, given });
            }
        }
        if depthwise.in_channels_per_group() != 1 {
            let (channels, groups) = (depthwise.in_channels(), depthwise.groups());
            return Err(SeparableError::NotDepthwise { channels, groups });
        }
        check_pointwise(&pointwise)?;
        check_same(&depthwise, &pointwise)?;
        Ok(Separable { depthwise, pointwise })
    }

    /// The first half.
    pub fn depthwise(&self) -> &ConvProblem {
        &self.depthwise
    }

    /// The second half.
    pub fn pointwise(&self) -> &ConvProblem {
        &self.pointwise
    }

    /// Floating-point operations of both halves: two a multiply-add.
    pub fn flops(&self) -> u64 {
        self.depthwise.flops() + self.pointwise.flops()
    }

    /// Elements of the tensor between the halves, of the whole batch.
    pub fn middle_len(&self) -> u64 {
        self.depthwise.output_shape(self.depthwise.batch()).iter().product()
    }

    /// Whether a text is meant as a pair.
    pub fn is_meant(text: &str) -> bool {
        !arrows(text).is_empty()
    }
}

/// Kernels of one position, everywhere.
fn check_pointwise(problem: &ConvProblem) -> Result<(), SeparableError> {
    let names = problem.axis_names().iter().zip(problem.spatial());
    let along = names.flat_map(|(name, s)| {
        [
            (format!("k{name}"), s.kernel as i64, 1),
            (format!("s{name}"), s.stride as i64, 1),
            (format!("p{name}"), s.pad_before, 0),
            (format!("p{name}"), s.pad_after, 0),
        ]
    });
    let groups = ("g".to_string(), problem.groups() as i64, 1);
    match along.chain([groups]).find(|(_, given, expected)| given != expected) {
        None => Ok(()),
        Some((field, given, expected)) => {
            Err(SeparableError::NotPointwise { field, given, expected })
        }
    }
}

/// One tensor, written and read.
fn check_same(depthwise: &ConvProblem, pointwise: &ConvProblem) -> Result<(), SeparableError> {
    let of = |field: &str, written: &dyn fmt::Display, read: &dyn fmt::Display| {
        (field.to_string(), written.to_string(), read.to_string())
    };
    let mut fields = vec![
        of("axes", &depthwise.rank(), &pointwise.rank()),
        of("elements", &depthwise.elem(), &pointwise.elem()),
        of("layout", &depthwise.layout(), &pointwise.layout()),
        of("n", &depthwise.batch(), &pointwise.batch()),
        of("channels", &depthwise.out_channels(), &pointwise.in_channels()),
    ];
    let sizes = depthwise.spatial().iter().zip(pointwise.spatial());
    let sizes = depthwise.axis_names().iter().zip(sizes);
    fields.extend(sizes.map(|(name, (written, read))| of(name, &written.output(), &read.input)));
    match fields.into_iter().find(|(_, written, read)| written != read) {
        None => Ok(()),
        Some((field, written, read)) => Err(SeparableError::Differs { field, written, read }),
    }
}

/// Where the arrows are that stand outside of names.
fn arrows(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut start = 0;
    for (number, piece) in text.split('"').enumerate() {
        if number % 2 == 0 {
            found.extend(piece.match_indices(ARROW).map(|(at, _)| start + at));
        }
        start += piece.len() + 1;
    }
    found
}

impl FromStr for Separable {
    type Err = SeparableTextError;

    /// Reads two descriptors; their names, if they have some, are dropped.
    fn from_str(text: &str) -> Result<Separable, SeparableTextError> {
        let found = arrows(text);
        let &[arrow] = found.as_slice() else {
            return Err(SeparableTextError::Arrows { given: found.len() });
        };
        let second = arrow + ARROW.len();
        let depthwise = text[..arrow].parse()?;
        let later = |error: DescriptorError| DescriptorError { at: second + error.at, ..error };
        let pointwise = text[second..].parse().map_err(later)?;
        Separable::new(depthwise, pointwise).map_err(|error| {
            let blank = text[second..].len() - text[second..].trim_start().len();
            let at = match error.half() {
                Half::Depthwise => text.len() - text.trim_start().len(),
                Half::Pointwise => second + blank,
            };
            SeparableTextError::Pair { at, error }
        })
    }
}

impl SeparableError {
    /// Whose property it is about; of two that differ, the second is to blame.
    pub fn half(&self) -> Half {
        match self {
            SeparableError::Direction { half, .. } => *half,
            SeparableError::NotDepthwise { .. } => Half::Depthwise,
            SeparableError::NotPointwise { .. } | SeparableError::Differs { .. } => Half::Pointwise,
        }
    }
}

impl SeparableTextError {
    /// The byte to blame.
    pub fn at(&self) -> usize {
        match self {
            SeparableTextError::Arrows { .. } => 0,
            SeparableTextError::Descriptor(error) => error.at,
            SeparableTextError::Pair { at, .. } => *at,
        }
    }
}

impl fmt::Display for Separable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {ARROW} {}", self.depthwise, self.pointwise)
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Half::Depthwise => "depthwise",
            Half::Pointwise => "pointwise",
        })
    }
}
