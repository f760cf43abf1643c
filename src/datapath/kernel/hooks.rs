//! One attachment to a hook of a device: whether it is there, runs our program,
//! and in its place among others.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::maps::kernel;
use super::pins::{self, AttachPin, Pin, PinDir};
use super::programs::Program;
use super::{clsact, links, sys};
use crate::datapath::DatapathError;
use crate::policy::Direction;

/// Device number and direction.
pub(super) type Key = (u32, Direction);

/// One attachment that we hold.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) pin: Pin,
    /// The version under whose name it is pinned.
    pub(super) of: PinDir,
    pub(super) device: String,
    pub(super) ethernet: bool,
    /// None for a clsact filter.
    pub(super) link: Option<Link>,
    /// This process has seen its own program there.
    pub(super) settled: bool,
}

/// A TCX link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) fd: OwnedFd,
    id: u32,
}

/// How an attachment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Health {
    Fine,
    /// The kernel would not say: what is there is left alone.
    Unknown,
    /// The device is not in this network namespace any more.
    Gone,
    /// The device is there, our program is not on it.
    Detached,
    /// Another program runs where ours should.
    OtherProgram,
    /// Counted from 0.
    Misplaced {
        place: usize,
        of: usize,
    },
}

impl Link {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let id = sys::link_info(fd.as_fd())?.id;
        Ok(Self { fd, id })
    }
}

/// Only one error means that there is nothing to lose.
fn unseen(error: &io::Error) -> Health {
    if error.raw_os_error() == Some(libc::ENODEV) {
        Health::Gone
    } else {
        Health::Unknown
    }
}

/// First on ingress, last on egress.
pub(super) fn tcx_place(direction: Direction) -> (u32, u32) {
    match direction {
        Direction::Ingress => (sys::TCX_INGRESS, sys::BEFORE),
        Direction::Egress => (sys::TCX_EGRESS, sys::AFTER),
    }
}

fn is_in_place(direction: Direction, place: usize, of: usize) -> bool {
    match direction {
        Direction::Ingress => place == 0,
        Direction::Egress => place + 1 == of,
    }
}

/// What a pin of an attachment stands for; None where nothing of it is on the
/// device, or the device is gone.
pub(super) fn open_hook(
    of: &PinDir,
    pin: Pin,
    at: AttachPin,
    is_link: bool,
) -> Result<Option<Hook>, DatapathError> {
    let key = (at.ifindex, at.direction);
    let link = if is_link { open_link(of, &pin)? } else { None };
    let is_open = link.is_some() || !is_link;
    let hook = Hook {
        pin,
        of: of.clone(),
        device: at.device,
        ethernet: true,
        link,
        settled: false,
    };
    Ok((is_open && hook.is_alive(key)).then_some(hook))
}

fn open_link(of: &PinDir, pin: &Pin) -> Result<Option<Link>, DatapathError> {
    let path = pin.path(of);
    let fail = || kernel(format!("open {}", path.display()));
    let Some(fd) = sys::obj_get(&path).map_err(fail())? else {
        return Ok(None);
    };
    Link::new(fd).map(Some).map_err(fail())
}

pub(super) fn forget(of: &PinDir, pin: &Pin) -> Result<(), DatapathError> {
    pins::remove(of, pin).map_err(kernel(format!("remove {}", pin.file(of))))?;
    Ok(())
}

impl Hook {
    pub(super) fn path(&self) -> PathBuf {
        self.pin.path(&self.of)
    }

    /// Makes it run this program in one step; whether it ran another one.
    pub(super) fn update(&self, key: Key, program: &Program) -> Result<bool, DatapathError> {
        let is_other = self.health(key, program.id) == Health::OtherProgram;
        if is_other {
            self.replace(key, program)?;
        }
        Ok(is_other)
    }

