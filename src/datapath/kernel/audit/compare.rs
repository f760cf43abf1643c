//! The parts of the datapath one by one: what the kernel holds against what
//! this process wrote there and remembers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use palisade_abi::commit::CommitWord;
use palisade_abi::table::{BLOCKS_MAX, ROW_WORDS};

use super::{AuditReport, Finding, Mending, Part};
use crate::datapath::kernel::datapath::KernelDatapath;
use crate::datapath::kernel::maps::MapName;
use crate::datapath::kernel::shared::{enforced_of, watched_of};
use crate::datapath::kernel::{failsafe, meta, settings};
use crate::datapath::{DatapathError, DatapathSettings};
use crate::limits::{AUDIT_BLOCKS_MAX, AUDIT_BUCKETS_MAX, AUDIT_CHUNKS_MAX, AUDIT_PREFIXES_MAX};

/// Where a pass is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Word,
    /// The agent's own traffic.
    Control,
    Rows(u32),
    Blocks(u32, u32),
    /// Slot and first address.
    Ranges(u32, Ipv4Addr),
    /// Slot and first chunk.
    Chunks(u32, usize),
    Devices,
}

fn letter(slot: u32) -> char {
    if slot == 0 { 'A' } else { 'B' }
}

fn with_epoch(word: CommitWord, epoch: u32) -> CommitWord {
    CommitWord::new(
        word.slot(),
        enforced_of(word),
        watched_of(word),
        word.miss_passes(),
        epoch,
        word.generation(),
    )
}

impl KernelDatapath {
    /// Compares and mends one piece; the next one.
    pub(super) fn audit(&mut self, piece: Piece, report: &mut AuditReport) -> Piece {
        let (part, outcome) = match piece {
            Piece::Word => {
                self.audit_word(report);
                (
                    Part::Settings,
                    self.audit_small(report).map(|()| Piece::Control),
                )
            }
            Piece::Control => (Part::ControlEndpoints, self.audit_control(report)),
            Piece::Rows(slot) => {
                self.audit_rows(slot, report);
                return Piece::Blocks(slot, 0);
            }
            Piece::Blocks(slot, first) => return self.audit_blocks(slot, first, report),
            Piece::Ranges(slot, first) => return self.audit_ranges(slot, first, report),
            Piece::Chunks(slot, first) => (Part::IpcacheV6, self.audit_chunks(slot, first, report)),
            Piece::Devices => return Piece::Devices,
        };
        outcome.unwrap_or_else(|error| {
            let failed = Mending::Failed(error.to_string());
            report.found(Finding::new(part, "could not be compared", failed));
            match part {
                Part::IpcacheV6 => Piece::Devices,
                Part::ControlEndpoints => Piece::Rows(0),
                _ => Piece::Control,
            }
        })
    }

    fn audit_word(&mut self, report: &mut AuditReport) {
        let (is, want) = (self.shared.word.load(), self.trust.word);
        report.compared(Part::CommitWord, 1);
        if is == want {
            return;
        }
        // Never the epoch that flows were judged in under the wrong word.
        let epoch = want.epoch().wrapping_add(1);
        let taken = with_epoch(want, epoch).epoch() == is.epoch();
        self.store_word(with_epoch(want, epoch.wrapping_add(u32::from(taken))));
        report.found(Finding::new(
            Part::CommitWord,
            format!("it was {:#018x} instead of {:#018x}", is.0, want.0),
            Mending::Done,
        ));
    }

    fn store_word(&mut self, word: CommitWord) {
        self.shared.word.store(word);
        self.trust.word = word;
    }

    /// Every flow is judged again by its next packet.
    fn judge_anew(&mut self) {
        let word = self.trust.word;
        self.store_word(with_epoch(word, word.epoch().wrapping_add(1)));
    }

    /// What is a few elements only.
    fn audit_small(&mut self, report: &mut AuditReport) -> Result<(), DatapathError> {
        let slot = self.trust.word.slot();
        if let Some(want) = self.trust.record {
            report.compared(Part::SlotRecord, 1);
            if meta::read(&self.shared.maps, slot)? != want {
                let mended = meta::write(&self.shared.maps, slot, &want);
                let what = format!("of slot {}", letter(slot));
                report.found(Finding::new(Part::SlotRecord, what, mending(mended)));
            }
        }
        // Before the first policy the slot may hold another binary's programs.
        let Some(want) = self.trust.settings.clone() else {
            return Ok(());
        };
        report.compared(Part::ProgramArray, 4);
        if !self.shared.calls_hold(slot)? {
            let mended = self.shared.write_calls(slot);
            let what = format!(
                "entries of slot {} were empty or held other programs",
                letter(slot)
            );
            let finding = Finding::new(Part::ProgramArray, what, mending(mended));
            report.found(finding);
            self.judge_anew();
        }
        self.audit_settings(slot, &want, report)
    }

