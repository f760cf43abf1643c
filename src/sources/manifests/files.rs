//! Which files are manifests, and how they are read.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The manifests of a directory (not of its subdirectories), by path. Dot files
/// and editors' copies are not manifests.
///
/// # Errors
/// When the directory cannot be listed.
pub fn scan(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if is_manifest_name(&path) && !is_no_file(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn is_manifest_name(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// Whether the path is known to be something else than a file, or gone. What
/// cannot be looked at counts as a file, so that it is reported.
fn is_no_file(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(about) => !about.is_file(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Reads a whole file of at most `max` bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_capped(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if read as u64 > max {
        let reason = format!("larger than {max} bytes; split it");
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// What changes when a file's content may have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Fingerprint {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|about| Self::new(&about))
    }

    fn new(about: &Metadata) -> Self {
        let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            modified_ns: nanoseconds(about.mtime(), about.mtime_nsec()),
            changed_ns: nanoseconds(about.ctime(), about.ctime_nsec()),
        }
    }

    /// Whether it is the same file or directory, whatever its content.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether the file changed so shortly before `wall_ms` that a second
    /// change could carry the same time.
    pub(super) fn is_racy(&self, wall_ms: u64) -> bool {
        const TICK_MS: i128 = 50;
        let newest_ms = self.modified_ns.max(self.changed_ns) / 1_000_000;
        newest_ms + TICK_MS > i128::from(wall_ms)
    }
}
