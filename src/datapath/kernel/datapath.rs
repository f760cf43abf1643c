//! The kernel behind the trait [`Datapath`]. Owner: the committer thread.
//!
//! Invariant: between the end of one call and the next, the current slot is
//! whole and nobody writes it. A failure at any place of `stage` leaves the
//! commit word, and so every verdict, as it was.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use palisade_abi::commit::CommitWord;

use super::adoption::{self, AdoptionReport};
use super::attach::Attachments;
use super::audit::Trust;
use super::commit::Grace;
use super::control::ControlList;
use super::failsafe;
use super::inspect::Inspector;
use super::ipcache4::Ipcache4;
use super::ipcache6::Ipcache6;
use super::known::Known;
use super::maps::{Map, MapName};
use super::meta::{self, SlotMeta};
use super::settings;
use super::shared::{Shared, enforced_of, watched_of};
use super::slots;
use super::takeover::{Conflict, Takeover};
use crate::datapath::{
    Datapath, DatapathError, DatapathSettings, Generation, GenerationNumber, Realized, StageReport,
};
use crate::events::Revision;
use crate::policy::{Direction, EndpointPolicy};

/// The real datapath.
#[derive(Debug)]
pub struct KernelDatapath {
    pub(crate) shared: Arc<Shared>,
    pub(crate) attachments: Attachments,
    pub(crate) ipcache4: Ipcache4,
    pub(crate) ipcache6: Ipcache6,
    pub(crate) known: Known,
    pub(crate) staged: Option<Staged>,
    /// What the audit compares with.
    pub(crate) trust: Trust,
    pub(crate) realized: Option<Realized>,
    pub(crate) grace: Grace,
    pub(crate) adoption: Option<AdoptionReport>,
    /// Another version that enforces until our first commit, or of which
    /// something is left.
    pub(crate) takeover: Option<Takeover>,
    /// Held while we live: one agent per directory of pins.
    pub(crate) _lock: OwnedFd,
}

/// A slot that is ready for the flip.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) slot: u32,
    revision: Revision,
    enforced: [bool; 2],
    watched: [bool; 2],
    miss_passes: bool,
    nonce: u32,
    checksum: u64,
    settings: Arc<DatapathSettings>,
}

/// The one endpoint that a generation may hold today.
fn host(generation: &Generation) -> Result<&EndpointPolicy, DatapathError> {
    match generation.endpoints.as_slice() {
        [host] => Ok(host),
        other => Err(DatapathError::DoesNotFit {
            what: "endpoints",
            needed: other.len(),
            max: 1,
        }),
    }
}

fn enforced(host: &EndpointPolicy) -> [bool; 2] {
    Direction::BOTH.map(|direction| host.direction(direction).enforced)
}

fn watched(host: &EndpointPolicy) -> [bool; 2] {
    Direction::BOTH.map(|direction| host.direction(direction).watched)
}

