//! The mirror: what follows from what is heard, that nothing is deleted on a
//! guess, and that no address has for a moment the labels of another.

use serde_json::json;

use super::heard::{Entry, Heard};
use super::keys::{ADDRESSES, MASTERS, POLICIES};
use super::mirror::Mirror;
use super::translate::{Meaning, Own};
use crate::events::{RepositoryChange, ResourceKey, ResourceKind};

fn mirror(restored: Vec<(String, ResourceKey, Meaning)>) -> Mirror {
    let own = Own {
        cluster: "default".to_owned(),
        node: "here".to_owned(),
    };
    Mirror::new(own, restored)
}

fn policy(name: &str) -> (String, String) {
    let body = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name}});
    (
        format!("{POLICIES}CiliumClusterwideNetworkPolicy/{name}"),
        body.to_string(),
    )
}

fn identity(number: u32, app: &str) -> (String, String) {
    (format!("{MASTERS}{number}"), format!("k8s:app={app};"))
}

fn address(last: u8, number: u32) -> (String, String) {
    let body = json!({"IP": format!("10.0.0.{last}"), "Mask": null, "ID": number});
    (format!("{ADDRESSES}10.0.0.{last}"), body.to_string())
}

fn entry((key, value): (String, String)) -> Heard {
    let value = value.into_bytes();
    Heard::Entry(Entry { key, value })
}

/// Changes in short: `+Kind/name` and `-Kind/name`.
fn take(mirror: &mut Mirror, heard: impl IntoIterator<Item = Heard>) -> Vec<String> {
    let told = heard
        .into_iter()
        .flat_map(|heard| mirror.take(heard))
        .map(|told| {
            let sign = match told.change {
                RepositoryChange::Delete { .. } => '-',
                _ => '+',
            };
            format!("{sign}{}", told.change.key().expect("a key").name)
        });
    told.collect()
}

fn list(mirror: &mut Mirror, pairs: Vec<(String, String)>) -> Vec<String> {
    let mut heard = vec![Heard::Begins];
    heard.extend(pairs.into_iter().map(entry));
    heard.push(Heard::Whole);
    take(mirror, heard)
}

#[test]
fn only_a_whole_list_or_etcds_word_deletes() {
    let mirror = &mut mirror(Vec::new());
    assert_eq!(list(mirror, vec![policy("a"), policy("b")]), ["+a", "+b"]);
    assert!(mirror.is_in_sync());
    // Lists that break off change nothing.
    let heard = [
        Heard::Begins,
        entry(policy("c")),
        Heard::Trouble("gone".to_owned()),
    ];
    assert_eq!(take(mirror, heard), [""; 0]);
    assert!(!mirror.is_in_sync() && mirror.was_whole());
    assert_eq!(mirror.keys().len(), 2);
    assert_eq!(
        list(mirror, vec![policy("b"), policy("c")]),
        ["+b", "+c", "-a"]
    );
    assert!(mirror.is_in_sync());
    let gone = Heard::Gone(policy("b").0);
    assert_eq!(take(mirror, [gone.clone(), gone]), ["-b"]);
}

#[test]
fn the_first_list_is_told_as_it_comes_and_no_other() {
    let mirror = &mut mirror(Vec::new());
    let heard = [Heard::Begins, entry(policy("a")), entry(policy("b"))];
    assert_eq!(take(mirror, heard), ["+a", "+b"]);
    // It breaks off: the next one has all that counts.
    let trouble = Heard::Trouble("gone".to_owned());
    assert_eq!(take(mirror, [trouble, Heard::Begins]), [""; 0]);
    assert!(!mirror.was_whole());
    let heard = [entry(policy("b")), entry(policy("c"))];
    assert_eq!(take(mirror, heard), [""; 0]);
    assert_eq!(take(mirror, [Heard::Whole]), ["+b", "+c", "-a"]);
    assert!(mirror.is_in_sync());
    // An etcd that was emptied is filled at once, not key by key.
    let gone = [policy("b"), policy("c")].map(|(key, _)| Heard::Gone(key));
    assert_eq!(take(mirror, gone), ["-b", "-c"]);
    let heard = [Heard::Begins, entry(policy("d"))];
    assert_eq!(take(mirror, heard), [""; 0]);
    assert_eq!(take(mirror, [Heard::Whole]), ["+d"]);
}

#[test]
fn what_an_earlier_life_knew_goes_with_the_first_whole_list() {
    let key = ResourceKey {
        kind: ResourceKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: "old".to_owned(),
    };
    let mirror = &mut mirror(vec![(policy("old").0, key, Meaning::Other)]);
    assert_eq!(take(mirror, [Heard::Begins, entry(policy("a"))]), [""; 0]);
    assert!(!mirror.was_whole());
    assert_eq!(take(mirror, [Heard::Whole]), ["+a", "-old"]);
}

#[test]
fn what_cannot_be_read_leaves_what_was_there() {
    let mirror = &mut mirror(Vec::new());
    list(mirror, vec![policy("a")]);
    let (key, _) = policy("a");
    assert_eq!(
        take(mirror, [entry((key.clone(), "{".to_owned()))]),
        [""; 0]
    );
    let broken: Vec<_> = mirror
        .broken()
        .map(|(key, _, stays)| (key.to_owned(), stays))
        .collect();
    assert_eq!(broken, [(key.clone(), true)]);
    assert_eq!(list(mirror, vec![(key.clone(), "{".to_owned())]), [""; 0]);
    assert_eq!(mirror.keys().len(), 1);
    assert_eq!(take(mirror, [Heard::Gone(key)]), ["-a"]);
    assert_eq!(mirror.broken().count(), 0);
}

#[test]
fn a_number_takes_another_meaning_when_no_address_has_the_old_one() {
    let mirror = &mut mirror(Vec::new());
    let before = vec![
        identity(256, "a"),
        identity(257, "b"),
        address(1, 256),
        address(2, 256),
        address(3, 257),
    ];
    list(mirror, before);
    // While nobody listened 256 was collected and given to `c`; 258 is new.
    let after = vec![
        identity(256, "c"),
        identity(257, "b"),
        identity(258, "a"),
        address(2, 258),
        address(3, 256),
    ];
    assert_eq!(
        list(mirror, after),
        [
            "+257",
            "+258",
            "+10.0.0.2",
            "-10.0.0.1",
            "+256",
            "+10.0.0.3"
        ]
    );
}

#[test]
fn numbers_that_change_places_let_their_addresses_go_first() {
    let mirror = &mut mirror(Vec::new());
    let before = vec![
        identity(256, "a"),
        identity(257, "b"),
        address(1, 256),
        address(2, 257),
    ];
    list(mirror, before);
    let after = vec![
        identity(256, "b"),
        identity(257, "a"),
        address(1, 257),
        address(2, 256),
    ];
    assert_eq!(
        list(mirror, after),
        [
            "-10.0.0.1",
            "-10.0.0.2",
            "+256",
            "+257",
            "+10.0.0.1",
            "+10.0.0.2"
        ]
    );
}
