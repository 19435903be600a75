//! Where the scratch of a task lies: the one count of it, for the verifier and for every back end.

use super::SCRATCH_ALIGN;
use crate::nest::{BufferId, Nest, Role};

/// The place of each scratch buffer in the scratch of a task. Buffers follow one another in the
/// order of the table, each at a multiple of [`SCRATCH_ALIGN`]; one that is declared in several
/// blocks has one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScratchLayout {
    /// The byte offset of each buffer of the table, and the end of what it and those before it
    /// take.
    places: Vec<(i64, i64)>,
}

impl ScratchLayout {
    /// Lays out the scratch buffers of a table. Offsets end at `i64::MAX`, beyond any limit.
    pub(super) fn of(nest: &Nest) -> ScratchLayout {
        let mut end = 0_i64;
        let places = nest.buffers.iter().map(|buffer| {
            let start = end;
            if buffer.role == Role::Scratch {
                let bytes = buffer.bytes(0).unwrap_or(i64::MAX).max(0);
                end = start.saturating_add(aligned(bytes));
            }
            (start, end)
        });
        ScratchLayout { places: places.collect() }
    }

    /// Bytes from the start of a task's scratch to a buffer.
    pub(super) fn offset(&self, id: BufferId) -> i64 {
        self.places.get(id.index()).map_or(0, |(start, _)| *start)
    }

    /// Bytes that a buffer and all those before it take.
    pub(super) fn end(&self, id: BufferId) -> i64 {
        self.places.get(id.index()).map_or(0, |(_, end)| *end)
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> i64 {
        self.places.last().map_or(0, |(_, end)| *end)
    }
}

/// The next multiple of [`SCRATCH_ALIGN`].
fn aligned(bytes: i64) -> i64 {
    let missing = bytes.wrapping_neg().rem_euclid(SCRATCH_ALIGN);
    bytes.saturating_add(missing)
}
