//! Attaches the entry programs to devices: TCX links, or clsact filters where
//! the kernel has no TCX.
//!
//! Any thread, one at a time (a lock). Invariants: a device that is not wanted
//! is never touched; what is attached stays attached when this process ends;
//! other programs on the same hook go on running (we pass with "next").

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use palisade_abi::settings::vlan_key;
use parking_lot::Mutex;

use super::audit::{AuditReport, Finding, Mending, Part};
use super::hooks::{Health, Hook, Key, describe, forget, open_hook};
use super::lock::lock;
use super::maps::{MapName, kernel};
use super::pins::{self, Pin, PinDir};
use super::programs::{map_pin, program_pin};
use super::settings::VLAN_BOTH_SLOTS;
use super::shared::Shared;
use super::{bpffs, clsact, links, sys};
use crate::datapath::{DatapathError, devices};
use crate::limits::AUDIT_FINDINGS_MAX;
use crate::policy::Direction;

/// A device that must be protected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedDevice {
    pub ifindex: u32,
    pub name: String,
    /// Whether packets begin with an Ethernet header.
    pub ethernet: bool,
    /// Ids of its VLAN sub-devices: their tagged packets pass through it.
    pub vlans: Vec<u16>,
}

/// What to do with a device that is attached, exists and is not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwanted {
    /// It stays protected (it may only have lost its address for a moment).
    Keep,
    /// The operator named other devices: it is let go.
    Detach,
}

/// How a device is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    Tcx,
    Clsact,
}

/// One hook of one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    pub ifindex: u32,
    pub device: String,
    pub direction: Direction,
    pub mechanism: Mechanism,
}

/// What [`Attachments::sync_devices`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncReport {
    /// Devices that were attached now.
    pub attached: Vec<String>,
    /// Devices whose program was replaced by this binary's.
    pub updated: Vec<String>,
    /// Devices that are gone or let go.
    pub dropped: Vec<String>,
    /// Pins that somebody had removed and that were made again.
    pub repinned: Vec<String>,
    /// Devices that could not be attached, and why.
    pub failed: Vec<(String, String)>,
}

impl SyncReport {
    /// Whether anything was done or failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Handle on the attached devices; clones share one state.
#[derive(Clone, Debug)]
pub struct Attachments {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PinDir,
    pub(super) force_clsact: bool,
    pub(super) state: Arc<Mutex<State>>,
    /// Another version enforces until our first commit: what runs is left alone.
    pub(super) holding: Arc<AtomicBool>,
    /// Hooks of another version beside which ours run; they go at the first commit.
    pub(super) leftovers: Arc<Mutex<Vec<Hook>>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) hooks: BTreeMap<Key, Hook>,
    /// As it was asked for last; None before the first time.
    asked: Option<(Vec<WantedDevice>, Unwanted)>,
    /// Devices that have a clsact qdisc from us.
    pub(super) qdiscs: BTreeMap<u32, String>,
    /// Keys of VLAN sub-devices, as written last.
    vlans: Option<BTreeSet<u32>>,
    /// What was not as it should be, until the audit takes it.
    findings: Vec<Finding>,
    /// On the directory of the pins, where that had to be made again.
    lock: Option<OwnedFd>,
}

impl State {
    pub(super) fn found(&mut self, part: Part, what: impl Into<String>, mending: Mending) {
        if self.findings.len() < AUDIT_FINDINGS_MAX {
            self.findings.push(Finding::new(part, what, mending));
        }
    }
}

impl Attachments {
    pub(crate) fn new(shared: Arc<Shared>, dir: PinDir, force_clsact: bool) -> Self {
        Self {
            shared,
            dir,
            force_clsact,
            state: Arc::default(),
            holding: Arc::default(),
            leftovers: Arc::default(),
        }
    }

    /// Finds what an earlier agent attached; pins of devices that are gone go.
    pub(crate) fn adopt(&self) -> Result<SyncReport, DatapathError> {
        let mut report = SyncReport::default();
        let mut state = self.state.lock();
        let found = pins::list(&self.dir).map_err(kernel("list pins"))?;
        let devices = devices::list().map_err(kernel("list devices"))?;
        for pin in found {
            let (at, is_link) = match &pin {
                Pin::Link(at) => (at.clone(), true),
                Pin::Filter(at) => (at.clone(), false),
                Pin::Qdisc { ifindex, device } => {
                    state.qdiscs.insert(*ifindex, device.clone());
                    continue;
                }
                Pin::Map { .. }
                | Pin::Program { .. }
                | Pin::OtherVersion { .. }
                | Pin::Foreign { .. } => {
                    continue;
                }
            };
            let key = (at.ifindex, at.direction);
            let name = at.device.clone();
            let hook = open_hook(&self.dir, pin.clone(), at, is_link)?;
            // Of two, an agent that died while it moved its program left one.
            match hook.filter(|_| !state.hooks.contains_key(&key)) {
                Some(mut hook) => {
                    let device = devices.iter().find(|device| device.ifindex == key.0);
                    hook.ethernet = device.is_none_or(|device| device.ethernet);
                    state.hooks.insert(key, hook);
                }
                None => {
                    forget(&self.dir, &pin)?;
                    note(&mut report.dropped, &name);
                }
            }
        }
        Ok(report)
    }

