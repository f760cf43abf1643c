//! bpf(2) by hand, where aya has no call for it or hides the file descriptor:
//! element access as bytes, pins, object info, links, test runs.
//!
//! Every function is one system call on the arguments given: no state, any thread.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// Commands and flags of <linux/bpf.h>.
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_GET_NEXT_ID: libc::c_long = 11;
const MAP_GET_NEXT_ID: libc::c_long = 12;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;

pub(crate) const MAP_TYPE_ARRAY: u32 = 2;
pub(crate) const MAP_TYPE_HASH: u32 = 1;
pub(crate) const MAP_TYPE_PROG_ARRAY: u32 = 3;
pub(crate) const MAP_TYPE_PERCPU_ARRAY: u32 = 6;
pub(crate) const MAP_TYPE_LRU_HASH: u32 = 9;
pub(crate) const MAP_TYPE_LPM_TRIE: u32 = 11;
pub(crate) const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
pub(crate) const MAP_TYPE_RINGBUF: u32 = 27;

pub(crate) const TCX_INGRESS: u32 = 46;
pub(crate) const TCX_EGRESS: u32 = 47;
/// Without a relative program: first of all.
pub(crate) const BEFORE: u32 = 1 << 3;
/// Without a relative program: last of all.
pub(crate) const AFTER: u32 = 1 << 4;

pub(super) fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, initialised, `repr(C)` value of the size given;
    // the pointers and descriptors inside it are borrowed by the caller for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

pub(super) fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn path_bytes(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

pub(super) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A name of at most 15 bytes, as the kernel keeps it.
fn name16(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let len = name.len().min(15);
    out[..len].copy_from_slice(&name.as_bytes()[..len]);
    out
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// Shape of a map to create.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapShape {
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
}

pub(crate) fn map_create(
    shape: MapShape,
    name: &str,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: shape.map_type,
        key_size: shape.key_size,
        value_size: shape.value_size,
        max_entries: shape.max_entries,
        inner_map_fd: inner.map_or(0, raw),
        map_name: name16(name),
        ..MapCreate::default()
    };
    owned(bpf(MAP_CREATE, &mut attr)?)
}

#[repr(C)]
pub(super) struct MapElem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl MapElem {
    pub(super) fn new(fd: BorrowedFd<'_>, key: *const u8, value: *const u8, flags: u64) -> Self {
        Self {
            map_fd: raw(fd),
            pad: 0,
            key: key as u64,
            value: value as u64,
            flags,
        }
    }
}

/// None where the kernel says that there is no such element.
pub(super) fn found(result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The value of `key` into `value`, which has the size the kernel expects.
pub(crate) fn map_lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = MapElem::new(fd, key.as_ptr(), value.as_mut_ptr(), 0);
    found(bpf(MAP_LOOKUP_ELEM, &mut attr))
}

pub(crate) fn map_update(
    fd: BorrowedFd<'_>,
    key: &[u8],
    value: &[u8],
    flags: u64,
) -> io::Result<()> {
    let mut attr = MapElem::new(fd, key.as_ptr(), value.as_ptr(), flags);
    bpf(MAP_UPDATE_ELEM, &mut attr).map(|_| ())
}

/// Whether there was something to delete.
pub(crate) fn map_delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attr = MapElem::new(fd, key.as_ptr(), std::ptr::null(), 0);
    found(bpf(MAP_DELETE_ELEM, &mut attr))
}

/// The key after `key` (the first one for None) into `next`; false at the end.
pub(crate) fn map_next_key(
    fd: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let key = key.map_or(std::ptr::null(), <[u8]>::as_ptr);
    let mut attr = MapElem::new(fd, key, next.as_mut_ptr(), 0);
    found(bpf(MAP_GET_NEXT_KEY, &mut attr))
}

#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_bytes(path)?;
    let mut attr = Object {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(fd),
        file_flags: 0,
    };
    bpf(OBJ_PIN, &mut attr).map(|_| ())
}

/// None where nothing is pinned.
pub(crate) fn obj_get(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = path_bytes(path)?;
    let mut attr = Object {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    match bpf(OBJ_GET, &mut attr) {
        Ok(fd) => owned(fd).map(Some),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

fn object_info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = Info {
        bpf_fd: raw(fd),
        info_len: length(size_of::<T>()),
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(|_| ())
}

/// The first fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MapInfo {
    pub(crate) map_type: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
    pub(crate) name: [u8; 16],
}

impl MapInfo {
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name == name16(name)
    }
}

pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    object_info(fd, &mut info)?;
    Ok(info)
}

