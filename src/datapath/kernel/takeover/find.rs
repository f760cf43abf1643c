//! Who is there, and what of it can be shared.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use palisade_abi::commit::CommitWord;

use super::Steps;
use crate::datapath::DatapathError;
use crate::datapath::kernel::maps::{Map, MapName, MapSpec, SPECS, kernel};
use crate::datapath::kernel::options::KernelOptions;
use crate::datapath::kernel::pins::{self, Pin, PinDir};
use crate::datapath::kernel::programs::map_pin;
use crate::datapath::kernel::{clsact, sys};

/// The maps of flows, which are shared together or not at all.
pub(super) const FLOWS: [MapName; 3] = [MapName::CtSpace, MapName::Ct4, MapName::Ct6];
/// Maps besides those of flows that are shared where they are alike: datagrams
/// in pieces, and what was counted. (While programs run beside each other, each
/// drop is counted once, by the one that drops; what passes is counted by both.)
const BESIDES: [MapName; 6] = [
    MapName::CtEvicted,
    MapName::Frag4,
    MapName::Frag6,
    MapName::Counters,
    MapName::Rules,
    MapName::Lost,
];

/// Finds the other versions and makes ready what our programs are loaded
/// against. Those that are in use come first.
pub(crate) fn prepare(
    options: &KernelOptions,
    steps: &Steps,
) -> Result<Vec<PinDir>, DatapathError> {
    let own = options.layout.pins(&options.bpffs);
    let others = pins::other_versions(&own).map_err(kernel("list pins"))?;
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let mut others: Vec<PinDir> = others.into_iter().map(|it| own.of_version(it)).collect();
    let used = used_maps(&own, &others)?;
    let is_used = |of: &PinDir| -> Result<bool, DatapathError> {
        let word = map(of, MapName::Commit)?;
        Ok(word.is_some_and(|word| used.contains(&word.id)))
    };
    let mut in_use = BTreeSet::new();
    for of in others.iter().chain([&own]) {
        if is_used(of)? {
            in_use.insert(of.version);
        }
    }
    // One that was current knows its flows; one that only looks on does not.
    let mut rank = BTreeMap::new();
    for of in &others {
        let was_current = was_current(of)?;
        rank.insert(of.version, (!was_current, !in_use.contains(&of.version)));
    }
    others.sort_by_key(|of| rank.get(&of.version).copied());
    let own_is_idle = !in_use.contains(&own.version);
    if own_is_idle && !in_use.is_empty() {
        discard(&own, steps)?;
    }
    let held = pins::list(&own).map_err(kernel("list pins"))?;
    if !FLOWS.iter().any(|name| held.contains(&pin_of(*name))) {
        for other in &others {
            if share(other, &own, &options.layout.specs(), steps)? {
                break;
            }
        }
    }
    Ok(others)
}

/// Whether a version ever committed, and was not told to enforce nothing.
fn was_current(of: &PinDir) -> Result<bool, DatapathError> {
    let Some(map) = map(of, MapName::Commit)?.filter(|map| map.value_size == 8) else {
        return Ok(false);
    };
    let word: Option<CommitWord> = map.get(&0u32)?;
    Ok(word.is_some_and(|word| word.generation() != 0))
}

fn name_of(map: MapName) -> &'static str {
    SPECS[map as usize].name
}

fn pin_of(map: MapName) -> Pin {
    map_pin(name_of(map))
}

/// A version's map; None where it has none of this name.
pub(super) fn map(of: &PinDir, name: MapName) -> Result<Option<Map>, DatapathError> {
    let path = pin_of(name).path(of);
    let fail = || kernel(format!("open {}", path.display()));
    let Some(fd) = sys::obj_get(&path).map_err(fail())? else {
        return Ok(None);
    };
    let info = sys::map_info(fd.as_fd()).map_err(fail())?;
    Ok(Some(Map {
        name: name_of(name),
        id: info.id,
        max_entries: info.max_entries,
        value_size: info.value_size as usize,
        fd,
    }))
}