impl KernelDatapath {
    /// Reads what the kernel holds, for status, metrics and `bpf ... list`. Any thread.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(Arc::clone(&self.shared), self.attachments.clone())
    }

    /// Where the agent's own traffic may lead. Any thread.
    #[must_use]
    pub fn control(&self) -> ControlList {
        ControlList::new(Arc::clone(&self.shared))
    }

    /// Attaches and detaches devices. Any thread.
    #[must_use]
    pub fn attachments(&self) -> Attachments {
        self.attachments.clone()
    }

    /// What the last first enforcement found and entered; None if there was none.
    #[must_use]
    pub fn adoption(&self) -> Option<&AdoptionReport> {
        self.adoption.as_ref()
    }

    fn map(&self, name: MapName) -> &Map {
        self.shared.maps.of(name)
    }

    fn inactive_slot(&self) -> u32 {
        1 - self.trust.word.slot()
    }

    /// Refuses whatever does not fit but the blocks of the tables, before
    /// anything is written.
    fn check(&mut self, generation: &Generation, slot: u32) -> Result<(), DatapathError> {
        let host = host(generation)?;
        for direction in Direction::BOTH {
            slots::check(&host.direction(direction).table)?;
        }
        settings::check(&generation.settings)?;
        failsafe::check(
            self.map(MapName::Failsafe),
            slot,
            &generation.settings.failsafe,
        )?;
        let slot = slot as usize;
        self.ipcache4.check(slot, &generation.ipcache4)?;
        self.ipcache6.check(slot, &generation.ipcache6)
    }

    /// Makes the tables of `slot` those of `host`, which may still not fit; the
    /// number of writes.
    fn write_tables(&mut self, slot: u32, host: &EndpointPolicy) -> Result<usize, DatapathError> {
        let tables = &self.shared.tables;
        let held = self.known.slot(slot, || tables.read(slot));
        let written = tables.plan(slot, held, host).and_then(|unlike| {
            let written = tables.write(slot, held, &unlike);
            written.ok_or_else(|| DatapathError::ReadBack {
                what: "the verdict table".to_owned(),
            })
        });
        match written {
            Ok(_) => held.learn(host),
            Err(_) => self.known.forget(slot),
        }
        written
    }

    /// Makes `slot` equal to `generation`; the number of writes.
    fn write(&mut self, generation: &Generation, slot: u32) -> Result<usize, DatapathError> {
        let host = host(generation)?;
        let mut writes = self.write_tables(slot, host)?;
        writes += self.shared.write_calls(slot)?;
        writes += self.shared.write_settings(slot, &generation.settings)?;
        let slot = slot as usize;
        writes += self
            .ipcache4
            .write(&self.shared.ranges, slot, &generation.ipcache4)?;
        writes += self
            .ipcache6
            .write(&self.shared.slot6(slot), slot, &generation.ipcache6)?;
        Ok(writes)
    }

    /// The first part of `slot`, its tables aside, that differs from
    /// `generation`; None if it holds it.
    fn difference(
        &self,
        generation: &Generation,
        slot: u32,
    ) -> Result<Option<&'static str>, DatapathError> {
        if !self.shared.calls_hold(slot)? {
            return Ok(Some("the tail-call entries"));
        }
        if !self.shared.settings_hold(slot, &generation.settings)? {
            return Ok(Some("the settings"));
        }
        let index = slot as usize;
        let ranges = &self.shared.ranges;
        let ipcache = self.ipcache4.holds(ranges, index, &generation.ipcache4)
            && self
                .ipcache6
                .holds(&self.shared.slot6(index), index, &generation.ipcache6)?;
        Ok((!ipcache).then_some("the ipcache"))
    }

    /// Whether the flip to `staged` changes anything a packet can notice.
    fn changes(&self, word: CommitWord, staged: &Staged) -> Result<bool, DatapathError> {
        let same = word.generation() != 0
            && !self.trust.must_renew
            && enforced_of(word) == staged.enforced
            && watched_of(word) == staged.watched
            && word.miss_passes() == staged.miss_passes
            && self.tables_agree()
            && self.shared.settings(0)? == self.shared.settings(1)?
            && failsafe::slots_agree(self.map(MapName::Failsafe))?
            && self.ipcache4.slots_agree(&self.shared.ranges)
            && self
                .ipcache6
                .slots_agree([0, 1].map(|slot| self.shared.slot6(slot)))?
            && self.shared.calls_agree()?;
        Ok(!same)
    }

    fn tables_agree(&self) -> bool {
        let known = self.known.slots_agree();
        known.unwrap_or_else(|| self.shared.tables.slots_agree())
    }

    /// Whether the tables of `slot` are those of `host`.
    fn tables_hold(&mut self, slot: u32, host: &EndpointPolicy) -> bool {
        let tables = &self.shared.tables;
        let held = self.known.slot(slot, || tables.read(slot));
        let known = held.holds(host);
        known.unwrap_or_else(|| tables.hold(slot, held, host))
    }

    /// Running connections are entered before the first packet can be dropped,
    /// or reported as one that would be.
    fn adopt_connections(&mut self, word: CommitWord, staged: &Staged) {
        let (enforced, watched) = (enforced_of(word), watched_of(word));
        let first = (0..2).any(|place| {
            let enforces = staged.enforced[place] && !enforced[place];
            let watches = staged.watched[place] && !watched[place] && !enforced[place];
            enforces || watches
        });
        if !first {
            return;
        }
        let report = adoption::run(&self.shared, word.epoch());
        for warning in &report.warnings {
            tracing::warn!(%warning, "first enforcement: running connections");
        }
        tracing::info!(
            inserted = report.inserted,
            corrected = report.corrected,
            known = report.known,
            "first enforcement: running connections adopted"
        );
        self.adoption = Some(report);
    }
}

impl KernelDatapath {
    /// What another version had becomes ours. A failure changes no verdict, and
    /// the next commit tries again.
    fn finish_takeover(&mut self) {
        let Some(takeover) = &mut self.takeover else {
            return;
        };
        match takeover.finish(&self.shared, &self.attachments, &self.grace) {
            Ok(()) => self.takeover = None,
            Err(error) => tracing::warn!(
                versions = ?takeover.versions(),
                "another version is not taken over yet, the next commit tries again: {error}"
            ),
        }
    }
}

impl Datapath for KernelDatapath {
    fn realized(&self) -> Option<Realized> {
        self.realized
    }

