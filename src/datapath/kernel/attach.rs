//! Attaches the entry programs to devices: TCX links, or clsact filters where
//! the kernel has no TCX.
//!
//! Any thread, one at a time (a lock). Invariants: a device that is not wanted
//! is never touched; what is attached stays attached when this process ends;
//! other programs on the same hook go on running (we pass with "next").

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_abi::settings::vlan_key;
use parking_lot::Mutex;

use super::clsact;
use super::datapath::Shared;
use super::maps::{MapName, kernel};
use super::pins::{self, AttachPin, Pin, PinDir};
use super::programs::{Program, ProgramName, map_pin, program_pin};
use super::settings::VLAN_BOTH_SLOTS;
use super::sys;
use crate::datapath::DatapathError;
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
    force_clsact: bool,
    pub(super) state: Arc<Mutex<BTreeMap<(u32, Direction), Hook>>>,
    /// Another version enforces until our first commit: what runs is left alone.
    pub(super) holding: Arc<AtomicBool>,
    /// Hooks of another version beside which ours run; they go at the first commit.
    pub(super) leftovers: Arc<Mutex<Vec<Hook>>>,
}

/// One attachment that we hold.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) pin: Pin,
    /// The version under whose name it is pinned.
    pub(super) of: PinDir,
    pub(super) device: String,
    /// None for a clsact filter.
    pub(super) link: Option<OwnedFd>,
}

impl Hook {
    pub(super) fn path(&self) -> PathBuf {
        self.pin.path(&self.of)
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
        for pin in found {
            let (at, is_link) = match &pin {
                Pin::Link(at) => (at.clone(), true),
                Pin::Filter(at) => (at.clone(), false),
                Pin::Map { .. }
                | Pin::Program { .. }
                | Pin::Qdisc { .. }
                | Pin::OtherVersion { .. }
                | Pin::Foreign { .. } => {
                    continue;
                }
            };
            let key = (at.ifindex, at.direction);
            let device = at.device.clone();
            if let Some(hook) = open_hook(&self.dir, pin.clone(), at, is_link)? {
                state.insert(key, hook);
            } else {
                forget(&self.dir, &pin)?;
                note(&mut report.dropped, &device);
            }
        }
        Ok(report)
    }

    /// Attaches the devices that are wanted, brings attached ones up to this
    /// binary's programs, and drops those that are gone. Devices that fail are
    /// reported; the others are done all the same.
    pub fn sync_devices(
        &self,
        wanted: &[WantedDevice],
        unwanted: Unwanted,
    ) -> Result<SyncReport, DatapathError> {
        let mut report = SyncReport::default();
        let mut state = self.state.lock();
        self.drop_vanished(&mut state, wanted, unwanted, &mut report)?;
        for device in wanted {
            for direction in Direction::BOTH {
                if let Err(error) = self.ensure(&mut state, device, direction, &mut report) {
                    let message = format!("{}: {error}", direction.as_str());
                    report.failed.push((device.name.clone(), message));
                }
            }
        }
        self.write_vlans(wanted)?;
        report.repinned.extend(self.repin(&state)?);
        Ok(report)
    }

    fn drop_vanished(
        &self,
        state: &mut BTreeMap<(u32, Direction), Hook>,
        wanted: &[WantedDevice],
        unwanted: Unwanted,
        report: &mut SyncReport,
    ) -> Result<(), DatapathError> {
        let mut keys: Vec<_> = state.keys().copied().collect();
        keys.retain(|(ifindex, direction)| {
            let hook = &state[&(*ifindex, *direction)];
            let is_wanted = wanted.iter().any(|device| device.ifindex == *ifindex);
            !is_alive(*ifindex, *direction, hook) || (!is_wanted && unwanted == Unwanted::Detach)
        });
        for key in keys {
            let Some(hook) = state.remove(&key) else {
                continue;
            };
            if hook.link.is_none() && is_alive(key.0, key.1, &hook) {
                clsact::remove(key.0, key.1).map_err(kernel(format!("detach {}", hook.device)))?;
            }
            forget(&hook.of, &hook.pin)?;
            note(&mut report.dropped, &hook.device);
        }
        Ok(())
    }

    pub(super) fn program(&self, device: &WantedDevice, direction: Direction) -> &Program {
        let name = match (device.ethernet, direction) {
            (true, Direction::Ingress) => ProgramName::FromNetdev,
            (true, Direction::Egress) => ProgramName::ToNetdev,
            (false, Direction::Ingress) => ProgramName::FromL3dev,
            (false, Direction::Egress) => ProgramName::ToL3dev,
        };
        self.shared.programs.of(name)
    }

