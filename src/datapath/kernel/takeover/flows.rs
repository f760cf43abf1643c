//! Flows of a version whose sets are of another form.
//!
//! Our programs run beside the other version's and see every packet, so what
//! happens meanwhile is in our tables already. What is missing there are flows that
//! were open before, and who opened them: the other version knows that best, if
//! it ever was current. One that only began to look on does not (generation 0).

use palisade_abi::conntrack::{CtEntry, CtKey4, CtKey6, flags};
use palisade_abi::flows::Tag;

use super::{Other, Takeover, find};
use crate::datapath::DatapathError;
use crate::datapath::kernel::flows::{FlowTable, Key};
use crate::datapath::kernel::maps::MapName;
use crate::datapath::kernel::shared::Shared;
use crate::datapath::kernel::ticks;

/// What became of the flows of other versions that are not shared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Carried {
    pub(super) entered: usize,
    pub(super) known: usize,
}

/// Whom to believe where two versions differ on who opened a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Conflict {
    /// The other one, which has seen all.
    Theirs,
    /// Ours: the other one has lost hooks already.
    Ours,
}

impl Takeover {
    /// Enters what our maps lack. As often as one likes.
    pub(crate) fn carry_flows(
        &mut self,
        shared: &Shared,
        conflict: Conflict,
    ) -> Result<(), DatapathError> {
        let now = ticks::now(&shared.programs)?;
        let was_current = |other: &&Other| other.word().is_some_and(|it| it.generation() != 0);
        let others = self.others.iter().filter(|other| !other.shares_flows);
        for other in others.filter(was_current) {
            self.steps.next()?;
            let mut carrying = Carrying {
                now,
                conflict,
                carried: &mut self.flows,
            };
            let ours = &shared.maps;
            carrying.carry::<CtKey4>(other, &FlowTable::v4(ours)?, MapName::Ct4)?;
            carrying.carry::<CtKey6>(other, &FlowTable::v6(ours)?, MapName::Ct6)?;
        }
        Ok(())
    }
}

/// How flows are entered.
struct Carrying<'a> {
    now: u64,
    conflict: Conflict,
    carried: &'a mut Carried,
}

impl Carrying<'_> {
    fn carry<K: Key>(
        &mut self,
        other: &Other,
        ours: &FlowTable<'_, K>,
        name: MapName,
    ) -> Result<(), DatapathError> {
        let (Some(space), Some(theirs)) = (
            find::map(&other.of, MapName::CtSpace)?,
            find::map(&other.of, name)?,
        ) else {
            return Ok(());
        };
        let Some(theirs) = FlowTable::<K>::of_other(&theirs, &space)? else {
            tracing::warn!(
                version = other.of.version,
                map = theirs.name,
                "its flows are of an unknown form; running connections are adopted from the sockets"
            );
            return Ok(());
        };
        for window in theirs.windows() {
            let (_, window) = window?;
            for set in 0..window.sets {
                for (tag, key, entry) in window.set(set).ways().filter_map(|way| way.read::<K>()) {
                    if tag.is_alive(self.now) {
                        self.enter(ours, &key, tag, &entry)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Enters a flow unless ours know it as well: answered if it was, and opened by
    /// the same side.
    fn enter<K: Key>(
        &mut self,
        ours: &FlowTable<'_, K>,
        key: &K,
        theirs: Tag,
        entry: &CtEntry,
    ) -> Result<(), DatapathError> {
        let opener = |bits: u32| bits & (flags::OPENED_EGRESS | flags::UNJUDGED);
        let known = ours.with(key, self.now, |way, tag, held| {
            let agrees = opener(held.flags) == opener(entry.flags) && tag.kind() >= theirs.kind();
            if agrees || self.conflict == Conflict::Ours {
                return true;
            }
            way.change_flags(|_| entry.flags);
            // Where a packet has renewed it meanwhile, it does so again in the end.
            way.replace(tag, tag.of_kind(tag.kind().max(theirs.kind())));
            false
        })?;
        match known {
            Some(true) => self.carried.known += 1,
            Some(false) => self.carried.entered += 1,
            None => {
                let expires = self.now + theirs.jiffies_left(self.now);
                ours.enter(key, entry, expires, theirs.kind(), self.now)?;
                self.carried.entered += 1;
            }
        }
        Ok(())
    }
}
