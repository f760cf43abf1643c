//! bpf(2) for trials: maps with flags, and programs without an object file.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::code::Instruction;
use crate::datapath::kernel::sys::{self, MapShape};

// Commands and types of <linux/bpf.h>.
const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const PROG_TYPE_SCHED_CLS: u32 = 3;

#[repr(C)]
struct MapCreate {
    shape: [u32; 4],
    flags: u32,
    inner_map_fd: u32,
}

pub(super) fn map_create(
    shape: MapShape,
    flags: u32,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        shape: [
            shape.map_type,
            shape.key_size,
            shape.value_size,
            shape.max_entries,
        ],
        flags,
        inner_map_fd: inner.map_or(0, sys::raw),
    };
    sys::owned(sys::bpf(MAP_CREATE, &mut attr)?)
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// Loads a program for devices.
pub(super) fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_SCHED_CLS,
        insn_cnt: sys::length(code.len()),
        insns: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    sys::owned(sys::bpf(PROG_LOAD, &mut attr)?)
}
