//! The table of flows: finding one, entering, renewing and removing it.
//!
//! Layout, places and the rule of who makes room: [`palisade_abi::flows`].

use palisade_abi::{
    conntrack::{CtEntry, Judged},
    flows::{
        BUSY, Flow, RANK_ALIVE, RANK_NEVER, Set, Space, Tag, Tags, WAYS, asks_elsewhere,
        goes_elsewhere,
    },
};

use crate::{
    atomic,
    branchless::{if_less, low_three, next},
    counters,
    family::{Family, Opens, Packet},
    kernel,
    maps::CT_SPACE,
};

/// How long a way that is being written is left alone, in jiffies. It takes
/// nanoseconds; longer only if the agent is killed in the middle.
const BUSY_JIFFIES: u64 = 256;

/// A flow that was found, and lived then.
#[derive(Clone, Copy)]
pub struct Found {
    pub entry: *mut CtEntry,
    pub tag: Tag,
    tag_at: *mut u64,
}

impl Found {
    /// Whether the way still holds the flow: what was read of it before is its own.
    #[inline(always)]
    pub fn holds(self) -> bool {
        // SAFETY: `tag_at` comes from a lookup.
        let tag = Tag(unsafe { self.tag_at.read_volatile() });
        tag.is_of(self.tag.0) && tag.is_flow()
    }

    /// Gives the flow another tag, unless the way has changed meanwhile: then
    /// another CPU has renewed it, or has given the way away.
    #[inline(always)]
    pub fn renew(self, tag: Tag) {
        if tag != self.tag {
            swap(self.tag_at, self.tag, tag);
        }
    }

    #[inline(always)]
    pub fn remove(self) {
        swap(self.tag_at, self.tag, Tag::FREE);
    }
}

#[inline(always)]
fn swap(tag_at: *mut u64, from: Tag, to: Tag) -> bool {
    // SAFETY: a word of a map's value, aligned.
    unsafe { atomic::exchange_if(tag_at, from.0, to.0) }
}

/// Where a flow stands.
#[derive(Clone, Copy)]
pub struct Place {
    hash: u64,
    space: Space,
}

impl Place {
    #[inline(always)]
    pub fn of<F: Family>(key: &F::Key) -> Option<Self> {
        // SAFETY: a non-null pointer from a lookup; written before any program runs.
        let space = unsafe { *CT_SPACE.get_ptr(0)? };
        let hash = F::hash(key, space.seed);
        Some(Self { hash, space })
    }

    #[inline(always)]
    fn first<F: Family>(self) -> Option<*mut Set<F::Key>> {
        F::flows().get_ptr_mut(self.space.first(self.hash))
    }

    #[inline(always)]
    fn other<F: Family>(self) -> Option<*mut Set<F::Key>> {
        F::flows().get_ptr_mut(self.space.other(self.hash))
    }
}

/// Looks for a flow as `find` does. Most sets hold one flow, in their first way: that
/// way is told by a branch, which the processor guesses, so that it reads the flow
/// beside the tags and not after them.
#[inline(always)]
pub fn glance<F: Family>(key: &F::Key, now: u64) -> Option<Found> {
    let place = Place::of::<F>(key)?;
    let set = place.first::<F>()?;
    // SAFETY: a set from a lookup.
    let tags = unsafe { tags_of::<F>(set) };
    // SAFETY: as above.
    let first = Tag(unsafe { tags.cast::<u64>().read_volatile() });
    let way = if first.is_of(place.hash) {
        0
    } else {
        crate::pal_way(tags, place.hash)
    };
    if let Some(found) = found_at::<F>(set, way as usize, key, now) {
        return Some(found);
    }
    // SAFETY: as above.
    if unsafe { (&raw const (*set).overflowed).read_volatile() } == 0 {
        return None;
    }
    find_in::<F>(place.other::<F>()?, key, place.hash, now)
}

/// Looks for a flow. An expired one is none, and hides none.
#[inline(always)]
pub fn find<F: Family>(key: &F::Key, now: u64) -> Option<Found> {
    let place = Place::of::<F>(key)?;
    let set = place.first::<F>()?;
    if let Some(found) = find_in::<F>(set, key, place.hash, now) {
        return Some(found);
    }
    // SAFETY: a non-null pointer from a lookup.
    if unsafe { (&raw const (*set).overflowed).read_volatile() } == 0 {
        return None;
    }
    find_in::<F>(place.other::<F>()?, key, place.hash, now)
}

