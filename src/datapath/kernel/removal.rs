//! Removing by bpf(2): elements of hash maps, many at once, and one with a look
//! at what is removed; links from their devices.
//!
//! Every function works on its arguments alone: no state, any thread.

use std::io;
use std::os::fd::BorrowedFd;

use super::sys::{self, MapBatch, MapElem};

const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const MAP_DELETE_BATCH: libc::c_long = 27;
const LINK_DETACH: libc::c_long = 34;

/// Deletes the elements of `keys`, which stand one after another; how many were
/// there.
pub(crate) fn delete_batch(
    fd: BorrowedFd<'_>,
    mut keys: &[u8],
    key_size: usize,
) -> io::Result<usize> {
    let mut deleted = 0;
    while !keys.is_empty() {
        let mut attr = MapBatch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: 0,
            count: sys::length(keys.len() / key_size),
            map_fd: sys::raw(fd),
            elem_flags: 0,
            flags: 0,
        };
        let result = sys::bpf(MAP_DELETE_BATCH, &mut attr);
        let done = attr.count as usize;
        match result {
            Ok(_) => return Ok(deleted + done),
            // One is gone already (evicted): the kernel stops before it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                deleted += done;
                keys = keys.get((done + 1) * key_size..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Takes a link off its device, whoever still holds a descriptor of it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = sys::raw(link);
    sys::bpf(LINK_DETACH, &mut attr).map(|_| ())
}

/// Deletes the element of `key` and gives its value as it was when it went, in
/// one step for the kernel; false where there is none. `Unsupported` before
/// Linux 5.14.
pub(crate) fn take(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    /// `ENOTSUPP` of the kernel, which no C library knows.
    const ENOTSUPP: i32 = 524;
    let mut attr = MapElem::new(fd, key.as_ptr(), value.as_mut_ptr(), 0);
    let result = sys::bpf(MAP_LOOKUP_AND_DELETE_ELEM, &mut attr);
    sys::found(result).map_err(|error| match error.raw_os_error() {
        Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL) => io::ErrorKind::Unsupported.into(),
        _ => error,
    })
}
