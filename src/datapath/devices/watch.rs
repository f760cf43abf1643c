//! Word of changes: links and addresses that come, go or change.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::datapath::netlink::Netlink;

const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 0x10;
const GROUP_IPV6_ADDRESS: u32 = 0x100;

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
        let groups = GROUP_LINK | GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS;
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
            .is_none_or(|events| !events.is_empty()))
    }
}
