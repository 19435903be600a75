//! Why a file of records was not read or not written.

use std::io;
use std::path::PathBuf;

use super::RecordError;
use super::database::HEADER;

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
    /// The file is none that can be read to its end.
    #[error("`{}` is {given}, expected a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        given: &'static str,
    },
    /// A symbolic link names nothing.
    #[error("`{}` is a symbolic link to `{}`, which is not there", path.display(), target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What it names.
        target: PathBuf,
    },
    /// The file would fill the memory.
    #[error("`{}` has {given} bytes, expected at most {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        given: u64,
        /// What is read at most.
        limit: u64,
    },
    /// With the change, the file would be too large to be read again.
    #[error("`{}` would have {given} bytes, expected at most {limit}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Its bytes with the change.
        given: u64,
        /// What is read at most.
        limit: u64,
    },
    /// A record cannot be stored.
    #[error(transparent)]
    Record(#[from] RecordError),
}
