//! Stage, commit, flip: what is read back is what was given.

use imbl::OrdMap;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use palisade::datapath::{Datapath, DatapathSettings};
use palisade::events::Revision;
use palisade::identity::{IdentityIndex, IdentityNumber, IpcacheEntry};
use palisade::policy::{Direction, FailsafeEntry};
use palisade_abi::table::{action, class};
use proptest::test_runner::{Config, TestRunner};

use super::build::{RULE, generation, prefixes4, prefixes6, tcp_ports, watched};
use super::guard::in_world;

#[test]
fn a_flip_makes_the_staged_tables_current_and_nothing_before_it() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let inspector = datapath.inspector();
        assert_eq!(datapath.realized(), None);
        let first = generation(3, Some(tcp_ports(&[22])), None);
        let report = datapath.stage(&first).expect("stage");
        assert!(
            report.writes > 0 && report.rows == 4 && report.prefixes == 2,
            "{report:?}"
        );
        assert_eq!(inspector.commit_state().generation.0, 0);
        let realized = datapath.commit().expect("commit");
        assert_eq!(
            (realized.generation.0, realized.revision, realized.enforced),
            (1, Revision(3), [true, false])
        );
        let state = inspector.commit_state();
        assert_eq!(
            (state.slot, state.epoch, state.enforced),
            (1, 1, [true, false])
        );
        let table = inspector.table(Direction::Ingress).expect("table");
        assert_eq!(table.lookup(1, class::TCP, 22).rule(), RULE);
        assert_eq!(table.lookup(1, class::TCP, 23).action(), action::NO_MATCH);
        assert_eq!(table.lookup(0, class::TCP, 22).action(), action::NO_MATCH);
        assert_eq!(
            table.lookup(99_999, class::UDP, 65_535).action(),
            action::NO_MATCH
        );
        // Staging the next one leaves the current one alone.
        let second = generation(4, Some(tcp_ports(&[80])), Some(tcp_ports(&[])));
        datapath.stage(&second).expect("stage");
        assert_eq!(inspector.table(Direction::Ingress).expect("table"), table);
        assert_eq!(inspector.verify().expect("verify"), [""; 0]);
        let realized = datapath.commit().expect("commit");
        assert_eq!(
            (realized.generation.0, realized.enforced),
            (2, [true, true])
        );
        let table = inspector.table(Direction::Ingress).expect("table");
        assert_eq!(table.lookup(1, class::TCP, 80).action(), action::ALLOW);
        assert_eq!(table.lookup(1, class::TCP, 22).action(), action::NO_MATCH);
        assert_eq!(
            (
                inspector.commit_state().slot,
                inspector.commit_state().epoch
            ),
            (0, 2)
        );
        assert_eq!(inspector.verify().expect("verify"), [""; 0]);
    });
}

#[test]
fn the_same_again_writes_nothing_and_keeps_the_epoch() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let inspector = datapath.inspector();
        for revision in 1..=2 {
            datapath
                .stage(&generation(revision, Some(tcp_ports(&[22])), None))
                .expect("stage");
            datapath.commit().expect("commit");
        }
        assert_eq!(
            inspector.commit_state().epoch,
            1,
            "the second changed no verdict"
        );
        let same = generation(3, Some(tcp_ports(&[22])), None);
        assert_eq!(datapath.stage(&same).expect("stage").writes, 0);
        assert!(datapath.matches_current(&same).expect("compare"));
        assert_eq!(
            datapath.adopt(Revision(3)).expect("adopt").revision,
            Revision(3)
        );
        assert_eq!(datapath.realized().expect("realized").revision, Revision(3));
        assert_eq!(
            inspector.realized().expect("read").expect("some").revision,
            Revision(3)
        );
        let other = generation(4, Some(tcp_ports(&[23])), None);
        assert!(!datapath.matches_current(&other).expect("compare"));
        let open = generation(4, None, None);
        assert!(!datapath.matches_current(&open).expect("compare"));
    });
}

