//! Reads what the kernel holds: counters, flows, tables, health. Any thread;
//! never writes, never waits for the committer.

use std::sync::Arc;

use ipnet::IpNet;
use palisade_abi::commit::CommitWord;
use palisade_abi::flows::evicted;
use palisade_abi::reason::{self, Counter, counter_index};
use palisade_abi::{event, table};

use super::attach::{Attached, Attachments};
use super::conntrack::{self, CtFlow};
use super::control::ControlList;
use super::maps::{Map, MapName, SPECS, kernel};
use super::meta;
use super::pins;
use super::programs::{map_pin, program_pin};
use super::shared::{Shared, enforced_of, watched_of};
use super::slots::TableCopy;
use super::sweep::Sweeper;
use super::sys;
use crate::datapath::events::EventReader;
use crate::datapath::{ControlFlows, DatapathError, GenerationNumber, Realized};
use crate::identity::{IdentityIndex, IdentityNumber};
use crate::policy::{Direction, RuleNumber};

/// One reason and direction with what it counted over all CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReasonCounter {
    pub reason: u8,
    pub label: &'static str,
    pub direction: Direction,
    pub packets: u64,
    pub bytes: u64,
}

/// Hits of one rule number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleCounter {
    pub rule: RuleNumber,
    pub packets: u64,
    pub bytes: u64,
}

/// Events that did not reach the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LostEvents {
    /// Over the budget.
    pub budget: u64,
    /// The ring buffer was full.
    pub ring_full: u64,
}

/// Flows that lived and had to make room for others, since the tables were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CtEvictions {
    /// Seen from one side only.
    pub one_sided: u64,
    /// Answered: both sets of the new flow held nothing else.
    pub answered: u64,
}

/// One prefix of the current slot's ipcache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpcachePrefix {
    pub prefix: IpNet,
    pub identity: IdentityNumber,
    pub index: IdentityIndex,
}

/// The commit word, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitState {
    pub slot: u32,
    pub generation: GenerationNumber,
    pub epoch: u32,
    pub enforced: [bool; 2],
    pub watched: [bool; 2],
    pub missed_tail_call_passes: bool,
}

/// One program of this binary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramStatus {
    pub name: &'static str,
    pub id: u32,
    /// Instructions that the verifier looked at.
    pub verified_insns: u32,
}

/// One map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapStatus {
    pub name: &'static str,
    pub id: u32,
    pub max_entries: u32,
}

/// The memory of one map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapMemory {
    pub name: &'static str,
    pub max_entries: u32,
    pub bytes: u64,
}

/// Handle for reading; cheap to clone.
#[derive(Clone, Debug)]
pub struct Inspector {
    shared: Arc<Shared>,
    attachments: Attachments,
    cpus: usize,
}

impl Inspector {
    pub(crate) fn new(shared: Arc<Shared>, attachments: Attachments) -> Self {
        // Values of per-CPU maps come for every possible CPU.
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        Self {
            shared,
            attachments,
            cpus,
        }
    }

    fn sum(&self, map: MapName, index: u32) -> Result<Counter, DatapathError> {
        let values: Vec<Counter> = self.shared.maps.of(map).per_cpu(index, self.cpus)?;
        Ok(values
            .iter()
            .fold(Counter::default(), |sum, value| Counter {
                packets: sum.packets.wrapping_add(value.packets),
                bytes: sum.bytes.wrapping_add(value.bytes),
            }))
    }

    /// Counters by reason and direction; those at zero are left out.
    pub fn counters(&self) -> Result<Vec<ReasonCounter>, DatapathError> {
        let mut out = Vec::new();
        for (number, label) in reason::ALL {
            for direction in Direction::BOTH {
                let index = counter_index(*number, direction.number());
                let counter = self.sum(MapName::Counters, index)?;
                if counter.packets != 0 {
                    out.push(ReasonCounter {
                        reason: *number,
                        label,
                        direction,
                        packets: counter.packets,
                        bytes: counter.bytes,
                    });
                }
            }
        }
        Ok(out)
    }

