//! A sandbox with a store of some size, and starts of the agent in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use palisade::lab::agent::{Agent, AgentSpec, write_manifest};
use palisade::lab::network::{self, DEVICE, Place};
use palisade::lab::sandbox::Sandbox;
use palisade::lab::scenario::{NODES, log_tail};
use rustix::process::Signal;
use serde_json::{Value, json};

/// How much the store holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) policies: usize,
    /// Over all policies; each is an identity and an ipcache entry of its own.
    pub(crate) prefixes: usize,
}

/// How the agent before ended, and what it left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Before {
    /// Nothing: no store, no pins; all comes from manifests.
    Nothing,
    /// SIGTERM; the kernel holds all.
    Term,
    /// SIGKILL; the kernel holds all.
    Kill,
    /// SIGTERM; the kernel holds nothing, as after a boot.
    Detached,
}

/// What a start took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// From exec until the commit of what the store holds.
    pub(crate) enforcing: Duration,
    /// From exec until all sources have spoken too and all is in force.
    pub(crate) ready: Duration,
    /// Time of the processor until then: what a busy machine does not change.
    pub(crate) cpu: Duration,
    /// The largest resident memory until then.
    pub(crate) peak_kib: u64,
    /// Resident memory at the end, and that of all maps as `palisade status`
    /// says it.
    pub(crate) resident_kib: u64,
    pub(crate) maps_kib: u64,
    /// Entries of the kernel's maps that were written.
    pub(crate) written: u64,
    /// Time of the processor for one `palisade status` after that.
    pub(crate) status: Duration,
}

const PATIENCE: Duration = Duration::from_secs(1_800);
const POLL: Duration = Duration::from_millis(20);
const READY: &str = "ready: sources are in sync";
const POLICIES_IN_A_FILE: usize = 100;
const PORTS: usize = 40;

/// The sandbox; its agent runs or not.
#[derive(Debug)]
pub(crate) struct World {
    agent: Option<Agent>,
    exe: PathBuf,
    sandbox: Sandbox,
}

impl World {
    pub(crate) fn build(exe: &Path, size: Size) -> Result<Self> {
        let name = format!("palisade-start-{}-{}", std::process::id(), size.policies);
        let sandbox = Sandbox::create(&name)?;
        network::build(&sandbox)?;
        write_manifest(&sandbox, "nodes.yaml", NODES)?;
        for first in (0..size.policies).step_by(POLICIES_IN_A_FILE) {
            let last = (first + POLICIES_IN_A_FILE).min(size.policies);
            let texts = (first..last).map(|number| policy(number, size).to_string());
            let text = texts.collect::<Vec<_>>().join("\n---\n");
            write_manifest(&sandbox, &format!("policies-{first:06}.yaml"), &text)?;
        }
        Ok(Self {
            agent: None,
            exe: exe.to_owned(),
            sandbox,
        })
    }

    /// Ends the agent as asked, starts it again and measures.
    pub(crate) fn start(&mut self, before: Before) -> Result<Start> {
        self.end(before)?;
        let spec = AgentSpec {
            exe: self.exe.clone(),
            place: Place::Host.name().into(),
            arguments: ["--node-name", "host", "--device", DEVICE]
                .map(String::from)
                .into(),
        };
        let ready_before = self.times_ready();
        let started = SystemTime::now();
        self.agent = Some(Agent::start(&self.sandbox, &spec)?);
        self.wait_ready(started, ready_before)
            .with_context(|| log_tail(&self.sandbox))
    }

    fn end(&mut self, before: Before) -> Result<()> {
        if let Some(mut agent) = self.agent.take() {
            let signal = match before {
                Before::Kill => Signal::KILL,
                Before::Nothing | Before::Term | Before::Detached => Signal::TERM,
            };
            agent.end(signal)?;
        }
        if before == Before::Detached {
            let mut detach = Command::new(&self.exe);
            detach.arg("detach");
            detach.arg("--bpffs").arg(self.sandbox.path("bpf"));
            detach.arg("--state-dir").arg(self.sandbox.path("state"));
            let status = detach.stdout(std::process::Stdio::null()).status()?;
            if !status.success() {
                bail!("detach: {status}");
            }
        }
        Ok(())
    }

