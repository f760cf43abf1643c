//! Flows of a version whose conntrack values have another size.
//!
//! Our programs run beside the other version's and see every packet, so what
//! happens meanwhile is in our maps already. What is missing there are flows that
//! were open before, and who opened them: the other version knows that best.

use palisade_abi::conntrack::{CtEntry, CtKey4, CtKey6, KNOWN_OCTETS, flags};

use super::{Other, Takeover, find};
use crate::datapath::DatapathError;
use crate::datapath::kernel::conntrack::{Key, Walk};
use crate::datapath::kernel::datapath::Shared;
use crate::datapath::kernel::maps::{Map, MapName};
use crate::datapath::kernel::ticks;

/// The maps of flows: seen from both sides, seen from one side.
pub(super) const MAPS: [MapName; 4] = [MapName::Ct4, MapName::Half4, MapName::Ct6, MapName::Half6];

/// What became of the flows of other versions that are not shared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Carried {
    pub(super) entered: usize,
    pub(super) known: usize,
}

impl Takeover {
    /// Enters what our maps lack. As often as one likes.
    pub(crate) fn carry_flows(&mut self, shared: &Shared) -> Result<(), DatapathError> {
        let now = ticks::now(&shared.programs)?;
        for other in self.others.iter().filter(|other| !other.shares_flows) {
            self.steps.next()?;
            let carried = &mut self.flows;
            carry::<CtKey4>(other, shared, (MapName::Ct4, MapName::Half4), now, carried)?;
            carry::<CtKey6>(other, shared, (MapName::Ct6, MapName::Half6), now, carried)?;
        }
        Ok(())
    }
}

fn carry<K: Key>(
    other: &Other,
    shared: &Shared,
    (full, half): (MapName, MapName),
    now: u64,
    carried: &mut Carried,
) -> Result<(), DatapathError> {
    let ours = [full, half].map(|name| shared.maps.of(name));
    for (place, name) in [full, half].into_iter().enumerate() {
        let Some(theirs) = find::map(&other.of, name)? else {
            continue;
        };
        if !theirs.holds_flows_of::<K>()? {
            tracing::warn!(
                version = other.of.version,
                map = theirs.name,
                "its entries are of an unknown form; running connections are adopted from the sockets"
            );
            continue;
        }
        let mut walk = Walk::new(&theirs);
        while let Some(batch) = walk.step::<K>()? {
            for (key, entry) in batch {
                if !ticks::is_expired(&entry, now) {
                    enter(ours, place, &key, &entry, now, carried)?;
                }
            }
        }
    }
    Ok(())
}

/// Enters a flow unless ours know it as well: seen from both sides if it was,
/// and opened by the same side.
fn enter<K: Key>(
    ours: [&Map; 2],
    place: usize,
    key: &K,
    entry: &CtEntry,
    now: u64,
    carried: &mut Carried,
) -> Result<(), DatapathError> {
    let opener = |entry: &CtEntry| entry.flags & flags::OPENED_EGRESS;
    for held_in in &ours[..=place] {
        let held: Option<CtEntry> = held_in.get(key)?;
        let held = held.filter(|held| !ticks::is_expired(held, now));
        if held.is_some_and(|held| opener(&held) == opener(entry)) {
            carried.known += 1;
            return Ok(());
        }
    }
    // First where the programs look first, so that the flow is never unknown.
    ours[place].put(key, entry)?;
    ours[1 - place].remove(key)?;
    carried.entered += 1;
    Ok(())
}

impl Map {
    /// Whether the kernel's sizes are those of flows with this key.
    fn holds_flows_of<K: Key>(&self) -> Result<bool, DatapathError> {
        use std::os::fd::AsFd as _;
        let info = crate::datapath::kernel::sys::map_info(self.fd.as_fd())
            .map_err(crate::datapath::kernel::maps::kernel("map info"))?;
        Ok(info.key_size as usize == size_of::<K>() && self.value_size >= KNOWN_OCTETS)
    }
}