    /// Hits of the given rules.
    pub fn rules(
        &self,
        numbers: impl IntoIterator<Item = RuleNumber>,
    ) -> Result<Vec<RuleCounter>, DatapathError> {
        let fits = |rule: &RuleNumber| rule.0 < table::RULES_MAX;
        let counter = |rule: RuleNumber| {
            let counter = self.sum(MapName::Rules, rule.0)?;
            Ok(RuleCounter {
                rule,
                packets: counter.packets,
                bytes: counter.bytes,
            })
        };
        numbers.into_iter().filter(fits).map(counter).collect()
    }

    /// Events that were lost, and why.
    pub fn lost_events(&self) -> Result<LostEvents, DatapathError> {
        Ok(LostEvents {
            budget: self.count(MapName::Lost, event::lost::BUDGET)?,
            ring_full: self.count(MapName::Lost, event::lost::RING_FULL)?,
        })
    }

    /// Where the agent's own traffic may lead, and how often it did.
    pub fn control(&self) -> Result<Vec<ControlFlows>, DatapathError> {
        ControlList::new(Arc::clone(&self.shared)).list()
    }

    /// Flows that lived and had to make room for others.
    pub fn evictions(&self) -> Result<CtEvictions, DatapathError> {
        Ok(CtEvictions {
            one_sided: self.count(MapName::CtEvicted, evicted::ONE_SIDED)?,
            answered: self.count(MapName::CtEvicted, evicted::ANSWERED)?,
        })
    }

    /// A count of all CPUs.
    fn count(&self, map: MapName, index: u32) -> Result<u64, DatapathError> {
        let values: Vec<u64> = self.shared.maps.of(map).per_cpu(index, self.cpus)?;
        Ok(values.iter().sum())
    }

    /// Calls `each` for every flow until it returns false.
    pub fn for_each_flow(&self, mut each: impl FnMut(CtFlow) -> bool) -> Result<(), DatapathError> {
        conntrack::for_each(&self.shared, &mut each)
    }

    /// The prefixes that mean something in the current slot.
    pub fn ipcache(&self) -> Result<Vec<IpcachePrefix>, DatapathError> {
        let v4 = self.of_one_generation(|word| {
            let slot = word.slot() as usize;
            Ok(self.shared.ranges.prefixes(slot))
        })?;
        let v6 = self.of_one_generation(|word| {
            let slot = word.slot() as usize;
            self.shared.slot6(slot).prefixes()
        })?;
        let entry = |prefix, (identity, index)| IpcachePrefix {
            prefix,
            identity: IdentityNumber(identity),
            index: IdentityIndex(index),
        };
        let v4 = v4.into_iter().map(|(net, it)| entry(IpNet::V4(net), it));
        let v6 = v6.into_iter().map(|(net, it)| entry(IpNet::V6(net), it));
        Ok(v4.chain(v6).collect())
    }

    /// One direction's verdict table of the current slot.
    pub fn table(&self, direction: Direction) -> Result<TableCopy, DatapathError> {
        self.of_one_generation(|word| Ok(self.shared.tables.copy(word.slot(), direction)))
    }

    /// Runs `read` again until no flip happened meanwhile: after a flip its slot
    /// is the inactive one and may be written.
    fn of_one_generation<T>(
        &self,
        mut read: impl FnMut(CommitWord) -> Result<T, DatapathError>,
    ) -> Result<T, DatapathError> {
        loop {
            let word = self.shared.word.load();
            let result = read(word)?;
            if self.shared.word.load() == word {
                return Ok(result);
            }
        }
    }

    /// The commit word.
    #[must_use]
    pub fn commit_state(&self) -> CommitState {
        let word = self.shared.word.load();
        CommitState {
            slot: word.slot(),
            generation: GenerationNumber(word.generation()),
            epoch: word.epoch(),
            enforced: enforced_of(word),
            watched: watched_of(word),
            missed_tail_call_passes: word.miss_passes(),
        }
    }

