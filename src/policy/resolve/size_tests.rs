//! Large tables: what they cost, and what does not fit.

use super::tests::{HOST, cell, runs, show, tcp};
use super::{ResolveError, Resolver, resolve};
use crate::policy::Direction::Ingress;
use crate::policy::Repository;
use crate::policy::repository::tests::{options, policy};

/// `peers` prefixes with a port of their own each, in policies of a few.
fn pairs(peers: u32) -> Repository {
    let mut repository = Repository::new(options());
    for first in (0..peers).step_by(500) {
        let mut spec = "nodeSelector: {}\ningress:\n".to_owned();
        for peer in first..peers.min(first + 500) {
            let [_, b, c, d] = peer.to_be_bytes();
            spec.push_str(&format!(
                "- fromCIDR: [10.{b}.{c}.{d}/32]\n  toPorts: [{{ports: [{{port: {}, protocol: \
                 TCP}}]}}]\n",
                peer + 1
            ));
        }
        repository.apply(&policy(&format!("p{first:05}"), &spec));
    }
    repository
}

#[test]
fn ten_thousand_peers_with_a_port_of_their_own_fit() {
    let peers = 10_000;
    let snapshot = pairs(peers).snapshot();
    let endpoint = resolve(&snapshot, HOST, false).expect("fits");
    let table = &endpoint.direction(Ingress).table;
    // Besides: the peers that nothing selects. Each other row is one block.
    assert_eq!(table.different_rows().0.len(), peers as usize + 1);
    assert_eq!(table.block_count(), peers as usize);
    for peer in [0u32, 1, 4_999, 9_999] {
        let [_, b, c, d] = peer.to_be_bytes();
        let address = format!("10.{b}.{c}.{d}");
        let ask = |port| {
            let found = cell(&snapshot, &endpoint, Ingress, &address, tcp(port));
            show(&snapshot, found)
        };
        let own = u16::try_from(peer + 1).expect("a port");
        let rule = format!("allow p{:05} ingress[{}]", peer / 500 * 500, peer % 500);
        assert_eq!(ask(own), rule);
        assert_eq!(ask(own + 1), ask(60_000), "another's port, nobody's port");
    }
}

#[test]
fn what_does_not_fit_is_told_with_the_numbers() {
    let snapshot = pairs(300).snapshot();
    let policy = resolve(&snapshot, HOST, false).expect("fits");
    let needed = policy.directions[0].table.block_count();
    let mut exactly = Resolver::with_blocks(HOST, needed);
    assert_eq!(exactly.resolve(&snapshot, false).as_ref(), Ok(&policy));
    let max = needed - 1;
    let error = Resolver::with_blocks(HOST, max).resolve(&snapshot, false);
    assert_eq!(
        error.expect_err("one block too many"),
        ResolveError::Blocks {
            direction: "ingress",
            rows: 301,
            at_least: true,
            needed,
            max,
        }
    );
    // Where far too much is asked for, it is not computed to its end.
    let error = Resolver::with_blocks(HOST, 50).resolve(&snapshot, false);
    let Err(ResolveError::Blocks {
        at_least: true,
        rows,
        needed,
        ..
    }) = error
    else {
        panic!("{error:?}");
    };
    assert!(rows < 100 && needed > 50, "{rows} rows, {needed} blocks");
    // After a refusal, what fits is resolved as ever.
    let less = pairs(299).snapshot();
    let mut resolver = Resolver::with_blocks(HOST, max);
    resolver.resolve(&snapshot, false).expect_err("too large");
    assert_eq!(resolver.resolve(&less, false), resolve(&less, HOST, false));
}

/// Nested ranges, the narrowest first: each item decides about two runs of ports.
#[test]
fn many_nested_port_ranges_cost_no_square() {
    let ranges = 12_000u32;
    let mut spec = "nodeSelector: {}\ningress:\n".to_owned();
    for number in (1..=ranges).rev() {
        let end = 65_535 - number;
        spec.push_str(&format!(
            "- toPorts: [{{ports: [{{port: {number}, endPort: {end}, protocol: TCP}}]}}]\n"
        ));
    }
    let mut repository = Repository::new(options());
    repository.apply(&policy("p", &spec));
    let snapshot = repository.snapshot();
    let endpoint = resolve(&snapshot, HOST, false).expect("fits");
    // Two runs for each item but the narrowest, two for no match.
    let found = runs(&endpoint.direction(Ingress).table);
    assert_eq!(found, [1, 2 * ranges as usize + 1]);
    for (port, index) in [(1, 11_999), (12_000, 0), (30_000, 0), (65_534, 11_999)] {
        let found = cell(&snapshot, &endpoint, Ingress, "192.0.2.1", tcp(port));
        assert_eq!(show(&snapshot, found), format!("allow p ingress[{index}]"));
    }
}

#[test]
fn every_port_may_have_a_rule_of_its_own() {
    let ports = 65_535u32;
    let mut repository = Repository::new(options());
    for first in (1..=ports).step_by(1_000) {
        let mut spec = "nodeSelector: {}\ningress:\n".to_owned();
        for port in first..(first + 1_000).min(ports + 1) {
            spec.push_str(&format!(
                "- toPorts: [{{ports: [{{port: {port}, protocol: TCP}}]}}]\n"
            ));
        }
        repository.apply(&policy(&format!("p{first:05}"), &spec));
    }
    let snapshot = repository.snapshot();
    let endpoint = resolve(&snapshot, HOST, false).expect("fits");
    let table = &endpoint.direction(Ingress).table;
    // Each port, no match before and behind them.
    assert_eq!(runs(table), [1, ports as usize + 2]);
    assert!(
        table.block_count() < 13_000,
        "{} blocks",
        table.block_count()
    );
    for port in [1u16, 22, 40_000, 65_535] {
        let found = cell(&snapshot, &endpoint, Ingress, "192.0.2.1", tcp(port));
        let (first, index) = ((port - 1) / 1_000 * 1_000 + 1, (port - 1) % 1_000);
        let rule = format!("allow p{first:05} ingress[{index}]");
        assert_eq!(show(&snapshot, found), rule);
    }
    let found = cell(&snapshot, &endpoint, Ingress, "192.0.2.1", tcp(0));
    assert!(!found.passes());
}
