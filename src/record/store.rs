//! The file of a database: read at once, written at once, shared by processes.
//!
//! Promises: a reader sees the file as it was before or after a write, never between: the new text
//! goes to a file beside it, is flushed to the disk, and takes its name. A change is made under an
//! advisory lock on a third file, to what the file holds at that time, so changes of several processes
//! add up. What [`Store::insert`] reported as stored is on the disk, whatever ends the process then.
//!
//! Does not: create anything before there is something to store, or write to a file that does not
//! begin with the header of a database. On a file system without locks, changes are refused.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;

use super::database::HEADER;
use super::{Database, Inserted, Record, RecordError};

/// The largest file that is read: about a million records.
pub const MAX_FILE: u64 = 1 << 29;

/// Where the database of this user is: `convgen/tuning.jsonl` in the platform's directory of local
/// application data (on Linux `~/.local/share`, unless the user's XDG base directories are elsewhere).
/// Nothing if the platform has none. What it holds changes the schedules that kernels are compiled
/// with; a program that must not depend on it gives the compiler a database of its own.
pub fn default_path() -> Option<PathBuf> {
    Some(dirs::data_local_dir()?.join("convgen").join("tuning.jsonl"))
}

/// The records of this user, read once a process, when they are first needed. Reading them is a
/// matter of milliseconds, unless there are very many.
///
/// # Errors
/// Why the file at [`default_path`] was not read. A file that is not there has no records.
pub fn default_database() -> Result<&'static Database, &'static StoreError> {
    static RECORDS: LazyLock<Result<Database, StoreError>> =
        LazyLock::new(|| default_path().map_or(Ok(Database::new()), |path| Store::at(path).load()));
    RECORDS.as_ref()
}

/// A database's place in the file system. Holds no records and no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    path: PathBuf,
}

/// Why a file was not read or not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error("`{}` is no tuning database: its first line is not {HEADER}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// The file would fill the memory.
    #[error("`{}` has more than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A record cannot be stored.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Store {
    /// A store in that file, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Store {
        Store { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the records; none if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read, is too large or something else. Lines that are no records are no
    /// error: see [`Database::skipped`].
    pub fn load(&self) -> Result<Database, StoreError> {
        Ok(Database::of(self.text(&self.path)?))
    }

    /// Adds a record to the file, unless there is a better one there.
    ///
    /// # Errors
    /// If the record is refused, or the file.
    pub fn insert(&self, record: &Record) -> Result<Inserted, StoreError> {
        self.update(|database| database.insert(record))
    }

    /// Changes what the file holds, alone among all processes.
    ///
    /// # Errors
    /// If the change fails, in which case nothing is written, or the file is refused.
    pub fn update<T>(
        &self,
        change: impl FnOnce(&mut Database) -> Result<T, RecordError>,
    ) -> Result<T, StoreError> {
        // What a symbolic link names is replaced, not the link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("/"),
        };
        fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        let lock = lock(&beside(&path, ".lock"))?;
        let before = self.text(&path)?;
        let mut database = Database::of(before.clone());
        let value = change(&mut database)?;
        let after = database.text();
        if after != before {
            write(&path, folder, &after)?;
        }
        drop(lock);
        Ok(value)
    }

    /// The bytes of the file, which are none or begin with the header.
    fn text(&self, path: &Path) -> Result<Bytes, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Bytes::new()),
            Err(error) => return Err(io_error("read", path, error)),
        };
        // Room for the whole file at once, as far as it says how large it is.
        let size = file.metadata().map_or(0, |metadata| metadata.len().min(MAX_FILE) + 1);
        let mut text = Vec::with_capacity(size as usize);
        let read = file.take(MAX_FILE + 1).read_to_end(&mut text);
        read.map_err(|error| io_error("read", path, error))?;
        if text.len() as u64 > MAX_FILE {
            return Err(StoreError::TooLarge { path: path.to_owned() });
        }
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if !text.is_empty() && first.trim_ascii() != HEADER.as_bytes() {
            return Err(StoreError::Header { path: path.to_owned() });
        }
        Ok(text.into())
    }
}

/// Waits for the lock, which ends with the file handle, also when the process is killed.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| io_error("create", path, error))?;
    file.lock().map_err(|error| io_error("lock", path, error))?;
    Ok(file)
}

/// Replaces the file. Needs the lock, under which alone the new file's name is used.
fn write(path: &Path, folder: &Path, text: &[u8]) -> Result<(), StoreError> {
    let new = beside(path, ".new");
    // Left over if a process was killed while it wrote.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &new, error));
        }
        Ok(()) | Err(_) => {}
    }
    let written = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(&new)?;
        if let Ok(metadata) = fs::metadata(path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(text)?;
        file.sync_all()
    };
    written().map_err(|error| io_error("write", &new, error))?;
    fs::rename(&new, path).map_err(|error| io_error("replace", path, error))?;
    sync_folder(folder).map_err(|error| io_error("flush", folder, error))
}

/// Makes a new name in the folder last.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened, and renaming is in the file system's own journal.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// The file of the same name and an ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { what, path: path.to_owned(), source }
}
