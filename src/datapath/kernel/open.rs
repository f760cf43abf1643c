//! The start: adopts what an earlier agent left in the kernel, creates what is
//! missing, and leaves every verdict as it was.

use std::sync::Arc;

use palisade_abi::commit::CommitWord;
use parking_lot::Mutex;

use super::attach::Attachments;
use super::audit::Trust;
use super::bpffs;
use super::commit::{CommitCell, Grace};
use super::datapath::KernelDatapath;
use super::features::Features;
use super::flows;
use super::ipcache4::{Ipcache4, RangeTables};
use super::ipcache6::{IndexTables, Ipcache6};
use super::known::Known;
use super::lock::lock;
use super::maps::{MapName, Maps};
use super::meta;
use super::options::KernelOptions;
use super::programs;
use super::shared::Shared;
use super::slots::Tables;
use super::takeover::{self, Steps, Takeover};
use crate::datapath::{DatapathError, DatapathSettings, Realized};

/// What the start found and did.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StartReport {
    /// What an earlier agent left enforcing; None on a fresh start.
    pub adopted: Option<Realized>,
    /// Layout versions that are taken over with the first commit, and enforce
    /// until then.
    pub taking_over: Vec<u32>,
    /// Programs were loaded: a fresh start or another version of the binary.
    pub programs_loaded: bool,
    /// Devices that an earlier agent had attached and that are gone now.
    pub vanished: Vec<String>,
    /// For the operator: what may go wrong later, and what to do.
    pub warnings: Vec<String>,
    /// What of the kernel is used, and what in its place.
    pub features: Features,
}

impl KernelDatapath {
    /// Opens the datapath of `options.bpffs`. Fails where another agent holds it.
    pub fn open(options: &KernelOptions) -> Result<(Self, StartReport), DatapathError> {
        let prepared = bpffs::prepare(&options.bpffs)?;
        let lock = lock(&options.bpffs)?.ok_or_else(|| {
            DatapathError::Other(format!(
                "another agent holds {}; stop it or choose another directory with --bpffs",
                options.bpffs.display()
            ))
        })?;
        raise_memlock();
        let features = Features::probe();
        features.require()?;
        let steps = Steps::new(options.takeover_steps_max);
        let others = takeover::prepare(options, &steps)?;
        let (maps, programs) = programs::open(options)?;
        let mut report = StartReport {
            features,
            programs_loaded: programs.loaded,
            warnings: prepared.warnings,
            ..StartReport::default()
        };
        report.warnings.extend(other_size(options, &maps));
        let shared = Arc::new(Shared {
            tables: Tables::open(&maps)?,
            ranges: RangeTables::open(&maps)?,
            indexes: IndexTables::open(&maps)?,
            word: CommitCell::open(&maps)?,
            control: Mutex::default(),
            maps,
            programs,
        });
        flows::prepare(&shared.maps, options.layout.set_flows)?;
        prepare_slots(&shared)?;
        let attachments = Attachments::new(
            Arc::clone(&shared),
            options.layout.pins(&options.bpffs),
            options.force_clsact,
        );
        report.vanished = attachments.adopt()?.dropped;
        let realized = shared.realized()?;
        report.adopted = realized;
        let takeover = Takeover::begin(others, &shared, steps.clone())?;
        if let Some(takeover) = &takeover {
            prepare_takeover(takeover, &shared);
            attachments.hold_others(&takeover.others, &steps)?;
            report.taking_over = takeover.versions();
            report.adopted = realized.or(takeover.realized());
        }
        let word = shared.word.load();
        let trust = Trust::at_start(word, meta::read(&shared.maps, word.slot())?);
        let datapath = Self {
            ipcache4: Ipcache4::open(&shared.ranges),
            ipcache6: Ipcache6::default(),
            known: Known::default(),
            shared,
            attachments,
            trust,
            staged: None,
            realized,
            grace: Grace::new(),
            adoption: None,
            takeover,
            _lock: lock,
        };
        Ok((datapath, report))
    }
}

/// Conntrack keeps the size that it was made with.
fn other_size(options: &KernelOptions, maps: &Maps) -> Option<String> {
    let ways = options.layout.set_flows;
    let pinned = maps.of(MapName::Ct4).max_entries;
    (pinned != flows::sets_for(options.ct_entries_max, ways)).then(|| {
        format!(
            "the conntrack maps hold {} entries as created, {} are configured: `palisade detach` \
             and a new start change it",
            flows::entries_for(pinned, ways),
            options.ct_entries_max
        )
    })
}

/// Flows that another version judged must not look as if we had, nor the other
/// way about: before our first commit we judge in an epoch of our own, in which
/// nothing is denied, behind all of theirs.
fn prepare_takeover(takeover: &Takeover, shared: &Shared) {
    let word = shared.word.load();
    if word.generation() == 0 {
        let none = [false; 2];
        let epoch = takeover.epoch(word.epoch()) + 1;
        let word = CommitWord::new(word.slot(), none, none, false, epoch, 0);
        shared.word.store(word);
    }
    tracing::info!(
        versions = ?takeover.versions(),
        "another version of Palisade enforces until the first commit, then it is taken over"
    );
}

/// Before the first commit both slots get programs and lifetimes, so that
/// conntrack runs from the moment of attachment.
fn prepare_slots(shared: &Shared) -> Result<(), DatapathError> {
    if shared.word.load().generation() != 0 {
        return Ok(());
    }
    for slot in 0..2 {
        shared.write_calls(slot)?;
        shared.write_settings(slot, &DatapathSettings::default())?;
    }
    Ok(())
}

/// Kernels before 5.11 count maps against RLIMIT_MEMLOCK. Later ones do not
/// care, so a refusal is none of our business.
fn raise_memlock() {
    let limit = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let _ignored = rustix::process::setrlimit(rustix::process::Resource::Memlock, limit);
}
