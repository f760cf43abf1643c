//! Plans from differences against plans from a pass over the whole trie.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::{Views, Want};
use crate::datapath::kernel::ipcache::Shadow;
use crate::identity::{IdentityIndex, IdentityNumber, IpcacheEntry};

/// Prefixes over five bits of address, so that they nest and collide.
fn prefix() -> impl Strategy<Value = Ipv4Net> {
    (0u32..32, 0u8..=5).prop_map(|(bits, len)| {
        Ipv4Net::new(Ipv4Addr::from(bits << 27), len)
            .expect("a length below 33")
            .trunc()
    })
}

#[derive(Clone, Debug)]
struct Step {
    changes: Vec<(Ipv4Net, Option<u32>)>,
    /// The other slot's turn, as after a commit.
    turns: bool,
    /// A write failed: what a slot means is not known any more.
    forgets: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (prefix(), proptest::option::weighted(0.6, 1u32..4));
    let changes = proptest::collection::vec(change, 0..5);
    let (turns, forgets) = (proptest::bool::weighted(0.8), proptest::bool::weighted(0.1));
    (changes, turns, forgets).prop_map(|(changes, turns, forgets)| Step {
        changes,
        turns,
        forgets,
    })
}

fn answer(want: &Want<Ipv4Net>, address: Ipv4Addr) -> (u32, u32) {
    let covers = want.iter().filter(|(prefix, _)| prefix.contains(&address));
    let longest = covers.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.map_or((0, 0), |(_, entry)| (entry.identity.0, entry.index.0))
}

fn alike(one: &Want<Ipv4Net>, other: &Want<Ipv4Net>) -> bool {
    let mut addresses = (0u32..32).map(|bits| Ipv4Addr::from(bits << 27 | 7));
    addresses.all(|address| answer(one, address) == answer(other, address))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn differences_give_the_plan_that_the_whole_gives(
        steps in proptest::collection::vec(step(), 1..24)
    ) {
        let mut views = Views::new(Shadow::default());
        let mut want = Want::new();
        let mut meant = [Want::new(), Want::new()];
        let mut slot = 1;
        for step in steps {
            for (prefix, number) in step.changes {
                match number {
                    Some(number) => drop(want.insert(prefix, IpcacheEntry {
                        identity: IdentityNumber(number + 100),
                        index: IdentityIndex(number),
                    })),
                    None => drop(want.remove(&prefix)),
                }
            }
            for (slot, meant) in meant.iter().enumerate() {
                prop_assert!(!views.holds(slot, &want) || alike(meant, &want));
            }
            let plan = views.plan(slot, &want);
            prop_assert_eq!(&plan, &views.shadow.plan(slot, &want));
            for (prefix, value) in &plan.puts {
                views.shadow.0.insert(*prefix, *value);
            }
            for prefix in &plan.removes {
                views.shadow.0.remove(prefix);
            }
            views.know(slot, &want);
            meant[slot] = want.clone();
            prop_assert!(views.holds(slot, &want));
            prop_assert!(views.shadow.holds(slot, &want));
            prop_assert!(views.shadow.holds(1 - slot, &meant[1 - slot]));
            prop_assert!(!views.slots_agree() || alike(&meant[0], &meant[1]));
            if step.turns {
                slot = 1 - slot;
            }
            if step.forgets {
                views.known[slot] = None;
            }
        }
    }
}
