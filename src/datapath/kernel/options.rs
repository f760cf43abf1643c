//! What the operator may choose about the kernel side.

use std::path::PathBuf;

use super::layout::Layout;
use crate::limits;

/// Options of [`super::KernelDatapath::open`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelOptions {
    /// Directory of our pins; `--bpffs`.
    pub bpffs: PathBuf,
    /// Flows, per family.
    pub ct_entries_max: u32,
    /// Use clsact filters even where TCX is there.
    pub force_clsact: bool,
    /// The layout of the pins; tests play other versions.
    pub layout: Layout,
    /// For tests: a takeover ends after so many steps, as if the agent had died.
    pub takeover_steps_max: usize,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            bpffs: PathBuf::from("/sys/fs/bpf/palisade"),
            ct_entries_max: limits::CT_ENTRIES_MAX,
            force_clsact: false,
            layout: Layout::current(),
            takeover_steps_max: usize::MAX,
        }
    }
}
