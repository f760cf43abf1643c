//! Filters on the clsact qdisc, for kernels without TCX (before 6.6).
//!
//! Our filters are known by the name of their program; others are never
//! touched. First on ingress (lowest preference), last on egress.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use palisade_abi::NAME_PREFIX;

use crate::datapath::netlink::{
    Attributes, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, push_attribute, text, word,
};
use crate::policy::Direction;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const RTM_GETLINK: u16 = 18;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const DIRECT_ACTION: u32 = 1;

const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const INGRESS_PARENT: u32 = 0xffff_fff2;
const EGRESS_PARENT: u32 = 0xffff_fff3;
/// All ethertypes, in network byte order.
const ETH_P_ALL: u16 = 0x0003_u16.to_be();
const TCMSG_BYTES: usize = 20;

fn place(direction: Direction) -> (u32, u16) {
    match direction {
        Direction::Ingress => (INGRESS_PARENT, 1),
        Direction::Egress => (EGRESS_PARENT, u16::MAX),
    }
}

/// `struct tcmsg`.
fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut out = vec![0; 4];
    for field in [ifindex, handle, parent, info] {
        out.extend_from_slice(&field.to_ne_bytes());
    }
    out
}

/// Preference and protocol as a filter's `tcm_info`.
fn filter_info(preference: u16) -> u32 {
    u32::from(preference) << 16 | u32::from(ETH_P_ALL)
}

fn open() -> io::Result<Netlink> {
    Netlink::open(NETLINK_ROUTE, 0)
}

