//! What a giver of numbers promises, the same for the one in the process and the
//! one in etcd.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use palisade::identity::{IdentityKey, IdentityNumber, IdentityTable, Label, LabelSet};
use palisade::sources::etcd::keys::labels_text;
use palisade::sources::etcd::wire::TxnRequest;
use palisade::sources::etcd::{Allocator, Collector, Verified};

use crate::fleet::Fleet;
use crate::store::{Store, program};

/// Gives numbers to labels.
trait Numbers {
    fn acquire(&mut self, labels: &LabelSet) -> u32;
    fn release(&mut self, labels: &LabelSet);
    /// What a number stands for now.
    fn labels_of(&mut self, number: u32) -> Option<String>;
    /// Numbers that nobody uses are given up.
    fn collect(&mut self);
}

/// The one in the process.
#[derive(Default)]
struct Embedded(IdentityTable);

fn key(labels: &LabelSet) -> IdentityKey {
    IdentityKey::workload(Arc::new(labels.clone()), None)
}

impl Numbers for Embedded {
    fn acquire(&mut self, labels: &LabelSet) -> u32 {
        let index = self
            .0
            .allocate(&key(labels), None, |_| false)
            .expect("room");
        self.0.live_at(index).expect("live").number.0
    }
    fn release(&mut self, labels: &LabelSet) {
        if let Some(index) = self.0.index_of(&key(labels)) {
            self.0.remove(index);
        }
    }
    fn labels_of(&mut self, number: u32) -> Option<String> {
        let identity = self.0.get(IdentityNumber(number))?;
        Some(labels_text(&identity.labels))
    }
    fn collect(&mut self) {}
}

/// One node of those that share an etcd.
struct Shared<'s> {
    store: &'s Store,
    node: &'static str,
    lease: i64,
    allocator: Allocator,
    collector: Collector,
}

impl<'s> Shared<'s> {
    fn new(store: &'s Store, node: &'static str) -> Self {
        let ttl = Duration::from_secs(600);
        let lease = store.ask(|client| async move { client.grant(ttl).await });
        Self {
            store,
            node,
            lease: lease.expect("a lease"),
            allocator: Allocator::default(),
            collector: Collector::default(),
        }
    }
}

impl Shared<'_> {
    /// What a node does now and then.
    fn verify(&mut self) -> Verified {
        let (allocator, node) = (&mut self.allocator, (self.node, self.lease));
        let verified = self
            .store
            .ask(|client| async move { allocator.verify(&client, node).await });
        verified.expect("etcd answers")
    }
    /// Whether something that names the number of the labels may be written now.
    fn may_name(&self, labels: &LabelSet) -> bool {
        let node = (self.node, self.lease);
        let Some(fence) = self.allocator.fence(node, &labels_text(labels)) else {
            return false;
        };
        let transaction = TxnRequest {
            compare: fence.into(),
            ..TxnRequest::default()
        };
        let answer = self
            .store
            .ask(|client| async move { client.transact(transaction).await });
        answer.expect("etcd answers").succeeded
    }
    /// The lease has run out, and the node gets another one.
    fn expire(&mut self) {
        self.store.revoke(self.lease);
        let fresh = Self::new(self.store, self.node);
        self.lease = fresh.lease;
    }
}

impl Numbers for Shared<'_> {
    fn acquire(&mut self, labels: &LabelSet) -> u32 {
        let (allocator, node) = (&mut self.allocator, (self.node, self.lease));
        let text = labels_text(labels);
        let number = self
            .store
            .ask(|client| async move { Ok(allocator.acquire(&client, node, &text).await) });
        number.expect("etcd answers").expect("a number")
    }
    fn release(&mut self, labels: &LabelSet) {
        let (allocator, node) = (&mut self.allocator, (self.node, self.lease));
        let text = labels_text(labels);
        let released = self
            .store
            .ask(|client| async move { allocator.release(&client, node, &text).await });
        released.expect("etcd answers");
    }
    fn labels_of(&mut self, number: u32) -> Option<String> {
        let key = format!("cilium/state/identities/v1/id/{number}");
        let master = self.store.get(&key).expect("etcd answers")?;
        String::from_utf8(master.value).ok()
    }
    fn collect(&mut self) {
        for _ in 0..2 {
            let (collector, node, lease) = (&mut self.collector, self.node, self.lease);
            let round = self
                .store
                .ask(|client| async move { collector.round(&client, node, lease).await });
            round.expect("etcd answers");
        }
        self.allocator.forget_masters();
    }
}

fn labels(app: &str) -> LabelSet {
    let pairs = [("app", app), ("tier", "one")];
    pairs
        .into_iter()
        .map(|(key, value)| Label::new("k8s", key, value))
        .collect()
}

/// The table of promises.
fn keeps_its_promises(numbers: &mut dyn Numbers) {
    let (a, b) = (labels("a"), labels("b"));
    let first = numbers.acquire(&a);
    assert!(
        (256..=65_535).contains(&first),
        "{first}: in the cluster's range"
    );
    assert_eq!(
        numbers.acquire(&a),
        first,
        "the same labels, the same number"
    );
    let second = numbers.acquire(&b);
    assert_ne!(first, second, "other labels, another number");
    assert_eq!(numbers.labels_of(first), Some(labels_text(&a)));
    assert_eq!(numbers.labels_of(second), Some(labels_text(&b)));

    // What is used is never collected, what is not is.
    numbers.release(&a);
    numbers.collect();
    assert_eq!(numbers.labels_of(first), None, "nobody uses it");
    assert_eq!(numbers.labels_of(second), Some(labels_text(&b)));

    // A number that was free does not soon mean something else.
    let third = numbers.acquire(&labels("c"));
    assert!(third != first && third != second, "{third}");
    let again = numbers.acquire(&a);
    let mut all = BTreeMap::new();
    for (app, number) in [("b", second), ("c", third), ("a", again)] {
        assert_eq!(all.insert(number, app), None, "a number means one thing");
        assert_eq!(numbers.labels_of(number), Some(labels_text(&labels(app))));
    }
    for app in ["a", "b", "c"] {
        numbers.release(&labels(app));
    }
    numbers.collect();
    for number in all.keys() {
        assert_eq!(numbers.labels_of(*number), None, "nobody uses {number}");
    }
}

