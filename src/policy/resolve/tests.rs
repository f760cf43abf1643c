//! Verdicts of tables, each held against the oracle too.

use palisade_abi::table::{Cell, action, class};

use super::{Subject, resolve};
use crate::events::EndpointId;
use crate::identity::longest_match;
use crate::policy::oracle::{Outcome, judge};
use crate::policy::repository::tests::{node, options, policy, with};
use crate::policy::{
    Direction, EndpointPolicy, EnforcementMode, FailsafeEntry, Packet, PolicyOptions,
    PolicySnapshot, Repository, Verdict, VerdictTable, explain,
};

pub(super) const HOST: Subject = Subject::Host(EndpointId(1));

pub(super) fn tcp(port: u16) -> Packet {
    Packet::Port { proto: 6, port }
}
pub(super) fn udp(port: u16) -> Packet {
    Packet::Port { proto: 17, port }
}
const PING: Packet = Packet::Icmp { icmp_type: 8 };
const PING6: Packet = Packet::Icmpv6 { icmp_type: 128 };
const GRE: Packet = Packet::Other { proto: 47 };

/// Class and key of a packet, as the programs choose them.
fn class_and_key(packet: Packet) -> (u32, u16) {
    let other = |base: u32, value: u8| {
        let key = u16::try_from(base).expect("small") + u16::from(value);
        (class::OTHER, key)
    };
    match packet {
        Packet::Port { proto: 6, port } => (class::TCP, port),
        Packet::Port { proto: 17, port } => (class::UDP, port),
        Packet::Port { proto: 132, port } => (class::SCTP, port),
        Packet::Port { proto, .. } => panic!("protocol {proto} has no ports"),
        Packet::Icmp { icmp_type } => other(class::OTHER_ICMP, icmp_type),
        Packet::Icmpv6 { icmp_type } => other(class::OTHER_ICMPV6, icmp_type),
        Packet::Other { proto } => other(class::OTHER_PROTOCOL, proto),
        Packet::Fragment => other(class::OTHER_FRAGMENT, 0),
    }
}

/// How many runs of keys the different rows of a table have, then everyone's.
pub(super) fn runs(table: &VerdictTable) -> Vec<usize> {
    let (rows, _) = table.different_rows();
    let rows = rows.into_iter().chain([&table.everyone]);
    rows.map(|row| row.runs().len()).collect()
}

/// The cell of a packet, read as the programs read it.
pub(super) fn cell(
    snapshot: &PolicySnapshot,
    endpoint: &EndpointPolicy,
    direction: Direction,
    address: &str,
    packet: Packet,
) -> Cell {
    let address = address.parse().expect("an address");
    let entry = longest_match(&snapshot.ipcache4, &snapshot.ipcache6, address);
    let index = entry.map(|(_, entry)| entry.index).unwrap_or_default();
    let (class, key) = class_and_key(packet);
    let table = &endpoint.direction(direction).table;
    table.lookup(index, class, key)
}

pub(super) fn show(snapshot: &PolicySnapshot, cell: Cell) -> String {
    let rule = snapshot
        .rules
        .iter()
        .find(|(number, _)| number.0 == cell.rule());
    let name = rule.map_or(String::new(), |(_, entry)| {
        let rule = &entry.rule;
        let resource = rule.resource.as_ref().map_or("", |key| &key.name);
        format!(" {resource} {}[{}]", rule.section.as_str(), rule.index)
    });
    let audit = if cell.audit() { " audit" } else { "" };
    let verdict = match cell.action() {
        action::ALLOW => "allow",
        action::DENY => "deny",
        action::FRAGMENT => "fragment",
        _ => "none",
    };
    format!("{verdict}{audit}{name}")
}

/// Compares a verdict of the table with what is expected, and the oracle's with
/// the table's.
#[track_caller]
fn check(repository: &Repository, direction: Direction, address: &str, packet: Packet, want: &str) {
    let snapshot = repository.snapshot();
    let endpoint = resolve(&snapshot, HOST, false).expect("fits");
    let got = if endpoint.direction(direction).enforced {
        show(
            &snapshot,
            cell(&snapshot, &endpoint, direction, address, packet),
        )
    } else {
        "open".to_owned()
    };
    assert_eq!(got, want, "{address} {packet:?}");
    agree(&snapshot, &endpoint, direction, address, packet).expect("the oracle agrees");
}

