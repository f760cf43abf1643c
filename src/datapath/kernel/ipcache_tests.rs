//! The two-slot ipcache against a naive model: two plain prefix maps.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use imbl::OrdMap;
use ipnet::Ipv4Net;
use palisade_abi::table::IpcacheValue;
use proptest::prelude::*;

use super::ipcache::Shadow;
use crate::identity::{IdentityIndex, IdentityNumber, IpcacheEntry};

type Want = OrdMap<Ipv4Net, IpcacheEntry>;

/// Prefixes over six bits of address, so that they nest and collide.
fn prefix() -> impl Strategy<Value = Ipv4Net> {
    (0u32..64, 0u8..=6).prop_map(|(bits, len)| {
        Ipv4Net::new(Ipv4Addr::from(bits << 26), len)
            .expect("a length below 33")
            .trunc()
    })
}

fn want() -> impl Strategy<Value = Want> {
    proptest::collection::btree_map(prefix(), 1u32..5, 0..12).prop_map(|map| {
        map.into_iter()
            .map(|(prefix, number)| {
                let entry = IpcacheEntry {
                    identity: IdentityNumber(number + 100),
                    index: IdentityIndex(number),
                };
                (prefix, entry)
            })
            .collect()
    })
}

/// What the trie answers for an address in a slot.
fn answer(trie: &BTreeMap<Ipv4Net, IpcacheValue>, slot: usize, address: Ipv4Addr) -> (u32, u32) {
    let covers = trie.iter().filter(|(prefix, _)| prefix.contains(&address));
    let longest = covers.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.map_or((0, 0), |(_, value)| {
        (value.identity[slot], value.index[slot])
    })
}

/// What a plain map answers.
fn plain_answer(want: &Want, address: Ipv4Addr) -> (u32, u32) {
    let covers = want.iter().filter(|(prefix, _)| prefix.contains(&address));
    let longest = covers.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.map_or((0, 0), |(_, entry)| (entry.identity.0, entry.index.0))
}

fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0u32..64).map(|bits| Ipv4Addr::from(bits << 26 | 7))
}

/// Writes a plan one step at a time; after each step `current` must be unchanged.
fn apply(shadow: &mut Shadow<Ipv4Net>, slot: usize, want: &Want, current: &Want) {
    let plan = shadow.plan(slot, want);
    let unchanged = |shadow: &Shadow<Ipv4Net>, step: &str| {
        for address in addresses() {
            let is = answer(&shadow.0, 1 - slot, address);
            assert_eq!(is, plain_answer(current, address), "{address} after {step}");
        }
    };
    let before = shadow.0.len();
    let new = plan
        .puts
        .iter()
        .filter(|(prefix, _)| !shadow.0.contains_key(prefix))
        .count();
    assert_eq!(plan.peak, before + new);
    for (prefix, value) in &plan.puts {
        shadow.0.insert(*prefix, *value);
        unchanged(shadow, &format!("put {prefix}"));
    }
    for prefix in &plan.removes {
        shadow.0.remove(prefix);
        unchanged(shadow, &format!("remove {prefix}"));
    }
}

proptest! {
    #[test]
    fn each_slot_answers_as_a_trie_of_its_own(generations in proptest::collection::vec(want(), 1..8)) {
        let mut shadow = Shadow::default();
        let mut views = [Want::new(), Want::new()];
        let mut slot = 1;
        for want in generations {
            apply(&mut shadow, slot, &want, &views[1 - slot]);
            for address in addresses() {
                prop_assert_eq!(answer(&shadow.0, slot, address), plain_answer(&want, address));
            }
            prop_assert!(shadow.holds(slot, &want));
            let again = shadow.plan(slot, &want);
            prop_assert!(again.puts.is_empty() && again.removes.is_empty(), "{:?}", again);
            views[slot] = want;
            slot = 1 - slot;
        }
        // Nothing is left in the trie that neither slot needs.
        let empty = Want::new();
        apply(&mut shadow, slot, &empty, &views[1 - slot]);
        views[slot].clear();
        apply(&mut shadow, 1 - slot, &empty, &views[slot]);
        prop_assert!(shadow.0.is_empty(), "{:?}", shadow.0);
    }

    #[test]
    fn holds_is_true_only_for_equal_answers(one in want(), other in want()) {
        let mut shadow = Shadow::default();
        apply(&mut shadow, 0, &one, &Want::new());
        prop_assert!(shadow.holds(0, &one));
        let equal = addresses().all(|at| plain_answer(&one, at) == plain_answer(&other, at));
        // Two halves answer as the whole does, but are not taken for it: that
        // costs a write too many, never one too few.
        prop_assert!(equal || !shadow.holds(0, &other));
    }

    #[test]
    fn the_slots_agree_only_when_they_answer_alike(one in want(), other in want()) {
        let mut shadow = Shadow::default();
        apply(&mut shadow, 0, &one, &Want::new());
        apply(&mut shadow, 1, &other, &one);
        let equal = addresses().all(|at| plain_answer(&one, at) == plain_answer(&other, at));
        prop_assert!(equal || !shadow.slots_agree());
        apply(&mut shadow, 1, &one, &one);
        prop_assert!(shadow.slots_agree());
    }

    #[test]
    fn a_dump_means_the_same_as_the_trie(want in want()) {
        let mut shadow = Shadow::default();
        apply(&mut shadow, 0, &want, &Want::new());
        let dumped: Want = shadow
            .meaningful(0)
            .into_iter()
            .map(|(prefix, (identity, index))| {
                let entry = IpcacheEntry {
                    identity: IdentityNumber(identity),
                    index: IdentityIndex(index),
                };
                (prefix, entry)
            })
            .collect();
        for address in addresses() {
            prop_assert_eq!(plain_answer(&dumped, address), plain_answer(&want, address));
        }
    }
}
