//! The real agent as a child process in a namespace of the sandbox, and the
//! real client commands against it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::sandbox::{Process, Sandbox};
use crate::datapath::netns;
use crate::limits::{LAB_POLL_INTERVAL, LAB_POLLS_MAX};

/// Where and with what to start an agent.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// The `palisade` binary.
    pub exe: PathBuf,
    /// Short name of the namespace.
    pub place: String,
    /// Further arguments of `palisade agent`.
    pub arguments: Vec<String>,
}

/// A running agent, ended when this value goes.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    exe: PathBuf,
    socket: PathBuf,
}

impl Agent {
    /// Starts it with the sandbox's directories; its messages go to `agent.log`.
    pub fn start(sandbox: &Sandbox, spec: &AgentSpec) -> Result<Self> {
        let socket = sandbox.path("agent.sock");
        let log = File::options()
            .create(true)
            .append(true)
            .open(sandbox.path("agent.log"))?;
        let mut command = Command::new(&spec.exe);
        command.arg("agent");
        for (option, part) in [
            ("--manifests", "manifests"),
            ("--state-dir", "state"),
            ("--bpffs", "bpf"),
            ("--socket", "agent.sock"),
        ] {
            command.arg(option).arg(sandbox.path(part));
        }
        command.args(&spec.arguments);
        clean_environment(&mut command);
        command.process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = netns::run_in(&sandbox.namespace(&spec.place), || command.spawn())?
            .with_context(|| format!("cannot start {}", spec.exe.display()))?;
        Ok(Self {
            process: sandbox.adopt(child)?,
            exe: spec.exe.clone(),
            socket,
        })
    }

    /// A client command against this agent.
    #[must_use]
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        clean_environment(&mut command);
        command.args(arguments).arg("--socket").arg(&self.socket);
        command.stdin(Stdio::null());
        command
    }

    /// What a client command prints as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.client(arguments);
        let output = command.args(["-o", "json"]).output()?;
        if !output.status.success() {
            bail!(
                "`palisade {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("output of `palisade {}`", arguments.join(" ")))
    }

    /// The host endpoint, once the agent answers.
    pub fn host_endpoint(&self) -> Result<Value> {
        let list = self.json(&["endpoint", "list"])?;
        let endpoints = list.as_array().context("endpoint list prints an array")?;
        let host = endpoints.iter().find(|endpoint| endpoint["identity"] == 1);
        host.cloned().context("there is no host endpoint")
    }

    /// Waits until the agent answers and its host endpoint is as asked.
    pub fn wait_for(&mut self, what: &str, done: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = String::new();
        for _ in 0..LAB_POLLS_MAX {
            if let Some(status) = self.exited()? {
                bail!("the agent ended while the lab waited until {what}: {status}");
            }
            match self.host_endpoint() {
                Ok(endpoint) if done(&endpoint) => return Ok(endpoint),
                Ok(endpoint) => last = endpoint.to_string(),
                Err(error) => last = format!("{error:#}"),
            }
            sleep(LAB_POLL_INTERVAL);
        }
        bail!("waited in vain until {what}; last seen: {last}")
    }

    /// Waits until the endpoint is ready and nothing is being changed.
    pub fn wait_ready(&mut self) -> Result<Value> {
        self.wait_for("the host endpoint is ready", is_settled)
    }

    /// Waits until a direction (`ingress`, `egress`) is `enabled`, `disabled`
    /// or `audit`.
    pub fn wait_enforcement(&mut self, direction: &str, wanted: &str) -> Result<Value> {
        self.wait_for(&format!("{direction} is {wanted}"), |endpoint| {
            is_settled(endpoint) && endpoint["policy"][direction] == wanted
        })
    }

    /// Starts `palisade monitor`, writing one JSON object a line to `file`.
    pub fn monitor(&self, sandbox: &Sandbox, file: &Path) -> Result<Process> {
        let mut command = self.client(&["monitor", "-o", "json"]);
        command.process_group(0).stdout(File::create(file)?);
        sandbox.adopt(command.spawn().context("cannot start the monitor")?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process.id().context("the agent was let go")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        kill_process(pid.context("process id")?, signal)?;
        Ok(())
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        let child = self.process.child().context("the agent was let go")?;
        Ok(child.wait()?)
    }

    /// The end of the process, if it came.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        match self.process.child() {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Leaves it running when this value goes.
    pub fn let_go(&mut self) {
        self.process.let_go();
    }
}

fn is_settled(endpoint: &Value) -> bool {
    let revision = &endpoint["revision"];
    endpoint["state"] == "ready" && revision["desired"] == revision["realized"]
}

/// The caller's own settings are not the lab's.
fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PALISADE_") {
            command.env_remove(name);
        }
    }
}

/// Writes a manifest as tools do: beside its place, then renamed over it.
pub fn write_manifest(sandbox: &Sandbox, name: &str, text: &str) -> Result<()> {
    let place = sandbox.path("manifests").join(name);
    let beside = sandbox.path("manifest.tmp");
    fs::write(&beside, text)?;
    fs::rename(&beside, &place).with_context(|| place.display().to_string())
}
