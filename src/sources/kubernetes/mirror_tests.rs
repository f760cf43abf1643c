//! The mirror: what follows from what is heard, and that nothing is deleted on a
//! guess.

use serde_json::json;

use super::heard::{Heard, What};
use super::mirror::{Mirror, Stage};
use super::needs::{Order, Scope};
use super::trim::Trimmed;
use crate::events::{RepositoryChange, ResourceKey, ResourceKind};

const ALL: Order = Order {
    scope: Scope::All,
    number: 1,
};
const KIND: ResourceKind = ResourceKind::CiliumClusterwideNetworkPolicy;

fn object(name: &str) -> Trimmed {
    Trimmed {
        key: ResourceKey {
            kind: KIND,
            namespace: None,
            name: name.to_owned(),
        },
        body: Some(json!({"metadata": {"name": name}})),
    }
}

fn nothing(name: &str) -> Trimmed {
    Trimmed {
        body: None,
        ..object(name)
    }
}

/// Takes one thing in: `+name` and `-name` of the changes.
fn take(mirror: &mut Mirror, what: What) -> Vec<String> {
    let changes = mirror.take(Heard { kind: KIND, what });
    let words = changes.iter().map(|change| match change {
        RepositoryChange::Upsert(resource) => format!("+{}", resource.key.name),
        RepositoryChange::Delete { key, .. } => format!("-{}", key.name),
        RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => "?".to_owned(),
    });
    words.collect()
}

fn stage(mirror: &Mirror) -> (Stage, bool) {
    let (_, kind) = mirror.kinds().next().expect("a kind");
    (kind.stage, kind.is_in_sync())
}

/// A mirror that heard of `a` and `b`.
fn whole() -> Mirror {
    let mut mirror = Mirror::new([KIND]);
    mirror.order(KIND, ALL);
    take(&mut mirror, What::Begins);
    take(&mut mirror, What::Object(object("a")));
    take(&mut mirror, What::Object(object("b")));
    take(&mut mirror, What::Whole(ALL));
    mirror
}

#[test]
fn a_list_that_comes_to_its_end_deletes_what_it_does_not_hold() {
    let mut mirror = whole();
    assert_eq!(stage(&mirror), (Stage::InSync, true));
    assert!(take(&mut mirror, What::Begins).is_empty());
    assert_eq!(stage(&mirror), (Stage::Relisting, false));
    assert_eq!(take(&mut mirror, What::Object(object("c"))), ["+c"]);
    assert_eq!(take(&mut mirror, What::Object(object("b"))), ["+b"]);
    assert_eq!(take(&mut mirror, What::Whole(ALL)), ["-a"]);
    assert_eq!(mirror.keys().len(), 2);
}

#[test]
fn a_list_that_breaks_off_deletes_nothing() {
    let mut mirror = whole();
    take(&mut mirror, What::Begins);
    take(&mut mirror, What::Object(object("a")));
    let trouble = What::Trouble("the connection broke".to_owned());
    assert!(take(&mut mirror, trouble).is_empty());
    assert!(take(&mut mirror, What::Begins).is_empty());
    take(&mut mirror, What::Object(object("b")));
    // Only the list that ended counts.
    assert_eq!(take(&mut mirror, What::Whole(ALL)), ["-a"]);
}

#[test]
fn trouble_is_told_and_what_is_held_stays() {
    let mut mirror = whole();
    let trouble = What::Trouble("refused".to_owned());
    assert!(take(&mut mirror, trouble).is_empty());
    assert_eq!(stage(&mirror), (Stage::InSync, false));
    assert!(mirror.was_whole(), "the pipeline need not wait again");
    take(&mut mirror, What::Follows);
    assert_eq!(stage(&mirror), (Stage::InSync, true));
    assert_eq!(mirror.keys().len(), 2);
}

#[test]
fn an_object_goes_by_the_servers_word_or_when_nothing_of_it_matters() {
    let mut mirror = whole();
    assert_eq!(take(&mut mirror, What::Gone(nothing("a"))), ["-a"]);
    assert!(take(&mut mirror, What::Gone(object("a"))).is_empty());
    assert_eq!(take(&mut mirror, What::Object(nothing("b"))), ["-b"]);
    assert!(take(&mut mirror, What::Object(nothing("unknown"))).is_empty());
    assert_eq!(take(&mut mirror, What::Object(object("b"))), ["+b"]);
}

#[test]
fn what_is_gone_while_a_list_runs_stays_gone() {
    let mut mirror = whole();
    take(&mut mirror, What::Begins);
    take(&mut mirror, What::Object(object("a")));
    take(&mut mirror, What::Object(object("b")));
    assert_eq!(take(&mut mirror, What::Gone(object("b"))), ["-b"]);
    assert!(take(&mut mirror, What::Whole(ALL)).is_empty());
    assert_eq!(mirror.keys().len(), 1);
}

#[test]
fn an_absent_kind_is_in_sync_and_holds_nothing() {
    let mut mirror = Mirror::new([KIND]);
    mirror.order(KIND, ALL);
    assert!(!mirror.was_whole());
    assert!(take(&mut mirror, What::Absent("not installed")).is_empty());
    assert!(mirror.was_whole());
    assert_eq!(stage(&mirror), (Stage::Absent("not installed"), true));
    let mut mirror = whole();
    assert_eq!(
        take(&mut mirror, What::Absent("not installed")),
        ["-a", "-b"]
    );
    take(&mut mirror, What::Begins);
    take(&mut mirror, What::Object(object("c")));
    assert_eq!(mirror.keys().len(), 1);
}

#[test]
fn all_kinds_must_be_whole_once() {
    let mut mirror = Mirror::new([KIND, ResourceKind::Node]);
    mirror.order(KIND, ALL);
    take(&mut mirror, What::Begins);
    take(&mut mirror, What::Whole(ALL));
    assert!(!mirror.was_whole());
    mirror.take(Heard {
        kind: ResourceKind::Node,
        what: What::Absent("nowhere"),
    });
    assert!(mirror.was_whole());
}
