//! What every test stands on: a sandbox with a host, a peer and an outsider,
//! echo servers in each, and an agent in the host's namespace.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use palisade::datapath::netns;
use palisade::lab::agent::{Agent, AgentSpec, write_manifest};
use palisade::lab::network::{self, DEVICE, Family, Place};
use palisade::lab::probe::{self, Kind, Seen};
use palisade::lab::sandbox::{Process, Sandbox};
use palisade::lab::scenario::{NODES, log_tail};
use palisade::lab::{echo, tool};
use serde_json::Value;

/// The policy that the project began with.
pub(crate) use palisade::lab::scenario::DEMO_POLICY;

pub(crate) const SSH: u16 = 22;
pub(crate) const HTTP: u16 = 80;
pub(crate) const ECHO: u16 = 9_000;

/// Nothing takes longer than this, on a busy machine either.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the test can run; panics where it must.
pub(crate) fn privileged() -> bool {
    if rustix_is_root() {
        return true;
    }
    let required = ["PALISADE_REQUIRE_PRIVILEGED", "CI"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    assert!(!required, "this test needs root: run `cargo xtask test`");
    eprintln!("skipped: needs root, run `cargo xtask test`");
    false
}

fn rustix_is_root() -> bool {
    // The owner of our own process entry is our effective user.
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

/// The binary under test: cargo's, or the one that `PALISADE_TEST_EXE` names.
pub(crate) fn exe() -> &'static Path {
    static EXE: OnceLock<PathBuf> = OnceLock::new();
    EXE.get_or_init(|| {
        let named = std::env::var_os("PALISADE_TEST_EXE");
        named.map_or_else(|| env!("CARGO_BIN_EXE_palisade").into(), PathBuf::from)
    })
}

/// One test's world.
#[derive(Debug)]
pub(crate) struct World {
    // Dropped first: the agent ends before its namespace goes.
    agent: Option<Agent>,
    servers: Vec<Process>,
    arguments: Vec<String>,
    /// What is started as the agent.
    program: PathBuf,
    pub(crate) sandbox: Sandbox,
}

impl World {
    /// Network and servers, no agent.
    pub(crate) fn bare() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("palisade-e2e-{}x{number}", std::process::id());
        let sandbox = Sandbox::create(&name).expect("a sandbox");
        network::build(&sandbox).expect("a network");
        let mut world = Self {
            agent: None,
            servers: Vec::new(),
            arguments: Vec::new(),
            program: exe().to_owned(),
            sandbox,
        };
        for place in Place::ALL {
            world.serve(place.name(), &[SSH, HTTP], &[ECHO]);
        }
        let arguments = ["--node-name", "host", "--device", DEVICE];
        world.arguments = arguments.map(String::from).into();
        world
    }

    /// Network, servers, the nodes' manifests and an agent that is ready.
    pub(crate) fn new() -> Self {
        let mut world = Self::bare();
        world.manifest("nodes.yaml", NODES);
        world.start_agent();
        world
    }

    /// A world whose agent enforces the demo policy.
    pub(crate) fn with_demo_policy() -> Self {
        let mut world = Self::new();
        world.manifest("policy.yaml", DEMO_POLICY);
        world.wait("ingress", "enabled");
        world
    }

    /// Starts echo servers in a namespace.
    pub(crate) fn serve(&mut self, short: &str, tcp: &[u16], udp: &[u16]) {
        let child = echo::start(&self.sandbox, exe(), short, tcp, udp).expect("echo servers");
        self.servers.push(child);
    }

    /// Adds arguments to the next start of the agent.
    pub(crate) fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Takes arguments that were added last out again.
    pub(crate) fn remove_arguments(&mut self, arguments: &[&str]) {
        let left = self.arguments.len() - arguments.len();
        assert_eq!(self.arguments.split_off(left), arguments);
    }

    /// What is started as the agent from here on.
    pub(crate) fn run_as_agent(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// Starts the agent (again) and waits until it is ready.
    pub(crate) fn start_agent(&mut self) {
        self.launch_agent();
        let ready = self.agent().wait_ready();
        ready.unwrap_or_else(|error| panic!("{error:#}\n{}", log_tail(&self.sandbox)));
    }

    /// Starts the agent without waiting.
    pub(crate) fn launch_agent(&mut self) {
        let spec = AgentSpec {
            exe: self.program.clone(),
            place: Place::Host.name().into(),
            arguments: self.arguments.clone(),
        };
        self.agent = Some(Agent::start(&self.sandbox, &spec).expect("the agent starts"));
    }

    pub(crate) fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("an agent")
    }

    /// Writes a manifest by rename.
    pub(crate) fn manifest(&self, name: &str, text: &str) {
        write_manifest(&self.sandbox, name, text).expect("a manifest");
    }

    /// The manifest's place.
    pub(crate) fn manifest_path(&self, name: &str) -> PathBuf {
        self.sandbox.path("manifests").join(name)
    }

    pub(crate) fn remove_manifest(&self, name: &str) {
        fs::remove_file(self.manifest_path(name)).expect("the manifest was there");
    }

    /// Waits until a direction is `enabled`, `disabled` or `audit`.
    pub(crate) fn wait(&mut self, direction: &str, wanted: &str) -> Value {
        let found = self.agent().wait_enforcement(direction, wanted);
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", log_tail(&self.sandbox)))
    }

    /// Waits until the endpoint is settled and `done` holds for it.
    pub(crate) fn wait_for(&mut self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let found = self.agent().wait_for(what, done);
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", log_tail(&self.sandbox)))
    }

    /// The generation in force.
    pub(crate) fn generation(&mut self) -> u64 {
        let status = self.agent().json(&["status"]).expect("status");
        status["realized"]["generation"]
            .as_u64()
            .expect("a generation")
    }

    /// The revision in force, once everything is settled.
    pub(crate) fn revision(&mut self) -> u64 {
        let endpoint = self.agent().wait_ready().expect("a settled endpoint");
        endpoint["revision"]["realized"]
            .as_u64()
            .expect("a revision")
    }

    /// Waits until a revision later than `before` is in force.
    pub(crate) fn wait_revision_after(&mut self, before: u64) -> u64 {
        let found = self.wait_for("a later revision", |endpoint| {
            let revision = &endpoint["revision"];
            endpoint["state"] == "ready"
                && revision["desired"] == revision["realized"]
                && revision["realized"].as_u64() > Some(before)
        });
        found["revision"]["realized"].as_u64().expect("a revision")
    }

    /// Runs a client command to its end.
    pub(crate) fn client(&mut self, arguments: &[&str]) -> Output {
        self.agent()
            .client(arguments)
            .output()
            .expect("the client starts")
    }

    /// One probe from a place of the sandbox to an address.
    pub(crate) fn probe(&self, from: &str, kind: Kind, to: std::net::IpAddr) -> Seen {
        netns::run_in(&self.sandbox.namespace(from), || probe::send(kind, to)).expect("a namespace")
    }

    /// Several probes at the same time, for both families; panics with all that
    /// is not as expected.
    #[track_caller]
    pub(crate) fn expect(&self, rows: &[(Place, Place, Kind, Seen)]) {
        let mut all = Vec::new();
        for family in Family::BOTH {
            for (from, to, kind, expected) in rows {
                all.push((*from, *to, family, *kind, expected.clone()));
            }
        }
        let names: Vec<String> = all
            .iter()
            .map(|row| self.sandbox.namespace(row.0.name()))
            .collect();
        let results = netns::run_all(names.iter().zip(&all).map(|(name, row)| {
            let (kind, to) = (row.3, row.1.address(row.2));
            (name.as_str(), move || probe::send(kind, to))
        }));
        let mut wrong = Vec::new();
        for (row, seen) in all.iter().zip(results) {
            let seen = seen.expect("a namespace");
            if seen != row.4 {
                wrong.push(format!("{row:?}: {seen}"));
            }
        }
        assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
    }

    /// Opens a TCP connection from a place.
    pub(crate) fn connect(&self, from: Place, to: Place, port: u16, family: Family) -> TcpStream {
        let address = SocketAddr::new(to.address(family), port);
        netns::run_in(&self.sandbox.namespace(from.name()), || {
            TcpStream::connect_timeout(&address, PATIENCE)
        })
        .expect("a namespace")
        .expect("a connection")
    }

    /// Runs a tool in a namespace and returns what it printed.
    pub(crate) fn tool(&self, short: &str, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        netns::run_in(&self.sandbox.namespace(short), || {
            tool::run(words[0], &words[1..])
        })
        .expect("a namespace")
        .expect("the tool runs")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", log_tail(&self.sandbox));
        }
    }
}

/// Tries again until `done` returns something; a busy machine takes its time, and
/// so do the waits of an agent after an outage.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_200 {
        if let Some(found) = done() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain until {what}");
}

/// The rows of "everything reaches everything".
pub(crate) fn open_rows() -> Vec<(Place, Place, Kind, Seen)> {
    let ways = [
        (Place::Outsider, Place::Host),
        (Place::Peer, Place::Host),
        (Place::Host, Place::Outsider),
    ];
    let kinds = [Kind::Tcp(SSH), Kind::Tcp(HTTP), Kind::Udp(ECHO), Kind::Ping];
    let pairs = ways
        .into_iter()
        .flat_map(|way| kinds.map(|kind| (way, kind)));
    pairs
        .map(|((from, to), kind)| (from, to, kind, Seen::Passed))
        .collect()
}

/// The rows of the demo policy: the outsider reaches TCP 22 only.
pub(crate) fn demo_rows() -> Vec<(Place, Place, Kind, Seen)> {
    let mut rows = open_rows();
    for row in &mut rows {
        if row.0 == Place::Outsider && row.2 != Kind::Tcp(SSH) {
            row.3 = Seen::Dropped;
        }
    }
    rows
}
