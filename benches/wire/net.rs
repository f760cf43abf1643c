//! Two namespaces and a wire: the host under test and a peer that sends.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use palisade::datapath::netns;
use palisade::lab::sandbox::{self, Sandbox};
use palisade::lab::tool::ip;

const PREFIX: &str = "palisade-wire-";
/// Device of both sides.
pub(crate) const DEVICE: &str = "eth0";
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
pub(crate) const HOST_ETHERNET: [u8; 6] = [2, 0, 0, 0, 77, 1];
pub(crate) const PEER_ETHERNET: [u8; 6] = [2, 0, 0, 0, 77, 2];

/// One wire, for one setting.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) sandbox: Sandbox,
}

/// What the host's side of the wire and its UDP have counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Packets that arrived on the device.
    pub(crate) received: u64,
    /// Datagrams that reached a socket: read, or refused by its full buffer.
    pub(crate) delivered: u64,
    /// Resets that were sent.
    pub(crate) resets: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            delivered: self.delivered - before.delivered,
            resets: self.resets - before.resets,
        }
    }
}

impl Wire {
    pub(crate) fn build(setting: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{setting}", std::process::id());
        let sandbox = Sandbox::create(&name)?;
        for short in ["host", "peer"] {
            sandbox.add_namespace(short)?;
        }
        let wire = Self { sandbox };
        let (host, peer) = (wire.host(), wire.peer());
        ip(&format!(
            "-n {host} link add {DEVICE} type veth peer name {DEVICE} netns {peer}"
        ))?;
        wire.side(&host, (HOST, HOST_ETHERNET), (PEER, PEER_ETHERNET))?;
        wire.side(&peer, (PEER, PEER_ETHERNET), (HOST, HOST_ETHERNET))?;
        // Answers to any source have a way out.
        ip(&format!("-n {host} route add default via {PEER}"))?;
        Ok(wire)
    }

    pub(crate) fn host(&self) -> String {
        self.sandbox.namespace("host")
    }

    pub(crate) fn peer(&self) -> String {
        self.sandbox.namespace("peer")
    }

    /// Addresses that are fixed, so that nothing is asked while it is measured.
    fn side(&self, name: &str, own: (Ipv4Addr, [u8; 6]), other: (Ipv4Addr, [u8; 6])) -> Result<()> {
        // A peer without IPv6 has nothing to announce in the middle of a round.
        netns::run_in(name, || {
            let root = "/proc/sys/net";
            for (path, value) in [
                ("ipv6/conf/all/disable_ipv6", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                ("ipv4/ip_local_port_range", "2048 65535"),
            ] {
                fs::write(format!("{root}/{path}"), value).context(path)?;
            }
            anyhow::Ok(())
        })??;
        let (address, ethernet) = (own.0, shown(own.1));
        ip(&format!("-n {name} link set {DEVICE} address {ethernet}"))?;
        ip(&format!("-n {name} addr add {address}/24 dev {DEVICE}"))?;
        ip(&format!("-n {name} link set {DEVICE} up"))?;
        let (address, ethernet) = (other.0, shown(other.1));
        ip(&format!(
            "-n {name} neigh add {address} lladdr {ethernet} dev {DEVICE} nud permanent"
        ))?;
        Ok(())
    }

    pub(crate) fn counts(&self) -> Result<Counts> {
        netns::run_in(&self.host(), || {
            Ok(Counts {
                received: received().context("/proc/net/dev")?,
                delivered: snmp("Udp:", &["InDatagrams", "RcvbufErrors"])?,
                resets: snmp("Tcp:", &["OutRsts"])?,
            })
        })?
    }
}

fn received() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let device = format!("{DEVICE}:");
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&device))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Sum of some counters of a protocol.
fn snmp(protocol: &str, names: &[&str]) -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let mut words = || lines.next().map(str::split_whitespace);
    let (known, values) = words().zip(words()).context("/proc/net/snmp")?;
    let mut sum = 0;
    for (name, value) in known.zip(values) {
        if names.contains(&name) {
            sum += value.parse::<u64>()?;
        }
    }
    Ok(sum)
}

fn shown(ethernet: [u8; 6]) -> String {
    ethernet.map(|byte| format!("{byte:02x}")).join(":")
}

/// Removes what runs left behind that were killed.
pub(crate) fn remove_leftovers() -> Result<()> {
    for name in sandbox::all(PREFIX)? {
        let pid = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        if !std::path::Path::new("/proc").join(pid).exists() {
            sandbox::remove(&name);
        }
    }
    Ok(())
}