/// Whether oracle and table give one answer, rule included.
pub(super) fn agree(
    snapshot: &PolicySnapshot,
    endpoint: &EndpointPolicy,
    direction: Direction,
    address: &str,
    packet: Packet,
) -> Result<(), String> {
    let found = cell(snapshot, endpoint, direction, address, packet);
    let peer = address.parse().expect("an address");
    let judgement = judge(snapshot, HOST, direction, peer, packet);
    let audit = endpoint.direction(direction).audit;
    let number = judgement.rule.as_ref().map_or(0, |rule| {
        let mut rules = snapshot.rules.iter();
        rules
            .find(|(_, entry)| entry.rule == *rule)
            .map_or(0, |(number, _)| number.0)
    });
    let expected = match judgement.outcome {
        Outcome::NotEnforced | Outcome::Allowed | Outcome::AllowedByDefault => {
            Cell::new(action::ALLOW, false, number)
        }
        Outcome::Denied => Cell::new(action::DENY, audit || judgement.audited, number),
        Outcome::NotAllowed => Cell::new(action::NO_MATCH, audit || judgement.audited, number),
        Outcome::FragmentUnknown => Cell::new(action::FRAGMENT, audit || judgement.audited, number),
    };
    let of_table = endpoint.direction(direction);
    if found == expected
        && of_table.enforced == judgement.enforced
        && (!of_table.enforced || of_table.enforcing.iter().eq(&judgement.enforcing))
    {
        return Ok(());
    }
    Err(format!(
        "{direction:?} {address} {packet:?}: table {}, oracle {judgement:?}",
        show(snapshot, found)
    ))
}

use Direction::{Egress, Ingress};

fn demo() -> Repository {
    with(&[
        node("self", "node-access: ssh", &["10.0.0.1", "fd00::1"]),
        node("other", "", &["10.0.0.2", "fd00::2"]),
        policy(
            "demo-host-policy",
            "description: \"\"\nnodeSelector:\n  matchLabels:\n    node-access: ssh\ningress:\n- \
             fromEntities:\n  - cluster\n- toPorts:\n  - ports:\n    - port: \"22\"\n      \
             protocol: TCP",
        ),
    ])
}

#[test]
fn the_policy_that_the_project_began_with() {
    let r = demo();
    for outsider in ["192.0.2.7", "2001:db8::7"] {
        check(
            &r,
            Ingress,
            outsider,
            tcp(22),
            "allow demo-host-policy ingress[1]",
        );
        for packet in [tcp(80), udp(22), PING, PING6, GRE] {
            check(&r, Ingress, outsider, packet, "none");
        }
        check(&r, Ingress, outsider, Packet::Fragment, "fragment");
        check(&r, Egress, outsider, tcp(80), "open");
    }
    for member in ["10.0.0.2", "fd00::2"] {
        for packet in [tcp(80), tcp(22), udp(53), PING, GRE, Packet::Fragment] {
            check(
                &r,
                Ingress,
                member,
                packet,
                "allow demo-host-policy ingress[0]",
            );
        }
    }
    let policy = resolve(&r.snapshot(), HOST, true).expect("fits");
    let ingress = policy.direction(Ingress);
    let enforcing: Vec<_> = ingress.enforcing.iter().map(ToString::to_string).collect();
    assert_eq!(
        enforcing,
        ["CiliumClusterwideNetworkPolicy/demo-host-policy"]
    );
    assert!(ingress.audit);
    // Who is selected by nothing, and by the first rule; the port for everyone.
    assert_eq!(runs(&ingress.table), [1, 1, 3]);
}