/// Adds the clsact qdisc; false where there is one.
pub(crate) fn add_qdisc(ifindex: u32) -> io::Result<bool> {
    let mut body = tcmsg(ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
    push_attribute(&mut body, TCA_KIND, b"clsact\0");
    match open()?.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &body) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the clsact qdisc if no filter is left on it.
pub(crate) fn remove_empty_qdisc(ifindex: u32) -> io::Result<bool> {
    for direction in Direction::BOTH {
        if !filters(ifindex, direction)?.is_empty() {
            return Ok(false);
        }
    }
    let mut netlink = open()?;
    let held = netlink.dump(RTM_GETQDISC, &tcmsg(ifindex, 0, 0, 0))?;
    let is_clsact = |body: &[u8]| {
        let ours = word(body, 4) == Some(ifindex);
        let kind = body
            .get(TCMSG_BYTES..)
            .map(Attributes)
            .and_then(|all| all.find(TCA_KIND));
        ours && kind.is_some_and(|kind| text(kind) == "clsact")
    };
    if !held.iter().any(|message| is_clsact(&message.body)) {
        return Ok(false);
    }
    let body = tcmsg(ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
    netlink.request(RTM_DELQDISC, 0, &body)?;
    Ok(true)
}

/// A BPF filter on a device.
struct Filter {
    handle: u32,
    preference: u16,
    name: String,
    program_id: u32,
}

impl Filter {
    fn is_ours(&self) -> bool {
        self.name.starts_with(NAME_PREFIX)
    }
}

fn filters(ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
    let (parent, _) = place(direction);
    let request = tcmsg(ifindex, 0, parent, 0);
    let messages = match open()?.dump(RTM_GETTFILTER, &request) {
        Ok(messages) => messages,
        // No such device, or no clsact qdisc on it.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)
            ) =>
        {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let mut filters = Vec::new();
    for message in messages {
        let body = &message.body;
        let Some(attributes) = body.get(TCMSG_BYTES..).map(Attributes) else {
            continue;
        };
        let (Some(handle), Some(info)) = (word(body, 8), word(body, 16)) else {
            continue;
        };
        let options = attributes.find(TCA_OPTIONS).map(Attributes);
        let is_bpf = attributes
            .find(TCA_KIND)
            .is_some_and(|kind| text(kind) == "bpf");
        // The first message of a preference describes the classifier itself.
        if handle == 0 || !is_bpf {
            continue;
        }
        filters.push(Filter {
            handle,
            preference: u16::try_from(info >> 16).unwrap_or(0),
            name: options
                .and_then(|all| all.find(TCA_BPF_NAME))
                .map(text)
                .unwrap_or_default(),
            program_id: options
                .and_then(|all| all.find(TCA_BPF_ID))
                .and_then(|id| word(id, 0))
                .unwrap_or(0),
        });
    }
    Ok(filters)
}

fn ours(ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
    let mut all = filters(ifindex, direction)?;
    all.retain(Filter::is_ours);
    Ok(all)
}

/// All BPF filters of a hook in the order in which they run: whether it is ours,
/// and its program.
pub(crate) fn in_order(ifindex: u32, direction: Direction) -> io::Result<Vec<(bool, u32)>> {
    let all = filters(ifindex, direction)?.into_iter();
    Ok(all.map(|it| (it.is_ours(), it.program_id)).collect())
}

/// Whether this network namespace has the device.
pub(crate) fn is_device(ifindex: u32) -> bool {
    all_devices().is_ok_and(|devices| devices.contains(&ifindex))
}

/// Puts our filter there, or replaces its program in one step.
pub(crate) fn put(
    ifindex: u32,
    direction: Direction,
    program: BorrowedFd<'_>,
    name: &str,
) -> io::Result<()> {
    let (_, preference) = place(direction);
    let held = ours(ifindex, direction)?;
    let (handle, preference, flags) = match held.first() {
        Some(filter) => (
            filter.handle,
            filter.preference,
            NLM_F_CREATE | NLM_F_REPLACE,
        ),
        None => (1, preference, NLM_F_CREATE | NLM_F_EXCL),
    };
    let at = At {
        ifindex,
        direction,
        handle,
        preference,
    };
    request(&at, flags, program, name)
}

/// Moves our filter to its place: of two with one preference the newer runs
/// first, so a second one is put there before the first one goes.
pub(crate) fn move_to_place(
    ifindex: u32,
    direction: Direction,
    program: BorrowedFd<'_>,
    name: &str,
) -> io::Result<()> {
    let (_, preference) = place(direction);
    if direction == Direction::Egress {
        return Err(io::Error::other(
            "another filter has the last preference, 65535; give it a lower one",
        ));
    }
    let held = filters(ifindex, direction)?;
    let taken = |handle: &u32| held.iter().any(|filter| filter.handle == *handle);
    let handle = (1..=u32::MAX).find(|handle| !taken(handle));
    let at = At {
        ifindex,
        direction,
        handle: handle.unwrap_or(0),
        preference,
    };
    request(&at, NLM_F_CREATE | NLM_F_EXCL, program, name)?;
    held.iter()
        .filter(|filter| filter.is_ours())
        .try_for_each(|filter| delete(ifindex, direction, filter))
}

/// Where a filter of ours stands.
struct At {
    ifindex: u32,
    direction: Direction,
    handle: u32,
    preference: u16,
}

fn request(at: &At, flags: u16, program: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let (parent, _) = place(at.direction);
    let mut options = Vec::new();
    push_attribute(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    push_attribute(&mut options, TCA_BPF_NAME, format!("{name}\0").as_bytes());
    push_attribute(&mut options, TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes());
    let mut body = tcmsg(at.ifindex, at.handle, parent, filter_info(at.preference));
    push_attribute(&mut body, TCA_KIND, b"bpf\0");
    push_attribute(&mut body, TCA_OPTIONS, &options);
    open()?.request(RTM_NEWTFILTER, flags, &body)
}

/// Removes our filters; whether there were any.
pub(crate) fn remove(ifindex: u32, direction: Direction) -> io::Result<bool> {
    let held = ours(ifindex, direction)?;
    held.iter()
        .try_for_each(|filter| delete(ifindex, direction, filter))?;
    Ok(!held.is_empty())
}

/// The program that our filter on the device's hook runs.
pub(crate) fn running(ifindex: u32, direction: Direction) -> Option<u32> {
    let held = ours(ifindex, direction).ok()?;
    held.first().map(|filter| filter.program_id)
}

fn delete(ifindex: u32, direction: Direction, filter: &Filter) -> io::Result<()> {
    let (parent, _) = place(direction);
    let info = filter_info(filter.preference);
    let mut body = tcmsg(ifindex, filter.handle, parent, info);
    push_attribute(&mut body, TCA_KIND, b"bpf\0");
    open()?.request(RTM_DELTFILTER, 0, &body)
}

/// Numbers of all devices in this network namespace.
pub(crate) fn all_devices() -> io::Result<Vec<u32>> {
    let request = [0u8; 16];
    let links = open()?.dump(RTM_GETLINK, &request)?;
    Ok(links
        .iter()
        .filter_map(|link| word(&link.body, 4))
        .collect())
}
