//! The grid: so many rules for so many identities; what it costs until a change
//! of the manifests is enforced. And sets of CIDRs, as nftables has them.

use std::time::Duration;

use palisade::events::{RepositoryChange, SourceName};
use palisade::policy::documents;
use serde_json::json;

use crate::kernel;
use crate::measure::{Cost, Line, Plane, median};
use crate::nft;
use crate::world;

const RULES: [usize; 3] = [10, 1_000, 10_000];
const IDENTITIES: [usize; 2] = [1_000, 100_000];
/// Beyond the grid: as many rules as there can be, nearly.
const MOST: usize = 100_000;
/// Rules for everyone, a port each: one row says what all of them say.
const OF_EVERYONE: [usize; 2] = [1_000, 10_000];
const SETS: [usize; 2] = [10_000, 100_000];
const PORTS: usize = 40;
/// Changes that are read and not applied yet.
const READ_AHEAD: usize = 256;
/// How often each change is made, there and back; the median counts.
const RUNS: usize = 11;
/// Rules of a set of CIDRs, and how often each task is done.
const SET_RULES: usize = 10;
const SET_RUNS: usize = 3;

/// One point of the grid.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) rules: usize,
    pub(crate) identities: usize,
    pub(crate) rows: usize,
    pub(crate) blocks: usize,
    /// The first is all from nothing.
    pub(crate) lines: Vec<Line>,
}

/// One task that both can do.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) palisade: Duration,
    /// None where there is no nft.
    pub(crate) nft: Option<Duration>,
}

/// A manifest, or the end of one.
enum Manifest {
    Text(String),
    Gone(String),
}

/// All points, or those of so many rules.
pub(crate) fn points(kernel: bool, only: Option<usize>) -> Vec<Point> {
    let mut sizes: Vec<(usize, usize)> = RULES
        .into_iter()
        .flat_map(|rules| IDENTITIES.map(|identities| (rules, identities)))
        .collect();
    sizes.push((MOST, MOST));
    sizes.retain(|(rules, _)| only.is_none_or(|only| *rules == only));
    let points = sizes.into_iter().map(|(rules, identities)| {
        eprintln!("{rules} rules, {identities} identities");
        with_plane(kernel, move |plane| point(plane, rules, identities))
    });
    let mut rows = Vec::from(OF_EVERYONE);
    rows.retain(|rules| only.is_none_or(|only| *rules == only));
    let rows = rows.into_iter().map(|rules| {
        eprintln!("{rules} rules for everyone");
        with_plane(kernel, move |plane| row_of_everyone(plane, rules))
    });
    points.chain(rows).collect()
}

fn with_plane<T: Send>(kernel: bool, work: impl FnOnce(&mut Plane) -> T + Send) -> T {
    if kernel {
        kernel::with_datapath(|datapath| work(&mut Plane::new(Some(datapath))))
    } else {
        work(&mut Plane::new(None))
    }
}

/// From text to enforced. As in the agent, where a source reads on a thread of
/// its own, the next manifest is read while one is applied.
fn take(plane: &mut Plane, manifests: &[Manifest]) -> Cost {
    if let [manifest] = manifests {
        let change = std::iter::once_with(|| change_of(manifest));
        return plane.take_each(change).0;
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::sync_channel(READ_AHEAD);
        scope.spawn(move || {
            for change in manifests.iter().map(change_of) {
                // Nobody takes it any more after a panic.
                if sender.send(change).is_err() {
                    return;
                }
            }
        });
        plane.take_each(receiver.into_iter()).0
    })
}

fn change_of(manifest: &Manifest) -> RepositoryChange {
    let (Manifest::Text(text) | Manifest::Gone(text)) = manifest;
    let reading = documents::read("bench", text.as_bytes(), SourceName::Manifests);
    let [document] = &reading.documents[..] else {
        panic!("not read: {reading:?}");
    };
    match manifest {
        Manifest::Text(_) => RepositoryChange::Upsert(document.resource.clone()),
        Manifest::Gone(_) => RepositoryChange::Delete {
            key: document.resource.key.clone(),
            source: SourceName::Manifests,
        },
    }
}

/// Prefixes that do not touch.
pub(crate) fn prefix(number: usize) -> String {
    let address = 8 * number;
    let bytes = [address >> 16, address >> 8 & 255, address & 255];
    format!("20.{}.{}.{}/30", bytes[0], bytes[1], bytes[2])
}

fn rule(name: &str, prefixes: impl Iterator<Item = usize>, port: usize) -> String {
    let prefixes: Vec<String> = prefixes.map(prefix).collect();
    policy(name, &json!({"fromCIDR": prefixes, "toPorts": ports(port)}))
}

/// A rule without peers.
fn rule_for_everyone(name: &str, port: usize) -> String {
    policy(name, &json!({"toPorts": ports(port)}))
}

fn ports(port: usize) -> serde_json::Value {
    json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}])
}

fn policy(name: &str, item: &serde_json::Value) -> String {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"nodeSelector": {}, "ingress": [item]},
    })
    .to_string()
}

/// Rule `number` of so many, for its share of so many identities.
fn rule_of(number: usize, rules: usize, identities: usize, port: usize, more: usize) -> String {
    let name = format!("rule-{number:06}");
    if identities <= rules {
        let own = std::iter::once(number % identities);
        return rule(&name, own.chain(identities..identities + more), port);
    }
    let own = (number..identities).step_by(rules);
    rule(&name, own.chain(identities..identities + more), port)
}

fn port_of(number: usize, identities: usize) -> usize {
    1_000 + (number + number / identities) % PORTS
}

