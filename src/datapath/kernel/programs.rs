//! The programs: from the embedded object, or as they are pinned.
//!
//! Pinned programs are taken as they are when their pins carry this object's
//! hash; otherwise the object is loaded against the pinned maps, and the other
//! hash's pins go. Running ones stay: links and program arrays hold them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::EbpfLoader;

use super::flows::sets_for;
use super::layout::Layout;
use super::loading::{chain, load_programs};
use super::maps::{Map, MapName, MapSpec, Maps, SPECS, kernel};
use super::options::KernelOptions;
use super::pins::{self, Pin, PinDir};
use super::slots::Checksum;
use super::sys;
use crate::datapath::DatapathError;

/// Our programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum ProgramName {
    FromNetdev,
    ToNetdev,
    FromL3dev,
    ToL3dev,
    In4,
    In6,
    Eg4,
    Eg6,
    Clock,
}

/// Kernel names, in the order of [`ProgramName`].
pub(crate) const PROGRAMS: [&str; 9] = [
    "pal_from_netdev",
    "pal_to_netdev",
    "pal_from_l3dev",
    "pal_to_l3dev",
    "pal_in4",
    "pal_in6",
    "pal_eg4",
    "pal_eg6",
    "pal_clock",
];

/// One loaded program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
    pub(crate) verified_insns: u32,
    pub(crate) fd: OwnedFd,
}

/// All programs of this binary.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) hash: String,
    pub(crate) all: Vec<Program>,
    /// Whether they had to be loaded (not found pinned).
    pub(crate) loaded: bool,
}

impl Programs {
    pub(crate) fn of(&self, name: ProgramName) -> &Program {
        &self.all[name as usize]
    }
}

impl Program {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn open(name: &'static str, fd: OwnedFd) -> Result<Self, DatapathError> {
        let info = sys::prog_info(fd.as_fd()).map_err(kernel(format!("info of {name}")))?;
        Ok(Self {
            name,
            id: info.id,
            verified_insns: info.verified_insns,
            fd,
        })
    }
}

/// Hash of an object, as it stands in the names of program pins.
pub(crate) fn object_hash(object: &[u8]) -> String {
    let mut sum = Checksum::default();
    sum.add_bytes(object);
    format!("{:016x}", sum.0)
}

/// The pin of a program.
pub(crate) fn program_pin(name: &str, hash: &str) -> Pin {
    Pin::Program {
        name: name.to_owned(),
        hash: hash.to_owned(),
    }
}

/// The pin of a map.
pub(crate) fn map_pin(name: &str) -> Pin {
    Pin::Map {
        name: name.to_owned(),
    }
}

/// Opens or creates everything. The maps come first: programs are always loaded
/// against the maps that are pinned.
pub(crate) fn open(options: &KernelOptions) -> Result<(Maps, Programs), DatapathError> {
    let dir = &options.layout.pins(&options.bpffs);
    let specs = &options.layout.specs();
    let hash = object_hash(options.layout.object);
    let found = pins::list(dir).map_err(kernel(format!("list {}", dir.display())))?;
    check_maps(dir, specs, &found)?;
    let found = repair(dir, specs, found)?;
    let complete = SPECS.iter().all(|spec| found.contains(&map_pin(spec.name)))
        && PROGRAMS
            .iter()
            .all(|name| found.contains(&program_pin(name, &hash)));
    if !complete {
        load(options, &hash)?;
    }
    for pin in &found {
        if matches!(pin, Pin::Program { hash: other, .. } if *other != hash) {
            pins::remove(dir, pin).map_err(kernel(format!("remove {}", pin.file(dir))))?;
        }
    }
    let maps = open_maps(dir, specs)?;
    let mut all = Vec::new();
    for name in PROGRAMS {
        let path = program_pin(name, &hash).path(dir);
        let fd = sys::obj_get(&path).map_err(kernel(format!("open {}", path.display())))?;
        let fd = fd.ok_or_else(|| gone(&path))?;
        all.push(Program::open(name, fd)?);
    }
    let loaded = !complete;
    Ok((maps, Programs { hash, all, loaded }))
}

fn gone(path: &Path) -> DatapathError {
    DatapathError::Other(format!(
        "{} disappeared while it was opened; does another process remove pins?",
        path.display()
    ))
}

/// Opens the pinned maps of an agent that ran here, without creating anything.
fn open_maps(dir: &PinDir, specs: &[MapSpec]) -> Result<Maps, DatapathError> {
    let open = |spec: &MapSpec| -> Result<Map, DatapathError> {
        let path = map_pin(spec.name).path(dir);
        let fd = sys::obj_get(&path).map_err(kernel(format!("open {}", path.display())))?;
        spec.open(fd.ok_or_else(|| gone(&path))?)
    };
    let mut all = Vec::new();
    for spec in specs {
        all.push(open(spec)?);
    }
    let all = all
        .try_into()
        .map_err(|_| DatapathError::Other("a map is missing".to_owned()))?;
    Ok(Maps(all))
}