    /// Attaches the devices that are wanted, brings attached ones up to this
    /// binary's programs and to their place, and drops those that are gone.
    /// Devices that fail are reported; the others are done all the same.
    pub fn sync_devices(
        &self,
        wanted: &[WantedDevice],
        unwanted: Unwanted,
    ) -> Result<SyncReport, DatapathError> {
        self.sync(&mut self.state.lock(), wanted, unwanted)
    }

    fn sync(
        &self,
        state: &mut State,
        wanted: &[WantedDevice],
        unwanted: Unwanted,
    ) -> Result<SyncReport, DatapathError> {
        let mut report = SyncReport::default();
        state.asked = Some((wanted.to_vec(), unwanted));
        self.keep_home(state);
        self.drop_vanished(state, wanted, unwanted, &mut report)?;
        let kept = kept(state, wanted);
        for device in wanted.iter().chain(&kept) {
            for direction in Direction::BOTH {
                match self.ensure(state, device, direction, &mut report) {
                    // Gone meanwhile: word of that is on its way.
                    Err(DatapathError::Kernel { source, .. })
                        if source.raw_os_error() == Some(libc::ENODEV) => {}
                    Err(error) => {
                        let message = format!("{}: {error}", direction.as_str());
                        report.failed.push((device.name.clone(), message));
                    }
                    Ok(()) => {}
                }
            }
        }
        self.write_vlans(state, wanted)?;
        self.repin(state, &mut report);
        Ok(report)
    }

    /// Compares and mends what was asked for last; for the audit.
    pub(crate) fn audit(&self, report: &mut AuditReport) {
        let mut state = self.state.lock();
        let Some((mut wanted, unwanted)) = state.asked.clone() else {
            return;
        };
        // What a sync between two passes could not mend is looked at again now.
        let mended = |finding: &Finding| finding.mending == Mending::Done;
        state.findings.retain(mended);
        let done = devices::list()
            .map_err(kernel("list devices"))
            .and_then(|there| {
                wanted.retain(|device| there.iter().any(|it| it.ifindex == device.ifindex));
                self.sync(&mut state, &wanted, unwanted)
            });
        match done {
            Ok(done) => {
                for (device, reason) in done.failed {
                    let what = format!("{device} is not protected");
                    state.found(Part::Attachment, what, Mending::Failed(reason));
                }
            }
            Err(error) => {
                let failed = Mending::Failed(error.to_string());
                state.found(Part::Attachment, "could not be compared", failed);
            }
        }
        let hooks = state.hooks.len();
        report.compared(Part::Attachment, hooks);
        report.compared(Part::Order, hooks);
        report.compared(Part::BpfFileSystem, 1);
        let programs = self.shared.programs.all.len();
        report.compared(Part::Pin, self.shared.maps.0.len() + programs + hooks);
        for finding in state.findings.drain(..) {
            report.found(finding);
        }
    }

    /// The pins' directory is on a bpffs, or is made there again: what it held
    /// lives on by our descriptors.
    fn keep_home(&self, state: &mut State) {
        let dir = &self.dir.dir;
        if dir.is_dir() && bpffs::is_on_bpffs(dir) {
            return;
        }
        let mending = match bpffs::prepare(dir).and_then(|_| lock(dir)) {
            Ok(Some(lock)) => {
                state.lock = Some(lock);
                Mending::Done
            }
            Ok(None) => Mending::Failed("another process holds the new directory".to_owned()),
            Err(error) => Mending::Failed(error.to_string()),
        };
        let what = format!("{} was unmounted or removed", self.dir.display());
        state.found(Part::BpfFileSystem, what, mending);
    }

    fn drop_vanished(
        &self,
        state: &mut State,
        wanted: &[WantedDevice],
        unwanted: Unwanted,
        report: &mut SyncReport,
    ) -> Result<(), DatapathError> {
        let mut keys: Vec<Key> = state.hooks.keys().copied().collect();
        keys.retain(|key| {
            let is_wanted = wanted.iter().any(|device| device.ifindex == key.0);
            state.hooks[key].health(*key, 0) == Health::Gone
                || (!is_wanted && unwanted == Unwanted::Detach)
        });
        for key in keys {
            let Some(hook) = state.hooks.remove(&key) else {
                continue;
            };
            if hook.link.is_none() {
                if hook.is_alive(key) {
                    clsact::remove(key.0, key.1)
                        .map_err(kernel(format!("detach {}", hook.device)))?;
                } else {
                    self.forget_qdisc(state, key.0)?;
                }
            }
            // A link ends with its last descriptor and pin, some time after; also
            // where its device was moved to another namespace. Here it ends now.
            if let Some(link) = &hook.link {
                let _gone_with_its_device = links::link_detach(link.fd.as_fd());
            }
            forget(&hook.of, &hook.pin)?;
            note(&mut report.dropped, &hook.device);
        }
        Ok(())
    }

