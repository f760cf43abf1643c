//! Other versions of the layout, played by this version's code.

use std::sync::LazyLock;

use palisade::datapath::kernel::Layout;
use palisade_abi::ABI_VERSION;
use palisade_abi::flows::SET_FLOWS;

/// The programs with smaller sets of flows, committed beside the shipped ones.
/// In memory of its own, which is aligned as a reader of objects wants it.
static OLDER: LazyLock<Vec<u8>> =
    LazyLock::new(|| include_bytes!("../../bpf-prog/older.bpf.o").to_vec());

/// The version before this one: its sets hold a flow less.
pub(crate) fn older() -> Layout {
    Layout {
        version: ABI_VERSION - 1,
        object: &OLDER,
        set_flows: SET_FLOWS - 1,
    }
}

/// A later version, whose conntrack is as it is now.
pub(crate) fn newer() -> Layout {
    Layout {
        version: ABI_VERSION + 29,
        ..Layout::current()
    }
}