/// A pinned map of another layout is replaced while nothing is attached, and
/// refused otherwise.
fn check_maps(dir: &PinDir, specs: &[MapSpec], found: &[Pin]) -> Result<(), DatapathError> {
    let attached = found
        .iter()
        .any(|pin| matches!(pin, Pin::Link(_) | Pin::Filter(_)));
    for spec in specs {
        let pin = map_pin(spec.name);
        let path = pin.path(dir);
        let Some(fd) = sys::obj_get(&path).map_err(kernel(format!("open {}", path.display())))?
        else {
            continue;
        };
        let info = sys::map_info(fd.as_fd()).map_err(kernel("map info"))?;
        let Some(mismatch) = spec.mismatch(&info) else {
            continue;
        };
        if attached {
            return Err(DatapathError::Other(format!(
                "a map in use has another layout ({mismatch}); `palisade detach --bpffs {}` removes it and the enforcement with it",
                dir.display()
            )));
        }
        tracing::warn!(%mismatch, "a pinned map of another layout is replaced");
        pins::remove(dir, &pin).map_err(kernel(format!("remove {}", path.display())))?;
        // Programs that were loaded against it go with it.
        for pin in found
            .iter()
            .filter(|pin| matches!(pin, Pin::Program { .. }))
        {
            pins::remove(dir, pin).map_err(kernel(format!("remove {}", pin.file(dir))))?;
        }
    }
    Ok(())
}

/// Pins that somebody removed are made again from the programs that are pinned
/// or attached: what runs goes on with its maps. Where that fails, nothing of
/// the old programs can be used, so their pins go and everything is loaded.
fn repair(dir: &PinDir, specs: &[MapSpec], found: Vec<Pin>) -> Result<Vec<Pin>, DatapathError> {
    let missing = |spec: &&MapSpec| !found.contains(&map_pin(spec.name));
    let mut lost: Vec<&MapSpec> = specs.iter().filter(missing).collect();
    let users: Vec<&Pin> = found
        .iter()
        .filter(|pin| matches!(pin, Pin::Program { .. }))
        .collect();
    if lost.is_empty() || users.is_empty() {
        return Ok(found);
    }
    for user in &users {
        let path = user.path(dir);
        let fail = || kernel(format!("maps of {}", path.display()));
        let Some(program) = sys::obj_get(&path).map_err(fail())? else {
            continue;
        };
        for id in sys::prog_map_ids(program.as_fd()).map_err(fail())? {
            let map = sys::map_by_id(id).map_err(fail())?;
            let info = sys::map_info(map.as_fd()).map_err(fail())?;
            let Some(place) = lost
                .iter()
                .position(|spec| info.is_named(spec.name) && spec.mismatch(&info).is_none())
            else {
                continue;
            };
            let pin = map_pin(lost.swap_remove(place).name);
            sys::obj_pin(map.as_fd(), &pin.path(dir)).map_err(fail())?;
            tracing::warn!(pin = pin.file(dir), "a pin was lost and is made again");
        }
    }
    // Only the agent uses the record of the slots: it is created when missing.
    lost.retain(|spec| spec.map != MapName::Meta);
    if !lost.is_empty() {
        for user in users {
            pins::remove(dir, user).map_err(kernel(format!("remove {}", user.file(dir))))?;
        }
    }
    pins::list(dir).map_err(kernel(format!("list {}", dir.display())))
}

fn load(options: &KernelOptions, hash: &str) -> Result<(), DatapathError> {
    let dir = &options.layout.pins(&options.bpffs);
    create_meta(dir)?;
    let mut loader = EbpfLoader::new();
    for spec in SPECS.iter().filter(|spec| spec.map != MapName::Meta) {
        loader.map_pin_path(spec.name, map_pin(spec.name).path(dir));
    }
    for name in ["pal_ct4", "pal_ct6"] {
        loader.map_max_entries(
            name,
            sets_for(options.ct_entries_max, options.layout.set_flows),
        );
    }
    let mut object = loader.load(options.layout.object).map_err(|error| {
        DatapathError::Other(format!("load the eBPF object: {}", chain(&error)))
    })?;
    let path = |name: &str| program_pin(name, hash).path(dir);
    // The long ones stand last and are begun first: the short ones fill the gaps.
    let names = PROGRAMS.into_iter().rev();
    let missing: Vec<&str> = names.filter(|name| !path(name).exists()).collect();
    let loaded = load_programs(&mut object, &missing)?;
    for (name, fd) in missing.iter().zip(loaded) {
        let path = path(name);
        sys::obj_pin(fd.as_fd(), &path).map_err(kernel(format!("pin {}", path.display())))?;
    }
    Ok(())
}

/// A second copy of a program, against the maps that are pinned: a hook takes
/// each program only once.
pub(crate) fn copy(dir: &PinDir, name: &'static str) -> Result<Program, DatapathError> {
    let mut loader = EbpfLoader::new();
    for spec in SPECS.iter().filter(|spec| spec.map != MapName::Meta) {
        loader.map_pin_path(spec.name, map_pin(spec.name).path(dir));
    }
    let mut object = loader.load(Layout::current().object).map_err(|error| {
        DatapathError::Other(format!("load the eBPF object: {}", chain(&error)))
    })?;
    let loaded = load_programs(&mut object, &[name])?;
    let fd = loaded.into_iter().next();
    Program::open(name, fd.ok_or_else(|| gone(Path::new(name)))?)
}

/// The map that only user space knows.
fn create_meta(dir: &PinDir) -> Result<(), DatapathError> {
    let spec = &SPECS[MapName::Meta as usize];
    let path = map_pin(spec.name).path(dir);
    if path.exists() {
        return Ok(());
    }
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let shape = sys::MapShape {
        map_type: spec.map_type,
        key_size: size(spec.key_size),
        value_size: size(spec.value_size),
        max_entries: spec.max_entries.unwrap_or(1),
    };
    let create = || {
        let fd = sys::map_create(shape, spec.name, None)?;
        sys::obj_pin(fd.as_fd(), &path)
    };
    create().map_err(kernel(format!("create map {}", spec.name)))
}
