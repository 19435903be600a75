//! Records in memory: the best line of each key, and every line that this version cannot read.
//!
//! Promises: a database is a set of lines. Merging is the union of the sets, of which each key then
//! keeps its best line, so it is associative, commutative and idempotent; no line that cannot be
//! read is lost but by [`Database::retain_readable`]. Printing is sorted: equal databases print
//! alike. Text of a hundred thousand lines is indexed in less than 0.2 s, because a schedule is not
//! parsed before it is asked for, or compared with another of the same key.
//!
//! Does not: touch files, or look whether a schedule applies.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use convgen_ir::problem::ConvProblem;

use super::line::RecordLine;
use super::{Key, Record, RecordError};
use crate::target::Target;

/// The first line of a file, by which it is told from other files.
pub(super) const HEADER: &str = r#"{"format":"convgen tuning database"}"#;

/// Bytes of a line, about: what records of the default schedules have.
const USUAL_LINE: usize = 512;

/// Records by key.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Lines with all fields of this version; those that share a key with another are sound.
    lines: HashMap<Key, Held>,
    /// Lines that are no record of this version.
    unread: BTreeMap<Line, RecordError>,
    skipped: Vec<Skipped>,
}

/// The bytes of a line, which databases share.
type Line = Arc<[u8]>;

#[derive(Clone, Debug)]
struct Held {
    text: Line,
    seconds_an_image: f64,
}

/// A line of a text that is not used, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// Its number, counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub reason: RecordError,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Inserted {
    /// It is the record of its key now.
    Stored,
    /// There is a better one.
    Kept {
        /// The seconds of a call of the one kept, and its images.
        seconds: f64,
        /// The images of such a call.
        batch: u64,
    },
}

impl Database {
    /// A database without records.
    pub fn new() -> Database {
        Database::default()
    }

    /// Reads lines. Nothing is refused as a whole: [`Database::skipped`] lists the lines that are
    /// not used.
    pub fn read(text: &[u8]) -> Database {
        let mut database = Database::new();
        // Keys are hashed once, not again whenever the table grows.
        database.lines.reserve(text.len() / USUAL_LINE);
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
        let wanted = |line: &[u8]| !line.is_empty() && line != HEADER.as_bytes();
        for (index, line) in lines.filter(|(_, line)| wanted(line)) {
            if let Err(reason) = database.add(line.into()) {
                database.skipped.push(Skipped { line: index + 1, reason });
            }
        }
        database
    }

    /// The lines that were not used when this database was read, in their order. A line is found
    /// wanting later, by [`Database::find`] or [`Database::examine`], if its syntax is right.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The record of a problem of any batch.
    ///
    /// # Errors
    /// What is wrong with the record, if there is one but it is unsound.
    pub fn find(
        &self,
        problem: &ConvProblem,
        target: &Target,
        threads: usize,
    ) -> Result<Option<Record>, RecordError> {
        self.get(&Key::new(problem, target, threads))
    }

    /// The record of a key.
    ///
    /// # Errors
    /// As [`Database::find`].
    pub fn get(&self, key: &Key) -> Result<Option<Record>, RecordError> {
        let Some(held) = self.lines.get(key) else { return Ok(None) };
        sound(&held.text).map(Some)
    }

    /// Adds a record, unless there is a better one.
    ///
    /// # Errors
    /// What a reader would refuse the record for.
    pub fn insert(&mut self, record: &Record) -> Result<Inserted, RecordError> {
        let text: Line = record.to_line()?.into_bytes().into();
        self.add(text.clone())?;
        Ok(match self.lines.get(&record.key) {
            Some(best) if best.text != text => {
                let Record { seconds, batch, .. } = sound(&best.text)?;
                Inserted::Kept { seconds, batch }
            }
            Some(_) | None => Inserted::Stored,
        })
    }

    /// Puts a record in place of the one of its key, better or not: for a record that was refused,
    /// or whose figures no longer hold.
    ///
    /// # Errors
    /// As [`Database::insert`].
    pub fn replace(&mut self, record: &Record) -> Result<(), RecordError> {
        let text = record.to_line()?.into_bytes().into();
        self.lines.remove(&record.key);
        self.add(text)
    }

