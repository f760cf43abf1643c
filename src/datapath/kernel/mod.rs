//! The kernel side: maps, programs, slots, the flip, devices' hooks.
//!
//! In reading order: [`options`], `bpffs`, `pins` and `layout` (where things stand),
//! `features` (what the kernel must have),
//! `programs` and `maps` (what they are), `open` (the start), `takeover` (from
//! another version of the layout), `shared` (what every handle holds), `datapath` (stage
//! and commit, over `slots`, `known` and `pool`, `ipcache4` with
//! `ipcache4_ranges`, `ipcache4_parts` and `ipcache4_space`, `ipcache6` with `ipcache6_ranges`, `ipcache`,
//! `settings`, `failsafe`, `control` (the agent's own traffic), `commit`),
//! `adoption` (first enforcement), `attach` with `protect`, `hooks`, `links` and
//! `clsact` (devices), `audit` (drift), `flows`, `conntrack` and `sweep` (the table
//! of flows), `inspect` (reading), `detach` (the way out). `sys`, `mapping`, `meta`, `lock`
//! and `ticks` are their tools.

mod adoption;
mod attach;
mod audit;
mod bpffs;
mod clsact;
mod commit;
mod conntrack;
mod control;
mod datapath;
mod detach;
mod failsafe;
mod features;
mod flows;
mod hooks;
mod inspect;
mod ipcache;
mod ipcache4;
mod ipcache4_parts;
mod ipcache4_ranges;
mod ipcache4_space;
mod ipcache6;
mod ipcache6_ranges;
mod known;
mod layout;
mod links;
mod loading;
mod lock;
mod mapping;
mod maps;
mod meta;
mod open;
mod options;
mod pins;
mod pool;
mod programs;
mod protect;
mod settings;
mod shared;
mod slots;
mod sweep;
mod sys;
mod takeover;
mod test_run;
mod ticks;

pub use adoption::AdoptionReport;
pub(crate) use adoption::{decode_connection, decode_sockets};
pub use attach::{Attached, Attachments, Mechanism, SyncReport, Unwanted, WantedDevice};
pub use audit::{AuditReport, Auditor, Finding, Guarded, Mending, Part};
pub use commit::GraceMethod;
pub use conntrack::CtFlow;
pub use control::ControlList;
pub use datapath::KernelDatapath;
pub use detach::detach;
pub use failsafe::octets;
pub use features::{Feature, FeatureState, Features};
pub use inspect::{
    CommitState, CtEvictions, Inspector, IpcachePrefix, LostEvents, MapMemory, MapStatus,
    ProgramStatus, ReasonCounter, RuleCounter,
};
pub use layout::Layout;
pub use loading::load_programs;
pub use open::StartReport;
pub use options::KernelOptions;
pub use slots::TableCopy;
pub use sweep::{CtOccupancy, Sweeper, next_sweep};
pub use test_run::{TestPacket, TestVerdict};

/// An event from a record of the ring buffer; None if it has another size.
pub(crate) fn value_from_bytes(bytes: &[u8]) -> Option<palisade_abi::event::Event> {
    (bytes.len() == size_of::<palisade_abi::event::Event>()).then(|| maps::value_of(bytes))
}