/// The maps that attached programs of any version work with.
fn used_maps(own: &PinDir, others: &[PinDir]) -> Result<BTreeSet<u32>, DatapathError> {
    let mut programs = BTreeSet::new();
    for of in others.iter().chain([own]) {
        for pin in pins::list(of).map_err(kernel("list pins"))? {
            match &pin {
                Pin::Link(_) => {
                    let link = sys::obj_get(&pin.path(of)).map_err(kernel("open a link"))?;
                    let info = link.map(|link| sys::link_info(link.as_fd())).transpose();
                    let info = info.map_err(kernel("info of a link"))?;
                    programs.extend(info.filter(|it| it.ifindex != 0).map(|it| it.prog_id));
                }
                Pin::Filter(at) => programs.extend(clsact::running(at.ifindex, at.direction)),
                Pin::Map { .. }
                | Pin::Program { .. }
                | Pin::Qdisc { .. }
                | Pin::OtherVersion { .. }
                | Pin::Foreign { .. } => {}
            }
        }
    }
    let mut maps = BTreeSet::new();
    for id in programs {
        // One that ends just now uses nothing.
        let Ok(program) = sys::prog_by_id(id) else {
            continue;
        };
        maps.extend(sys::prog_map_ids(program.as_fd()).map_err(kernel("maps of a program"))?);
    }
    Ok(maps)
}

/// Removes the programs and maps of a version that nothing runs. A link may have
/// got its name already and still run what is in use: it stays.
fn discard(of: &PinDir, steps: &Steps) -> Result<usize, DatapathError> {
    remove(of, steps, |pin| {
        matches!(pin, Pin::Program { .. } | Pin::Map { .. })
    })
}

/// Removes every pin of a version: attachments, then programs, then maps.
pub(super) fn remove_all(of: &PinDir, steps: &Steps) -> Result<usize, DatapathError> {
    remove(of, steps, |pin| {
        !matches!(pin, Pin::OtherVersion { .. } | Pin::Foreign { .. })
    })
}

fn remove(of: &PinDir, steps: &Steps, goes: impl Fn(&Pin) -> bool) -> Result<usize, DatapathError> {
    let mut found = pins::list(of).map_err(kernel("list pins"))?;
    found.retain(goes);
    found.sort_by_key(|pin| match pin {
        Pin::Link(_) | Pin::Filter(_) | Pin::Qdisc { .. } => 0,
        Pin::Program { .. } => 1,
        Pin::Map { .. } | Pin::OtherVersion { .. } | Pin::Foreign { .. } => 2,
    });
    for pin in &found {
        steps.next()?;
        pins::remove(of, pin).map_err(kernel(format!("remove {}", pin.file(of))))?;
    }
    Ok(found.len())
}

/// Pins maps of another version under our name where they are what ours would
/// be, those of flows all or none; whether its flows are ours now.
fn share(
    other: &PinDir,
    own: &PinDir,
    specs: &[MapSpec],
    steps: &Steps,
) -> Result<bool, DatapathError> {
    let alike = |name: MapName| -> Result<Option<Map>, DatapathError> {
        let Some(found) = map(other, name)? else {
            return Ok(None);
        };
        let info = sys::map_info(found.fd.as_fd()).map_err(kernel("map info"))?;
        Ok(specs[name as usize]
            .mismatch(&info)
            .is_none()
            .then_some(found))
    };
    let flows = FLOWS.map(alike).into_iter();
    let flows: Vec<Option<Map>> = flows.collect::<Result<_, _>>()?;
    let shares_flows = flows.iter().all(Option::is_some);
    let flows = if shares_flows { flows } else { Vec::new() };
    let besides = BESIDES.map(alike).into_iter();
    let besides: Vec<Option<Map>> = besides.collect::<Result<_, _>>()?;
    for map in flows.iter().chain(&besides).flatten() {
        let path = map_pin(map.name).path(own);
        if !path.exists() {
            steps.next()?;
            sys::obj_pin(map.fd(), &path).map_err(kernel(format!("pin {}", path.display())))?;
        }
    }
    Ok(shares_flows)
}
