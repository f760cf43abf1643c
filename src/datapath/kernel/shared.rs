//! What every handle on the kernel holds: the maps, the programs, the commit word.

use std::collections::BTreeSet;

use palisade_abi::calls;
use palisade_abi::commit::CommitWord;
use palisade_abi::settings::Settings;
use parking_lot::Mutex;

use super::commit::CommitCell;
use super::failsafe;
use super::ipcache4::RangeTables;
use super::ipcache6::{self, IndexTables};
use super::maps::{Map, MapName, Maps};
use super::meta;
use super::programs::{ProgramName, Programs};
use super::settings;
use super::slots::{Checksum, Tables};
use crate::datapath::{
    ControlEndpoint, ControlMark, DatapathError, DatapathSettings, GenerationNumber, Realized,
};
use crate::events::Revision;
use crate::policy::Direction;

/// What every handle on the kernel needs; all of it is read-only or atomic.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) maps: Maps,
    pub(crate) programs: Programs,
    pub(crate) tables: Tables,
    pub(crate) ranges: RangeTables,
    pub(crate) indexes: IndexTables,
    pub(crate) word: CommitCell,
    pub(crate) control: Mutex<Said>,
}

/// What was said last of the agent's own traffic, for all who hold the list. None: nothing in this life of
/// the agent, so what an earlier one left is neither right nor wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Said {
    pub(crate) mark: Option<ControlMark>,
    pub(crate) endpoints: Option<BTreeSet<ControlEndpoint>>,
}

/// The programs of a slot's tail-call entries: (array, entry of slot A, program).
const ENTRIES: [(MapName, u32, ProgramName); 4] = [
    (MapName::CallsIn, calls::V4_SLOT_A, ProgramName::In4),
    (MapName::CallsIn, calls::V6_SLOT_A, ProgramName::In6),
    (MapName::CallsEg, calls::V4_SLOT_A, ProgramName::Eg4),
    (MapName::CallsEg, calls::V6_SLOT_A, ProgramName::Eg6),
];

impl Shared {
    /// The IPv6 ipcache of a slot.
    pub(crate) fn slot6(&self, slot: usize) -> ipcache6::Slot<'_, Map> {
        self.indexes.slot(self.maps.of(MapName::Ipcache6), slot)
    }

    /// Puts the programs of this binary into a slot's entries. Writes.
    pub(crate) fn write_calls(&self, slot: u32) -> Result<usize, DatapathError> {
        let mut writes = 0;
        for (array, entry, name) in ENTRIES {
            let (array, program) = (self.maps.of(array), self.programs.of(name));
            let entry = entry + slot * calls::V4_SLOT_B;
            if array.program_id(entry)? == program.id {
                continue;
            }
            let fd = std::os::fd::AsRawFd::as_raw_fd(&program.fd).unsigned_abs();
            array.put(&entry, &fd)?;
            writes += 1;
        }
        Ok(writes)
    }

    /// Whether a slot's entries hold the programs of this binary.
    pub(crate) fn calls_hold(&self, slot: u32) -> Result<bool, DatapathError> {
        for (array, entry, name) in ENTRIES {
            let entry = entry + slot * calls::V4_SLOT_B;
            if self.maps.of(array).program_id(entry)? != self.programs.of(name).id {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Programs of both slots are the same ones.
    pub(crate) fn calls_agree(&self) -> Result<bool, DatapathError> {
        for (array, entry, _) in ENTRIES {
            let array = self.maps.of(array);
            if array.program_id(entry)? != array.program_id(entry + calls::V4_SLOT_B)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn settings(&self, slot: u32) -> Result<Option<Settings>, DatapathError> {
        self.maps.of(MapName::Settings).get(&slot)
    }

    /// Writes a slot's settings where they differ. Writes.
    pub(crate) fn write_settings(
        &self,
        slot: u32,
        settings: &DatapathSettings,
    ) -> Result<usize, DatapathError> {
        let want = settings::encode(settings, settings::ticks_per_second());
        let mut writes = 0;
        if self.settings(slot)? != Some(want) {
            self.maps.of(MapName::Settings).put(&slot, &want)?;
            writes += 1;
        }
        writes += failsafe::write(self.maps.of(MapName::Failsafe), slot, &settings.failsafe)?;
        let vlans = self.maps.of(MapName::Vlans);
        Ok(writes + settings::write_vlans(vlans, slot, &settings.vlan_allow)?)
    }

    pub(crate) fn settings_hold(
        &self,
        slot: u32,
        settings: &DatapathSettings,
    ) -> Result<bool, DatapathError> {
        let want = settings::encode(settings, settings::ticks_per_second());
        Ok(self.settings(slot)? == Some(want)
            && failsafe::holds(self.maps.of(MapName::Failsafe), slot, &settings.failsafe)?
            && settings::vlans_hold(self.maps.of(MapName::Vlans), slot, &settings.vlan_allow)?)
    }

    /// Checksum over everything of a slot but the ipcache, all of it read.
    pub(crate) fn checksum(&self, slot: u32) -> Result<u64, DatapathError> {
        self.checksum_with(slot, self.tables.read(slot).checksum())
    }

    /// The same, where that of the tables is known.
    pub(crate) fn checksum_with(&self, slot: u32, tables: u64) -> Result<u64, DatapathError> {
        let mut sum = Checksum(tables);
        if let Some(settings) = self.settings(slot)? {
            sum.add_bytes(super::maps::bytes_of(&settings));
        }
        Ok(sum.0)
    }

    /// What the commit word and its slot's record say; None before the first commit.
    pub(crate) fn realized(&self) -> Result<Option<Realized>, DatapathError> {
        let word = self.word.load();
        if word.generation() == 0 {
            return Ok(None);
        }
        let record = meta::read(&self.maps, word.slot())?;
        let known = record.generation == word.generation();
        Ok(Some(Realized {
            generation: GenerationNumber(word.generation()),
            revision: Revision(if known { record.revision } else { 0 }),
            nonce: if known { record.nonce } else { 0 },
            enforced: enforced_of(word),
            watched: watched_of(word),
        }))
    }
}

pub(crate) fn enforced_of(word: CommitWord) -> [bool; 2] {
    Direction::BOTH.map(|direction| word.enforced(direction.number()))
}

pub(crate) fn watched_of(word: CommitWord) -> [bool; 2] {
    Direction::BOTH.map(|direction| word.watched(direction.number()))
}
