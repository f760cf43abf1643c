//! Asks both sides about one peer and one packet of each kind.

use std::collections::{BTreeMap, BTreeSet};

use super::packets::{PacketClass, classes, names};
use super::peers::{Everyone, Place};
use super::types::{Decision, DirectionState, EnforcementChange, PolicyDiff, VerdictChange};
use crate::events::ResourceKey;
use crate::limits::DIFF_WORK_MAX;
use crate::policy::explain::{link_control, verdict};
use crate::policy::oracle::{Book, Listening, Who};
use crate::policy::{Direction, PolicySnapshot, RuleRef, Subject, Verdict};

/// What a peer's packets change by: the verdicts of both sides.
type Change = [(Verdict, Option<RuleRef>); 2];

/// For each change the classes of packets that it is about, by position.
type Changes = BTreeMap<Change, Vec<usize>>;

/// Compares what two sets of policies say about every packet of one endpoint.
/// The audit switch of an endpoint is not looked at: it is the same before and
/// after.
#[must_use]
pub fn diff(before: &PolicySnapshot, after: &PolicySnapshot, subject: Subject) -> PolicyDiff {
    diff_within(before, after, subject, DIFF_WORK_MAX)
}

/// The same with as much work at most.
pub(super) fn diff_within(
    before: &PolicySnapshot,
    after: &PolicySnapshot,
    subject: Subject,
    steps_max: usize,
) -> PolicyDiff {
    let books = [Book::new(before), Book::new(after)];
    let everyone = Everyone::new(&books);
    let whos = everyone.peers.iter();
    let whos: Vec<[Who; 2]> = whos
        .map(|peer| books.each_ref().map(|book| book.who(peer.address)))
        .collect();
    let mut diff = PolicyDiff::default();
    let mut work = Work {
        steps_max,
        ..Work::default()
    };
    for direction in Direction::BOTH {
        diff.enforcement
            .extend(enforcement(&books, subject, direction));
        let found = changes(&books, &everyone, &whos, (subject, direction), &mut work);
        diff.changes.extend(found);
    }
    diff.changes.sort();
    if let Some(peers) = work.cut_at {
        diff.cut = Some(format!(
            "the comparison was cut: {peers} of {} kinds of peers were looked at; what is told is \
             true, but not all; compare smaller sets of policies",
            2 * everyone.peers.len()
        ));
    }
    diff
}

/// Work done so far.
#[derive(Default)]
struct Work {
    steps_max: usize,
    done: usize,
    peers: usize,
    cut_at: Option<usize>,
}

impl Work {
    /// Whether there is room for so much more.
    fn spend(&mut self, steps: usize) -> bool {
        self.done = self.done.saturating_add(steps);
        if self.done > self.steps_max {
            self.cut_at.get_or_insert(self.peers);
        }
        self.cut_at.is_none()
    }
}

fn enforcement(
    books: &[Book<'_>; 2],
    subject: Subject,
    direction: Direction,
) -> Option<EnforcementChange> {
    let [before, after] = books.each_ref().map(|book| {
        let state = Listening::of_nobody(book, subject, direction);
        let names = |keys: &[ResourceKey]| keys.iter().map(ToString::to_string).collect();
        DirectionState {
            enforced: state.enforced,
            enforcing: names(&state.enforcing),
            auditing: names(&state.auditing),
        }
    });
    (before != after).then(|| EnforcementChange {
        direction: direction.as_str().to_owned(),
        before,
        after,
    })
}

fn changes(
    books: &[Book<'_>; 2],
    everyone: &Everyone,
    whos: &[[Who; 2]],
    (subject, direction): (Subject, Direction),
    work: &mut Work,
) -> Vec<VerdictChange> {
    let mut classes = classes(books, direction);
    let enforced = books.iter().all(|book| {
        let state = Listening::of_nobody(book, subject, direction);
        state.enforced
    });
    // What the datapath decides on both sides cannot change.
    classes.retain(|class| match class.packet(true).and_then(link_control) {
        Some(passes) => !passes && !enforced,
        None => true,
    });
    // Peers about whom all the same changes.
    let mut alike: BTreeMap<(bool, Changes), BTreeSet<Place>> = BTreeMap::new();
    for (peer, who) in everyone.peers.iter().zip(whos) {
        let ipv6 = peer.address.is_ipv6();
        let found = of_peer(books, who, (subject, direction), &classes, work);
        if work.cut_at.is_some() {
            break;
        }
        work.peers += 1;
        if !found.is_empty() {
            alike.entry((ipv6, found)).or_default().insert(peer.place);
        }
    }
    // Changes of one kind about the same packets are told together.
    let mut told: BTreeMap<(Change, Vec<String>), BTreeSet<Place>> = BTreeMap::new();
    for ((ipv6, found), places) in alike {
        let whole: Vec<&PacketClass> = classes
            .iter()
            .filter(|class| class.packet(ipv6).is_some())
            .collect();
        for (change, positions) in found {
            let meant: Vec<&PacketClass> = positions.iter().map(|at| &classes[*at]).collect();
            let packets = names(&meant, &whole);
            let all = told.entry((change, packets)).or_default();
            all.extend(&places);
        }
    }
    let told = told
        .into_iter()
        .map(|(([before, after], packets), places)| {
            let decision = |(verdict, rule): (Verdict, Option<RuleRef>)| Decision {
                verdict: verdict.as_str().to_owned(),
                rule: rule.map(|rule| rule.to_string()),
            };
            VerdictChange {
                direction: direction.as_str().to_owned(),
                before: decision(before),
                after: decision(after),
                packets,
                peers: everyone.names(&places, whos),
            }
        });
    told.collect()
}

/// What changes for the packets of one peer.
fn of_peer(
    books: &[Book<'_>; 2],
    who: &[Who; 2],
    (subject, direction): (Subject, Direction),
    classes: &[PacketClass],
    work: &mut Work,
) -> Changes {
    let mut found = Changes::new();
    if !work.spend(books.iter().map(Book::steps).sum()) {
        return found;
    }
    let sides: [Listening<'_, '_>; 2] =
        std::array::from_fn(|side| Listening::new(&books[side], subject, direction, &who[side]));
    let items = sides.iter().map(|side| side.items() + 1).sum::<usize>();
    if !work.spend(items.saturating_mul(classes.len())) {
        return found;
    }
    for (position, class) in classes.iter().enumerate() {
        let Some(packet) = class.packet(who[0].address.is_ipv6()) else {
            continue;
        };
        let [before, after] = sides.each_ref().map(|side| {
            let judgement = side.judge(packet);
            let (verdict, rule) = verdict(&judgement, packet, side.audit());
            (verdict, rule.cloned())
        });
        if before.0 != after.0 {
            found.entry([before, after]).or_default().push(position);
        }
    }
    found
}
