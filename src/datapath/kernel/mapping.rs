//! A memory-mapped array: the agent writes the inactive slot through it and
//! reads it back, without a system call per element.
//!
//! The programs read the same memory, so every access is an atomic one of the
//! element's own width; only the owner of the datapath writes.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags};

use super::maps::{Map, kernel};
use crate::datapath::DatapathError;

/// Elements of one `BPF_F_MMAPABLE` array: all of them, or a window.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Bytes of the first page that belong to elements before the window.
    before: usize,
    stride: usize,
}

// SAFETY: the memory is shared with the kernel anyway; it is only handed out as
// slices of atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len)
    }
}

impl Mapping {
    /// Maps `map`, whose values have `value_size` bytes.
    pub(crate) fn new(map: &Map, value_size: usize) -> Result<Self, DatapathError> {
        Self::window(map, value_size, 0, map.max_entries)
    }

    /// Maps `count` elements from `first` on, which then have the indexes from 0 on.
    pub(crate) fn window(
        map: &Map,
        value_size: usize,
        first: u32,
        count: u32,
    ) -> Result<Self, DatapathError> {
        let stride = value_size.next_multiple_of(8);
        let page = rustix::param::page_size();
        let begin = stride * first as usize;
        // Mappings begin with a page.
        let before = begin % page;
        let len = (before + stride * count as usize).next_multiple_of(page);
        // SAFETY: a fresh mapping chosen by the kernel; nothing else refers to it.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd(),
                (begin - before) as u64,
            )
        }
        .map_err(|error| kernel(format!("mmap of map {}", map.name))(error.into()))?;
        let base = NonNull::new(base.cast()).ok_or_else(|| {
            DatapathError::Other(format!("mmap of map {} gave no address", map.name))
        })?;
        Ok(Self {
            base,
            len,
            before,
            stride,
        })
    }

    fn element<T>(&self, index: u32, count: usize) -> *const T {
        let offset = self.before + index as usize * self.stride;
        assert!(
            count * size_of::<T>() <= self.stride && offset + self.stride <= self.len,
            "element {index} lies outside of the mapping"
        );
        // SAFETY: the offset was just checked to lie inside of the mapping; the
        // stride is a multiple of eight, so the element is aligned.
        unsafe { self.base.as_ptr().add(offset).cast::<T>().cast_const() }
    }

    /// The first `count` words of an element.
    pub(crate) fn words(&self, index: u32, count: usize) -> &[AtomicU32] {
        // SAFETY: inside of the mapping, aligned, alive as long as `self`.
        unsafe { std::slice::from_raw_parts(self.element(index, count), count) }
    }

    /// The first `count` long words of an element.
    pub(crate) fn longs(&self, index: u32, count: usize) -> &[AtomicU64] {
        // SAFETY: inside of the mapping, aligned, alive as long as `self`.
        unsafe { std::slice::from_raw_parts(self.element(index, count), count) }
    }

    /// All long words of `count` elements in a row.
    pub(crate) fn elements(&self, first: u32, count: u32) -> &[AtomicU64] {
        let offset = self.before + first as usize * self.stride;
        let len = count as usize * self.stride;
        assert!(
            offset + len <= self.len,
            "{count} elements from {first} lie outside of the mapping"
        );
        // SAFETY: inside of the mapping, where elements stand without a gap at
        // multiples of eight bytes; alive as long as `self`.
        unsafe { std::slice::from_raw_parts(self.element(first, 0), len / 8) }
    }

    /// The first eight bytes of an element.
    pub(crate) fn long(&self, index: u32) -> &AtomicU64 {
        // SAFETY: inside of the mapping, aligned, alive as long as `self`.
        unsafe { &*self.element::<AtomicU64>(index, 1) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, and no slice of it outlives `self`.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap of a mapping of ours");
    }
}
