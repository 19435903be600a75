//! The records that ship with the library: what a search found for the layers of known networks,
//! one file a kind of CPU that it ran on.
//!
//! Promises: every line is a record of this version, for a problem that is legal; only picks that
//! were faster than the default by three hundredths or more are kept, since a record that says what
//! the scheduler says costs memory alone. Does not: use any unasked.

use super::Database;

/// The files, each of one kind of CPU.
const FILES: [&[u8]; 1] = [include_bytes!("shipped/emerald_rapids.jsonl")];

impl Database {
    /// The records that ship with the library, for all machines: those of the layers of ResNet-50,
    /// MobileNetV2 and VGG-16 on the CPUs that these were tuned on. A compiler finds those of its
    /// target.
    pub fn shipped() -> Database {
        let mut all = Database::new();
        FILES.iter().for_each(|file| all.merge(&Database::read(file)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;

    #[test]
    fn every_line_is_a_record_of_this_version() {
        let mut shipped = Database::shipped();
        shipped.examine();
        assert_eq!(shipped.unread().count(), 0);
        assert!(!shipped.is_empty());
        for record in shipped.records() {
            assert_eq!(Algorithm::of(&record.schedule), record.algorithm, "{record:?}");
            assert!(record.default_seconds >= 1.03 * record.seconds, "{record:?}");
        }
    }
}
