//! The file of a database: read at once, written at once, shared by processes.
//!
//! Promises: a reader sees the file as it was before or after a write, never between: the new text
//! goes to a file beside it, is flushed to the disk, and takes its name. A change is made under an
//! advisory lock on a third file, to what the file holds at that time, so changes of several
//! processes add up. What [`Store::insert`] reported as stored is on the disk, whatever ends the
//! process then.
//!
//! A database is a regular file of at most [`MAX_FILE`] bytes: no change makes one that would not
//! be read again.
//!
//! Does not: create anything before there is something to store, or write to a file that does not
//! begin with the header of a database, or make a lock beside it. A symbolic link is followed; one
//! to nothing is refused. On a file system without locks, changes are refused.

use std::fs;
use std::path::{Path, PathBuf};

use super::database::HEADER;
use super::fault::StoreError;
use super::{Database, Inserted, Record, RecordError, file};

/// The largest file that is read or written: about a million records.
pub const MAX_FILE: u64 = 1 << 29;

/// A database's place in the file system. Holds no records and no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    path: PathBuf,
    limit: u64,
}

impl Store {
    /// A store in that file, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Store {
        Store { path: path.into(), limit: MAX_FILE }
    }

    /// The same, but the file may have that many bytes at most, if that is less than [`MAX_FILE`].
    pub fn with_limit(self, bytes: u64) -> Store {
        Store { limit: bytes.min(MAX_FILE), ..self }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a file.
    ///
    /// # Errors
    /// If what is there is no regular file, nor a link to one.
    pub fn exists(&self) -> Result<bool, StoreError> {
        Ok(file::resolve(&self.path)?.is_some())
    }

    /// Reads the records; none if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read, is too large or something else. Lines that are no records are no
    /// error: see [`Database::skipped`].
    pub fn load(&self) -> Result<Database, StoreError> {
        Ok(Database::read(&self.text(&self.path)?))
    }

    /// Writes records to a file that must not exist.
    ///
    /// # Errors
    /// If there is one, or it cannot be written; then nothing is left of it.
    pub fn create(&self, database: &Database) -> Result<(), StoreError> {
        file::create(&self.path, &self.fitting(&self.path, database)?)
    }

    /// Adds a record to the file, unless there is a better one there.
    ///
    /// # Errors
    /// If the record is refused, or the file.
    pub fn insert(&self, record: &Record) -> Result<Inserted, StoreError> {
        // A record that is refused makes no folder and no lock.
        record.to_line()?;
        self.update(|database| database.insert(record))
    }

    /// Changes what the file holds, alone among all processes: waits while another changes it.
    ///
    /// # Errors
    /// If the change fails, or makes the file too large; then nothing is written. If the file is
    /// refused.
    pub fn update<T>(
        &self,
        change: impl FnOnce(&mut Database) -> Result<T, RecordError>,
    ) -> Result<T, StoreError> {
        // What a symbolic link names is replaced, not the link.
        let path = file::resolve(&self.path)?.unwrap_or_else(|| self.path.clone());
        // A file that is no database gets no lock beside it.
        self.text(&path)?;
        let folder = file::folder(&path);
        fs::create_dir_all(folder).map_err(|error| file::io_error("create", folder, error))?;
        let lock = file::lock(&file::beside(&path, ".lock"))?;
        let before = self.text(&path)?;
        let mut database = Database::read(&before);
        let value = change(&mut database)?;
        let after = self.fitting(&path, &database)?;
        if after != before {
            file::replace(&path, &after)?;
        }
        drop(lock);
        Ok(value)
    }

    /// The text of a database, if it would be read again.
    fn fitting(&self, path: &Path, database: &Database) -> Result<Vec<u8>, StoreError> {
        let (given, limit) = (database.text_len(), self.limit);
        if given > limit {
            return Err(StoreError::Full { path: path.to_owned(), given, limit });
        }
        Ok(database.text())
    }

    /// The bytes of the file, which are none or begin with the header.
    fn text(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        let limit = self.limit;
        // One byte more than may be there shows a file that grows while it is read.
        let Some((text, given)) = file::read(path, limit + 1)? else { return Ok(vec![]) };
        if given > limit {
            return Err(StoreError::TooLarge { path: path.to_owned(), given, limit });
        }
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if !text.is_empty() && first.trim_ascii() != HEADER.as_bytes() {
            return Err(StoreError::Header { path: path.to_owned() });
        }
        Ok(text)
    }
}
