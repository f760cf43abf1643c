//! The file system of an emulated machine: an archive in memory with busybox,
//! the test binaries, the tools they call, libraries and kernel modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _};

use crate::command::capture;
use crate::tools;

/// What the tests call, besides busybox.
const PROGRAMS: &[&str] = &["ip", "tc", "nft", "bpftool"];
/// Words that busybox is to be.
const BUSYBOX: &[&str] = &[
    "sh", "mount", "umount", "insmod", "poweroff", "cat", "uname", "mkdir",
];
/// Modules that the datapath or the tests need where a kernel has them as such.
const MODULES: &[&str] = &[
    "veth",
    "tun",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "virtio_pci",
    "virtio_blk",
    "ext4",
];
/// Loaded by the init script in the order of their names.
pub(crate) const MODULE_FOLDER: &str = "/modules";

#[derive(Debug)]
enum Entry {
    Folder,
    File(Vec<u8>),
    Link(String),
}

/// An initramfs that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Busybox, the programs and the modules; no init yet.
    pub(crate) fn base(modules: &Path) -> Result<Self> {
        let mut archive = Self::default();
        for folder in ["/proc", "/sys", "/dev", "/tmp", "/run", "/etc"] {
            archive.put(folder, Entry::Folder);
        }
        archive.program(
            &tools::find("busybox").context("busybox is missing")?,
            "/bin/busybox",
        )?;
        for word in BUSYBOX {
            archive.put(&format!("/bin/{word}"), Entry::Link("busybox".to_owned()));
        }
        for name in PROGRAMS {
            let path = tools::find(name).with_context(|| format!("{name} is missing"))?;
            archive.program(&path, &format!("/bin/{name}"))?;
        }
        for (place, (name, bytes)) in load_order(modules)?.into_iter().enumerate() {
            archive.file(&format!("{MODULE_FOLDER}/{place:02}-{name}.ko"), bytes);
        }
        Ok(archive)
    }

    pub(crate) fn file(&mut self, path: &str, bytes: Vec<u8>) {
        self.put(path, Entry::File(bytes));
    }

    /// A link, where nothing is yet.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        if !self.entries.contains_key(path) {
            self.put(path, Entry::Link(target.to_owned()));
        }
    }

    /// A program with the libraries that it is linked to.
    pub(crate) fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        self.file(to, read(from)?);
        // A static program has none, which ldd reports as a failure.
        let libraries = capture(Command::new("ldd").arg(from)).unwrap_or_default();
        for word in libraries.split_whitespace() {
            if word.starts_with('/') && !self.entries.contains_key(word) {
                self.file(word, read(Path::new(word))?);
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, entry: Entry) {
        if let Some((folder, _)) = path.rsplit_once('/')
            && !folder.is_empty()
            && !self.entries.contains_key(folder)
        {
            self.put(folder, Entry::Folder);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive as the kernel reads it: cpio's "newc".
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // A folder's path sorts before what is in it.
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (mode, data) = match entry {
                Entry::Folder => (0o040_755, &[][..]),
                Entry::File(bytes) => (0o100_755, bytes.as_slice()),
                Entry::Link(target) => (0o120_777, target.as_bytes()),
            };
            append(&mut out, path.trim_start_matches('/'), number, mode, data);
        }
        append(&mut out, "TRAILER!!!", 0, 0, &[]);
        out
    }
}

fn append(out: &mut Vec<u8>, name: &str, number: usize, mode: usize, data: &[u8]) {
    let pad = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(b"070701");
    // inode, mode, uid, gid, links, mtime, size, device (4), name size, checksum
    let fields = [
        number,
        mode,
        0,
        0,
        1,
        0,
        data.len(),
        0,
        0,
        0,
        0,
        name.len() + 1,
        0,
    ];
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
}

/// The modules we need and those they need, these first. A module that the
/// kernel does not have as a file is built in (or a test will miss it).
fn load_order(modules: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    index(modules, &mut files)?;
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in MODULES {
        visit(name, &files, &mut seen, &mut order)?;
    }
    Ok(order)
}

fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some((stem, _)) = name.split_once(".ko") {
            // The kernel writes `_` where the file may have `-`.
            files.insert(stem.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn visit(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let name = name.replace('-', "_");
    if !seen.insert(name.clone()) {
        return Ok(());
    }
    let Some(path) = files.get(&name) else {
        return Ok(());
    };
    let bytes = decompressed(path)?;
    for needed in needs(&bytes).with_context(|| path.display().to_string())? {
        visit(&needed, files, seen, order)?;
    }
    order.push((name, bytes));
    Ok(())
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    let output = Command::new(tool).arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("cannot start {tool}"))?;
    anyhow::ensure!(output.status.success(), "{tool} -dc {}", path.display());
    Ok(output.stdout)
}

/// Names in a module's `depends=`.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let info = file
        .section_by_name(".modinfo")
        .context("no .modinfo")?
        .data()?;
    let depends = info
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="))
        .unwrap_or_default();
    let names = String::from_utf8_lossy(depends).into_owned();
    Ok(names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_reads() {
        let mut archive = Archive::default();
        archive.file("/bin/tool", b"abc".to_vec());
        archive.put("/bin/link", Entry::Link("tool".to_owned()));
        let bytes = archive.bytes();
        let text = String::from_utf8(bytes.clone()).expect("ASCII");
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(
            text.matches("070701").count(),
            4,
            "bin, link, tool, trailer"
        );
        let tool = text.find("bin/tool\0").expect("the file");
        // Mode and size as the header before the name has them.
        assert_eq!(&text[tool - 96..tool - 88], "000081ED");
        assert_eq!(&text[tool - 56..tool - 48], "00000003");
        assert!(text[tool..].contains("abc\0"));
        assert!(
            text.find("bin\0") < text.find("bin/link\0"),
            "folders first"
        );
    }
}
