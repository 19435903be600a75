//! Element types and memory layouts: the two small vocabularies every buffer and every problem is
//! described in.
//!
//! Promises: each value has exactly one canonical text, which parses back to it; with the feature
//! `serde` it is serialised as the same text. Does not: say what arithmetic on an element means
//! (the language reference does) or which machine has it.

use std::fmt;
use std::str::FromStr;

use crate::every;

/// The type of one tensor element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ElemType {
    /// IEEE 754 binary32.
    #[cfg_attr(feature = "serde", serde(rename = "f32"))]
    F32,
}

impl ElemType {
    /// Every element type, in the order of the documentation.
    pub const ALL: &'static [ElemType] = &every!(ElemType { F32 });

    /// The canonical text.
    pub fn name(self) -> &'static str {
        match self {
            ElemType::F32 => "f32",
        }
    }

    /// The size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            ElemType::F32 => 4,
        }
    }

    /// The size of one element in bits.
    pub fn bits(self) -> u32 {
        u8::BITS * self.bytes() as u32
    }

    /// The element type with this canonical text.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|elem| elem.name() == name)
    }
}

/// Where the channels of an activation tensor lie. Weights have their own fixed order and are not
/// concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Layout {
    /// `[batch, channels, spatial...]`: a plane a channel.
    #[cfg_attr(feature = "serde", serde(rename = "nchw"))]
    ChannelsFirst,
    /// `[batch, spatial..., channels]`: the channels of a pixel are neighbours.
    #[cfg_attr(feature = "serde", serde(rename = "nhwc"))]
    ChannelsLast,
}

impl Layout {
    /// Every layout, in the order of the documentation.
    pub const ALL: &'static [Layout] = &every!(Layout { ChannelsFirst, ChannelsLast });

    /// The canonical text, the same at every rank.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// The layout with this text; the field's names for one and three spatial dimensions are
    /// accepted at any rank.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|layout| layout.names().contains(&name))
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Layout::ChannelsFirst => &["nchw", "ncw", "ncdhw"],
            Layout::ChannelsLast => &["nhwc", "nwc", "ndhwc"],
        }
    }
}

/// Text that names neither an element type nor a layout where one is due.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No element type has this name.
    #[error("unknown element type `{given}`, expected f32")]
    ElemType {
        /// The text found.
        given: String,
    },
    /// No layout has this name.
    #[error("unknown layout `{given}`, expected nchw or nhwc")]
    Layout {
        /// The text found.
        given: String,
    },
}

impl fmt::Display for ElemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ElemType {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::from_name(text).ok_or_else(|| NameError::ElemType { given: text.to_owned() })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layout {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::from_name(text).ok_or_else(|| NameError::Layout { given: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_names_parse_back() {
        for &elem in ElemType::ALL {
            assert_eq!(elem.to_string().parse(), Ok(elem));
        }
        for &layout in Layout::ALL {
            assert_eq!(layout.to_string().parse(), Ok(layout));
        }
    }

    #[test]
    fn names_of_other_ranks_are_accepted() {
        for text in ["nwc", "nhwc", "ndhwc"] {
            assert_eq!(text.parse(), Ok(Layout::ChannelsLast));
        }
        for text in ["ncw", "nchw", "ncdhw"] {
            assert_eq!(text.parse(), Ok(Layout::ChannelsFirst));
        }
    }

    #[test]
    fn unknown_names_are_quoted() {
        let error = "f33".parse::<ElemType>().unwrap_err();
        assert_eq!(error.to_string(), "unknown element type `f33`, expected f32");
        let error = "hwcn".parse::<Layout>().unwrap_err();
        assert_eq!(error.to_string(), "unknown layout `hwcn`, expected nchw or nhwc");
    }
}