#[test]
fn every_kind_of_change_moves_the_epoch() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let inspector = datapath.inspector();
        let base = || generation(1, Some(tcp_ports(&[22])), None);
        let mut commit = |generation| {
            datapath.stage(&generation).expect("stage");
            datapath.commit().expect("commit");
            inspector.commit_state().epoch
        };
        assert_eq!(commit(base()), 1);
        let mut changed = base();
        changed.ipcache4 = prefixes4(&[("0.0.0.0/0", 200, 1), ("10.0.0.0/8", 201, 0)]);
        assert_eq!(commit(changed), 2, "an identity");
        assert_eq!(commit(base()), 3, "and back");
        let mut changed = base();
        let entry = FailsafeEntry {
            direction: 0,
            proto: 6,
            port: 22,
            peer: None,
        };
        let settings = DatapathSettings {
            failsafe: vec![entry],
            ..DatapathSettings::default()
        };
        changed.settings = Arc::new(settings);
        assert_eq!(commit(changed.clone()), 4, "the failsafe list");
        assert_eq!(commit(changed), 4, "the same list again");
        assert_eq!(commit(generation(1, None, None)), 5, "enforcement");
    });
}

/// From the first look at a direction to its enforcement and back: the commit
/// word says it, the epoch moves, and a restart finds the same.
#[test]
fn a_watched_direction_is_told_from_an_enforced_one() {
    in_world(|world| {
        let enforcing = || generation(1, Some(tcp_ports(&[22])), None);
        let watching = || watched(enforcing());
        let (mut datapath, _) = world.open();
        let inspector = datapath.inspector();
        let steps = [
            (generation(1, None, None), [false; 2], [false; 2]),
            (watching(), [false; 2], [true, false]),
            (enforcing(), [true, false], [false; 2]),
            (watching(), [false; 2], [true, false]),
        ];
        for (step, (next, enforced, watched)) in (1u32..).zip(steps) {
            assert!(!datapath.matches_current(&next).expect("compare"), "{step}");
            datapath.stage(&next).expect("stage");
            let realized = datapath.commit().expect("commit");
            assert_eq!((realized.enforced, realized.watched), (enforced, watched));
            let state = inspector.commit_state();
            assert_eq!((state.enforced, state.watched), (enforced, watched));
            assert_eq!(state.epoch, step, "every flow is judged again");
            let adopted = datapath.adoption().is_some();
            assert_eq!(adopted, step > 1, "running connections are entered");
            assert!(datapath.matches_current(&next).expect("compare"), "{step}");
        }
        let realized = datapath.realized();
        drop((datapath, inspector));
        let (mut datapath, report) = world.open();
        assert_eq!((report.adopted, datapath.realized()), (realized, realized));
        assert!(datapath.matches_current(&watching()).expect("compare"));
        assert!(!datapath.matches_current(&enforcing()).expect("compare"));
    });
}

#[test]
fn a_new_prefix_means_nothing_new_until_the_flip() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let inspector = datapath.inspector();
        let mut first = generation(1, Some(tcp_ports(&[22])), None);
        first.ipcache4 = prefixes4(&[("0.0.0.0/0", 2, 0), ("10.0.0.0/8", 100, 1)]);
        datapath.stage(&first).expect("stage");
        datapath.commit().expect("commit");
        let dump = || -> Vec<(String, u32)> {
            let dump = inspector.ipcache().expect("dump");
            dump.into_iter()
                .map(|it| (it.prefix.to_string(), it.identity.0))
                .collect()
        };
        let before = dump();
        let mut second = generation(2, Some(tcp_ports(&[22])), None);
        let wanted = [
            ("0.0.0.0/0", 2, 0),
            ("10.1.0.0/16", 101, 1),
            ("192.0.2.7/32", 102, 1),
        ];
        second.ipcache4 = prefixes4(&wanted);
        second.ipcache6 = prefixes6(&[("::/0", 2, 0), ("fd00::/8", 103, 1)]);
        datapath.stage(&second).expect("stage");
        assert_eq!(dump(), before);
        datapath.commit().expect("commit");
        let expected: Vec<(String, u32)> = [
            ("0.0.0.0/0", 2),
            ("10.1.0.0/16", 101),
            ("192.0.2.7/32", 102),
            ("::/0", 2),
            ("fd00::/8", 103),
        ]
        .into_iter()
        .map(|(prefix, identity)| (prefix.to_owned(), identity))
        .collect();
        assert_eq!(dump(), expected);
    });
}