#[test]
fn explanations_are_the_contract() {
    let snapshot = demo().snapshot();
    let ask = |peer: &str, packet, audit| {
        let query = crate::policy::Query {
            direction: Ingress,
            peer: peer.parse().expect("an address"),
            packet,
        };
        explain(&snapshot, HOST, audit, &query)
    };
    let allowed = ask("192.0.2.7", tcp(22), false);
    let json = serde_json::to_value(&allowed).expect("JSON");
    assert_eq!(
        json.to_string(),
        "{\"enforced\":true,\"identity\":{\"id\":2,\"labels\":[\"reserved:world\"]},\"reason\":\
         \"allowed by CiliumClusterwideNetworkPolicy/demo-host-policy ingress[1]\",\"revision\":4,\
         \"rule\":{\"file\":\"f.yaml\",\"index\":1,\"line\":12,\"resource\":\
         \"CiliumClusterwideNetworkPolicy/demo-host-policy\",\"section\":\"ingress\"},\
         \"verdict\":\"allowed\"}"
    );
    let denied = ask("192.0.2.7", tcp(80), false);
    assert_eq!((denied.verdict, denied.rule), (Verdict::Denied, None));
    assert_eq!(
        denied.reason,
        "no rule allows it, and ingress is default-deny by \
         CiliumClusterwideNetworkPolicy/demo-host-policy"
    );
    let audited = ask("192.0.2.7", tcp(80), true);
    assert_eq!(audited.verdict, Verdict::Audited);
    assert!(
        audited
            .reason
            .ends_with("it passes, since audit mode is on")
    );
}

/// REFERENCE 1.8, column "newest": which identities each entity selects.
#[test]
fn entities_and_identities() {
    let cases = [
        ("all", "0 1 2 3 4 5 6 7 8 9 10 16777217"),
        ("world", "2 9 10 16777217"),
        ("world-ipv4", "9 16777217"),
        ("world-ipv6", "10"),
        ("cluster", "1 3 4 5 6 7 8"),
        ("cluster-mesh", "1 3 4 5 6 7 8"),
        ("host", "1"),
        ("remote-node", "6 7"),
        ("kube-apiserver", "7"),
        ("health", "4"),
        ("init", "5"),
        ("ingress", "8"),
        ("unmanaged", "3"),
        ("none", ""),
    ];
    for (entity, expected) in cases {
        let repository = with(&[
            policy("a", "nodeSelector: {}\negress: [{toCIDR: [192.0.2.0/24]}]"),
            policy(
                "b",
                &format!("nodeSelector: {{}}\ningress: [{{fromEntities: [{entity}]}}]"),
            ),
        ]);
        let snapshot = repository.snapshot();
        let endpoint = resolve(&snapshot, HOST, false).expect("fits");
        let table = &endpoint.direction(Ingress).table;
        let mut selected: Vec<u32> = snapshot
            .identities
            .live()
            .filter(|identity| table.lookup(identity.index, class::TCP, 80).passes())
            .map(|identity| identity.number.0)
            .collect();
        selected.sort_unstable();
        let shown: Vec<_> = selected.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(" "), expected, "{entity}");
    }
}

const BLOCKLIST: &str = "nodeSelector: {}\nenableDefaultDeny: {ingress: false}\ningressDeny: \
                         [{fromCIDR: [192.0.2.0/24]}]";

/// REFERENCE 2.1, 2.2: what makes a direction enforced, and default-deny.
#[test]
fn enforcement() {
    use EnforcementMode::{Always, Default, Never};
    let cases: [(&[&str], EnforcementMode, &str, &str); 10] = [
        (&[], Default, "open", "open"),
        (&[], Always, "none", "none"),
        (&["nodeSelector: {}\ningress: [{}]"], Never, "open", "open"),
        (
            &["nodeSelector: {}\ningress: [{}]"],
            Default,
            "none",
            "open",
        ),
        (&["nodeSelector: {}\negress: [{}]"], Default, "open", "none"),
        (
            &["nodeSelector: {}\ningressDeny: [{}]"],
            Default,
            "none",
            "open",
        ),
        (
            &["nodeSelector: {matchLabels: {a: b}}\ningress: [{}]"],
            Default,
            "open",
            "open",
        ),
        (
            &["endpointSelector: {}\ningress: [{}]"],
            Default,
            "open",
            "open",
        ),
        (&[BLOCKLIST], Default, "allow", "open"),
        (
            &[BLOCKLIST, "nodeSelector: {}\ningress: [{}]"],
            Default,
            "none",
            "open",
        ),
    ];
    for (specs, mode, ingress, egress) in cases {
        let mut repository = Repository::new(PolicyOptions {
            enforcement: mode,
            ..options()
        });
        for (number, spec) in specs.iter().enumerate() {
            repository.apply(&policy(&format!("p{number}"), spec));
        }
        check(&repository, Ingress, "198.51.100.1", tcp(80), ingress);
        check(&repository, Egress, "198.51.100.1", tcp(80), egress);
    }
}

