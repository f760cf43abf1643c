//! What tells two maps of prefixes apart, against a plain reading of both.

use std::net::Ipv4Addr;

use imbl::OrdMap;
use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::{changed_entries, changed_prefixes, same_answers};
use crate::identity::{IdentityIndex, IdentityNumber, IpcacheEntry};

type Want = OrdMap<Ipv4Net, IpcacheEntry>;

/// Prefixes over five bits of address, so that they nest and collide.
fn want() -> impl Strategy<Value = Want> {
    let prefix = (0u32..32, 0u8..=5).prop_map(|(bits, len)| {
        let net = Ipv4Net::new(Ipv4Addr::from(bits << 27), len);
        net.expect("a length below 33").trunc()
    });
    let entry = (1u32..4).prop_map(|number| IpcacheEntry {
        identity: IdentityNumber(number + 100),
        index: IdentityIndex(number),
    });
    proptest::collection::btree_map(prefix, entry, 0..12).prop_map(Want::from_iter)
}

fn answer(want: &Want, address: Ipv4Addr) -> Option<IpcacheEntry> {
    let covers = want.iter().filter(|(prefix, _)| prefix.contains(&address));
    let longest = covers.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.map(|(_, entry)| *entry)
}

proptest! {
    #[test]
    fn answers_are_the_same_only_where_every_address_has_one(one in want(), other in want()) {
        let mut addresses = (0u32..32).map(|bits| Ipv4Addr::from((bits << 27) | 7));
        let alike = addresses.all(|address| answer(&one, address) == answer(&other, address));
        prop_assert!(alike || !same_answers(&one, &other));
        prop_assert!(same_answers(&one, &one.clone()));
    }

    #[test]
    fn what_changed_makes_one_map_of_the_other(one in want(), other in want()) {
        let mut made = one.clone();
        let changed = changed_prefixes(&one, &other, 64).expect("few");
        for prefix in &changed {
            match other.get(prefix) {
                Some(entry) => drop(made.insert(*prefix, *entry)),
                None => drop(made.remove(prefix)),
            }
        }
        prop_assert_eq!(&made, &other);
        prop_assert!(changed.is_sorted());        let come = changed.iter().filter(|net| other.contains_key(*net)).count();
        prop_assert_eq!(changed_entries(&one, &other).count(), come);
prop_assert!(changed.is_empty() || changed_prefixes(&one, &other, changed.len() - 1).is_none());
    }
}