    fn audit_settings(
        &self,
        slot: u32,
        want: &Arc<DatapathSettings>,
        report: &mut AuditReport,
    ) -> Result<(), DatapathError> {
        let (failsafes, vlans) = (
            self.shared.maps.of(MapName::Failsafe),
            self.shared.maps.of(MapName::Vlans),
        );
        let encoded = settings::encode(want, settings::ticks_per_second());
        let differ = [
            (
                Part::Settings,
                1,
                self.shared.settings(slot)? != Some(encoded),
            ),
            (
                Part::Failsafe,
                want.failsafe.len(),
                !failsafe::holds(failsafes, slot, &want.failsafe)?,
            ),
            (
                Part::Vlans,
                want.vlan_allow.len(),
                !settings::vlans_hold(vlans, slot, &want.vlan_allow)?,
            ),
        ];
        for (part, count, differs) in differ {
            report.compared(part, count);
            if differs {
                let mended = self.shared.write_settings(slot, want);
                let what = format!("of slot {} were not as configured", letter(slot));
                report.found(Finding::new(part, what, mending(mended)));
            }
        }
        Ok(())
    }

    fn audit_control(&mut self, report: &mut AuditReport) -> Result<Piece, DatapathError> {
        // What passed as the agent's own, and should not have, is judged again.
        if self.control().audit(report)? {
            self.judge_anew();
        }
        Ok(Piece::Rows(0))
    }

    /// A slot is wrong. The inactive one is compared whole before it is used
    /// again; the current one is replaced.
    fn distrust(&mut self, part: Part, slot: u32, count: usize, report: &mut AuditReport) {
        let is_current = slot == self.trust.word.slot();
        let slots = if is_current { vec![0, 1] } else { vec![slot] };
        for slot in slots {
            self.forget(slot);
        }
        self.trust.must_renew |= is_current;
        let (state, mending) = if is_current {
            ("current", Mending::NeedsGeneration)
        } else {
            ("inactive", Mending::Done)
        };
        let what = format!("of slot {}, the {state} one, were changed", letter(slot));
        let mut finding = Finding::new(part, what, mending);
        finding.count = count as u64;
        report.found(finding);
    }

    /// Whatever is written next is compared with memory first.
    fn forget(&mut self, slot: u32) {
        self.known.forget(slot);
        self.ipcache4.forget(&self.shared.ranges, slot as usize);
        self.ipcache6.forget(slot as usize);
        if self.staged.as_ref().is_some_and(|it| it.slot == slot) {
            self.staged = None;
        }
    }

    fn audit_rows(&mut self, slot: u32, report: &mut AuditReport) {
        let tables = &self.shared.tables;
        let differs = match self.known.get(slot) {
            Some(held) => tables.sum(slot) != held.sum,
            None => match self.trust.record {
                // An agent that has seen no policy yet: the record tells.
                Some(record) if slot == self.trust.word.slot() => {
                    let sum = self.shared.checksum(slot);
                    sum.is_ok_and(|sum| sum != record.checksum)
                }
                _ => return,
            },
        };
        report.compared(Part::Rows, 2 * ROW_WORDS);
        if differs {
            self.distrust(Part::Rows, slot, 1, report);
        }
    }

    fn audit_blocks(&mut self, slot: u32, first: u32, report: &mut AuditReport) -> Piece {
        let end = (first + AUDIT_BLOCKS_MAX).min(BLOCKS_MAX);
        let after = Piece::Ranges(slot, Ipv4Addr::UNSPECIFIED);
        let Some(held) = self.known.get(slot) else {
            return after;
        };
        let tables = &self.shared.tables;
        let seen = tables.changed_blocks(slot, held, first as usize..end as usize);
        report.compared(Part::Blocks, seen.compared);
        if seen.changed > 0 {
            self.distrust(Part::Blocks, slot, seen.changed, report);
            return after;
        }
        if end == BLOCKS_MAX || seen.is_last {
            return after;
        }
        Piece::Blocks(slot, end)
    }

    fn audit_ranges(&mut self, slot: u32, from: Ipv4Addr, report: &mut AuditReport) -> Piece {
        let after = Piece::Chunks(slot, 0);
        let (ranges, index) = (&self.shared.ranges, slot as usize);
        let (prefixes_max, buckets_max) = (AUDIT_PREFIXES_MAX, AUDIT_BUCKETS_MAX);
        let Some(compared) = self
            .ipcache4
            .compare(ranges, index, from, prefixes_max, buckets_max)
        else {
            return after;
        };
        report.compared(Part::IpcacheV4, compared.buckets);
        if compared.changed > 0 {
            self.distrust(Part::IpcacheV4, slot, compared.changed, report);
            return after;
        }
        match compared.next {
            Some(next) => Piece::Ranges(slot, next),
            None => after,
        }
    }

    fn audit_chunks(
        &mut self,
        slot: u32,
        first: usize,
        report: &mut AuditReport,
    ) -> Result<Piece, DatapathError> {
        let after = if slot == 0 {
            Piece::Rows(1)
        } else {
            Piece::Devices
        };
        let (memory, max) = (self.shared.slot6(slot as usize), AUDIT_CHUNKS_MAX);
        let Some(seen) = self.ipcache6.changed(&memory, slot as usize, first, max) else {
            return Ok(after);
        };
        let seen = seen?;
        report.compared(Part::IpcacheV6, seen.compared);
        if seen.changed > 0 {
            self.distrust(Part::IpcacheV6, slot, seen.changed, report);
            return Ok(after);
        }
        if seen.is_last {
            return Ok(after);
        }
        Ok(Piece::Chunks(slot, first + max))
    }
}

fn mending<T>(outcome: Result<T, DatapathError>) -> Mending {
    match outcome {
        Ok(_) => Mending::Done,
        Err(error) => Mending::Failed(error.to_string()),
    }
}
