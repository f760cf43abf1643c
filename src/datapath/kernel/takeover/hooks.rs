//! Hooks of other versions: kept until the commit, then ours.

use std::collections::btree_map::Entry;
use std::fs;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use super::{Other, Steps};
use crate::datapath::kernel::attach::{Attachments, WantedDevice};
use crate::datapath::kernel::hooks::{Hook, forget, open_hook};
use crate::datapath::kernel::links;
use crate::datapath::kernel::maps::{MapName, kernel};
use crate::datapath::kernel::pins::{self, Pin, PinDir};
use crate::datapath::kernel::protect::record;
use crate::datapath::{DatapathError, devices};

impl Attachments {
    /// Takes what other versions attached. From here to [`Self::take_hooks`]
    /// what runs is left alone.
    pub(crate) fn hold_others(&self, others: &[Other], steps: &Steps) -> Result<(), DatapathError> {
        self.holding.store(true, Ordering::Release);
        for other in others {
            for pin in pins::list(&other.of).map_err(kernel("list pins"))? {
                let (at, is_link) = match &pin {
                    Pin::Link(at) => (at.clone(), true),
                    Pin::Filter(at) => (at.clone(), false),
                    Pin::Map { .. }
                    | Pin::Program { .. }
                    | Pin::Qdisc { .. }
                    | Pin::OtherVersion { .. }
                    | Pin::Foreign { .. } => continue,
                };
                match open_hook(&other.of, pin.clone(), at.clone(), is_link)? {
                    Some(hook) => {
                        let key = (at.ifindex, at.direction);
                        self.hold(key, hook, other.shares_flows, steps)?;
                    }
                    None => forget(&other.of, &pin)?,
                }
            }
        }
        Ok(())
    }

    fn hold(
        &self,
        key: (u32, crate::policy::Direction),
        hook: Hook,
        shares_flows: bool,
        steps: &Steps,
    ) -> Result<(), DatapathError> {
        let mut state = self.state.lock();
        let place = match state.hooks.entry(key) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => Some(place),
        };
        // A filter is replaced even so: there is one of ours on a hook.
        let replaced = shares_flows || hook.link.is_none();
        match place {
            Some(place) if replaced => {
                place.insert(hook);
            }
            Some(place) => {
                let Some(device) = device(key.0, &hook.device)? else {
                    return forget(&hook.of, &hook.pin);
                };
                steps.next()?;
                place.insert(self.attach_tcx(
                    &device,
                    key.1,
                    self.program(device.ethernet, key.1),
                )?);
                self.leftovers.lock().push(hook);
            }
            None => self.leftovers.lock().push(hook),
        }
        Ok(())
    }

    /// Makes every hook run our programs, each by one step of the kernel.
    pub(crate) fn take_hooks(&self, steps: &Steps) -> Result<usize, DatapathError> {
        self.holding.store(false, Ordering::Release);
        let mut taken = 0;
        let mut state = self.state.lock();
        for ((ifindex, direction), hook) in &mut state.hooks {
            let Some(device) = device(*ifindex, &hook.device)? else {
                // Gone with its device; the next look at the devices drops it.
                continue;
            };
            let program = self.program(device.ethernet, *direction);
            // The name first: what runs is found by its program, not by its name.
            if hook.of != self.dir {
                steps.next()?;
                let (from, to) = (hook.path(), hook.pin.path(&self.dir));
                let fail = || kernel(format!("rename {}", from.display()));
                if hook.link.is_some() {
                    fs::rename(&from, &to).map_err(fail())?;
                } else {
                    record(program.fd(), &to).map_err(fail())?;
                    forget(&hook.of, &hook.pin)?;
                }
                hook.of = self.dir.clone();
            }
            steps.next()?;
            taken += usize::from(hook.update((*ifindex, *direction), program)?);
        }
        Ok(taken)
    }

    /// Ends the hooks of other versions beside which ours run.
    pub(super) fn drop_leftovers(&self, steps: &Steps) -> Result<usize, DatapathError> {
        let mut leftovers = self.leftovers.lock();
        let mut ended = 0;
        while let Some(hook) = leftovers.last() {
            steps.next()?;
            forget(&hook.of, &hook.pin)?;
            if let Some(link) = &hook.link {
                // Now, whoever else holds a descriptor of it. Its device may be gone.
                let _gone = links::link_detach(link.fd.as_fd());
                ended += 1;
            }
            leftovers.pop();
        }
        Ok(ended)
    }

    /// Whether a hook of another version runs beside ours.
    pub(super) fn has_leftovers_of(&self, of: &PinDir) -> bool {
        self.leftovers.lock().iter().any(|hook| hook.of == *of)
    }

    /// The qdiscs that another version added become ours to remove.
    pub(super) fn take_qdiscs(&self, other: &Other, steps: &Steps) -> Result<(), DatapathError> {
        let commit = self.shared.maps.of(MapName::Commit);
        for pin in pins::list(&other.of).map_err(kernel("list pins"))? {
            if let Pin::Qdisc { ifindex, device } = &pin {
                self.state.lock().qdiscs.insert(*ifindex, device.clone());
                steps.next()?;
                record(commit.fd(), &pin.path(&self.dir))
                    .map_err(kernel("pin a qdisc's record"))?;
                forget(&other.of, &pin)?;
            }
        }
        Ok(())
    }
}

/// A device by its number; None where it is gone.
fn device(ifindex: u32, name: &str) -> Result<Option<WantedDevice>, DatapathError> {
    let list = devices::list().map_err(kernel("list devices"))?;
    let found = list.into_iter().find(|device| device.ifindex == ifindex);
    Ok(found.map(|device| WantedDevice {
        ifindex,
        name: name.to_owned(),
        ethernet: device.ethernet,
        vlans: Vec::new(),
    }))
}
