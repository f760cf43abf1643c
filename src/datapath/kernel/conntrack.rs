//! Conntrack from outside: walking it.
//!
//! Walks are bounded steps, so that a large table never holds a thread for long;
//! an entry may be met twice or missed while the programs change the table,
//! which no reader here minds.

use std::net::IpAddr;

use palisade_abi::conntrack::{CtEntry, CtKey4, CtKey6};
use palisade_abi::table::Cell;

use super::datapath::Shared;
use super::failsafe::octets;
use super::maps::{Map, MapName, Plain, kernel, prefix_of, value_of};
use super::{sys, ticks};
use crate::datapath::DatapathError;
use crate::limits::CT_WALK_BATCH_MAX;

/// The four maps of flows: (map, IPv6, half).
pub(crate) const MAPS: [(MapName, bool, bool); 4] = [
    (MapName::Ct4, false, false),
    (MapName::Half4, false, true),
    (MapName::Ct6, true, false),
    (MapName::Half6, true, true),
];

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

/// A key of either family.
pub(super) trait Key: Plain {
    /// Addresses and ports, local first; protocol; kind. The ports are in
    /// network byte order.
    fn parts(&self) -> ([IpAddr; 2], [u16; 2], u8, u8);
}

impl Key for CtKey4 {
    fn parts(&self) -> ([IpAddr; 2], [u16; 2], u8, u8) {
        let addresses = [self.local, self.remote];
        let addresses = addresses.map(|word| IpAddr::V4(word.to_ne_bytes().into()));
        let ports = [self.local_port, self.remote_port];
        (addresses, ports, self.proto, self.kind)
    }
}

impl Key for CtKey6 {
    fn parts(&self) -> ([IpAddr; 2], [u16; 2], u8, u8) {
        let addresses = [self.local, self.remote];
        let addresses = addresses.map(|words| IpAddr::V6(octets(words).into()));
        let ports = [self.local_port, self.remote_port];
        (addresses, ports, self.proto, self.kind)
    }
}

/// A walk through one map, a batch at a time.
pub(super) struct Walk<'a> {
    map: &'a Map,
    cursor: [u8; 4],
    first: bool,
    done: bool,
    /// Elements asked for at once; grows where a bucket holds more.
    batch: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(map: &'a Map) -> Self {
        Self {
            map,
            cursor: [0; 4],
            first: true,
            done: false,
            batch: CT_WALK_BATCH_MAX,
        }
    }

    /// The next elements; None at the end.
    pub(super) fn step<K: Plain>(&mut self) -> Result<Option<Vec<(K, CtEntry)>>, DatapathError> {
        if self.done {
            return Ok(None);
        }
        let (key_size, value_size) = (size_of::<K>(), self.map.value_size);
        let mut keys = vec![0u8; key_size * self.batch];
        let mut values = vec![0u8; value_size * self.batch];
        let result = sys::map_lookup_batch(
            self.map.fd(),
            self.first,
            &mut self.cursor,
            &mut keys,
            &mut values,
            self.batch,
        );
        let batch = match result {
            Ok(batch) => batch,
            // A bucket holds more than was asked for: ask again for more.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                self.batch *= 2;
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(kernel(format!("walk of map {}", self.map.name))(error)),
        };
        self.first = false;
        self.done = batch.last;
        let keys = keys.chunks_exact(key_size).take(batch.count);
        let values = values.chunks_exact(value_size);
        Ok(Some(
            keys.zip(values)
                .map(|(key, value)| (value_of(key), prefix_of(value)))
                .collect(),
        ))
    }
}

/// Calls `each` for every flow until it says stop (false).
pub(crate) fn for_each(
    shared: &Shared,
    each: &mut dyn FnMut(CtFlow) -> bool,
) -> Result<(), DatapathError> {
    let now = ticks::now(&shared.programs)?;
    for (name, is_v6, half) in MAPS {
        let map = shared.maps.of(name);
        let go_on = if is_v6 {
            walk_map::<CtKey6>(map, half, now, each)?
        } else {
            walk_map::<CtKey4>(map, half, now, each)?
        };
        if !go_on {
            break;
        }
    }
    Ok(())
}

fn walk_map<K: Key>(
    map: &Map,
    half: bool,
    now: u64,
    each: &mut dyn FnMut(CtFlow) -> bool,
) -> Result<bool, DatapathError> {
    let ticks_per_second = u64::from(super::settings::ticks_per_second());
    let mut walk = Walk::new(map);
    while let Some(batch) = walk.step::<K>()? {
        for (key, entry) in batch {
            let ([local, remote], ports, proto, kind) = key.parts();
            let [local_port, remote_port] = ports.map(u16::from_be);
            let flow = CtFlow {
                local,
                remote,
                local_port,
                remote_port,
                proto,
                kind,
                half,
                flags: entry.flags,
                epoch: entry.judged.epoch(),
                cell: entry.judged.cell(),
                identity: entry.identity,
                expires_s: entry.expires_jiffies.saturating_sub(now) / ticks_per_second,
                packets: entry.packets,
                bytes: entry.bytes,
            };
            if !each(flow) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
