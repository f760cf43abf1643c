//! What is in the guest: systemd as its package has it, the agent with its unit
//! and example configuration as `deploy/` has them, and our scripts.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{capture, root};
use crate::kernels::{Archive, Kernel};
use crate::tools;

const INIT: &str = include_str!("guest/init.sh");
const MANIFESTS: &str = include_str!("guest/manifests.yaml");
/// Files that are the same in each boot.
const FILES: &[(&str, &str)] = &[
    ("/etc/hostname", "guest\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
    ("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
    ("/etc/group", "root:x:0:\n"),
    ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("/etc/os-release", "ID=guest\nNAME=guest\n"),
    ("/guest/common.sh", include_str!("guest/common.sh")),
    ("/guest/network.sh", include_str!("guest/network.sh")),
    (
        "/guest/imported-1.yaml",
        include_str!("guest/imported-1.yaml"),
    ),
    (
        "/guest/imported-2.yaml",
        include_str!("guest/imported-2.yaml"),
    ),
    (
        "/etc/systemd/system/guest.target",
        include_str!("guest/guest.target"),
    ),
    (
        "/etc/systemd/system/guest-network.service",
        include_str!("guest/network.service"),
    ),
    (
        "/etc/systemd/system/guest-check.service",
        include_str!("guest/check.service"),
    ),
];
/// Folders of systemd's package that the guest has use for.
const OF_SYSTEMD: &[&str] = &["/bin/", "/lib/systemd/", "/usr/bin/", "/usr/lib/systemd/"];

/// What tells one boot from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    pub(super) name: &'static str,
    pub(super) script: &'static str,
    /// Whether the directory of policies is there; else it is missing, and so is
    /// the etcd that the configuration names.
    pub(super) has_sources: bool,
}

pub(super) const BOOTS: [Boot; 2] = [
    Boot {
        name: "first boot",
        script: include_str!("guest/first.sh"),
        has_sources: true,
    },
    Boot {
        name: "boot after a power failure, without any source",
        script: include_str!("guest/second.sh"),
        has_sources: false,
    },
];

/// The initramfs of a boot.
pub(super) fn initramfs(kernel: &Kernel, palisade: &Path, boot: &Boot) -> Result<Archive> {
    let mut archive = Archive::base(&kernel.modules)?;
    for (path, text) in FILES {
        archive.file(path, text.as_bytes().to_vec());
    }
    archive.file("/init", format!("#!/bin/sh\n{INIT}").into_bytes());
    archive.file("/guest/check.sh", boot.script.as_bytes().to_vec());
    add_systemd(&mut archive)?;
    let words = capture(Command::new("busybox").arg("--list"))?;
    for word in words.lines() {
        archive.link(&format!("/bin/{word}"), "busybox");
    }
    add_agent(&mut archive, palisade, boot)?;
    Ok(archive)
}

fn add_systemd(archive: &mut Archive) -> Result<()> {
    let listed = capture(Command::new("dpkg").args(["-L", "systemd"]))
        .context("systemd comes from its Debian package")?;
    for path in listed.lines() {
        // Generators make units for terminals and disks that the guest lacks.
        let is_wanted = OF_SYSTEMD.iter().any(|folder| path.starts_with(folder))
            && !path.contains("-generators/");
        let Some(about) = fs::symlink_metadata(path).ok().filter(|_| is_wanted) else {
            continue;
        };
        if about.is_symlink() {
            let target = fs::read_link(path)?;
            archive.link(path, &target.to_string_lossy());
        } else if about.is_file() {
            archive.program(Path::new(path), path)?;
        }
    }
    Ok(())
}

/// The agent as an operator installs it.
fn add_agent(archive: &mut Archive, palisade: &Path, boot: &Boot) -> Result<()> {
    let deployed = |name: &str| {
        let path = root().join("deploy/systemd").join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    archive.program(palisade, "/usr/bin/palisade")?;
    let unit = deployed("palisade.service")?;
    // `systemctl enable`.
    for target in unit
        .lines()
        .filter_map(|line| line.strip_prefix("WantedBy="))
    {
        archive.link(
            &format!("/etc/systemd/system/{target}.wants/palisade.service"),
            "../palisade.service",
        );
    }
    archive.file("/etc/systemd/system/palisade.service", unit.into_bytes());
    let mut options = with_option(&deployed("agent.yaml")?, "# device: [eth0]")?;
    if boot.has_sources {
        archive.file("/etc/palisade/manifests/all.yaml", MANIFESTS.into());
    } else {
        options = with_option(&options, "# etcd: [https://etcd-1:2379]")?;
        // Nobody answers there, not even with a refusal.
        options = options.replace("https://etcd-1:2379", "http://192.0.2.1:2379");
    }
    archive.file("/etc/palisade/agent.yaml", options.into_bytes());
    Ok(())
}

/// The example configuration with one of its comments taken as an option.
fn with_option(text: &str, comment: &str) -> Result<String> {
    ensure!(text.contains(comment), "agent.yaml has no `{comment}`");
    Ok(text.replace(comment, comment.trim_start_matches("# ")))
}

/// An empty disk for the state directory.
pub(super) fn disk(path: &Path) -> Result<()> {
    let file = fs::File::create(path).with_context(|| path.display().to_string())?;
    file.set_len(256 << 20)?;
    let mkfs = tools::find("mkfs.ext4").context("no mkfs.ext4 (Debian: e2fsprogs)")?;
    capture(Command::new(mkfs).args(["-q", "-F"]).arg(path))?;
    Ok(())
}
