//! The firewalls that are compared: none, programs that do nothing, Palisade,
//! Palisade with a reader of its events, nftables.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use palisade::datapath::netns;
use palisade::lab::agent::{Agent, AgentSpec, write_manifest};
use palisade::lab::sandbox::Process;
use palisade::lab::scenario::log_tail;
use palisade::lab::tool;

use crate::net::{self, DEVICE, Wire};
use crate::sources;

/// Ports that the sources may use; the first of each is the bench's own.
pub(crate) const TCP_PORTS: [u16; 4] = [5_201, 22, 80, 443];
pub(crate) const UDP_PORTS: [u16; 2] = [7_000, 53];

/// The floors' object: its program `f_empty` does nothing.
static FLOORS: &[u8] = aya::include_bytes_aligned!("../../bpf-prog/floors.bpf.o");

/// What filters on the host's side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Setting {
    None,
    /// Nothing, by programs on the hooks that Palisade uses: what no firewall on
    /// them can be below.
    Hooks,
    Palisade,
    PalisadeReader,
    Nft10k,
}

impl Setting {
    pub(crate) const ALL: [Self; 5] = [
        Self::None,
        Self::Hooks,
        Self::Palisade,
        Self::PalisadeReader,
        Self::Nft10k,
    ];

    /// Whether what the policy does not allow is dropped.
    pub(crate) fn filters(self) -> bool {
        !matches!(self, Self::None | Self::Hooks)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hooks => "hooks",
            Self::Palisade => "palisade",
            Self::PalisadeReader => "palisade_reader",
            Self::Nft10k => "nft_10k",
        }
    }
}

/// A wire with a setting in force. The processes end before the wire goes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) setting: Setting,
    _monitor: Option<Process>,
    _agent: Option<Agent>,
    _programs: Option<Ebpf>,
    pub(crate) wire: Wire,
}

impl Place {
    /// Empties the kernel's own conntrack table, before it is full and drops;
    /// Palisade's makes room by itself and stays full.
    pub(crate) fn forget_flows(&self) -> Result<()> {
        if self.setting == Setting::Nft10k {
            netns::run_in(&self.wire.host(), delete_all_flows)??;
        }
        Ok(())
    }
}

/// Builds all settings; the names of those that cannot be, and why.
pub(crate) fn build() -> Result<(Vec<Place>, Vec<String>)> {
    net::remove_leftovers()?;
    let (mut places, mut missing) = (Vec::new(), Vec::new());
    for setting in Setting::ALL {
        if setting == Setting::Nft10k
            && let Err(error) = tool::run("nft", &["--version"])
        {
            missing.push(format!("{}: {error:#}", setting.name()));
            continue;
        }
        places.push(place(setting).with_context(|| setting.name().to_owned())?);
    }
    Ok((places, missing))
}

fn place(setting: Setting) -> Result<Place> {
    let wire = Wire::build(setting.name())?;
    let mut place = Place {
        setting,
        _monitor: None,
        _agent: None,
        _programs: None,
        wire,
    };
    match setting {
        Setting::None => {}
        Setting::Hooks => place._programs = Some(attach_nothing(&place.wire)?),
        Setting::Palisade => place._agent = Some(agent(&place.wire)?),
        Setting::PalisadeReader => {
            let agent = agent(&place.wire)?;
            let sandbox = &place.wire.sandbox;
            place._monitor = Some(agent.monitor(sandbox, Path::new("/dev/null"))?);
            place._agent = Some(agent);
        }
        Setting::Nft10k => load_nft(&place.wire)?,
    }
    Ok(place)
}

/// A program that does nothing on both hooks of the host's device.
fn attach_nothing(wire: &Wire) -> Result<Ebpf> {
    let mut object = Ebpf::load(FLOORS)?;
    let program = object.program_mut("f_empty").context("f_empty")?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    netns::run_in(&wire.host(), || {
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            program.attach(DEVICE, hook)?;
        }
        anyhow::Ok(())
    })??;
    Ok(object)
}

/// The real agent, as built with the bench, enforcing.
fn agent(wire: &Wire) -> Result<Agent> {
    write_manifest(&wire.sandbox, "policy.yaml", &policy())?;
    let spec = AgentSpec {
        exe: env!("CARGO_BIN_EXE_palisade").into(),
        place: "host".into(),
        arguments: ["--node-name", "host", "--device", DEVICE]
            .map(String::from)
            .into(),
    };
    let mut agent = Agent::start(&wire.sandbox, &spec)?;
    let enforced = agent.wait_enforcement("ingress", "enabled");
    enforced.with_context(|| log_tail(&wire.sandbox))?;
    Ok(agent)
}

fn policy() -> String {
    let port = |proto, port| format!("{{port: \"{port}\", protocol: {proto}}}");
    let ports = TCP_PORTS.map(|number| port("TCP", number)).into_iter();
    let ports = ports.chain(UDP_PORTS.map(|number| port("UDP", number)));
    format!(
        "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: wire
spec:
  nodeSelector: {{}}
  ingress:
  - fromCIDR: [{}]
    toPorts:
    - ports: [{}]
",
        listed(sources::prefixes()),
        listed(ports)
    )
}

/// What a careful operator writes for the same: one set of sources, one of
/// ports, established flows first.
fn load_nft(wire: &Wire) -> Result<()> {
    let port = |proto, port| format!("{proto} . {port}");
    let ports = TCP_PORTS.map(|number| port("tcp", number)).into_iter();
    let ports = ports.chain(UDP_PORTS.map(|number| port("udp", number)));
    let rules = format!(
        "table ip filter {{
  set sources {{
    type ipv4_addr
    flags interval
    elements = {{ {} }}
  }}
  set ports {{
    type inet_proto . inet_service
    elements = {{ {} }}
  }}
  chain input {{
    type filter hook input priority filter; policy drop
    ct state established,related accept
    ct state invalid drop
    iif lo accept
    ip saddr @sources meta l4proto . th dport @ports accept
  }}
}}
",
        listed(sources::prefixes()),
        listed(ports)
    );
    let file = wire.sandbox.path("rules.nft");
    fs::write(&file, rules)?;
    let file = file.to_string_lossy().into_owned();
    netns::run_in(&wire.host(), || tool::run("nft", &["-f", &file]))??;
    Ok(())
}

fn listed(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// ctnetlink: delete without a filter, in the caller's namespace.
fn delete_all_flows() -> Result<()> {
    const DELETE: u16 = 1 << 8 | 2;
    const REQUEST_AND_ACK: u16 = 5;
    const LENGTH: u32 = 20;
    let mut message = [0; LENGTH as usize];
    message[..4].copy_from_slice(&LENGTH.to_ne_bytes());
    message[4..6].copy_from_slice(&DELETE.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let error = answer.get(16..20).context("no answer")?;
    ensure!(error == [0; 4], "the conntrack table was not emptied");
    Ok(())
}
