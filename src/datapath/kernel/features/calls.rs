//! bpf(2) for trials: maps with flags, and programs without an object file.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::code::Instruction;
use crate::datapath::kernel::sys::{self, MapShape};
use crate::limits::PROGRAM_LOADS_MAX;

// Commands and types of <linux/bpf.h>.
const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const BTF_LOAD: libc::c_long = 18;
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
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    pad: u32,
}

/// Loads a program for devices.
pub(super) fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    load_typed(code, None)
}

/// Where functions of a program begin, and the BTF with their types.
pub(super) struct Functions<'a> {
    pub(super) btf: BorrowedFd<'a>,
    /// (number of the first instruction, number of the type)
    pub(super) begin: &'a [[u32; 2]],
}

/// The same with the types of its functions. Again where a signal interrupted the
/// verifier.
pub(super) fn load_typed(
    code: &[Instruction],
    functions: Option<&Functions<'_>>,
) -> io::Result<OwnedFd> {
    let mut loads = 1;
    loop {
        match load_once(code, functions) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && loads < PROGRAM_LOADS_MAX =>
            {
                loads += 1;
            }
            result => return result,
        }
    }
}

fn load_once(code: &[Instruction], functions: Option<&Functions<'_>>) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_SCHED_CLS,
        insn_cnt: sys::length(code.len()),
        insns: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        ..ProgLoad::default()
    };
    if let Some(functions) = functions {
        attr.prog_btf_fd = sys::raw(functions.btf);
        attr.func_info_rec_size = sys::length(size_of::<[u32; 2]>());
        attr.func_info = functions.begin.as_ptr() as u64;
        attr.func_info_cnt = sys::length(functions.begin.len());
    }
    sys::owned(sys::bpf(PROG_LOAD, &mut attr)?)
}

#[repr(C)]
struct BtfLoad {
    btf: u64,
    log: u64,
    btf_size: u32,
    rest: [u32; 3],
}

pub(super) fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = BtfLoad {
        btf: btf.as_ptr() as u64,
        log: 0,
        btf_size: sys::length(btf.len()),
        rest: [0; 3],
    };
    sys::owned(sys::bpf(BTF_LOAD, &mut attr)?)
}
