//! bpf(2) by hand, for the hooks of a device: who runs there, and the end of a link.

use std::io;
use std::os::fd::BorrowedFd;

use super::sys::{bpf, length, raw};

const PROG_QUERY: libc::c_long = 16;
const LINK_DETACH: libc::c_long = 34;
const PROGRAMS_MAX: usize = 64;

#[repr(C)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// One program on a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Running {
    pub(crate) program: u32,
    /// 0 where it was put there without a link.
    pub(crate) link: u32,
}

/// The programs on a TCX hook of a device in this thread's network namespace,
/// in the order in which they run.
pub(crate) fn on_hook(ifindex: u32, attach_type: u32) -> io::Result<Vec<Running>> {
    let mut programs = vec![0u32; PROGRAMS_MAX];
    let mut links = vec![0u32; PROGRAMS_MAX];
    let mut attr = ProgQuery {
        target_ifindex: ifindex,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: programs.as_mut_ptr() as u64,
        count: length(PROGRAMS_MAX),
        pad: 0,
        prog_attach_flags: 0,
        link_ids: links.as_mut_ptr() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    let all = programs.into_iter().zip(links);
    Ok(all
        .take(attr.count as usize)
        .map(|(program, link)| Running { program, link })
        .collect())
}

/// Takes a link off its device, whoever still holds a descriptor of it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    bpf(LINK_DETACH, &mut attr).map(|_| ())
}
