//! Files as the store needs them: regular ones, read and replaced whole.
//!
//! Promises: nothing but a regular file is opened, so no pipe, terminal or device can keep a
//! process waiting or be changed; a file that was not finished is removed. [`lock`] alone waits for
//! other processes, those that hold it. Does not: look at what the files hold.

use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf, is_separator};

use super::fault::StoreError;

/// The file that a path names, and what it is: links are followed, so that the file is changed, not
/// the link. Nothing if nothing has that name.
///
/// # Errors
/// If there is something else than a regular file, or a link to nothing, or no file can have that
/// name.
pub(super) fn resolve(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let Some(found) = look(path)? else {
        return if names_a_file(path) {
            Ok(None)
        } else {
            Err(not_regular(path, "no name of a file"))
        };
    };
    let file = if found.is_symlink() { follow(path)? } else { path.to_owned() };
    let metadata = fs::metadata(&file).map_err(|error| io_error("read", path, error))?;
    check_regular(path, &metadata)?;
    Ok(Some(file))
}

/// The first bytes of a file, at most that many, and how many there are; nothing if there is no
/// file.
///
/// # Errors
/// As [`resolve`], or if it cannot be read.
pub(super) fn read(path: &Path, most: u64) -> Result<Option<(Vec<u8>, u64)>, StoreError> {
    let Some(path) = resolve(path)? else { return Ok(None) };
    let refused = |error| io_error("read", &path, error);
    let file = match options(true).read(true).open(&path) {
        Ok(file) => file,
        // Taken away since.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    // What has the name now may be another file than before.
    let metadata = file.metadata().map_err(refused)?;
    check_regular(&path, &metadata)?;
    // Room for the whole file at once, as far as it says how large it is.
    let mut text = Vec::with_capacity(metadata.len().min(most) as usize);
    file.take(most).read_to_end(&mut text).map_err(refused)?;
    let size = metadata.len().max(text.len() as u64);
    Ok(Some((text, size)))
}

/// Waits for the lock, which ends with the file handle, also when the process is killed.
///
/// # Errors
/// If the file is no regular one, cannot be made, or the file system has no locks.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    if let Some(metadata) = look(path)? {
        check_regular(path, &metadata)?;
    }
    let file = options(false).create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| io_error("open", path, error))?;
    let metadata = file.metadata().map_err(|error| io_error("read", path, error))?;
    check_regular(path, &metadata)?;
    file.lock().map_err(|error| io_error("lock", path, error))?;
    Ok(file)
}

/// Gives a file another text: readers see the one or the other. Whoever calls has the lock, under
/// which alone the name of the new file is used.
///
/// # Errors
/// If that fails; unless it is the last step, the file is as before.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    let new = beside(path, ".new");
    // Left over if a process was killed while it wrote.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io_error("remove", &new, error));
        }
        Ok(()) | Err(_) => {}
    }
    let permissions = fs::metadata(path).ok().map(|metadata| metadata.permissions());
    let unfinished = write_new(&new, text, permissions)?;
    fs::rename(&new, path).map_err(|error| io_error("replace", path, error))?;
    unfinished.finish();
    let folder = folder(path);
    sync_folder(folder).map_err(|error| io_error("flush", folder, error))
}

/// Writes a file that must not exist.
///
/// # Errors
/// If there is one, or it cannot be written; then nothing is left of it.
pub(super) fn create(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    write_new(path, text, None)?.finish();
    Ok(())
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// The file of the same name and an ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

pub(super) fn io_error(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { what, path: path.to_owned(), source }
}

/// A file that is removed unless it is finished.
struct Unfinished<'a> {
    path: Option<&'a Path>,
}

impl Unfinished<'_> {
    fn finish(mut self) {
        self.path = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // The first failure is the one to report.
        let _ = self.path.map(fs::remove_file);
    }
}

/// Writes a new file to the disk.
fn write_new<'a>(
    path: &'a Path,
    text: &[u8],
    permissions: Option<fs::Permissions>,
) -> Result<Unfinished<'a>, StoreError> {
    let file = File::options().write(true).create_new(true).open(path);
    let mut file = file.map_err(|error| io_error("create", path, error))?;
    let unfinished = Unfinished { path: Some(path) };
    let written = || -> io::Result<()> {
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(text)?;
        file.sync_all()
    };
    written().map_err(|error| io_error("write", path, error))?;
    Ok(unfinished)
}

/// What has that name, if anything; a link is itself.
fn look(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path, error)),
    }
}

/// The file behind a link.
fn follow(path: &Path) -> Result<PathBuf, StoreError> {
    fs::canonicalize(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let target = fs::read_link(path).unwrap_or_default();
            StoreError::Dangling { path: path.to_owned(), target }
        }
        _ => io_error("follow", path, error),
    })
}

fn check_regular(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(not_regular(path, kind(metadata.file_type())))
}

fn not_regular(path: &Path, given: &'static str) -> StoreError {
    StoreError::NotRegular { path: path.to_owned(), given }
}

/// Whether a file may be made there: an empty path has no name, one that ends in a separator a
/// folder's.
fn names_a_file(path: &Path) -> bool {
    let last = path.as_os_str().as_encoded_bytes().last();
    path.file_name().is_some() && last.is_some_and(|last| !is_separator(char::from(*last)))
}

fn kind(file: FileType) -> &'static str {
    match file {
        _ if file.is_dir() => "a directory",
        _ if file.is_symlink() => "a symbolic link",
        _ => special(file),
    }
}

#[cfg(unix)]
fn special(file: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match file {
        _ if file.is_fifo() => "a FIFO",
        _ if file.is_socket() => "a socket",
        _ if file.is_char_device() || file.is_block_device() => "a device",
        _ => "another kind of file",
    }
}

#[cfg(not(unix))]
fn special(_file: FileType) -> &'static str {
    "another kind of file"
}

/// How files are opened: never waiting, should the name be that of a FIFO by now, and following a
/// link only where that is meant.
#[cfg(unix)]
fn options(follow: bool) -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.custom_flags(libc::O_NONBLOCK | if follow { 0 } else { libc::O_NOFOLLOW });
    options
}

#[cfg(not(unix))]
fn options(_follow: bool) -> OpenOptions {
    File::options()
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
