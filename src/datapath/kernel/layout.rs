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
//! - conntrack: the keys, and the first 56 octets of a value. Fields are only
//!   appended, first in place of what is reserved; 0 in one means "not known".
//!   The kernel tells how large a value is.
//!
//! A layout that must break one of them gives its map another name; then flows
//! are not carried over, but adopted as at a first enforcement.

use std::fmt;

use palisade_abi::ABI_VERSION;
use palisade_abi::conntrack::CtEntry;

use super::maps::{MapSpec, SPECS, is_flow_map};
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
    /// Octets of a conntrack value; at most those of [`CtEntry`].
    pub flow_octets: usize,
}

impl Layout {
    /// This binary's. Others are played by tests only.
    #[must_use]
    pub fn current() -> Self {
        Self {
            version: ABI_VERSION,
            object: OBJECT,
            flow_octets: size_of::<CtEntry>(),
        }
    }

    /// What the maps must look like.
    pub(crate) fn specs(&self) -> [MapSpec; SPECS.len()] {
        SPECS.map(|spec| MapSpec {
            value_size: if is_flow_map(spec.map) {
                self.flow_octets
            } else {
                spec.value_size
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