/// Bytes that the kernel holds for a map; told nowhere but in procfs.
pub(crate) fn map_memory(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no memlock in fdinfo"))
}

/// The first fields of `struct bpf_prog_info`, up to `verified_insns`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ProgInfo {
    prog_type: u32,
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
    pub(crate) jited_len: u32,
    pub(crate) xlated_len: u32,
    pointers: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    map_ids_len: u32,
    map_ids: u64,
    pub(crate) name: [u8; 16],
    ifindex: u32,
    bits: u32,
    netns: [u64; 2],
    lens: [u32; 2],
    ksyms: [u64; 2],
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_len: u32,
    line_info_len: u32,
    line_info: u64,
    jited_line_info: u64,
    jited_line_info_len: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    prog_tags_len: u32,
    prog_tags: u64,
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    pub(crate) verified_insns: u32,
    pad: u32,
}

pub(crate) fn prog_info(fd: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    let mut info = ProgInfo::default();
    object_info(fd, &mut info)?;
    Ok(info)
}

/// Numbers of the maps that a program uses.
pub(crate) fn prog_map_ids(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const MAPS_MAX: usize = 64;
    let mut ids = vec![0u32; MAPS_MAX];
    let mut info = ProgInfo {
        map_ids_len: length(MAPS_MAX),
        map_ids: ids.as_mut_ptr() as u64,
        ..ProgInfo::default()
    };
    object_info(fd, &mut info)?;
    ids.truncate(info.map_ids_len as usize);
    Ok(ids)
}

#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(MAP_GET_FD_BY_ID, id)
}

pub(crate) fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(PROG_GET_FD_BY_ID, id)
}

fn by_id(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let mut attr = ById {
        id,
        next_id: 0,
        open_flags: 0,
    };
    owned(bpf(command, &mut attr)?)
}

/// Whether the kernel still has an object of this number. Asks without opening
/// it: a descriptor would keep alive what is just being freed.
fn has_id(command: libc::c_long, id: u32) -> bool {
    let mut attr = ById {
        id: id.saturating_sub(1),
        next_id: 0,
        open_flags: 0,
    };
    bpf(command, &mut attr).is_ok() && attr.next_id == id
}

pub(crate) fn has_map(id: u32) -> bool {
    has_id(MAP_GET_NEXT_ID, id)
}

pub(crate) fn has_prog(id: u32) -> bool {
    has_id(PROG_GET_NEXT_ID, id)
}

/// The first fields of `struct bpf_link_info`; `data` of a TCX link.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LinkInfo {
    pub(crate) link_type: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    pad: u32,
    /// 0 once the device is gone.
    pub(crate) ifindex: u32,
    pub(crate) attach_type: u32,
    rest: [u64; 4],
}

pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    object_info(fd, &mut info)?;
    Ok(info)
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
    // The union is as large as its largest member; what we do not use is zero.
    rest: [u64; 2],
}

/// A TCX link. `place` is [`BEFORE`] or [`AFTER`].
pub(crate) fn link_create_tcx(
    prog: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    place: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: raw(prog),
        target_ifindex: ifindex,
        attach_type,
        flags: place,
        relative_fd: 0,
        pad: 0,
        expected_revision: 0,
        rest: [0; 2],
    };
    owned(bpf(LINK_CREATE, &mut attr)?)
}

#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the program of a link, atomically.
pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link_fd: raw(link),
        new_prog_fd: raw(prog),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(|_| ())
}

/// Exactly the 76 bytes of the kernel's attribute: padding to 80 is refused.
#[repr(C, packed)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
}

const _: () = assert!(size_of::<TestRun>() == 76);

/// What a test run gives the program, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TestInput<'a> {
    pub(crate) packet: &'a [u8],
    /// `struct __sk_buff`; empty: all fields zero.
    pub(crate) context: &'a [u8],
    pub(crate) repeat: u32,
}

/// Runs a program on a packet: its return value and the mean duration of one
/// run in nanoseconds.
pub(crate) fn prog_test_run(prog: BorrowedFd<'_>, input: &TestInput<'_>) -> io::Result<(u32, u32)> {
    let mut attr = TestRun {
        prog_fd: raw(prog),
        retval: 0,
        data_size_in: length(input.packet.len()),
        data_size_out: 0,
        data_in: input.packet.as_ptr() as u64,
        data_out: 0,
        repeat: input.repeat,
        duration: 0,
        ctx_size_in: length(input.context.len()),
        ctx_size_out: 0,
        ctx_in: if input.context.is_empty() {
            0
        } else {
            input.context.as_ptr() as u64
        },
        ctx_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    Ok((attr.retval, attr.duration))
}
