//! Generations for the tests.

use imbl::OrdMap;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use palisade::datapath::{DatapathSettings, Generation};
use palisade::events::{EndpointId, Revision};
use palisade::identity::{IdentityIndex, IdentityNumber, IpcacheEntry};
use palisade::policy::{DirectionPolicy, EndpointPolicy, KEYS, Row, VerdictTable};
use palisade_abi::table::{Cell, action, class, key};

/// The rule that every allow of these tests carries.
pub(crate) const RULE: u32 = 7;

/// A table that allows TCP to the ports given, from identity index 1, and
/// nothing else.
pub(crate) fn tcp_ports(ports: &[u16]) -> VerdictTable {
    let none = Cell::new(action::NO_MATCH, false, 0);
    let allow = Cell::new(action::ALLOW, false, RULE);
    let mut keys: Vec<u32> = ports.iter().map(|port| key(class::TCP, *port)).collect();
    keys.sort_unstable();
    let mut runs = Vec::new();
    let mut from = 0;
    for key in keys {
        runs.extend([(from..key, none), (key..key + 1, allow)]);
        from = key + 1;
    }
    runs.push((from..KEYS, none));
    runs.retain(|(run, _)| !run.is_empty());
    let rows = [Row::All(none), Row::of(&runs)];
    VerdictTable {
        rows: (0..).map(IdentityIndex).zip(rows).collect(),
        ..VerdictTable::default()
    }
}

/// The same generation with every enforced direction watched instead, which
/// passes what the tables deny.
pub(crate) fn watched(mut generation: Generation) -> Generation {
    for endpoint in &mut generation.endpoints {
        for direction in &mut Arc::make_mut(endpoint).directions {
            let direction = Arc::make_mut(direction);
            direction.watched = std::mem::take(&mut direction.enforced);
            let rows = direction.table.rows.iter().map(|(index, row)| {
                let runs = row.runs().into_iter();
                let audited =
                    runs.map(|(run, cell)| (run, Cell::new(cell.action(), true, cell.rule())));
                (index, Row::of(&audited.collect::<Vec<_>>()))
            });
            direction.table.rows = rows.collect();
        }
    }
    generation
}

/// A generation whose enforced directions (given by their tables) allow what
/// the tables allow; every address has identity 200 with index 1.
pub(crate) fn generation(
    revision: u64,
    ingress: Option<VerdictTable>,
    egress: Option<VerdictTable>,
) -> Generation {
    let policy = |table: Option<VerdictTable>| {
        Arc::new(DirectionPolicy {
            enforced: table.is_some(),
            watched: false,
            audit: false,
            enforcing: Default::default(),
            auditing: Default::default(),
            table: table.unwrap_or_else(|| tcp_ports(&[])),
        })
    };
    let endpoint = EndpointPolicy {
        endpoint: EndpointId(1),
        revision: Revision(revision),
        directions: [policy(ingress), policy(egress)],
        rules: OrdMap::new(),
    };
    Generation {
        revision: Revision(revision),
        endpoints: vec![Arc::new(endpoint)],
        ipcache4: prefixes4(&[("0.0.0.0/0", 200, 1)]),
        ipcache6: prefixes6(&[("::/0", 200, 1)]),
        settings: Arc::new(DatapathSettings::default()),
    }
}

fn entry(identity: u32, index: u32) -> IpcacheEntry {
    IpcacheEntry {
        identity: IdentityNumber(identity),
        index: IdentityIndex(index),
    }
}

pub(crate) fn prefixes4(list: &[(&str, u32, u32)]) -> OrdMap<Ipv4Net, IpcacheEntry> {
    let net = |text: &str| text.parse::<Ipv4Net>().expect("a CIDR");
    list.iter()
        .map(|(text, identity, index)| (net(text), entry(*identity, *index)))
        .collect()
}

pub(crate) fn prefixes6(list: &[(&str, u32, u32)]) -> OrdMap<Ipv6Net, IpcacheEntry> {
    let net = |text: &str| text.parse::<Ipv6Net>().expect("a CIDR");
    list.iter()
        .map(|(text, identity, index)| (net(text), entry(*identity, *index)))
        .collect()
}
