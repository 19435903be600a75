//! What is read beyond the ends of a dimension: four modes, and where each of them looks.
//!
//! ```text
//!             0 0 | a b c d | 0 0      zeros
//!             c b | a b c d | c b      reflect: mirrored at the last element, which is not repeated
//!             a a | a b c d | d d      replicate
//!             c d | a b c d | a b      circular
//! ```
//! Promises: a mode has one text, which parses back to it; [`PaddingMode::source`] is total, and
//! what it returns lies in the dimension. Does not: judge how much padding a problem may have, that
//! is [`ConvProblem::new`](crate::ConvProblem::new), by [`PaddingMode::most`].

use std::fmt;

use crate::every;

/// How a tensor goes on beyond its ends, along every spatial axis alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PaddingMode {
    /// As `+0.0`.
    #[default]
    Zeros,
    /// Mirrored at the first and last element, which are not repeated.
    Reflect,
    /// As the first and the last element.
    Replicate,
    /// From the other end again.
    Circular,
}

impl PaddingMode {
    /// Every mode.
    pub const ALL: [PaddingMode; 4] = every!(PaddingMode { Zeros, Reflect, Replicate, Circular });

    /// The word in descriptors and messages.
    pub fn name(self) -> &'static str {
        match self {
            PaddingMode::Zeros => "zeros",
            PaddingMode::Reflect => "reflect",
            PaddingMode::Replicate => "replicate",
            PaddingMode::Circular => "circular",
        }
    }

    /// The mode with that name.
    pub fn from_name(name: &str) -> Option<PaddingMode> {
        PaddingMode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The function that loads so in a nest.
    pub fn function(self) -> &'static str {
        match self {
            PaddingMode::Zeros => "pad",
            PaddingMode::Reflect | PaddingMode::Replicate | PaddingMode::Circular => self.name(),
        }
    }

    /// The mode of a function of nests.
    pub fn from_function(name: &str) -> Option<PaddingMode> {
        PaddingMode::ALL.into_iter().find(|mode| mode.function() == name)
    }

    /// The most padding on one side of so many elements, if that is limited: a mode that looks for
    /// its elements inside looks no further than the other end.
    pub fn most(self, extent: u64) -> Option<u64> {
        match self {
            PaddingMode::Zeros | PaddingMode::Replicate => None,
            PaddingMode::Reflect => Some(extent.saturating_sub(1)),
            PaddingMode::Circular => Some(extent),
        }
    }

    /// The index brought nearer its dimension: mirrored at either end, or moved by a length. What
    /// lies up to [`PaddingMode::most`] outside is inside then.
    fn folded(self, index: i64, extent: i64) -> i64 {
        let last = extent - 1;
        match self {
            PaddingMode::Zeros | PaddingMode::Replicate => index,
            PaddingMode::Reflect => last - (last - index.abs()).abs(),
            PaddingMode::Circular if index < 0 => index + extent,
            PaddingMode::Circular if index > last => index - extent,
            PaddingMode::Circular => index,
        }
    }

    /// The element that an index stands for in a dimension of `extent >= 1` elements, none if it is
    /// a zero. Where folding does not bring it inside, it is the nearest element: the last tile of
    /// a copy reads further than any sum needs.
    pub fn source(self, index: i64, extent: i64) -> Option<i64> {
        match self {
            PaddingMode::Zeros => (0..extent).contains(&index).then_some(index),
            PaddingMode::Reflect | PaddingMode::Replicate | PaddingMode::Circular => {
                Some(self.folded(index, extent).clamp(0, extent - 1))
            }
        }
    }

    /// The indices that folding alone brings inside, from the first to the last.
    pub fn reach(self, extent: i64) -> (i64, i64) {
        let last = extent - 1;
        match self {
            PaddingMode::Zeros | PaddingMode::Replicate => (0, last),
            PaddingMode::Reflect => (-2 * last, 2 * last),
            PaddingMode::Circular => (-extent, last + extent),
        }
    }
}

impl fmt::Display for PaddingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an index far enough outside on both sides stands for among four elements.
    fn around(mode: PaddingMode) -> Vec<Option<i64>> {
        (-6..10).map(|index| mode.source(index, 4)).collect()
    }

    #[test]
    fn four_elements_go_on_as_the_picture_says() {
        let some = |indices: [i64; 16]| indices.map(Some).to_vec();
        let zeros = around(PaddingMode::Zeros);
        assert_eq!(zeros[6..10], [0, 1, 2, 3].map(Some));
        assert!(zeros[..6].iter().chain(&zeros[10..]).all(Option::is_none));
        assert_eq!(
            around(PaddingMode::Reflect),
            some([0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 0, 0, 0])
        );
        assert_eq!(
            around(PaddingMode::Replicate),
            some([0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3])
        );
        assert_eq!(
            around(PaddingMode::Circular),
            some([0, 0, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 3, 3])
        );
    }

    #[test]
    fn one_element_is_all_there_is() {
        for mode in PaddingMode::ALL.into_iter().filter(|mode| *mode != PaddingMode::Zeros) {
            assert!((-3..4).all(|index| mode.source(index, 1) == Some(0)), "{mode}");
        }
    }

    #[test]
    fn what_is_within_reach_needs_no_clamp() {
        for (mode, extent) in PaddingMode::ALL.into_iter().flat_map(|m| (1..6).map(move |e| (m, e)))
        {
            let (first, last) = mode.reach(extent);
            for index in first..=last {
                let folded = mode.folded(index, extent);
                assert_eq!(mode.source(index, extent), Some(folded), "{mode} {index} of {extent}");
            }
            if let Some(most) = mode.most(extent as u64) {
                assert!(first <= -(most as i64) && extent - 1 + most as i64 <= last);
            }
        }
    }

    #[test]
    fn names_read_back() {
        for mode in PaddingMode::ALL {
            assert_eq!(PaddingMode::from_name(mode.name()), Some(mode));
            assert_eq!(PaddingMode::from_function(mode.function()), Some(mode));
        }
        assert_eq!(PaddingMode::from_function("zeros"), None);
    }
}
