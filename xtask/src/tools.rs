//! Programs of the operating system that the tests use: found, installed where
//! that is possible, or named with the package that brings them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::run;

/// A program and the Debian package that brings it.
struct Tool {
    name: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "ip",
        package: "iproute2",
        why: "builds the network namespaces",
    },
    Tool {
        name: "tc",
        package: "iproute2",
        why: "puts a foreign program on a device",
    },
    Tool {
        name: "nft",
        package: "nftables",
        why: "masquerades container-like traffic",
    },
    Tool {
        name: "bpftool",
        package: "bpftool",
        why: "lists what is left in the kernel",
    },
    Tool {
        name: "systemd-analyze",
        package: "systemd",
        why: "checks the unit of the agent",
    },
    Tool {
        name: "promtool",
        package: "prometheus",
        why: "checks the metrics",
    },
    Tool {
        name: "etcd",
        package: "etcd-server",
        why: "is the store that agents share",
    },
    Tool {
        name: "buildah",
        package: "buildah",
        why: "builds the last stage of the agent's image",
    },
    Tool {
        name: "strace",
        package: "strace",
        why: "makes system calls of the agent fail",
    },
];

/// Whether the current user is root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of our own process entry is our effective user.
    fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

/// Whether `name` can be started.
pub(crate) fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// Where the program `name` is.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Administration tools are not on everybody's path.
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// A folder of what is fetched or built once for this user.
pub(crate) fn cache(name: &str) -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let cache = base.join("palisade").join(name);
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    Ok(cache)
}

/// A command that runs as root: itself, or through sudo. None without sudo.
pub(crate) fn as_root(program: impl AsRef<Path>) -> Option<Command> {
    let program = program.as_ref();
    if is_root() {
        return Some(Command::new(program));
    }
    if !exists("sudo") {
        return None;
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg("--").arg(program);
    Some(command)
}

/// Installs Debian packages.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    if !exists("apt-get") {
        bail!("this system has no apt-get");
    }
    let Some(mut update) = as_root("apt-get") else {
        bail!("installing needs root: there is no sudo");
    };
    println!("installing {}", packages.join(" "));
    // A stale list of packages is better than none.
    drop(run(update.args(["update", "-q"]).stdout(Stdio::null())));
    let mut install = as_root("apt-get").unwrap_or_else(|| Command::new("apt-get"));
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(packages);
    run(install.stdout(Stdio::null()))
}

/// Makes sure that every tool is there, or says what to install.
pub(crate) fn ensure() -> Result<()> {
    let missing = || {
        TOOLS
            .iter()
            .filter(|tool| !exists(tool.name))
            .collect::<Vec<_>>()
    };
    let absent = missing();
    if absent.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = absent.iter().map(|tool| tool.package).collect();
    packages.dedup();
    let outcome = apt_install(&packages);
    let absent = missing();
    if absent.is_empty() {
        return Ok(());
    }
    let mut message = String::from("the tests need these programs:\n");
    for tool in absent {
        let Tool { name, package, why } = tool;
        message.push_str(&format!("  {name:9} {why} (Debian, Ubuntu: {package})\n"));
    }
    message.push_str(&format!(
        "install them, on Debian: apt-get install {}",
        packages.join(" ")
    ));
    if let Err(error) = outcome {
        message.push_str(&format!("\n({error:#})"));
    }
    bail!(message)
}
