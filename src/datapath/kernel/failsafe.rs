//! The degraded-mode list in its trie, both slots side by side.

use std::collections::BTreeSet;

use ipnet::IpNet;
use palisade_abi::settings::{FAILSAFE_MAX, FailsafeKey};

use super::maps::{Map, TrieKey};
use crate::datapath::DatapathError;
use crate::policy::FailsafeEntry;

/// An entry of the trie, in an order: (slot, direction, proto, family, port,
/// prefix length, peer).
type Entry = (u8, u8, u8, u8, u16, u32, [u32; 4]);

fn key(entry: &Entry) -> TrieKey<FailsafeKey> {
    let (slot, direction, proto, family, port, prefix_len, peer) = *entry;
    TrieKey {
        prefix_len,
        address: FailsafeKey {
            slot,
            direction,
            proto,
            family,
            port,
            pad: 0,
            peer,
        },
    }
}

fn entry(key: &TrieKey<FailsafeKey>) -> Entry {
    let it = key.address;
    (
        it.slot,
        it.direction,
        it.proto,
        it.family,
        it.port,
        key.prefix_len,
        it.peer,
    )
}

/// The entries of the list; one for every peer stands once for each family.
fn entries(slot: u32, list: &[FailsafeEntry]) -> BTreeSet<Entry> {
    let mut out = BTreeSet::new();
    for it in list {
        let peers = match it.peer {
            Some(peer) => vec![peer],
            None => vec![
                IpNet::V4(ipnet::Ipv4Net::default()),
                IpNet::V6(ipnet::Ipv6Net::default()),
            ],
        };
        for net in peers {
            let (family, peer) = match net {
                IpNet::V4(net) => (4, [u32::from_ne_bytes(net.network().octets()), 0, 0, 0]),
                IpNet::V6(net) => (6, words(net.network().octets())),
            };
            out.insert((
                u8::try_from(slot & 1).unwrap_or(0),
                u8::try_from(it.direction & 1).unwrap_or(0),
                it.proto,
                family,
                it.port,
                FailsafeKey::EXACT_BITS + u32::from(net.prefix_len()),
                peer,
            ));
        }
    }
    out
}

/// An IPv6 address as the four words in which it stands in a packet.
pub(crate) fn words(octets: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|word| {
        let at = word * 4;
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    })
}

/// The IPv6 address of the four words in which it stands in a packet.
#[must_use]
pub fn octets(words: [u32; 4]) -> [u8; 16] {
    std::array::from_fn(|at| words[at / 4].to_ne_bytes()[at % 4])
}

fn held(map: &Map) -> Result<BTreeSet<Entry>, DatapathError> {
    let keys = map.keys::<TrieKey<FailsafeKey>>();
    keys.map(|key| key.map(|key| entry(&key))).collect()
}

fn of_slot(all: &BTreeSet<Entry>, slot: u32) -> BTreeSet<Entry> {
    all.iter()
        .filter(|entry| u32::from(entry.0) == slot)
        .copied()
        .collect()
}

/// Refuses a list that has no room beside the other slot's.
pub(crate) fn check(map: &Map, slot: u32, list: &[FailsafeEntry]) -> Result<(), DatapathError> {
    let needed = entries(slot, list).len() + of_slot(&held(map)?, 1 - slot).len();
    let max = FAILSAFE_MAX as usize;
    if needed > max {
        return Err(DatapathError::DoesNotFit {
            what: "failsafe entries (of both generations and families)",
            needed,
            max,
        });
    }
    Ok(())
}

/// Makes the slot's list equal to `list`. Writes.
pub(crate) fn write(map: &Map, slot: u32, list: &[FailsafeEntry]) -> Result<usize, DatapathError> {
    let held = of_slot(&held(map)?, slot);
    let wanted = entries(slot, list);
    for gone in held.difference(&wanted) {
        map.remove(&key(gone))?;
    }
    for new in wanted.difference(&held) {
        map.put(&key(new), &1u32)?;
    }
    Ok(held.symmetric_difference(&wanted).count())
}

/// Whether the slot's list equals `list`.
pub(crate) fn holds(map: &Map, slot: u32, list: &[FailsafeEntry]) -> Result<bool, DatapathError> {
    Ok(of_slot(&held(map)?, slot) == entries(slot, list))
}

/// Whether both slots have the same list.
pub(crate) fn slots_agree(map: &Map) -> Result<bool, DatapathError> {
    let all = held(map)?;
    let plain = |slot| {
        of_slot(&all, slot).into_iter().map(|mut entry| {
            entry.0 = 0;
            entry
        })
    };
    Ok(plain(0).eq(plain(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_octets_are_the_same_address() {
        let address = *b"0123456789abcdef";
        assert_eq!(octets(words(address)), address);
        assert_eq!(words(address)[0].to_ne_bytes(), *b"0123");
    }

    #[test]
    fn an_entry_for_every_peer_stands_once_for_each_family() {
        let list = [FailsafeEntry {
            direction: 0,
            proto: 6,
            port: 22,
            peer: None,
        }];
        let families: Vec<u8> = entries(1, &list).iter().map(|entry| entry.3).collect();
        assert_eq!(families, [4, 6]);
    }

    #[test]
    fn an_entry_keeps_its_network_only() {
        let list = [FailsafeEntry {
            direction: 1,
            proto: 6,
            port: 443,
            peer: Some("10.1.2.3/8".parse().expect("a CIDR")),
        }];
        let all = entries(0, &list);
        let key = key(all.first().expect("one entry"));
        assert_eq!(key.prefix_len, FailsafeKey::EXACT_BITS + 8);
        assert_eq!(key.address.peer[0].to_ne_bytes(), [10, 0, 0, 0]);
        assert_eq!(
            (key.address.direction, key.address.proto, key.address.port),
            (1, 6, 443)
        );
    }
}
