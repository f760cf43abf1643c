//! Counts the bytes of the heap that are in use, for each thread by itself, so
//! that tests beside each other do not disturb the count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn add(bytes: i64) {
    // A thread that ends frees after its counter has gone.
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + bytes));
}

fn size(layout: Layout) -> i64 {
    i64::try_from(layout.size()).unwrap_or(i64::MAX)
}

// SAFETY: every call is handed to the system's allocator as it came, and its
// answer handed back; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(size(layout));
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        add(-size(layout));
        // SAFETY: `block` came from `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(size(layout));
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        add(i64::try_from(new_size).unwrap_or(i64::MAX) - size(layout));
        // SAFETY: `block` came from `System` with this layout.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

/// Bytes that this thread allocated and nobody freed, less what it freed of
/// other threads.
pub(crate) fn live_bytes() -> i64 {
    LIVE_BYTES.with(Cell::get)
}