    /// Where it should run the program of this number.
    pub(super) fn health(&self, (ifindex, direction): Key, program: u32) -> Health {
        // (ours, program) in the order in which they run.
        let all: Vec<(bool, u32)> = match &self.link {
            Some(link) => match links::on_hook(ifindex, tcx_place(direction).0) {
                Ok(all) => {
                    let all = all.into_iter();
                    all.map(|it| (it.link == link.id, it.program)).collect()
                }
                Err(error) => return unseen(&error),
            },
            None => match clsact::in_order(ifindex, direction) {
                Ok(all) => all,
                Err(error) => return unseen(&error),
            },
        };
        let Some(place) = all.iter().position(|(ours, _)| *ours) else {
            // A hook of a device that is gone is empty.
            let is_there = self.link.is_some() || clsact::is_device(ifindex);
            return if is_there {
                Health::Detached
            } else {
                Health::Gone
            };
        };
        if all[place].1 != program {
            Health::OtherProgram
        } else if is_in_place(direction, place, all.len()) {
            Health::Fine
        } else {
            Health::Misplaced {
                place,
                of: all.len(),
            }
        }
    }

    /// Whether anything of ours is on the hook.
    pub(super) fn is_alive(&self, key: Key) -> bool {
        !matches!(self.health(key, 0), Health::Gone | Health::Detached)
    }

    /// Replaces the program in one step.
    pub(super) fn replace(
        &self,
        (ifindex, direction): Key,
        program: &Program,
    ) -> Result<(), DatapathError> {
        let replaced = match &self.link {
            Some(link) => sys::link_update(link.fd.as_fd(), program.fd()),
            None => clsact::put(ifindex, direction, program.fd(), program.name),
        };
        replaced.map_err(kernel(format!("replace the program on {}", self.device)))
    }

    /// Moves the program to its place. Never a packet without it: for a moment
    /// both, the one that leaves and a copy of it in the right place, judge
    /// alike.
    pub(super) fn reorder(
        &mut self,
        key: Key,
        program: &Program,
        copy: impl FnOnce() -> Result<Program, DatapathError>,
    ) -> Result<(), DatapathError> {
        let fail = || kernel(format!("move {} on {}", program.name, self.device));
        let (ifindex, direction) = key;
        let Some(old) = &self.link else {
            return clsact::move_to_place(ifindex, direction, program.fd(), program.name)
                .map_err(fail());
        };
        let copy = copy()?;
        let (hook, place) = tcx_place(direction);
        let new = sys::link_create_tcx(copy.fd(), ifindex, hook, place).map_err(fail())?;
        let beside = Pin::Link(AttachPin {
            ifindex,
            device: format!("{}+", self.device),
            direction,
        });
        // The new link has a pin before the old one goes: whoever dies between
        // the two leaves both, and the next start takes the second away.
        let (beside, own) = (beside.path(&self.of), self.path());
        sys::obj_pin(new.as_fd(), &beside).map_err(fail())?;
        std::fs::rename(&beside, &own).map_err(fail())?;
        links::link_detach(old.fd.as_fd()).map_err(fail())?;
        sys::link_update(new.as_fd(), program.fd()).map_err(fail())?;
        self.link = Some(Link::new(new).map_err(fail())?);
        Ok(())
    }
}

/// What is wrong, for the operator; None if nothing is.
pub(super) fn describe(health: Health, direction: Direction) -> Option<String> {
    match health {
        Health::Fine => None,
        Health::Unknown => Some("the kernel refuses to show the hook".to_owned()),
        Health::Gone => Some("the device is gone".to_owned()),
        Health::Detached => Some("the device or our program on it is gone".to_owned()),
        Health::OtherProgram => Some("another program runs in the place of ours".to_owned()),
        Health::Misplaced { place, of } => Some(format!(
            "our program runs at place {} of {of}: another one was put {}",
            place + 1,
            match direction {
                Direction::Ingress => "before it",
                Direction::Egress => "after it",
            }
        )),
    }
}
