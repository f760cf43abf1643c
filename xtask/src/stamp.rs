//! The stamp of the committed eBPF object: which sources and which tools it
//! was built from.
//!
//! One file for two readers: `cargo xtask bpf` writes the stamp, the root
//! package's build script (which includes this file by path) refuses to embed
//! an object whose sources have changed since.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The committed object of the programs, relative to the repository.
pub(crate) const OBJECT: &str = "bpf-prog/palisade.bpf.o";
/// Its stamp, relative to the repository.
pub(crate) const STAMP: &str = "bpf-prog/palisade.bpf.stamp";

/// Folders and files whose text decides what the object holds.
pub(crate) const SOURCES: &[&str] = &[
    "bpf-prog/src",
    "bpf-prog/abi/src",
    "bpf-prog/Cargo.toml",
    "bpf-prog/Cargo.lock",
    "bpf-prog/abi/Cargo.toml",
];

/// Every file of `sources`, sorted by its path, relative to `root`.
fn source_files(root: &Path, sources: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        if full.is_dir() {
            for entry in fs::read_dir(&full)? {
                open.push(path.join(entry?.file_name()));
            }
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Hash over the names and contents of `sources`, as 64 hexadecimal digits.
pub(crate) fn source_hash(root: &Path, sources: &[&str]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for path in source_files(root, sources)? {
        let text = fs::read(root.join(&path))?;
        hash.update(path.to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(&text);
    }
    let mut digits = String::with_capacity(64);
    for byte in hash.finalize() {
        digits.push_str(&format!("{byte:02x}"));
    }
    Ok(digits)
}

/// The value of one `key: value` line of a stamp.
pub(crate) fn field<'a>(stamp: &'a str, key: &str) -> Option<&'a str> {
    stamp.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}