/// Where no policy makes the direction default-deny, denies still deny.
#[test]
fn blocklists() {
    let repository = with(&[policy("p", BLOCKLIST)]);
    check(
        &repository,
        Ingress,
        "192.0.2.1",
        tcp(80),
        "deny p ingressDeny[0]",
    );
    check(
        &repository,
        Ingress,
        "192.0.2.1",
        Packet::Fragment,
        "deny p ingressDeny[0]",
    );
    check(
        &repository,
        Ingress,
        "198.51.100.1",
        Packet::Fragment,
        "allow",
    );
}

/// L3-only, L4-only and L3+L4, allowed and denied: deny wins, in any order.
#[test]
fn deny_beats_allow() {
    let shapes = [
        "{fromCIDR: [192.0.2.0/24]}",
        "{toPorts: [{ports: [{port: 80, protocol: TCP}]}]}",
        "{fromCIDR: [192.0.2.0/24], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}",
    ];
    // Of the packets (peer, port): (in, 80), (in, 81), (out, 80), (out, 81).
    let matches = [
        [true, true, false, false],
        [true, false, true, false],
        [true, false, false, false],
    ];
    let packets = [
        ("192.0.2.1", 80),
        ("192.0.2.1", 81),
        ("198.51.100.1", 80),
        ("198.51.100.1", 81),
    ];
    for (allow, allow_matches) in shapes.iter().zip(matches) {
        for (deny, deny_matches) in shapes.iter().zip(matches) {
            let allows = policy("z", &format!("nodeSelector: {{}}\ningress: [{allow}]"));
            let denies = policy("y", &format!("nodeSelector: {{}}\ningressDeny: [{deny}]"));
            for changes in [[allows.clone(), denies.clone()], [denies, allows]] {
                let repository = with(&changes);
                for (number, (address, port)) in packets.into_iter().enumerate() {
                    let expected = match (deny_matches[number], allow_matches[number]) {
                        (true, _) => "deny y ingressDeny[0]",
                        (false, true) => "allow z ingress[0]",
                        (false, false) => "none",
                    };
                    check(&repository, Ingress, address, tcp(port), expected);
                }
            }
        }
    }
}

#[test]
fn prefixes_and_ports() {
    let r = with(&[
        node("other", "", &["10.0.0.2"]),
        policy(
            "p",
            "nodeSelector: {}\ningress:\n- fromCIDRSet: [{cidr: 10.0.0.0/8, except: \
             [10.1.0.0/16]}]\n  toPorts: [{ports: [{port: 1000, endPort: 1999}]}]\n- fromCIDR: \
             [10.1.2.0/24]\n- fromCIDR: [\"::/0\"]\n  icmps: [{fields: [{family: IPv6, type: \
             128}]}]\n- fromCIDR: [0.0.0.0/0]\n  toPorts: [{ports: [{protocol: GRE}]}]",
        ),
    ]);
    let range = "allow p ingress[0]";
    for (port, expected) in [(999, "none"), (1000, range), (1999, range), (2000, "none")] {
        check(&r, Ingress, "10.2.3.4", tcp(port), expected);
        check(&r, Ingress, "10.2.3.4", udp(port), expected);
        let sctp = Packet::Port { proto: 132, port };
        check(&r, Ingress, "10.2.3.4", sctp, expected);
        check(&r, Ingress, "10.1.3.4", tcp(port), "none");
        check(&r, Ingress, "10.1.2.4", tcp(port), "allow p ingress[1]");
    }
    check(&r, Ingress, "10.0.0.2", tcp(1000), "none");
    check(&r, Ingress, "10.2.3.4", PING, "none");
    check(&r, Ingress, "2001:db8::1", PING6, "allow p ingress[2]");
    check(&r, Ingress, "192.0.2.1", PING6, "none");
    check(&r, Ingress, "192.0.2.1", GRE, "allow p ingress[3]");
    check(&r, Ingress, "2001:db8::1", GRE, "none");
}