    fn ensure(
        &self,
        state: &mut BTreeMap<(u32, Direction), Hook>,
        device: &WantedDevice,
        direction: Direction,
        report: &mut SyncReport,
    ) -> Result<(), DatapathError> {
        let program = self.program(device, direction);
        if let Some(hook) = state.get_mut(&(device.ifindex, direction)) {
            if self.holding.load(Ordering::Acquire) {
                return Ok(());
            }
            if update(hook, device, direction, program)? {
                note(&mut report.updated, &device.name);
            }
            let path = hook.path();
            // A link's pin is made again with those of maps and programs.
            if hook.link.is_none() && !path.exists() {
                let pin = hook.pin.file(&hook.of);
                record(program.fd(), &path).map_err(kernel(format!("pin {pin}")))?;
                report.repinned.push(pin);
            }
            return Ok(());
        }
        let hook = match self.attach_tcx(device, direction, program) {
            Err(DatapathError::Kernel { source, .. })
                if self.force_clsact || lacks_tcx(&source) =>
            {
                self.attach_clsact(device, direction, program)?
            }
            other => other?,
        };
        state.insert((device.ifindex, direction), hook);
        note(&mut report.attached, &device.name);
        Ok(())
    }

    pub(super) fn attach_tcx(
        &self,
        device: &WantedDevice,
        direction: Direction,
        program: &Program,
    ) -> Result<Hook, DatapathError> {
        if self.force_clsact {
            return Err(kernel("TCX")(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let (hook, place) = tcx_place(direction);
        let link = sys::link_create_tcx(program.fd(), device.ifindex, hook, place).map_err(
            kernel(format!("attach {} to {}", program.name, device.name)),
        )?;
        let pin = Pin::Link(at(device, direction));
        // A link that cannot be pinned is dropped here, and with it the attachment.
        sys::obj_pin(link.as_fd(), &pin.path(&self.dir))
            .map_err(kernel(format!("pin {}", pin.file(&self.dir))))?;
        Ok(Hook {
            pin,
            of: self.dir.clone(),
            device: device.name.clone(),
            link: Some(link),
        })
    }

    fn attach_clsact(
        &self,
        device: &WantedDevice,
        direction: Direction,
        program: &Program,
    ) -> Result<Hook, DatapathError> {
        let fail = || {
            kernel(format!(
                "attach {} to {} (clsact)",
                program.name, device.name
            ))
        };
        let commit = self.shared.maps.of(MapName::Commit);
        let qdisc = Pin::Qdisc {
            ifindex: device.ifindex,
            device: device.name.clone(),
        };
        if clsact::add_qdisc(device.ifindex).map_err(fail())? {
            record(commit.fd(), &qdisc.path(&self.dir)).map_err(fail())?;
        }
        let pin = Pin::Filter(at(device, direction));
        clsact::put(device.ifindex, direction, program.fd(), program.name).map_err(fail())?;
        record(program.fd(), &pin.path(&self.dir)).map_err(fail())?;
        Ok(Hook {
            pin,
            of: self.dir.clone(),
            device: device.name.clone(),
            link: None,
        })
    }

    /// Makes pins again that are gone while we hold what they stood for: without
    /// them enforcement would end with this process.
    fn repin(
        &self,
        state: &BTreeMap<(u32, Direction), Hook>,
    ) -> Result<Vec<String>, DatapathError> {
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
        let links = state.values().filter_map(|hook| {
            let link = hook.link.as_ref()?;
            Some((hook.pin.clone(), &hook.of, link.as_fd()))
        });
        let mut made = Vec::new();
        for (pin, of, fd) in maps.chain(programs).chain(links) {
            let path = pin.path(of);
            if path.exists() {
                continue;
            }
            sys::obj_pin(fd, &path).map_err(kernel(format!("pin {}", path.display())))?;
            made.push(pin.file(of));
        }
        Ok(made)
    }

    /// Lets the tagged packets of protected VLAN sub-devices through their parent.
    fn write_vlans(&self, wanted: &[WantedDevice]) -> Result<(), DatapathError> {
        let map = self.shared.maps.of(MapName::Vlans);
        let keys: Vec<u32> = wanted
            .iter()
            .flat_map(|device| {
                let key = |id: &u16| vlan_key(device.ifindex, u32::from(*id));
                device.vlans.iter().map(key)
            })
            .collect();
        let held: Vec<u32> = map.keys::<u32>().collect::<Result<_, _>>()?;
        for key in keys.iter().filter(|key| !held.contains(key)) {
            map.put(key, &VLAN_BOTH_SLOTS)?;
        }
        for key in held
            .iter()
            .filter(|key| **key >> 12 != 0 && !keys.contains(key))
        {
            map.remove(key)?;
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
        let hooks = state.iter();
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
        for ((ifindex, direction), hook) in state.iter() {
            let place = format!("{} {}", hook.device, direction.as_str());
            if !hook.path().exists() {
                let pin = hook.pin.file(&hook.of);
                problems.push(format!("{place}: the pin {pin} is gone"));
            }
            if !is_alive(*ifindex, *direction, hook) {
                problems.push(format!("{place}: the device or our program on it is gone"));
                continue;
            }
            if let Some(link) = &hook.link
                && let Some(problem) = tcx_drift(*ifindex, *direction, link)
            {
                problems.push(format!("{place}: {problem}"));
            }
        }
        problems
    }
}

/// What a pin of an attachment stands for; None where its device is gone.
pub(super) fn open_hook(
    of: &PinDir,
    pin: Pin,
    at: AttachPin,
    is_link: bool,
) -> Result<Option<Hook>, DatapathError> {
    let link = if is_link { open_link(of, &pin)? } else { None };
    let alive = link.is_some() || (!is_link && clsact::exists(at.ifindex, at.direction));
    Ok(alive.then(|| Hook {
        pin,
        of: of.clone(),
        device: at.device,
        link,
    }))
}

/// The link behind a pin; None where its device is gone.
fn open_link(of: &PinDir, pin: &Pin) -> Result<Option<OwnedFd>, DatapathError> {
    let path = pin.path(of);
    let fail = || kernel(format!("open {}", path.display()));
    let Some(fd) = sys::obj_get(&path).map_err(fail())? else {
        return Ok(None);
    };
    let info = sys::link_info(fd.as_fd()).map_err(fail())?;
    Ok((info.ifindex != 0).then_some(fd))
}

pub(super) fn forget(of: &PinDir, pin: &Pin) -> Result<(), DatapathError> {
    pins::remove(of, pin).map_err(kernel(format!("remove {}", pin.file(of))))?;
    Ok(())
}

fn at(device: &WantedDevice, direction: Direction) -> AttachPin {
    AttachPin {
        ifindex: device.ifindex,
        device: device.name.clone(),
        direction,
    }
}

fn note(names: &mut Vec<String>, device: &str) {
    if !names.iter().any(|name| name == device) {
        names.push(device.to_owned());
    }
}

/// A kernel without TCX refuses the attach type.
fn lacks_tcx(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// First on ingress, last on egress.
fn tcx_place(direction: Direction) -> (u32, u32) {
    match direction {
        Direction::Ingress => (sys::TCX_INGRESS, sys::BEFORE),
        Direction::Egress => (sys::TCX_EGRESS, sys::AFTER),
    }
}

fn is_alive(ifindex: u32, direction: Direction, hook: &Hook) -> bool {
    match &hook.link {
        Some(link) => sys::link_info(link.as_fd()).is_ok_and(|info| info.ifindex == ifindex),
        None => clsact::exists(ifindex, direction),
    }
}

/// Replaces another binary's program; whether it was another one.
pub(super) fn update(
    hook: &Hook,
    device: &WantedDevice,
    direction: Direction,
    program: &Program,
) -> Result<bool, DatapathError> {
    let fail = || kernel(format!("replace the program on {}", device.name));
    let Some(link) = &hook.link else {
        return clsact::update(
            device.ifindex,
            direction,
            program.fd(),
            program.id,
            program.name,
        )
        .map_err(fail());
    };
    if sys::link_info(link.as_fd()).map_err(fail())?.prog_id == program.id {
        return Ok(false);
    }
    sys::link_update(link.as_fd(), program.fd()).map_err(fail())?;
    Ok(true)
}

/// Pins an object under a name that only says that something was done.
pub(super) fn record(fd: std::os::fd::BorrowedFd<'_>, path: &std::path::Path) -> io::Result<()> {
    match sys::obj_pin(fd, path) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn tcx_drift(ifindex: u32, direction: Direction, link: &OwnedFd) -> Option<String> {
    let (hook, _) = tcx_place(direction);
    let ours = sys::link_info(link.as_fd()).ok()?.prog_id;
    let ids = sys::tcx_query(ifindex, hook).ok()?;
    let place = ids.iter().position(|id| *id == ours);
    let expected = match direction {
        Direction::Ingress => 0,
        Direction::Egress => ids.len().saturating_sub(1),
    };
    match place {
        None => Some("our program does not run".to_owned()),
        Some(place) if place != expected => Some(format!(
            "our program runs at place {} of {}: another one was put {}",
            place + 1,
            ids.len(),
            if direction == Direction::Ingress {
                "before it"
            } else {
                "after it"
            }
        )),
        Some(_) => None,
    }
}