    /// How often an agent has said in the log that it is ready: asking it would
    /// cost some of what is measured.
    fn times_ready(&self) -> usize {
        let log = fs::read_to_string(self.sandbox.path("agent.log"));
        log.unwrap_or_default().matches(READY).count()
    }

    fn wait_ready(&mut self, started: SystemTime, ready_before: usize) -> Result<Start> {
        let mut left = PATIENCE;
        while self.times_ready() == ready_before {
            let agent = self.agent.as_mut().context("an agent")?;
            if let Some(status) = agent.exited()? {
                bail!("the agent ended: {status}");
            }
            left = left.saturating_sub(POLL);
            if left.is_zero() {
                bail!("not ready in {PATIENCE:?}");
            }
            sleep(POLL);
        }
        let agent = self.agent.as_ref().context("an agent")?;
        let ready = started.elapsed()?;
        let since = started.duration_since(SystemTime::UNIX_EPOCH)?;
        let pid = agent.pid().context("a process")?;
        let mut start = Start {
            enforcing: Duration::ZERO,
            ready,
            cpu: cpu(pid)?,
            peak_kib: memory(pid, "VmHWM:")?,
            resident_kib: memory(pid, "VmRSS:")?,
            maps_kib: maps(agent)?,
            written: 0,
            status: status(agent, pid)?,
        };
        start.enforcing = first_commit(agent, since)?;
        start.written = written(agent)?;
        Ok(start)
    }
}

/// When the first commit of this life was, by the agent's history.
fn first_commit(agent: &Agent, since: Duration) -> Result<Duration> {
    let history = agent.json(&["history"])?;
    let lines = history.as_array().context("a list")?.iter();
    let since_ms = u64::try_from(since.as_millis())?;
    let mut times = lines
        .filter(|line| line["event"] == "commit")
        .filter_map(|line| line["time_ms"].as_u64())
        .filter(|time_ms| *time_ms >= since_ms);
    let first = times.next().context("nothing was committed")?;
    Ok(Duration::from_millis(first - since_ms))
}

/// User and system time of a process and of all its threads.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything; the state comes first.
    let fields = stat.rsplit(") ").next().context("fields")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks * 1_000 / per_second))
}

/// What a poll of the status costs the agent: its time is counted in ticks of
/// 10 ms, so many are made.
fn status(agent: &Agent, pid: u32) -> Result<Duration> {
    const POLLS: u32 = 40;
    // The first one looks at all policies.
    agent.json(&["status"])?;
    let before = cpu(pid)?;
    for _ in 0..POLLS {
        agent.json(&["status"])?;
    }
    Ok((cpu(pid)? - before) / POLLS)
}

/// One of the kernel's figures about a process's memory, in KiB.
fn memory(pid: u32, what: &'static str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context(what)?.parse()?)
}

/// The memory of all maps, in KiB.
fn maps(agent: &Agent) -> Result<u64> {
    let status = agent.json(&["status"])?;
    let bytes = status["kernel"]["maps_bytes"].as_u64();
    Ok(bytes.context("the memory of the maps")? >> 10)
}

fn written(agent: &Agent) -> Result<u64> {
    let samples = agent.json(&["metrics", "list", "-p", "datapath_written_entries"])?;
    let value = samples[0]["value"].as_str();
    Ok(value.context("the counter")?.parse()?)
}

/// Opens one of a few ports to prefixes of its own.
fn policy(number: usize, size: Size) -> Value {
    let share = |end: usize| size.prefixes * end / size.policies;
    let prefixes = (share(number)..share(number + 1)).map(|prefix| {
        let bytes = [prefix >> 16, prefix >> 8 & 255, prefix & 255];
        // One of five is IPv6.
        match prefix % 5 {
            0 => format!(
                "2001:db8::{:x}:{:x}/128",
                bytes[0] << 8 | bytes[1],
                bytes[2]
            ),
            _ => format!("100.{}.{}.{}/32", bytes[0], bytes[1], bytes[2]),
        }
    });
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": format!("policy-{number:06}")},
        "spec": {"nodeSelector": {}, "ingress": [{
            "fromCIDR": prefixes.collect::<Vec<_>>(),
            "toPorts": [{"ports": [
                {"port": (1_000 + number % PORTS).to_string(), "protocol": "TCP"},
            ]}],
        }]},
    })
}
