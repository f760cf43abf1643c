//! The devices, their addresses and default routes, read by netlink dumps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::datapath::netlink::{Attributes, Netlink, address, half, text, word};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const IFINFO_BYTES: usize = 16;
const IFADDR_BYTES: usize = 8;
const ROUTE_BYTES: usize = 12;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTN_UNICAST: u8 = 1;

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const IFF_UP: u32 = 1;

/// How far an address reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    Global,
    Site,
    Link,
    Host,
    Other,
}

impl Scope {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Global,
            200 => Self::Site,
            253 => Self::Link,
            254 => Self::Host,
            _ => Self::Other,
        }
    }
}

/// An address on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceAddress {
    pub address: IpAddr,
    pub prefix_len: u8,
    pub scope: Scope,
}

/// One network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    pub ifindex: u32,
    pub name: String,
    /// The driver's kind (`veth`, `bridge`, `vlan`, `tun`...); empty for hardware.
    pub kind: String,
    pub up: bool,
    pub loopback: bool,
    /// Whether packets begin with an Ethernet header.
    pub ethernet: bool,
    /// The device it is a port of (bridge, bond, VRF).
    pub master: Option<u32>,
    /// The device it stands on (the parent of a VLAN or macvlan).
    pub parent: Option<u32>,
    pub vlan_id: Option<u16>,
    pub addresses: Vec<DeviceAddress>,
    /// Whether a default route leaves by it. Only looked up for a veth with an
    /// address: the routing table of a router is long.
    pub default_route: bool,
}

impl Device {
    /// Whether it holds an address by which others can reach this host.
    #[must_use]
    pub fn has_global_unicast(&self) -> bool {
        self.addresses.iter().any(|it| {
            it.scope == Scope::Global && !it.address.is_multicast() && !it.address.is_loopback()
        })
    }
}

/// All devices, by number.
///
/// # Errors
/// When netlink refuses.
pub fn list() -> io::Result<Vec<Device>> {
    let mut netlink = Netlink::open(NETLINK_ROUTE, 0)?;
    let links = netlink.dump(RTM_GETLINK, &[0; IFINFO_BYTES])?;
    let mut devices: BTreeMap<u32, Device> = links
        .iter()
        .filter_map(|message| device(&message.body))
        .map(|device| (device.ifindex, device))
        .collect();
    for message in netlink.dump(RTM_GETADDR, &[0; IFADDR_BYTES])? {
        if let Some((ifindex, address)) = device_address(&message.body)
            && let Some(device) = devices.get_mut(&ifindex)
        {
            device.addresses.push(address);
        }
    }
    if devices.values().any(may_be_uplink) {
        for message in netlink.dump(RTM_GETROUTE, &[0; ROUTE_BYTES])? {
            if let Some(device) = default_route(&message.body).and_then(|at| devices.get_mut(&at)) {
                device.default_route = true;
            }
        }
    }
    Ok(devices.into_values().collect())
}

/// Whether the body of a message describes a device, an address, a route.
pub(crate) fn decode(body: &[u8]) -> [bool; 3] {
    [
        device(body).is_some(),
        device_address(body).is_some(),
        default_route(body).is_some(),
    ]
}

/// A veth is an uplink only where a default route says so.
fn may_be_uplink(device: &Device) -> bool {
    device.kind == "veth" && device.up && device.has_global_unicast()
}

/// The device of a default route (`struct rtmsg`: destination length, type).
fn default_route(body: &[u8]) -> Option<u32> {
    if *body.get(1)? != 0 || *body.get(7)? != RTN_UNICAST {
        return None;
    }
    word(Attributes(body.get(ROUTE_BYTES..)?).find(RTA_OIF)?, 0)
}

/// Every unicast address of this host, also those of loopback.
///
/// # Errors
/// When netlink refuses.
pub fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let devices = list()?;
    let addresses = devices.iter().flat_map(|device| &device.addresses);
    Ok(addresses.map(|it| it.address).collect())
}

fn device(body: &[u8]) -> Option<Device> {
    let hardware = half(body, 2)?;
    let attributes = Attributes(body.get(IFINFO_BYTES..)?);
    let number = |kind| attributes.find(kind).and_then(|value| word(value, 0));
    let info = attributes.find(IFLA_LINKINFO).map(Attributes);
    let kind = info
        .and_then(|info| info.find(IFLA_INFO_KIND))
        .map(text)
        .unwrap_or_default();
    let vlan_id = info
        .filter(|_| kind == "vlan")
        .and_then(|info| info.find(IFLA_INFO_DATA))
        .and_then(|data| Attributes(data).find(IFLA_VLAN_ID))
        .and_then(|id| half(id, 0));
    Some(Device {
        ifindex: word(body, 4)?,
        name: text(attributes.find(IFLA_IFNAME)?),
        kind,
        up: word(body, 8)? & IFF_UP != 0,
        loopback: hardware == ARPHRD_LOOPBACK,
        ethernet: hardware == ARPHRD_ETHER,
        master: number(IFLA_MASTER),
        parent: number(IFLA_LINK),
        vlan_id,
        addresses: Vec::new(),
        default_route: false,
    })
}

fn device_address(body: &[u8]) -> Option<(u32, DeviceAddress)> {
    let attributes = Attributes(body.get(IFADDR_BYTES..)?);
    // On a point-to-point device IFA_ADDRESS is the peer's.
    let value = attributes
        .find(IFA_LOCAL)
        .or_else(|| attributes.find(IFA_ADDRESS))?;
    let address = DeviceAddress {
        address: address(value)?,
        prefix_len: *body.get(1)?,
        scope: Scope::from_number(*body.get(3)?),
    };
    Some((word(body, 4)?, address))
}