#[inline(always)]
fn find_in<F: Family>(set: *mut Set<F::Key>, key: &F::Key, hash: u64, now: u64) -> Option<Found> {
    // SAFETY: a set from a lookup.
    let way = crate::pal_way(unsafe { tags_of::<F>(set) }, hash);
    found_at::<F>(set, way as usize, key, now)
}

/// The flow in a way of a set, if it is this one and lives.
#[inline(always)]
fn found_at<F: Family>(set: *mut Set<F::Key>, way: usize, key: &F::Key, now: u64) -> Option<Found> {
    let way = low_three(way as u64) as usize;
    if way >= WAYS {
        return None;
    }
    // SAFETY: `set` comes from a lookup, and the verifier checks the way's bounds.
    unsafe {
        let tag_at = tags_of::<F>(set).cast::<u64>().add(way);
        let tag = Tag(tag_at.read_volatile());
        let flow = way_of::<F>(set, way);
        if !tag.is_alive(now) || !F::is_at(key, &raw const (*flow).key) {
            return None;
        }
        Some(Found {
            entry: &raw mut (*flow).entry,
            tag,
            tag_at,
        })
    }
}

/// # Safety
/// `set` comes from a lookup, `way` is less than [`WAYS`].
#[inline(always)]
unsafe fn way_of<F: Family>(set: *mut Set<F::Key>, way: usize) -> *mut Flow<F::Key> {
    // SAFETY: the caller's word.
    unsafe { (&raw mut (*set).flows).cast::<Flow<F::Key>>().add(way) }
}

/// The way of a set that may hold the flow of a hash; none: [`WAYS`]. A function
/// of its own (see `main`).
#[inline(always)]
pub fn way_by(tags: *const SetTags, hash: u64) -> u32 {
    if tags.is_null() {
        return WAYS as u32;
    }
    let mut way = WAYS as u64;
    let mut at = 0u64;
    // A loop, as in `room`.
    loop {
        // SAFETY: as there.
        let tag = unsafe { tag_at(tags, at) };
        way ^= if_less((tag.0 ^ hash) >> 32, 1, way ^ at);
        at = next(at);
        if at >= WAYS as u64 {
            break;
        }
    }
    way as u32
}

/// # Safety
/// `tags` can be read, and `at` is less than [`WAYS`].
#[inline(always)]
unsafe fn tag_at(tags: *const SetTags, at: u64) -> Tag {
    // SAFETY: the caller's word.
    Tag(unsafe { tags.cast::<u64>().add(at as usize).read_volatile() })
}

/// The way of a set that is given away first, below its rank and how many flows
/// live. A function of its own, too.
#[inline(always)]
pub fn room(tags: *const SetTags, hash: u64, now: u64) -> u64 {
    if tags.is_null() {
        return RANK_NEVER << WAY_BITS;
    }
    let mut best = RANK_NEVER << WAY_BITS;
    let mut alive = 0;
    let mut at = 0u64;
    // Unrolled it would take more of the stack than is left, and more lines of code
    // than the processor has at hand.
    loop {
        // SAFETY: not null; the verifier has checked the caller's memory, and counts
        // along.
        let tag = unsafe { tag_at(tags, at) };
        let rank = tag.rank_by(hash, now, if_less);
        alive += if_less(RANK_ALIVE - 1, rank, 1);
        let ranked = (rank << WAY_BITS) | at;
        best ^= if_less(ranked, best, best ^ ranked);
        at = next(at);
        if at >= WAYS as u64 {
            break;
        }
    }
    best | (alive << ALIVE_SHIFT)
}

/// The answer of `room`: flows that live, rank, way.
const WAY_BITS: u32 = 3;
const RANK_BITS: u32 = 32;
const ALIVE_SHIFT: u32 = WAY_BITS + RANK_BITS;

#[inline(always)]
fn alive_and_rank(room: u64) -> (u64, u64) {
    let rank = (room >> WAY_BITS) & ((1 << RANK_BITS) - 1);
    (room >> ALIVE_SHIFT, rank)
}