    /// Adds all lines of another database.
    pub fn merge(&mut self, other: &Database) {
        let lines = other.lines.values().map(|held| &held.text).chain(other.unread.keys());
        for line in lines {
            // One that is refused is kept among the unread ones, with its reason.
            let _ = self.add(line.clone());
        }
    }

    /// Keeps the records that are sound and wanted, and every line that is of another version or no
    /// record at all.
    pub fn retain(&mut self, mut wanted: impl FnMut(&Record) -> bool) {
        self.examine();
        self.lines.retain(|_, held| sound(&held.text).is_ok_and(|record| wanted(&record)));
    }

    /// Drops the lines that this version cannot read, and says how many.
    pub fn retain_readable(&mut self) -> usize {
        self.examine();
        std::mem::take(&mut self.unread).len()
    }

    /// Checks every record, and puts those that are unsound among the lines that cannot be read.
    pub fn examine(&mut self) {
        let unread = &mut self.unread;
        self.lines.retain(|_, held| match sound(&held.text) {
            Ok(_) => true,
            Err(reason) => {
                unread.insert(held.text.clone(), reason);
                false
            }
        });
    }

    /// The records that are sound, in the order of their keys.
    pub fn records(&self) -> Vec<Record> {
        let sound = self.lines.values().filter_map(|held| sound(&held.text).ok());
        let mut records: Vec<Record> = sound.collect();
        records.sort_by(|a, b| a.key.cmp(&b.key));
        records
    }

    /// The lines that are no record of this version, and why.
    pub fn unread(&self) -> impl Iterator<Item = (&[u8], &RecordError)> {
        self.unread.iter().map(|(line, reason)| (line.as_ref(), reason))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The text of a file: the header, then all lines in the order of their bytes.
    pub fn text(&self) -> Vec<u8> {
        let mut lines: Vec<&[u8]> = self.all_lines().collect();
        lines.sort_unstable();
        let mut text = HEADER.as_bytes().to_vec();
        for line in lines {
            text.push(b'\n');
            text.extend_from_slice(line);
        }
        text.push(b'\n');
        text
    }

    /// The bytes of [`Database::text`].
    pub(super) fn text_len(&self) -> u64 {
        // Each line has an end, and so has the header.
        let size = |line: &[u8]| line.len() as u64 + 1;
        size(HEADER.as_bytes()) + self.all_lines().map(size).sum::<u64>()
    }

    /// The lines of the file behind the header, in no order.
    fn all_lines(&self) -> impl Iterator<Item = &[u8]> {
        let held = self.lines.values().map(|held| held.text.as_ref());
        held.chain(self.unread.keys().map(Line::as_ref))
    }

    /// Adds one line.
    fn add(&mut self, text: Line) -> Result<(), RecordError> {
        if let Some(reason) = self.unread.get(&text) {
            return Err(reason.clone());
        }
        let (key, seconds_an_image) = match RecordLine::read(&text) {
            Ok(line) => (line.key(), line.seconds_an_image()),
            Err(reason) => return self.set_aside(text, reason),
        };
        let held = Held { text, seconds_an_image };
        match self.lines.entry(key) {
            Entry::Vacant(place) => {
                place.insert(held);
            }
            Entry::Occupied(place) if place.get().text == held.text => {}
            Entry::Occupied(mut place) => {
                // Only what is sound may be better than another.
                if let Err(reason) = sound(&held.text) {
                    return self.set_aside(held.text, reason);
                }
                let reason = sound(&place.get().text).err();
                if reason.is_some() || held.cmp(place.get()) == Ordering::Less {
                    let old = place.insert(held);
                    if let Some(reason) = reason {
                        self.unread.insert(old.text, reason);
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps a line that is no record.
    fn set_aside(&mut self, text: Line, reason: RecordError) -> Result<(), RecordError> {
        self.unread.insert(text, reason.clone());
        Err(reason)
    }
}

impl Held {
    /// The better one is less.
    fn cmp(&self, other: &Held) -> Ordering {
        let seconds = self.seconds_an_image.total_cmp(&other.seconds_an_image);
        seconds.then_with(|| self.text.cmp(&other.text))
    }
}

fn sound(text: &[u8]) -> Result<Record, RecordError> {
    RecordLine::read(text)?.record()
}
