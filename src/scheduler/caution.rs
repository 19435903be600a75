//! What a pick does without, should a faster one not be legal.

/// What a pick does without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caution {
    /// Code for the borders of the image: padding is met in a copy of the input.
    pub(super) borders: bool,
    /// Transposes in registers of what is copied.
    pub(super) transposes: bool,
    /// Unrolled steps of the reduction.
    pub(super) steps: bool,
    /// Copies of the input, and sums in scratch.
    pub(super) copies: bool,
    /// Register tiles of more than a vector.
    pub(super) tiles: bool,
}

impl Caution {
    /// Nothing: the fastest pick known.
    pub(super) const NONE: Caution =
        Caution { borders: false, transposes: false, steps: false, copies: false, tiles: false };

    /// Everything.
    pub(super) const MOST: Caution =
        Caution { borders: true, transposes: true, steps: true, copies: true, tiles: true };

    /// In the order in which they are tried: what costs least first.
    pub(super) const ALL: [Caution; 6] = [
        Caution::NONE,
        Caution { borders: true, ..Caution::NONE },
        Caution { transposes: true, ..Caution::NONE },
        Caution { borders: true, transposes: true, steps: true, ..Caution::NONE },
        Caution { borders: true, steps: true, copies: true, ..Caution::NONE },
        Caution::MOST,
    ];
}
