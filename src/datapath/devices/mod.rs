//! Network devices of this thread's network namespace: what is there, which of
//! them are protected, and word when that changes.
//!
//! Everything comes from netlink; the /sys of another namespace lies.

mod list;
mod select;
mod watch;

pub(crate) use list::decode;
pub use list::{Device, DeviceAddress, Scope, list, own_addresses};
pub use select::{DevicePattern, Selection, select};
pub use watch::DeviceWatch;