#[test]
fn fragments_before_their_first() {
    let r = with(&[policy(
        "p",
        "nodeSelector: {}\ningress:\n- fromCIDR: [10.0.0.0/8, 192.0.2.0/24]\n- toPorts: [{ports: \
         [{port: 80}]}]\ningressDeny:\n- fromCIDR: [192.0.2.0/25]\n  toPorts: [{ports: [{port: \
         53, protocol: UDP}]}]\n- fromCIDR: [10.1.0.0/16]\n- toPorts: [{ports: [{protocol: \
         ESP}]}]",
    )]);
    let cases = [
        ("10.2.0.1", "allow p ingress[0]"),
        ("10.1.0.1", "deny p ingressDeny[1]"),
        ("192.0.2.1", "fragment p ingressDeny[0]"),
        ("192.0.2.129", "allow p ingress[0]"),
        ("198.51.100.1", "fragment"),
    ];
    for (address, expected) in cases {
        check(&r, Ingress, address, Packet::Fragment, expected);
    }
}

#[test]
fn failsafe_flows_pass_whatever_denies_them() {
    let failsafe = |direction, proto, port, peer: Option<&str>| FailsafeEntry {
        direction,
        proto,
        port,
        peer: peer.map(|peer| peer.parse().expect("a prefix")),
    };
    let mut r = Repository::new(PolicyOptions {
        failsafe: vec![
            failsafe(0, 6, 22, Some("10.9.0.0/16")),
            failsafe(1, 17, 53, None),
            failsafe(0, 1, 0, None),
        ],
        ..options()
    });
    check(&r, Ingress, "10.9.0.1", tcp(22), "open");
    r.apply(&node("other", "", &["10.9.0.2", "10.8.0.2"]));
    r.apply(&policy(
        "p",
        "nodeSelector: {}\ningressDeny: [{fromEntities: [all]}]\negress: [{}]",
    ));
    let safe = "allow  failsafe[0]";
    check(&r, Ingress, "10.9.0.1", tcp(22), safe);
    check(&r, Ingress, "10.9.0.2", tcp(22), safe);
    check(&r, Ingress, "10.8.0.2", tcp(22), "deny p ingressDeny[0]");
    check(&r, Ingress, "10.9.0.1", tcp(23), "deny p ingressDeny[0]");
    check(&r, Ingress, "192.0.2.1", PING, "allow  failsafe[2]");
    check(&r, Egress, "192.0.2.1", udp(53), "allow  failsafe[1]");
    check(&r, Egress, "192.0.2.1", tcp(53), "none");
}

#[test]
fn audit_marks_every_denial() {
    let snapshot = with(&[policy(
        "p",
        "nodeSelector: {}\ningress: [{toPorts: [{ports: [{port: 22}]}]}]\ningressDeny: \
         [{fromCIDR: [192.0.2.0/24]}]",
    )])
    .snapshot();
    let endpoint = resolve(&snapshot, HOST, true).expect("fits");
    let cases = [
        ("192.0.2.1", tcp(22), "deny audit p ingressDeny[0]"),
        ("198.51.100.1", tcp(22), "allow p ingress[0]"),
        ("198.51.100.1", tcp(23), "none audit"),
        ("198.51.100.1", Packet::Fragment, "fragment audit"),
    ];
    for (address, packet, expected) in cases {
        let cell = cell(&snapshot, &endpoint, Ingress, address, packet);
        assert_eq!(show(&snapshot, cell), expected);
        assert!(cell.passes());
    }
}
