//! Conntrack from outside: walking it.
//!
//! A flow may be met twice or missed while the programs change the table, which
//! no reader here minds.

use std::net::IpAddr;

use palisade_abi::conntrack::CtEntry;
use palisade_abi::flows::{ONE_SIDED, Tag};
use palisade_abi::table::Cell;

use super::flows::{FlowTable, Key};
use super::shared::Shared;
use super::ticks;
use crate::datapath::DatapathError;

/// One flow, decoded.
#[derive(Clone, PartialEq, Debug)]
pub struct CtFlow {
    pub local: IpAddr,
    pub remote: IpAddr,
    /// Host byte order.
    pub local_port: u16,
    pub remote_port: u16,
    pub proto: u8,
    /// One of `palisade_abi::conntrack::kind`.
    pub kind: u8,
    /// Seen from one side only.
    pub half: bool,
    /// Bits of `palisade_abi::conntrack::flags`.
    pub flags: u32,
    pub epoch: u32,
    pub cell: Cell,
    pub identity: u32,
    /// 0 when it has expired and was not swept yet.
    pub expires_s: u64,
    /// In the opener's direction, then in the other one.
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
}

/// Calls `each` for every flow until it says stop (false).
pub(crate) fn for_each(
    shared: &Shared,
    each: &mut dyn FnMut(CtFlow) -> bool,
) -> Result<(), DatapathError> {
    let now = ticks::now(&shared.programs)?;
    let go_on = walk(&FlowTable::v4(&shared.maps)?, now, each)?;
    if go_on {
        walk(&FlowTable::v6(&shared.maps)?, now, each)?;
    }
    Ok(())
}

fn walk<K: Key>(
    table: &FlowTable<'_, K>,
    now: u64,
    each: &mut dyn FnMut(CtFlow) -> bool,
) -> Result<bool, DatapathError> {
    let ticks_per_second = u64::from(super::settings::ticks_per_second());
    for window in table.windows() {
        let (_, window) = window?;
        for set in 0..window.sets {
            let set = window.set(set);
            for (tag, key, entry) in set.ways().filter_map(|way| way.read::<K>()) {
                let expires_s = tag.jiffies_left(now) / ticks_per_second;
                if !each(decoded(tag, &key, &entry, expires_s)) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

fn decoded<K: Key>(tag: Tag, key: &K, entry: &CtEntry, expires_s: u64) -> CtFlow {
    let ([local, remote], ports, proto, kind) = key.parts();
    let [local_port, remote_port] = ports.map(u16::from_be);
    CtFlow {
        local,
        remote,
        local_port,
        remote_port,
        proto,
        kind,
        half: tag.kind() == ONE_SIDED,
        flags: entry.flags,
        epoch: entry.judged.epoch(),
        cell: entry.judged.cell(),
        identity: entry.identity,
        expires_s,
        packets: entry.packets,
        bytes: entry.bytes,
    }
}
