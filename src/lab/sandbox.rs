//! Everything that one lab leaves on the machine, under one name: a directory
//! in /run, network namespaces, a bpffs mount and processes.
//!
//! Invariant: whatever carries the name is removed by [`remove`], which works
//! from the name alone: after a failure, after Ctrl-C, or from another process.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::tool;
use crate::datapath::netns;

const RUN: &str = "/run";

/// A named set of namespaces, mounts and processes, removed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    keep: bool,
}

impl Sandbox {
    /// Makes the directory and mounts a bpffs in it.
    pub fn create(name: &str) -> Result<Self> {
        let sandbox = Self {
            name: name.to_owned(),
            keep: false,
        };
        for part in ["bpf", "state", "manifests", "pids"] {
            let directory = sandbox.path(part);
            fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
        mount("bpf", sandbox.path("bpf"), "bpf", MountFlags::empty(), None)
            .context("cannot mount a bpffs (the kernel needs CONFIG_BPF_SYSCALL)")?;
        Ok(sandbox)
    }

    /// A file or directory of the sandbox.
    #[must_use]
    pub fn path(&self, part: &str) -> PathBuf {
        directory(&self.name).join(part)
    }

    /// Its name: the prefix of all it owns.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Full name of the namespace that is called `short` in the lab.
    #[must_use]
    pub fn namespace(&self, short: &str) -> String {
        format!("{}-{short}", self.name)
    }

    /// Makes a namespace with its loopback device up.
    pub fn add_namespace(&self, short: &str) -> Result<String> {
        let name = self.namespace(short);
        tool::ip(&format!("netns add {name}"))?;
        tool::ip(&format!("-n {name} link set lo up"))?;
        Ok(name)
    }

    /// Takes charge of a process: removing the sandbox ends it.
    pub fn adopt(&self, child: Child) -> Result<Process> {
        let process = Process(Some(child));
        let id = process.id().unwrap_or_default().to_string();
        fs::write(self.path("pids").join(id), "")?;
        Ok(process)
    }

    /// Leaves everything up when this value goes.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.name);
        }
    }
}

/// A child process of the sandbox: killed when dropped, unless it was let go.
#[derive(Debug)]
pub struct Process(Option<Child>);

impl Process {
    /// The process, unless it was let go.
    pub fn child(&mut self) -> Option<&mut Child> {
        self.0.as_mut()
    }

    /// Its number, unless it was let go.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }

    /// Leaves it running when this value goes.
    pub fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Errors mean that it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn directory(name: &str) -> PathBuf {
    Path::new(RUN).join(name)
}

/// Names of the sandboxes on this machine that begin with `prefix`.
pub fn all(prefix: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(RUN)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Ends the processes, unmounts, deletes the namespaces and the directory.
/// Goes on after a failure: half a sandbox is worse than a message.
pub fn remove(name: &str) {
    let directory = directory(name);
    for pid in entries(&directory.join("pids")) {
        end(&pid, name);
    }
    // The pins go with the mount, the links with the pins, unless a process
    // still holds them; the namespaces take their devices with them.
    while unmount(directory.join("bpf"), UnmountFlags::DETACH).is_ok() {}
    let own = format!("{name}-");
    for namespace in entries(Path::new(netns::DIRECTORY)) {
        if namespace.starts_with(&own)
            && let Err(error) = tool::ip(&format!("netns delete {namespace}"))
        {
            eprintln!("{error:#}");
        }
    }
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            eprintln!("cannot remove {}: {error}", directory.display());
        }
        Ok(()) | Err(_) => {}
    }
}

fn entries(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Kills a recorded process. Its command line names the sandbox; a process
/// that does not has only inherited the number.
fn end(pid: &str, name: &str) {
    let line = fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    if !["-", "/"]
        .iter()
        .any(|end| line.contains(&format!("{name}{end}")))
    {
        return;
    }
    if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
        // Gone already is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
}
