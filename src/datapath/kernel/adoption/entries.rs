//! Turns running flows into conntrack entries.

use std::collections::HashSet;
use std::net::IpAddr;

use palisade_abi::conntrack::{CtEntry, CtKey4, CtKey6, Judged, flags, kind};
use palisade_abi::flows::{ANSWERED, ONE_SIDED};
use palisade_abi::proto;
use palisade_abi::settings::Settings;
use palisade_abi::table::{Cell, action};

use super::{Flow, Opener, Stage, kernel_table, sockets};
use crate::datapath::DatapathError;
use crate::datapath::devices;
use crate::datapath::kernel::failsafe::words;
use crate::datapath::kernel::flows::{FlowTable, Key, Way};
use crate::datapath::kernel::shared::Shared;
use crate::datapath::kernel::ticks;

/// What the adoption did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdoptionReport {
    /// Flows that had no entry.
    pub inserted: usize,
    /// Flows whose direction had been guessed.
    pub corrected: usize,
    /// Flows that were known already.
    pub known: usize,
    /// What could not be read.
    pub warnings: Vec<String>,
}

/// Enters every running flow. Whatever cannot be read is reported and the rest
/// is done: half an adoption saves half of the connections.
pub(crate) fn run(shared: &Shared, epoch: u32) -> AdoptionReport {
    let mut report = AdoptionReport::default();
    let mut flows = sockets::flows().unwrap_or_else(|error| {
        report
            .warnings
            .push(format!("the sockets cannot be listed: {error}"));
        Vec::new()
    });
    let tracked = devices::own_addresses().and_then(|own| kernel_table::flows(&own));
    flows.extend(tracked.unwrap_or_else(|error| {
        report
            .warnings
            .push(format!("the kernel's conntrack cannot be listed: {error}"));
        Vec::new()
    }));
    let result = Writer::new(shared, epoch).and_then(|writer| writer.enter(&flows, &mut report));
    if let Err(error) = result {
        report
            .warnings
            .push(format!("conntrack cannot be written: {error}"));
    }
    report
}

struct Writer<'a> {
    shared: &'a Shared,
    settings: Settings,
    epoch: u32,
    now: u64,
}

/// What became of one flow.
enum Outcome {
    Inserted,
    Corrected,
    Known,
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared, epoch: u32) -> Result<Self, DatapathError> {
        let slot = shared.word.load().slot();
        let settings = shared.settings(slot)?;
        let settings = settings.ok_or_else(|| DatapathError::Other("no settings".to_owned()))?;
        let now = ticks::now(&shared.programs)?;
        Ok(Self {
            shared,
            settings,
            epoch,
            now,
        })
    }

    fn enter(&self, flows: &[Flow], report: &mut AdoptionReport) -> Result<(), DatapathError> {
        // The sockets come first and know best; the same flow is in both lists.
        let mut done = HashSet::new();
        let maps = &self.shared.maps;
        let (v4, v6) = (FlowTable::v4(maps)?, FlowTable::v6(maps)?);
        for flow in flows {
            if !done.insert((
                flow.local,
                flow.local_port,
                flow.remote,
                flow.remote_port,
                flow.proto,
            )) {
                continue;
            }
            let outcome = match (flow.local, flow.remote) {
                (IpAddr::V4(local), IpAddr::V4(remote)) => {
                    let key = CtKey4 {
                        local: u32::from_ne_bytes(local.octets()),
                        remote: u32::from_ne_bytes(remote.octets()),
                        local_port: flow.local_port.to_be(),
                        remote_port: flow.remote_port.to_be(),
                        proto: flow.proto,
                        kind: kind::TUPLE,
                        pad: 0,
                    };
                    self.put(&v4, &key, flow)?
                }
                (IpAddr::V6(local), IpAddr::V6(remote)) => {
                    let key = CtKey6 {
                        local: words(local.octets()),
                        remote: words(remote.octets()),
                        local_port: flow.local_port.to_be(),
                        remote_port: flow.remote_port.to_be(),
                        proto: flow.proto,
                        kind: kind::TUPLE,
                        pad: 0,
                    };
                    self.put(&v6, &key, flow)?
                }
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => continue,
            };
            match outcome {
                Outcome::Inserted => report.inserted += 1,
                Outcome::Corrected => report.corrected += 1,
                Outcome::Known => report.known += 1,
            }
        }
        Ok(())
    }

    fn put<K: Key>(
        &self,
        table: &FlowTable<'_, K>,
        key: &K,
        flow: &Flow,
    ) -> Result<Outcome, DatapathError> {
        let held = table.with(key, self.now, |way, _, held| correct(way, held, flow))?;
        if let Some(outcome) = held {
            return Ok(outcome);
        }
        let (entry, lifetime) = self.entry(flow);
        let kind = if flow.answered { ANSWERED } else { ONE_SIDED };
        let expires = self.now + u64::from(lifetime);
        if table.enter(key, &entry, expires, kind, self.now)? {
            Ok(Outcome::Inserted)
        } else {
            Err(DatapathError::Other(
                "conntrack is being written all the time".to_owned(),
            ))
        }
    }

    /// The entry of a flow, and its lifetime in jiffies.
    fn entry(&self, flow: &Flow) -> (CtEntry, u32) {
        let settings = &self.settings;
        let mut bits = flags::ADOPTED | opener_bits(flow.opener);
        let mut lifetime = settings.other_jiffies;
        if flow.answered {
            bits |= flags::SEEN_REPLY;
        }
        if flow.proto == proto::TCP {
            let (stage_bits, stage_lifetime) = match flow.stage {
                Stage::Opening => (0, settings.tcp_syn_jiffies),
                Stage::Open => (flags::SEEN_NON_SYN, settings.tcp_established_jiffies),
                Stage::Closing => (
                    flags::SEEN_NON_SYN | flags::CLOSING_BOTH,
                    settings.tcp_close_jiffies,
                ),
            };
            bits |= stage_bits;
            lifetime = stage_lifetime;
        }
        let entry = CtEntry {
            flags: bits,
            // Of the epoch that ends with this commit: the next one judges it.
            judged: Judged::new(self.epoch, Cell::new(action::ALLOW, false, 0)),
            identity: 0,
            packets: [0; 2],
            bytes: [0; 2],
        };
        (entry, lifetime)
    }
}

fn opener_bits(opener: Opener) -> u32 {
    match opener {
        Opener::Host => flags::OPENED_EGRESS,
        Opener::Peer => 0,
        Opener::Forwarded => flags::OPENED_EGRESS | flags::UNJUDGED,
    }
}

/// Puts a guessed direction right. The programs may count a packet meanwhile:
/// a lost increment is possible, nothing else.
fn correct(way: &Way<'_>, held: CtEntry, flow: &Flow) -> Outcome {
    if held.flags & flags::GUESSED == 0 {
        return Outcome::Known;
    }
    let direction = flags::OPENED_EGRESS | flags::UNJUDGED;
    let opener = opener_bits(flow.opener);
    way.change_flags(|bits| bits & !(flags::GUESSED | direction) | flags::ADOPTED | opener);
    if (opener ^ held.flags) & flags::OPENED_EGRESS != 0 {
        way.swap_sides();
    }
    Outcome::Corrected
}
