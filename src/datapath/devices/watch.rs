//! Word of changes: links and addresses that come, go or change.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::datapath::netlink::{Message, Netlink};

const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 0x10;
const GROUP_IPV6_ADDRESS: u32 = 0x100;
const GROUP_IPV4_ROUTE: u32 = 0x40;
const GROUP_IPV6_ROUTE: u32 = 0x400;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// A subscription to device changes in the network namespace of the thread that
/// opened it. Owner: the device worker's thread.
///
/// Use: open, then read the whole list, then wait; so no change is missed.
#[derive(Debug)]
pub struct DeviceWatch {
    netlink: Netlink,
}

impl DeviceWatch {
    /// Subscribes.
    ///
    /// # Errors
    /// When netlink refuses.
    pub fn open() -> io::Result<Self> {
        Self::listen(0)
    }

    /// Subscribes to default routes as well: where devices are detected, one
    /// makes a veth an uplink.
    ///
    /// # Errors
    /// When netlink refuses.
    pub fn open_with_routes() -> io::Result<Self> {
        Self::listen(GROUP_IPV4_ROUTE | GROUP_IPV6_ROUTE)
    }

    fn listen(more: u32) -> io::Result<Self> {
        let groups = GROUP_LINK | GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS | more;
        Ok(Self {
            netlink: Netlink::open(NETLINK_ROUTE, groups)?,
        })
    }

    /// Waits at most `timeout`; whether anything changed since the last call
    /// (then read the list again).
    ///
    /// # Errors
    /// When netlink refuses.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        // Events that the kernel had to throw away count as a change.
        Ok(self
            .netlink
            .events(timeout)?
            .is_none_or(|events| events.iter().any(matters)))
    }
}

/// Of routes only default ones (of length 0): a router's table is long.
fn matters(event: &Message) -> bool {
    let is_route = matches!(event.kind, RTM_NEWROUTE | RTM_DELROUTE);
    !is_route || event.body.get(1) == Some(&0)
}
