//! Other versions of the layout, played by this version's code.

use palisade::datapath::kernel::Layout;
use palisade_abi::ABI_VERSION;
use palisade_abi::flows::SET_FLOWS;

/// The programs with smaller sets of flows, committed beside the shipped ones.
static OLDER: &[u8] = aya::include_bytes_aligned!("../../bpf-prog/older.bpf.o");

/// The version before this one: its sets hold a flow less.
pub(crate) fn older() -> Layout {
    Layout {
        version: ABI_VERSION - 1,
        object: OLDER,
        set_flows: SET_FLOWS - 1,
    }
}

/// A later version, whose conntrack is as it is now.
#[allow(dead_code, reason = "not every test binary plays all versions")]
pub(crate) fn newer() -> Layout {
    Layout {
        version: ABI_VERSION + 29,
        ..Layout::current()
    }
}
