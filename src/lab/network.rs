//! The lab's network: a host, a peer node and an outsider on one wire.
//!
//! ```text
//!   host eth0 ──┐
//!   peer eth0 ──┤ bridge in a namespace of its own (the wire)
//!   outsider ───┘
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::sandbox::Sandbox;
use super::tool::ip;
use crate::datapath::netns;

/// IP version of a probe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// A place on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// The protected node.
    Host,
    /// Another node of the cluster.
    Peer,
    /// A machine that nobody told the agent of.
    Outsider,
}

impl Place {
    pub const ALL: [Self; 3] = [Self::Host, Self::Peer, Self::Outsider];

    /// Its name in the table and in the names of namespaces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Peer => "peer",
            Self::Outsider => "outsider",
        }
    }

    /// Its address on the wire.
    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        let last = match self {
            Self::Host => 1,
            Self::Peer => 2,
            Self::Outsider => 3,
        };
        match family {
            Family::V4 => Ipv4Addr::new(10, 88, 0, last).into(),
            Family::V6 => Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, last.into()).into(),
        }
    }
}

/// Device of each place on the wire.
pub const DEVICE: &str = "eth0";

/// Builds the network in the sandbox's namespaces.
pub fn build(sandbox: &Sandbox) -> Result<()> {
    let wire = sandbox.add_namespace("wire")?;
    ip(&format!(
        "-n {wire} link add br0 type bridge mcast_snooping 0"
    ))?;
    ip(&format!("-n {wire} link set br0 up"))?;
    // A wire carries what is broken too; this file is there only where bridges
    // can filter.
    netns::run_in(&wire, || {
        for name in ["iptables", "ip6tables", "arptables"] {
            let file = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
            drop(fs::write(file, "0"));
        }
    })?;
    for place in Place::ALL {
        join(
            sandbox,
            place.name(),
            &Family::BOTH.map(|family| place.address(family)),
        )?;
    }
    Ok(())
}

/// Makes a namespace with a device on the wire.
pub fn join(sandbox: &Sandbox, short: &str, addresses: &[IpAddr]) -> Result<()> {
    let wire = sandbox.namespace("wire");
    let name = sandbox.add_namespace(short)?;
    ip(&format!(
        "-n {wire} link add {short} type veth peer name {DEVICE} netns {name}"
    ))?;
    ip(&format!("-n {wire} link set {short} master br0 up"))?;
    ip(&format!("-n {name} link set {DEVICE} up"))?;
    for address in addresses {
        let suffix = if address.is_ipv4() {
            "/24"
        } else {
            "/64 nodad"
        };
        ip(&format!(
            "-n {name} addr add {address}{suffix} dev {DEVICE}"
        ))?;
    }
    Ok(())
}