    /// What is enforced now; None before the first commit.
    pub fn realized(&self) -> Result<Option<Realized>, DatapathError> {
        self.shared.realized()
    }

    /// The devices that are attached.
    #[must_use]
    pub fn attached(&self) -> Vec<Attached> {
        self.attachments.list()
    }

    /// The programs of this binary.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramStatus> {
        let programs = self.shared.programs.all.iter();
        programs
            .map(|program| ProgramStatus {
                name: program.name,
                id: program.id,
                verified_insns: program.verified_insns,
            })
            .collect()
    }

    /// Hash of the object that the programs came from.
    #[must_use]
    pub fn object_hash(&self) -> &str {
        &self.shared.programs.hash
    }

    /// All maps with their sizes.
    #[must_use]
    pub fn maps(&self) -> Vec<MapStatus> {
        let maps = self.shared.maps.0.iter();
        maps.map(|map| MapStatus {
            name: map.name,
            id: map.id,
            max_entries: map.max_entries,
        })
        .collect()
    }

    /// The memory that each map takes, as the kernel counts it: elements that are
    /// allocated, whether in use or not.
    pub fn memory(&self) -> Result<Vec<MapMemory>, DatapathError> {
        let of = |map: &Map| {
            let bytes = sys::map_memory(map.fd());
            Ok(MapMemory {
                name: map.name,
                max_entries: map.max_entries,
                bytes: bytes.map_err(kernel(format!("memory of map {}", map.name)))?,
            })
        };
        self.shared.maps.0.iter().map(of).collect()
    }

    /// Sweeps conntrack; for one worker thread.
    #[must_use]
    pub fn sweeper(&self) -> Sweeper {
        Sweeper::new(Arc::clone(&self.shared))
    }

    /// Reads decisions; for one worker thread.
    pub fn events(&self) -> Result<EventReader, DatapathError> {
        let map = self.shared.maps.of(MapName::Events);
        let fd = map.fd.try_clone().map_err(kernel("duplicate pal_events"))?;
        let data = aya::maps::MapData::from_fd(fd)
            .map_err(|error| DatapathError::Other(format!("map pal_events: {error}")))?;
        EventReader::new(data)
    }

    /// Everything that is not as it should be, one line each; empty is healthy.
    pub fn verify(&self) -> Result<Vec<String>, DatapathError> {
        let mut problems = self.attachments.drift();
        let dir = self.attachments.dir();
        let found = pins::list(dir).map_err(kernel("list pins"))?;
        let maps = SPECS.iter().map(|spec| map_pin(spec.name));
        let programs = &self.shared.programs;
        let programs = programs
            .all
            .iter()
            .map(|it| program_pin(it.name, &programs.hash));
        for pin in maps.chain(programs).filter(|pin| !found.contains(pin)) {
            problems.push(format!("the pin {} is gone", pin.file(dir)));
        }
        problems.extend(self.of_one_generation(|word| self.slot_problems(word))?);
        Ok(problems)
    }

    fn slot_problems(&self, word: CommitWord) -> Result<Vec<String>, DatapathError> {
        let mut problems = Vec::new();
        if word.generation() == 0 {
            return Ok(problems);
        }
        if !self.shared.calls_hold(word.slot())? {
            problems.push("the tail-call entries of the current slot are not ours".to_owned());
        }
        let record = meta::read(&self.shared.maps, word.slot())?;
        if record.generation != word.generation() {
            problems.push(format!(
                "the record of the current slot is of generation {}, the commit word of {}",
                record.generation,
                word.generation()
            ));
        } else if record.checksum != self.shared.checksum(word.slot())? {
            problems.push(format!(
                "the verdict tables of generation {} are not what was committed",
                word.generation()
            ));
        }
        Ok(problems)
    }
}