    fn stage(&mut self, generation: &Generation) -> Result<StageReport, DatapathError> {
        self.staged = None;
        let slot = self.inactive_slot();
        let host = host(generation)?;
        self.check(generation, slot)?;
        let writes = self.write(generation, slot)?;
        if let Some(what) = self.difference(generation, slot)? {
            return Err(DatapathError::ReadBack {
                what: what.to_owned(),
            });
        }
        let shared = &self.shared;
        let held = self.known.slot(slot, || shared.tables.read(slot));
        let blocks = held.pool.in_use();
        let nonce = meta::nonce();
        self.staged = Some(Staged {
            slot,
            revision: generation.revision,
            enforced: enforced(host),
            watched: watched(host),
            miss_passes: generation.settings.missed_tail_call_passes,
            nonce,
            checksum: shared.checksum_with(slot, held.checksum())?,
            settings: Arc::clone(&generation.settings),
        });
        let tables = Direction::BOTH.map(|direction| &host.direction(direction).table);
        Ok(StageReport {
            writes,
            blocks,
            rows: tables.iter().map(|table| table.rows.len()).sum(),
            prefixes: generation.ipcache4.len() + generation.ipcache6.len(),
            nonce,
        })
    }

    fn commit(&mut self) -> Result<Realized, DatapathError> {
        let Some(staged) = self.staged.take() else {
            return Err(DatapathError::Other(
                "commit without a staged generation".to_owned(),
            ));
        };
        // Not what the kernel says now: the audit may be yet to find that edited.
        let word = self.trust.word;
        let epoch = match &self.takeover {
            Some(takeover) => takeover.epoch(word.epoch()) + 1,
            None => word.epoch() + u32::from(self.changes(word, &staged)?),
        };
        // 0 means that nothing was ever committed.
        let generation = word.generation().wrapping_add(1).max(1);
        let record = SlotMeta {
            revision: staged.revision.0,
            checksum: staged.checksum,
            generation,
            nonce: staged.nonce,
        };
        meta::write(&self.shared.maps, staged.slot, &record)?;
        if let Some(takeover) = &mut self.takeover {
            takeover.carry_flows(&self.shared, Conflict::Theirs)?;
        }
        self.adopt_connections(word, &staged);
        let next = CommitWord::new(
            staged.slot,
            staged.enforced,
            staged.watched,
            staged.miss_passes,
            epoch,
            generation,
        );
        self.shared.word.store(next);
        self.trust.committed(next, record, Some(staged.settings));
        let grace = self.grace.wait();
        tracing::debug!(generation, epoch, slot = staged.slot, ?grace, "committed");
        let realized = Realized {
            generation: GenerationNumber(generation),
            revision: staged.revision,
            nonce: staged.nonce,
            enforced: staged.enforced,
            watched: staged.watched,
        };
        self.realized = Some(realized);
        self.finish_takeover();
        Ok(realized)
    }

    fn matches_current(&mut self, generation: &Generation) -> Result<bool, DatapathError> {
        let word = self.shared.word.load();
        let host = host(generation)?;
        // Another version is taken over with a commit, whatever ours held.
        if self.takeover.is_some()
            || word.generation() == 0
            || enforced_of(word) != enforced(host)
            || watched_of(word) != watched(host)
            || word.miss_passes() != generation.settings.missed_tail_call_passes
        {
            return Ok(false);
        }
        let matches = !self.trust.must_renew
            && self.tables_hold(word.slot(), host)
            && self.difference(generation, word.slot())?.is_none();
        if matches {
            self.trust.settings = Some(Arc::clone(&generation.settings));
        }
        Ok(matches)
    }

    fn adopt(&mut self, revision: Revision) -> Result<Realized, DatapathError> {
        let word = self.shared.word.load();
        let Some(realized) = self.shared.realized()? else {
            return Err(DatapathError::Other(
                "nothing was committed yet that could be right for another revision".to_owned(),
            ));
        };
        let mut record = meta::read(&self.shared.maps, word.slot())?;
        if record.generation != word.generation() {
            // The record was lost. What it is made of anew was just compared.
            let slot = word.slot();
            record.nonce = meta::nonce();
            record.checksum = self.shared.checksum(slot)?;
            record.generation = word.generation();
            record.revision = revision.0;
            meta::write(&self.shared.maps, slot, &record)?;
        } else if realized.revision != revision {
            record.revision = revision.0;
            meta::write(&self.shared.maps, word.slot(), &record)?;
        }
        self.trust.record = Some(record);
        let realized = Realized {
            revision,
            nonce: record.nonce,
            ..realized
        };
        self.realized = Some(realized);
        Ok(realized)
    }
}
