//! The layout of everything pinned, and what stays the same in all of them.
//!
//! A change of any map's layout raises `palisade_abi::ABI_VERSION`, and with it
//! the version in the name of every pin. So that an agent can take over from
//! another version, older or newer, without knowing it by number, some things
//! never change (`takeover` relies on them, and on nothing else):
//!
//! - the forms of the pins' names ([`super::pins`]), the names of the entry
//!   programs, and one lock for the directory of the pins;
//! - the commit word: slot, enforced and watched directions, epoch and
//!   generation stand where they stand, in the map `pal_commit`; free bits may
//!   be given a meaning;
//! - conntrack: the keys, the tags, the fields of an entry as they are now (more
//!   are only appended; 0 in one means "not known"), and `pal_ct_space`, which
//!   tells how many ways a set has and how long an entry is.
//!
//! A layout that must break one of them gives its map another name; then flows
//! are not carried over, but adopted as at a first enforcement.

use std::fmt;

use palisade_abi::ABI_VERSION;
use palisade_abi::conntrack::{CtKey4, CtKey6};
use palisade_abi::flows::{SET_FLOWS, set_octets};

use super::maps::{MapName, MapSpec, SPECS};
use super::pins::PinDir;

/// The programs of this binary, as committed.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/palisade.bpf.o"));

/// A layout version with the programs that were built for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Stands in the name of every pin.
    pub version: u32,
    /// The eBPF object.
    pub object: &'static [u8],
    /// Flows of a set of conntrack.
    pub set_flows: u32,
}

impl Layout {
    /// This binary's. Others are played by tests only.
    #[must_use]
    pub fn current() -> Self {
        Self {
            version: ABI_VERSION,
            object: OBJECT,
            set_flows: SET_FLOWS,
        }
    }

    /// What the maps must look like.
    pub(crate) fn specs(&self) -> [MapSpec; SPECS.len()] {
        let set_of = |key_octets| set_octets(self.set_flows as usize, key_octets);
        SPECS.map(|spec| MapSpec {
            value_size: match spec.map {
                MapName::Ct4 => set_of(size_of::<CtKey4>()),
                MapName::Ct6 => set_of(size_of::<CtKey6>()),
                _ => spec.value_size,
            },
            ..spec
        })
    }

    /// A directory of pins as this version sees it.
    pub(crate) fn pins(&self, dir: &std::path::Path) -> PinDir {
        PinDir {
            dir: dir.to_owned(),
            version: self.version,
        }
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layout({})", self.version)
    }
}