fn point(plane: &mut Plane, rules: usize, identities: usize) -> Point {
    let usual = |number| rule_of(number, rules, identities, port_of(number, identities), 0);
    let all: Vec<Manifest> = (0..rules)
        .map(|number| Manifest::Text(usual(number)))
        .collect();
    let mut point = filled(plane, rules, &all);
    drop(all);
    let middle = rules / 2;
    let other_port = 1_000 + (port_of(middle, identities) + 7) % PORTS;
    let extra = |port| rule("rule-extra", std::iter::once(3), port);
    let text = |text: &String| Manifest::Text(text.clone());
    let gone = |text: &String| Manifest::Gone(text.clone());
    let (known, new_port, usual) = (extra(1_005), extra(30_000), usual(middle));
    let for_everyone = rule_for_everyone("rule-extra", 30_001);
    let changed = rule_of(middle, rules, identities, other_port, 0);
    let wider = rule_of(middle, rules, identities, port_of(middle, identities), 1);
    let ways: [(&[&'static str; 2], Manifest, Manifest); 6] = [
        (
            &["one rule added", "one rule removed"],
            text(&known),
            gone(&known),
        ),
        (
            &[
                "one rule added, with a new port",
                "one rule removed, with its port",
            ],
            text(&new_port),
            gone(&new_port),
        ),
        (
            &[
                "one rule for everyone added",
                "one rule for everyone removed",
            ],
            text(&for_everyone),
            gone(&for_everyone),
        ),
        (
            &["one rule changed", "one rule changed back"],
            text(&changed),
            text(&usual),
        ),
        (
            &["one CIDR more", "one CIDR less"],
            text(&wider),
            text(&usual),
        ),
        (
            &["one identity more", "one identity less"],
            Manifest::Text(world::pod_text(1, 1)),
            Manifest::Gone(world::pod_text(1, 1)),
        ),
    ];
    for (names, there, back) in ways {
        point.lines.extend(repeated(plane, names, [there, back]));
    }
    plane.check();
    point
}

/// So many rules for everyone, a port each, and one more.
fn row_of_everyone(plane: &mut Plane, rules: usize) -> Point {
    let usual = |number| rule_for_everyone(&format!("rule-{number:06}"), 2 * number + 1);
    let all: Vec<Manifest> = (0..rules)
        .map(|number| Manifest::Text(usual(number)))
        .collect();
    let mut point = filled(plane, rules, &all);
    let more = rule_for_everyone("rule-extra", rules);
    let ways = [Manifest::Text(more.clone()), Manifest::Gone(more)];
    let names = [
        "one rule for everyone added",
        "one rule for everyone removed",
    ];
    point.lines.extend(repeated(plane, &names, ways));
    plane.check();
    point
}

/// All rules, from nothing.
fn filled(plane: &mut Plane, rules: usize, all: &[Manifest]) -> Point {
    let first = Line {
        name: "all from nothing",
        cost: take(plane, all),
        work: plane.work(),
    };
    let [rows, blocks] = plane.ingress();
    Point {
        rules,
        identities: plane.identities(),
        rows,
        blocks,
        lines: vec![first],
    }
}

fn repeated(plane: &mut Plane, names: &[&'static str; 2], ways: [Manifest; 2]) -> [Line; 2] {
    let ways = ways.map(|way| [way]);
    let (mut costs, mut works) = ([Vec::new(), Vec::new()], [Default::default(); 2]);
    for _ in 0..RUNS {
        for (place, way) in ways.iter().enumerate() {
            costs[place].push(take(plane, way));
            works[place] = plane.work();
        }
    }
    let [there, back] = costs.map(median);
    [(names[0], there, works[0]), (names[1], back, works[1])].map(|(name, cost, work)| Line {
        name,
        cost,
        work,
    })
}

/// Sets of CIDRs: loaded, replaced by others, one more. nftables in turn.
pub(crate) fn tasks() -> Vec<Task> {
    SETS.into_iter().flat_map(set).collect()
}

/// The rules of a set: prefixes from `first` on, one more in the first rule.
fn set_rules(first: usize, prefixes: usize, more: Option<usize>) -> Vec<Manifest> {
    let of = |number: usize| {
        let own = (first + number..first + prefixes).step_by(SET_RULES);
        let more = more.filter(|_| number == 0);
        rule(&format!("set-{number}"), own.chain(more), 443)
    };
    (0..SET_RULES)
        .map(|number| Manifest::Text(of(number)))
        .collect()
}

fn set(prefixes: usize) -> Vec<Task> {
    eprintln!("{prefixes} CIDRs");
    // The first half of the others is the second half of these: no more than
    // 131,072 identities are there at once.
    let other = prefixes / 2;
    let mut own = [const { Vec::new() }; 3];
    for _ in 0..SET_RUNS {
        with_plane(true, |plane| {
            let mut spans = [Duration::ZERO; 3];
            spans[0] = take(plane, &set_rules(0, prefixes, None)).whole();
            let mut wider = set_rules(0, prefixes, Some(2 * prefixes));
            wider.truncate(1);
            spans[2] = take(plane, &wider).whole();
            spans[1] = take(plane, &set_rules(other, prefixes, None)).whole();
            for (all, span) in own.iter_mut().zip(spans) {
                all.push(span);
            }
        });
    }
    let theirs = nft::set(prefixes, other, SET_RUNS);
    let names = [
        format!("{prefixes} CIDRs loaded"),
        format!("half of {prefixes} CIDRs replaced, at once"),
        format!("one CIDR more, of {prefixes}"),
    ];
    let tasks = names.into_iter().zip(own).enumerate();
    tasks
        .map(|(place, (name, mut spans))| Task {
            name,
            palisade: middle(&mut spans),
            nft: theirs.clone().map(|mut theirs| middle(&mut theirs[place])),
        })
        .collect()
}

fn middle(spans: &mut [Duration]) -> Duration {
    spans.sort();
    spans[spans.len() / 2]
}