/// What the two functions get.
#[repr(transparent)]
pub struct SetTags(Tags);

/// Enters a flow that is not there, by `packet.scratch_key` and `packet.opens`: to
/// live so many jiffies, as one of `palisade_abi::flows`' kinds. 0 where another CPU
/// took the way meanwhile. A function of its own, too.
#[inline(always)]
pub fn enter<F: Family>(packet: *const Packet<F>, life: u64, kind: u64) -> u32 {
    if packet.is_null() {
        return 0;
    }
    // SAFETY: not null; the verifier has checked the caller's memory behind it.
    let (key, opens) = unsafe { (&(*packet).scratch_key, &(*packet).opens) };
    u32::from(enter_one::<F>(key, opens, life, kind).is_some())
}

#[inline(always)]
fn enter_one<F: Family>(key: &F::Key, opens: &Opens, life: u64, kind: u64) -> Option<()> {
    let now = kernel::now();
    let place = Place::of::<F>(key)?;
    let first = place.first::<F>()?;
    let other = place.other::<F>()?;
    let mut set = first;
    // SAFETY: sets from lookups.
    unsafe {
        let mut room = crate::pal_room(tags_of::<F>(first), place.hash, now);
        if asks_elsewhere(room >> ALIVE_SHIFT) {
            let there = crate::pal_room(tags_of::<F>(other), place.hash, now);
            if goes_elsewhere(alive_and_rank(room), alive_and_rank(there)) {
                room = there;
                set = other;
                // First the word of it, then the flow.
                atomic::increment(&raw mut (*first).overflowed);
            }
        }
        let way = low_three(room) as usize;
        if alive_and_rank(room).1 >= RANK_NEVER || way >= WAYS {
            return None;
        }
        let tag = Tag::new(place.hash, now + life, kind);
        let tag_at = take::<F>(set, way, key, opens, now)?;
        if opens.flags & Opens::ORDERED != 0 {
            tag_at.write_volatile(tag.0);
        } else {
            atomic::publish(tag_at, tag.0);
        }
        Some(())
    }
}

/// # Safety
/// `set` comes from a lookup.
#[inline(always)]
unsafe fn tags_of<F: Family>(set: *mut Set<F::Key>) -> *mut SetTags {
    // SAFETY: the caller's word.
    unsafe { (&raw mut (*set).tags).cast() }
}

/// Writes a flow into a way, unless that is being written already; the way's tag is left
/// to the caller.
///
/// # Safety
/// `set` comes from a lookup, `way` is less than [`WAYS`].
#[inline(always)]
unsafe fn take<F: Family>(
    set: *mut Set<F::Key>,
    way: usize,
    key: &F::Key,
    opens: &Opens,
    now: u64,
) -> Option<*mut u64> {
    // SAFETY: the caller's word; the way is this CPU's while its tag says so.
    unsafe {
        let tag_at = tags_of::<F>(set).cast::<u64>().add(way);
        let seen = Tag(tag_at.read_volatile());
        let busy = Tag::new(0, now + BUSY_JIFFIES, BUSY);
        if seen.kind() == BUSY && seen.is_timely(now) || !swap(tag_at, seen, busy) {
            return None;
        }
        if seen.is_alive(now) {
            counters::evicted(seen.kind());
        }
        let flow = way_of::<F>(set, way);
        (&raw mut (*flow).key).write_volatile(*key);
        let entry = &raw mut (*flow).entry;
        let judged = Judged::new(opens.epoch, opens.cell);
        (&raw mut (*entry).judged).write_volatile(judged);
        (&raw mut (*entry).flags).write_volatile(opens.flags & !Opens::ORDERED);
        (&raw mut (*entry).identity).write_volatile(opens.identity);
        let bytes = u64::from(opens.bytes & !Opens::FORWARD);
        let forward = u64::from(opens.bytes >> 31);
        (&raw mut (*entry).packets[0]).write_volatile(forward);
        (&raw mut (*entry).packets[1]).write_volatile(1 - forward);
        (&raw mut (*entry).bytes[0]).write_volatile(bytes * forward);
        (&raw mut (*entry).bytes[1]).write_volatile(bytes * (1 - forward));
        Some(tag_at)
    }
}