#[test]
fn the_embedded_allocator_keeps_its_promises() {
    keeps_its_promises(&mut Embedded::default());
}

#[test]
fn the_allocator_in_etcd_keeps_its_promises() {
    let Some(program) = program() else { return };
    let fleet = Fleet::bare(program, &[], false);
    keeps_its_promises(&mut Shared::new(&fleet.store, "one"));

    // Two nodes at once: one number for the same labels, whoever is faster, and
    // no number for two.
    let found: Vec<Vec<(String, u32)>> = std::thread::scope(|scope| {
        let nodes = ["two", "three", "four"].map(|node| {
            let store = &fleet.store;
            scope.spawn(move || {
                let mut shared = Shared::new(store, node);
                let apps = (0..24).map(|app| format!("app-{app}"));
                apps.map(|app| (app.clone(), shared.acquire(&labels(&app))))
                    .collect()
            })
        });
        nodes.map(|node| node.join().expect("a node")).into()
    });
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
    let numbers: BTreeMap<u32, &String> = found[0].iter().map(|(app, it)| (*it, app)).collect();
    assert_eq!(numbers.len(), found[0].len());

    // One of them goes: what the others use stays. A master that somebody
    // deleted while it is used comes back as it was.
    let mut two = Shared::new(&fleet.store, "two");
    let (app, number) = found[0][0].clone();
    fleet
        .store
        .delete(&format!("cilium/state/identities/v1/id/{number}"));
    assert_eq!(two.acquire(&labels(&app)), number);
    assert_eq!(two.labels_of(number), Some(labels_text(&labels(&app))));
    fleet
        .store
        .delete(&format!("cilium/state/identities/v1/id/{number}"));
    assert_eq!(two.verify(), Verified::default());
    assert_eq!(two.labels_of(number), Some(labels_text(&labels(&app))));
    two.release(&labels(&app));
    two.collect();
    assert_eq!(
        two.labels_of(number),
        Some(labels_text(&labels(&app))),
        "others use it"
    );
}

#[test]
fn a_number_that_was_held_is_not_trusted() {
    let Some(program) = program() else { return };
    let fleet = Fleet::bare(program, &[], false);
    let store = &fleet.store;
    let (mut one, mut two) = (Shared::new(store, "one"), Shared::new(store, "two"));
    let (a, b) = (labels("a"), labels("b"));
    let number = one.acquire(&a);
    let key = format!("cilium/state/identities/v1/id/{number}");
    assert!(one.may_name(&a));

    // Longer away than lease and collector, while the cursor goes around: the
    // number means something else, and `one` says nothing by it any more.
    one.expire();
    assert!(!one.may_name(&a), "the slave key went with its lease");
    two.collect();
    assert_eq!(two.labels_of(number), None);
    store.put(
        "cilium/state/identities/v1/cursor",
        &(number - 1).to_string(),
    );
    assert_eq!(two.acquire(&b), number);
    assert!(!one.may_name(&a));
    assert!(one.verify().has_lost);
    let another = one.acquire(&a);
    assert_ne!(another, number);
    assert!(one.may_name(&a));
    assert_eq!(two.labels_of(number), Some(labels_text(&b)));

    // What the master says counts, also where somebody wrote it by hand.
    store.put(&key, &labels_text(&labels("c")));
    assert!(!two.may_name(&b));
    assert!(two.verify().has_lost);
    let third = two.acquire(&b);
    assert!(third != number && third != another, "{third}");

    // Another node with the same name takes the slave key: seen, and told apart.
    let mut rival = Shared::new(store, "one");
    assert_eq!(rival.acquire(&a), another);
    assert!(!one.may_name(&a));
    let found = one.verify();
    assert!(found.has_lost && found.has_rival, "{found:?}");

    // A wiped store gives its numbers from the beginning again.
    store.delete_all();
    assert_eq!(rival.acquire(&a), another, "believed");
    assert!(!rival.may_name(&a), "but nothing is written by it");
    rival.allocator.lost();
    let mut others: Vec<u32> = [&b, &a].map(|labels| rival.acquire(labels)).into();
    others.dedup();
    assert_eq!(others.len(), 2);
}

#[test]
fn a_node_that_is_renamed_keeps_its_numbers() {
    let Some(program) = program() else { return };
    let fleet = Fleet::bare(program, &[], false);
    let mut one = Shared::new(&fleet.store, "one");
    let number = one.acquire(&labels("a"));
    let (allocator, lease) = (&mut one.allocator, one.lease);
    let renamed = fleet
        .store
        .ask(|client| async move { allocator.rename(&client, ("one", "uno"), lease).await });
    renamed.expect("etcd answers");
    one.node = "uno";
    assert!(one.may_name(&labels("a")));
    assert_eq!(one.acquire(&labels("a")), number);
    let slaves = fleet.store.under("cilium/state/identities/v1/value/");
    assert_eq!(slaves.len(), 1);
}