    /// The clsact qdisc went with its device.
    fn forget_qdisc(&self, state: &mut State, ifindex: u32) -> Result<(), DatapathError> {
        match state.qdiscs.remove(&ifindex) {
            Some(device) => forget(&self.dir, &Pin::Qdisc { ifindex, device }),
            None => Ok(()),
        }
    }

    /// Makes pins again that are gone while we hold what they stood for: without
    /// them enforcement would end with this process.
    fn repin(&self, state: &mut State, report: &mut SyncReport) {
        let programs = &self.shared.programs;
        let maps = self
            .shared
            .maps
            .0
            .iter()
            .map(|map| (map_pin(map.name), &self.dir, map.fd()));
        let programs = programs.all.iter().map(|program| {
            let pin = program_pin(program.name, &programs.hash);
            (pin, &self.dir, program.fd())
        });
        let links = state.hooks.values().filter_map(|hook| {
            let link = hook.link.as_ref()?;
            Some((hook.pin.clone(), &hook.of, link.fd.as_fd()))
        });
        let commit = self.shared.maps.of(MapName::Commit);
        let qdiscs = state.qdiscs.iter().map(|(ifindex, device)| {
            let (ifindex, device) = (*ifindex, device.clone());
            (Pin::Qdisc { ifindex, device }, &self.dir, commit.fd())
        });
        let mut made = Vec::new();
        for (pin, of, fd) in maps.chain(programs).chain(links).chain(qdiscs) {
            let path = pin.path(of);
            if !path.exists() {
                made.push((pin.file(of), sys::obj_pin(fd, &path)));
            }
        }
        for (pin, outcome) in made {
            let mending = match outcome {
                Ok(()) => {
                    report.repinned.push(pin.clone());
                    Mending::Done
                }
                Err(error) => Mending::Failed(error.to_string()),
            };
            state.found(Part::Pin, format!("{pin} was gone"), mending);
        }
    }

    /// Lets the tagged packets of protected VLAN sub-devices through their parent.
    fn write_vlans(&self, state: &mut State, wanted: &[WantedDevice]) -> Result<(), DatapathError> {
        let map = self.shared.maps.of(MapName::Vlans);
        let keys: BTreeSet<u32> = wanted
            .iter()
            .flat_map(|device| {
                let key = |id: &u16| vlan_key(device.ifindex, u32::from(*id));
                device.vlans.iter().map(key)
            })
            .collect();
        let held = map.keys::<u32>().collect::<Result<Vec<_>, _>>()?;
        let held: BTreeSet<u32> = held.into_iter().filter(|key| key >> 12 != 0).collect();
        for key in keys.difference(&held) {
            map.put(key, &VLAN_BOTH_SLOTS)?;
        }
        for key in held.difference(&keys) {
            map.remove(key)?;
        }
        let before = state.vlans.replace(keys);
        if before.is_some_and(|before| before != held) {
            let what = "those of sub-devices were not as written";
            state.found(Part::Vlans, what, Mending::Done);
        }
        Ok(())
    }

    /// The directory of our pins.
    pub(crate) fn dir(&self) -> &PinDir {
        &self.dir
    }

    /// What is attached now, by device.
    #[must_use]
    pub fn list(&self) -> Vec<Attached> {
        let state = self.state.lock();
        let hooks = state.hooks.iter();
        hooks
            .map(|((ifindex, direction), hook)| Attached {
                ifindex: *ifindex,
                device: hook.device.clone(),
                direction: *direction,
                mechanism: if hook.link.is_some() {
                    Mechanism::Tcx
                } else {
                    Mechanism::Clsact
                },
            })
            .collect()
    }

    /// Hooks that no longer run our program, or not in its place. One line each.
    #[must_use]
    pub fn drift(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut problems = Vec::new();
        for (key, hook) in &state.hooks {
            let place = format!("{} {}", hook.device, key.1.as_str());
            if !hook.path().exists() {
                let pin = hook.pin.file(&hook.of);
                problems.push(format!("{place}: the pin {pin} is gone"));
            }
            let health = hook.health(*key, self.program(hook.ethernet, key.1).id);
            let problem = describe(health, key.1);
            problems.extend(problem.map(|problem| format!("{place}: {problem}")));
        }
        problems
    }
}

/// Attached devices that are not wanted now and stay.
fn kept(state: &State, wanted: &[WantedDevice]) -> Vec<WantedDevice> {
    let mut kept: Vec<WantedDevice> = Vec::new();
    for ((ifindex, _), hook) in &state.hooks {
        let is_known = |device: &WantedDevice| device.ifindex == *ifindex;
        if !wanted.iter().any(is_known) && !kept.iter().any(is_known) {
            kept.push(WantedDevice {
                ifindex: *ifindex,
                name: hook.device.clone(),
                ethernet: hook.ethernet,
                vlans: Vec::new(),
            });
        }
    }
    kept
}

pub(super) fn note(names: &mut Vec<String>, device: &str) {
    if !names.iter().any(|name| name == device) {
        names.push(device.to_owned());
    }
}
