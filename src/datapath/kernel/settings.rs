//! Settings as the programs read them: seconds become jiffies; the VLAN list.

use std::collections::BTreeMap;

use palisade_abi::event::RING_BYTES;
use palisade_abi::settings::{Settings, VLANS_MAX, vlan_key};

use super::maps::Map;
use crate::datapath::{DatapathError, DatapathSettings};
use crate::limits;

/// The tick of the kernel: `bpf_jiffies64` per second. The coarse clock's
/// resolution is one tick by definition, so nothing needs to be measured.
pub(crate) fn ticks_per_second() -> u32 {
    let resolution = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    let tick_ns = u32::try_from(resolution.tv_nsec).unwrap_or(0).max(1);
    (1_000_000_000 + tick_ns / 2) / tick_ns
}

/// Refuses settings that the maps cannot hold.
pub(crate) fn check(settings: &DatapathSettings) -> Result<(), DatapathError> {
    let (needed, max) = (settings.vlan_allow.len(), VLANS_MAX as usize);
    if needed > max {
        return Err(DatapathError::DoesNotFit {
            what: "allowed VLAN ids",
            needed,
            max,
        });
    }
    Ok(())
}

/// The settings of one slot.
pub(crate) fn encode(settings: &DatapathSettings, ticks_per_second: u32) -> Settings {
    let jiffies = |seconds: u32| seconds.saturating_mul(ticks_per_second);
    Settings {
        tcp_established_jiffies: jiffies(settings.tcp_established_s),
        tcp_syn_jiffies: jiffies(settings.tcp_syn_s),
        tcp_close_jiffies: jiffies(settings.tcp_close_s),
        other_jiffies: jiffies(settings.other_s),
        drop_other_ethertypes: u32::from(settings.drop_other_ethertypes),
        event_budget: limits::KERNEL_EVENTS_PER_CPU_S_MAX,
        event_refill_jiffies: ticks_per_second,
        // x86: stores become visible in program order (Intel SDM 3A, 9.2; AMD APM 2, 7.2).
        ordered_stores: u32::from(cfg!(any(target_arch = "x86_64", target_arch = "x86"))),
    }
}

/// Bits of a value in the VLAN map: the slots in which the id is allowed.
pub(crate) const VLAN_BOTH_SLOTS: u32 = 0b11;

/// Makes `slot`'s part of the VLAN map equal to `allowed` ids of any device and
/// leaves the other slot's part, and the ids of sub-devices, alone. Writes.
pub(crate) fn write_vlans(map: &Map, slot: u32, allowed: &[u16]) -> Result<usize, DatapathError> {
    let bit = 1 << slot;
    let mut held = BTreeMap::new();
    for key in map.keys::<u32>() {
        let key = key?;
        held.insert(key, map.get::<u32, u32>(&key)?.unwrap_or(0));
    }
    let wanted: Vec<u32> = allowed
        .iter()
        .map(|id| vlan_key(0, u32::from(*id)))
        .collect();
    let mut writes = 0;
    for key in &wanted {
        let is = held.get(key).copied().unwrap_or(0);
        if is & bit == 0 {
            map.put(key, &(is | bit))?;
            writes += 1;
        }
    }
    let any_device = |key: &u32| key >> 12 == 0;
    for (key, is) in held.into_iter().filter(|(key, _)| any_device(key)) {
        if is & bit == 0 || wanted.contains(&key) {
            continue;
        }
        if is == bit {
            map.remove(&key)?;
        } else {
            map.put(&key, &(is & !bit))?;
        }
        writes += 1;
    }
    Ok(writes)
}

/// Whether `slot`'s part of the VLAN map equals `allowed`.
pub(crate) fn vlans_hold(map: &Map, slot: u32, allowed: &[u16]) -> Result<bool, DatapathError> {
    let mut held = Vec::new();
    for key in map.keys::<u32>() {
        let key = key?;
        let is = map.get::<u32, u32>(&key)?.unwrap_or(0);
        if key >> 12 == 0 && is & (1 << slot) != 0 {
            held.push(key);
        }
    }
    let mut wanted: Vec<u32> = allowed
        .iter()
        .map(|id| vlan_key(0, u32::from(*id)))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    held.sort_unstable();
    Ok(held == wanted)
}

// A second's budget of a busy machine fits the ring buffer between two polls.
const _: () = assert!(limits::KERNEL_EVENTS_PER_CPU_S_MAX as u64 * 80 < RING_BYTES as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_jiffies_and_never_overflow() {
        let settings = DatapathSettings {
            tcp_established_s: u32::MAX,
            ..DatapathSettings::default()
        };
        let encoded = encode(&settings, 250);
        assert_eq!(encoded.tcp_established_jiffies, u32::MAX);
        assert_eq!(encoded.tcp_syn_jiffies, 15_000);
    }
}
