//! One hook of one device: our program is put there, mended there, renamed with
//! its device. See `attach`, which holds the state.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use super::attach::{Attachments, State, SyncReport, WantedDevice, note};
use super::audit::{Mending, Part};
use super::hooks::{Health, Hook, Key, Link, describe, forget, tcx_place};
use super::maps::{MapName, kernel};
use super::pins::{AttachPin, Pin};
use super::programs::{self, Program, ProgramName};
use super::{clsact, sys};
use crate::datapath::DatapathError;
use crate::policy::Direction;

impl Attachments {
    fn program_name(ethernet: bool, direction: Direction) -> ProgramName {
        match (ethernet, direction) {
            (true, Direction::Ingress) => ProgramName::FromNetdev,
            (true, Direction::Egress) => ProgramName::ToNetdev,
            (false, Direction::Ingress) => ProgramName::FromL3dev,
            (false, Direction::Egress) => ProgramName::ToL3dev,
        }
    }

    pub(super) fn program(&self, ethernet: bool, direction: Direction) -> &Program {
        let name = Self::program_name(ethernet, direction);
        self.shared.programs.of(name)
    }

    /// Makes one hook of a device run our program, in its place.
    pub(super) fn ensure(
        &self,
        state: &mut State,
        device: &WantedDevice,
        direction: Direction,
        report: &mut SyncReport,
    ) -> Result<(), DatapathError> {
        let key = (device.ifindex, direction);
        let program = self.program(device.ethernet, direction);
        let was_there = state.hooks.contains_key(&key);
        if was_there && self.holding.load(Ordering::Acquire) {
            return Ok(());
        }
        if was_there && self.mend(state, device, direction, report)? {
            return self.keep_record(state, key, program, report);
        }
        let hook = match self.attach_tcx(device, direction, program) {
            Err(DatapathError::Kernel { source, .. })
                if self.force_clsact || lacks_tcx(&source) =>
            {
                self.attach_clsact(state, device, direction, program)?
            }
            other => other?,
        };
        state.hooks.insert(key, hook);
        note(&mut report.attached, &device.name);
        if was_there {
            let place = format!("{} {}", device.name, direction.as_str());
            let what = format!("{place}: our program had been taken off");
            state.found(Part::Attachment, what, Mending::Done);
        }
        Ok(())
    }

    /// Mends what is there; false where nothing of ours is there any more.
    fn mend(
        &self,
        state: &mut State,
        device: &WantedDevice,
        direction: Direction,
        report: &mut SyncReport,
    ) -> Result<bool, DatapathError> {
        let key = (device.ifindex, direction);
        let place = format!("{} {}", device.name, direction.as_str());
        let program = self.program(device.ethernet, direction);
        let Some(hook) = state.hooks.get_mut(&key) else {
            return Ok(false);
        };
        self.rename(hook, device, direction)?;
        hook.ethernet = device.ethernet;
        let health = hook.health(key, program.id);
        let settled = std::mem::replace(&mut hook.settled, true);
        match health {
            Health::Fine | Health::Unknown => {}
            Health::OtherProgram => {
                hook.replace(key, program)?;
                note(&mut report.updated, &device.name);
                if settled {
                    let what = format!("{place}: another program ran in the place of ours");
                    state.found(Part::Attachment, what, Mending::Done);
                }
            }
            Health::Misplaced { .. } => {
                let copy = || programs::copy(&self.dir, program.name);
                let moved = hook.reorder(key, program, copy);
                let mending = match moved {
                    Ok(()) => Mending::Done,
                    Err(error) => Mending::Failed(error.to_string()),
                };
                let what = describe(health, direction).unwrap_or_default();
                state.found(Part::Order, format!("{place}: {what}"), mending);
            }
            Health::Gone | Health::Detached => {
                let hook = state.hooks.remove(&key);
                hook.map_or(Ok(()), |hook| forget(&hook.of, &hook.pin))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The pins of a device that was renamed are renamed.
    fn rename(
        &self,
        hook: &mut Hook,
        device: &WantedDevice,
        direction: Direction,
    ) -> Result<(), DatapathError> {
        if hook.device == device.name {
            return Ok(());
        }
        let at = at(device, direction);
        let pin = match hook.link {
            Some(_) => Pin::Link(at),
            None => Pin::Filter(at),
        };
        match std::fs::rename(hook.path(), pin.path(&hook.of)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(kernel(format!("rename {}", hook.path().display()))(error));
            }
            // A pin that is missing is made again.
            _ => {}
        }
        hook.pin = pin;
        hook.device.clone_from(&device.name);
        Ok(())
    }

    /// A filter's pin only says that it is ours; a link's pin is made again with
    /// those of maps and programs.
    fn keep_record(
        &self,
        state: &mut State,
        key: Key,
        program: &Program,
        report: &mut SyncReport,
    ) -> Result<(), DatapathError> {
        let Some(hook) = state.hooks.get(&key) else {
            return Ok(());
        };
        let path = hook.path();
        if hook.link.is_none() && !path.exists() {
            let pin = hook.pin.file(&hook.of);
            record(program.fd(), &path).map_err(kernel(format!("pin {pin}")))?;
            state.found(Part::Pin, format!("{pin} was gone"), Mending::Done);
            report.repinned.push(pin);
        }
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
        let pinned = sys::obj_pin(link.as_fd(), &pin.path(&self.dir));
        if let Err(error) = pinned {
            // It protects as long as we live; the pin is tried again.
            tracing::error!(pin = pin.file(&self.dir), %error, "cannot be pinned");
        }
        let link = Link::new(link).map_err(kernel(format!("link of {}", device.name)))?;
        Ok(Hook {
            pin,
            of: self.dir.clone(),
            device: device.name.clone(),
            ethernet: device.ethernet,
            link: Some(link),
            settled: true,
        })
    }

    fn attach_clsact(
        &self,
        state: &mut State,
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
            state.qdiscs.insert(device.ifindex, device.name.clone());
        }
        let pin = Pin::Filter(at(device, direction));
        clsact::put(device.ifindex, direction, program.fd(), program.name).map_err(fail())?;
        record(program.fd(), &pin.path(&self.dir)).map_err(fail())?;
        Ok(Hook {
            pin,
            of: self.dir.clone(),
            device: device.name.clone(),
            ethernet: device.ethernet,
            link: None,
            settled: true,
        })
    }
}

fn at(device: &WantedDevice, direction: Direction) -> AttachPin {
    AttachPin {
        ifindex: device.ifindex,
        device: device.name.clone(),
        direction,
    }
}

/// A kernel without TCX refuses the attach type.
fn lacks_tcx(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Pins an object under a name that only says that something was done.
pub(super) fn record(fd: std::os::fd::BorrowedFd<'_>, path: &std::path::Path) -> io::Result<()> {
    match sys::obj_pin(fd, path) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}