#[test]
fn random_sequences_of_prefixes_read_back_as_given() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let inspector = datapath.inspector();
        let prefix = (0u32..64, 0u8..=6);
        let one = proptest::collection::btree_map(prefix, 1u32..5, 0..12);
        let mut runner = TestRunner::new(Config {
            cases: 40,
            failure_persistence: None,
            ..Config::default()
        });
        let datapath = std::cell::RefCell::new(&mut datapath);
        let run = runner.run(&one, |map| {
            let want: OrdMap<Ipv4Net, IpcacheEntry> = map
                .into_iter()
                .map(|((bits, len), number)| {
                    let net = Ipv4Net::new((bits << 26).into(), len)
                        .expect("a length")
                        .trunc();
                    let entry = IpcacheEntry {
                        identity: IdentityNumber(number),
                        index: IdentityIndex(number),
                    };
                    (net, entry)
                })
                .collect();
            let mut next = generation(1, None, None);
            next.ipcache4 = want.clone();
            let mut datapath = datapath.borrow_mut();
            datapath.stage(&next).expect("stage");
            datapath.commit().expect("commit");
            assert!(datapath.matches_current(&next).expect("compare"));
            let dump = inspector.ipcache().expect("dump");
            let dumped: BTreeMap<Ipv4Net, u32> = dump
                .iter()
                .filter_map(|it| match it.prefix {
                    IpNet::V4(net) => Some((net, it.identity.0)),
                    IpNet::V6(_) => None,
                })
                .collect();
            let answer =
                |address: std::net::Ipv4Addr, of: &dyn Fn(&Ipv4Net) -> u32, keys: Vec<Ipv4Net>| {
                    let covers = keys.into_iter().filter(|net| net.contains(&address));
                    covers
                        .max_by_key(Ipv4Net::prefix_len)
                        .map_or(0, |net| of(&net))
                };
            for bits in 0..64u32 {
                let address = (bits << 26 | 5).into();
                let given = answer(
                    address,
                    &|net| want[net].identity.0,
                    want.keys().copied().collect(),
                );
                let held = answer(
                    address,
                    &|net| dumped[net],
                    dumped.keys().copied().collect(),
                );
                assert_eq!(held, given, "{address}");
            }
            Ok(())
        });
        run.expect("every sequence");
    });
}

#[test]
fn a_changed_table_is_noticed() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        datapath
            .stage(&generation(1, Some(tcp_ports(&[22])), None))
            .expect("stage");
        datapath.commit().expect("commit");
        let inspector = datapath.inspector();
        let settings = world
            .dir()
            .join(format!("pal_settings_v{}", palisade_abi::ABI_VERSION));
        let mut map = aya::maps::Array::<_, [u32; 8]>::try_from(aya::maps::Map::Array(
            aya::maps::MapData::from_pin(settings).expect("the map"),
        ))
        .expect("an array");
        let slot = inspector.commit_state().slot;
        map.set(slot, [1; 8], 0).expect("tamper");
        let problems = inspector.verify().expect("verify");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("not what was committed"),
            "{problems:?}"
        );
    });
}

#[test]
fn a_changed_block_is_noticed() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let staged = datapath
            .stage(&generation(1, Some(tcp_ports(&[22])), None))
            .expect("stage");
        assert_eq!(staged.blocks, 1);
        datapath.commit().expect("commit");
        let inspector = datapath.inspector();
        let table = inspector.table(Direction::Ingress).expect("table");
        let (place, mut block) = table.blocks.into_iter().next().expect("a block");
        block[0] ^= action::ALLOW;
        let blocks = world
            .dir()
            .join(format!("pal_blocks_v{}", palisade_abi::ABI_VERSION));
        let mut map = aya::maps::Array::<_, [u32; 16]>::try_from(aya::maps::Map::Array(
            aya::maps::MapData::from_pin(blocks).expect("the map"),
        ))
        .expect("an array");
        let slot = inspector.commit_state().slot;
        let element = palisade_abi::table::blocks_element(slot, place);
        map.set(element, block, 0).expect("tamper");
        let problems = inspector.verify().expect("verify");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("not what was committed"),
            "{problems:?}"
        );
    });
}
