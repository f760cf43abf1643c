//! What does not fit is refused whole, with the numbers, before anything is written.

use imbl::OrdMap;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use palisade::datapath::{Datapath, DatapathError, DatapathSettings, Generation};
use palisade::identity::{IdentityIndex, IdentityNumber, IpcacheEntry};
use palisade::policy::{FailsafeEntry, KEYS, Row, VerdictTable};
use palisade_abi::table::{BLOCKS_MAX, Cell, IDENTITIES_MAX, IPCACHE_MAX, RULES_MAX, action};

use super::build::{generation, tcp_ports};
use super::guard::in_world;

fn ingress(change: impl FnOnce(&mut VerdictTable)) -> Generation {
    let mut table = tcp_ports(&[22]);
    change(&mut table);
    generation(9, Some(table), None)
}

fn with_ipcache(ipcache4: OrdMap<Ipv4Net, IpcacheEntry>) -> Generation {
    Generation {
        ipcache4,
        ..generation(9, None, None)
    }
}

/// A row of five blocks that no other number has.
fn five_blocks(number: u32) -> Row {
    let cell = |rule| Cell::new(action::ALLOW, false, rule);
    let mut runs = Vec::new();
    for part in 0..4 {
        for place in 0..3 {
            let from = 4_096 * part + 100 * place;
            let own = [number / 1_024 + 2_000 + 500 * part, number % 1_024];
            runs.push((from..from + 50, cell(own[0])));
            runs.push((from + 50..from + 100, cell(own[1])));
        }
        runs.push((4_096 * part + 300..4_096 * (part + 1), cell(0)));
    }
    runs.push((4 * 4_096..KEYS, cell(0)));
    Row::of(&runs)
}

fn too_much() -> Vec<(&'static str, Generation)> {
    let entry = |index| IpcacheEntry {
        identity: IdentityNumber(300),
        index: IdentityIndex(index),
    };
    let hosts =
        (0..=IPCACHE_MAX).map(|host| (Ipv4Net::from(std::net::Ipv4Addr::from(host)), entry(1)));
    let hosts6 = (0..=IPCACHE_MAX).map(|host| {
        (
            Ipv6Net::from(std::net::Ipv6Addr::from(u128::from(host))),
            entry(1),
        )
    });
    let failsafe = FailsafeEntry {
        direction: 0,
        proto: 6,
        port: 0,
        peer: None,
    };
    let list = (0..1_025)
        .map(|port| FailsafeEntry {
            port,
            ..failsafe.clone()
        })
        .collect();
    let settings = DatapathSettings {
        failsafe: list,
        ..DatapathSettings::default()
    };
    let largest = u32::try_from(IDENTITIES_MAX).expect("fits");
    vec![
        (
            "blocks",
            ingress(|table| {
                let rows = (0..=BLOCKS_MAX / 5).map(five_blocks);
                table.rows = (0..).map(IdentityIndex).zip(rows).collect();
            }),
        ),
        (
            "identities",
            ingress(|table| {
                let row = table.row(IdentityIndex(0)).cloned().expect("a row");
                table.rows.insert(IdentityIndex(largest), row);
            }),
        ),
        (
            "rule",
            ingress(|table| {
                let cell = Cell::new(action::ALLOW, false, RULES_MAX);
                table.rows.insert(IdentityIndex(0), Row::All(cell));
            }),
        ),
        (
            "identity indexes",
            with_ipcache(OrdMap::unit(Ipv4Net::default(), entry(largest))),
        ),
        ("IPv4 prefixes", with_ipcache(hosts.collect())),
        (
            "IPv6 prefixes",
            Generation {
                ipcache6: hosts6.collect(),
                ..generation(9, None, None)
            },
        ),
        (
            "failsafe",
            Generation {
                settings: Arc::new(settings),
                ..generation(9, None, None)
            },
        ),
        (
            "endpoints",
            Generation {
                endpoints: Vec::new(),
                ..generation(9, None, None)
            },
        ),
    ]
}

#[test]
fn a_generation_that_does_not_fit_changes_nothing() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let good = generation(1, Some(tcp_ports(&[22])), None);
        for _ in 0..2 {
            datapath.stage(&good).expect("stage");
            datapath.commit().expect("commit");
        }
        let state = datapath.inspector().commit_state();
        for (what, generation) in too_much() {
            let error = datapath.stage(&generation).expect_err(what);
            let DatapathError::DoesNotFit {
                what: named,
                needed,
                max,
            } = &error
            else {
                panic!("{what}: {error}");
            };
            assert!(named.contains(what), "{what}: {error}");
            assert!(what == "endpoints" || needed > max, "{error}");
            datapath.commit().expect_err("nothing is staged");
            assert_eq!(datapath.inspector().commit_state(), state);
            assert!(datapath.matches_current(&good).expect("compare"));
            // Neither slot was written.
            assert_eq!(datapath.stage(&good).expect("stage").writes, 0, "{what}");
        }
    });
}

#[test]
fn a_table_that_points_outside_of_itself_is_refused() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        let all = Row::All(Cell::default());
        let misshapen = [
            vec![(0, all.clone()), (0, all.clone())],
            vec![(0, all.clone()), (KEYS, all.clone())],
            vec![(0, all)],
        ];
        for row in misshapen {
            let generation =
                ingress(|table| drop(table.rows.insert(IdentityIndex(1), Row::Block(row.into()))));
            let error = datapath.stage(&generation).expect_err("outside");
            assert!(error.to_string().contains("points outside"), "{error}");
        }
    });
}
