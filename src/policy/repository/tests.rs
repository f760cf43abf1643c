//! Changes, revisions, identities and records.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Applied, Repository};
use crate::events::{
    EndpointId, Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName,
};
use crate::identity::longest_match;
use crate::policy::{FailsafeEntry, PolicyOptions, Subject, documents, resolve};

/// Changes of a YAML text, as one source would give them.
pub(in crate::policy) fn upserts(text: &str, source: SourceName) -> Vec<RepositoryChange> {
    let reading = documents::read("f.yaml", text.as_bytes(), source);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let documents = reading.documents.into_iter();
    documents
        .map(|document| RepositoryChange::Upsert(document.resource))
        .collect()
}

pub(in crate::policy) fn policy(name: &str, spec: &str) -> RepositoryChange {
    let spec = spec.replace('\n', "\n  ");
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: \
         {name}}}\nspec:\n  {spec}\n"
    );
    upserts(&text, SourceName::Manifests).remove(0)
}

pub(in crate::policy) fn node(name: &str, labels: &str, addresses: &[&str]) -> RepositoryChange {
    let mut text = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nstatus:\n  \
         addresses:\n"
    );
    for address in addresses {
        let _ = writeln!(text, "  - {{type: InternalIP, address: \"{address}\"}}");
    }
    upserts(&text, SourceName::Manifests).remove(0)
}

fn delete(kind: ResourceKind, name: &str) -> RepositoryChange {
    RepositoryChange::Delete {
        key: ResourceKey {
            kind,
            namespace: None,
            name: name.to_owned(),
        },
        source: SourceName::Manifests,
    }
}

pub(in crate::policy) fn options() -> PolicyOptions {
    PolicyOptions {
        node_name: "self".to_owned(),
        ..PolicyOptions::default()
    }
}

/// A repository after changes that must all be accepted.
pub(in crate::policy) fn with(changes: &[RepositoryChange]) -> Repository {
    let mut repository = Repository::new(options());
    for change in changes {
        let applied = repository.apply(change);
        assert!(!matches!(applied, Applied::Refused(_)), "{applied:?}");
    }
    repository
}

/// What a change did, in one line.
fn show(applied: &Applied) -> String {
    match applied {
        Applied::Unchanged => "unchanged".to_owned(),
        Applied::Refused(refusal) => {
            let errors: Vec<_> = refusal.errors.iter().map(ToString::to_string).collect();
            format!(
                "refused in_force={} {}",
                refusal.in_force,
                errors.join(" | ")
            )
        }
        Applied::Changed(change) => {
            let causes: Vec<_> = change.causes.iter().map(|cause| cause.as_str()).collect();
            let host = change.affected.host;
            format!(
                "revision {} host={host} {}",
                change.revision,
                causes.join(",")
            )
        }
    }
}

fn check(repository: &mut Repository, change: &RepositoryChange, expected: &str) {
    assert_eq!(show(&repository.apply(change)), expected, "{change:?}");
}

pub(super) fn identity_of(repository: &Repository, address: &str) -> String {
    let snapshot = repository.snapshot();
    let address = address.parse().expect("an address");
    let (_, entry) = longest_match(&snapshot.ipcache4, &snapshot.ipcache6, address)
        .expect("everything has an identity");
    let identity = snapshot.identities.get(entry.identity).expect("live");
    assert_eq!(identity.index, entry.index);
    format!(
        "{} {}",
        identity.number,
        identity.labels.to_strings().join(" ")
    )
}

const SSH: &str = "nodeSelector: {matchLabels: {node-access: ssh}}\ningress: [{fromEntities: \
                   [cluster]}]";

#[test]
fn one_revision_for_each_change_that_matters() {
    use ResourceKind::{CiliumClusterwideNetworkPolicy as Ccnp, Node};
    let mut repository = Repository::new(options());
    let r = &mut repository;
    check(r, &policy("p", SSH), "revision 2 host=false policy-added");
    check(r, &policy("p", SSH), "unchanged");
    let labelled = node("self", "node-access: ssh", &["10.0.0.1"]);
    check(
        r,
        &labelled,
        "revision 3 host=true labels-changed,identities-changed",
    );
    check(r, &labelled, "unchanged");
    check(
        r,
        &policy("p", "nodeSelector: {}\ningress: [{fromCIDR: [10.0.0.0/8]}]"),
        "revision 4 host=true policy-added,identities-changed",
    );
    check(
        r,
        &policy("p", "nodeSelector: {}\ningres: []"),
        "refused in_force=true spec.ingres: [...]: unknown field; did you mean \"ingress\"? | \
         spec: the rule has no item: at least one of ingress, ingressDeny, egress and egressDeny \
         must not be empty",
    );
    assert_eq!(repository.snapshot().refused.len(), 1);
    let r = &mut repository;
    check(
        r,
        &policy("p", "nodeSelector: {}\ningress: [{fromCIDR: [10.0.0.0/8]}]"),
        "unchanged",
    );
    assert_eq!(repository.snapshot().refused.len(), 0);
    let r = &mut repository;
    check(r, &node("other", "a: b", &[]), "unchanged");
    check(
        r,
        &node("other", "a: c", &["10.0.0.2"]),
        "revision 5 host=true identities-changed",
    );
    check(r, &delete(Ccnp, "unknown"), "unchanged");
    check(
        r,
        &delete(Ccnp, "p"),
        "revision 6 host=true policy-deleted,identities-changed",
    );
    check(
        r,
        &delete(Node, "other"),
        "revision 7 host=true identities-changed",
    );
    let addresses = RepositoryChange::LocalAddresses(vec!["10.0.0.9".parse().expect("an address")]);
    check(r, &addresses, "revision 8 host=true identities-changed");
    check(r, &addresses, "unchanged");
    let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    check(
        r,
        &RepositoryChange::NodeLabels(labels),
        "revision 9 host=true labels-changed",
    );
    assert_eq!(
        repository.snapshot().host_labels.to_strings(),
        ["k8s:node-access=ssh", "k8s:zone=a", "reserved:host"]
    );
}

#[test]
fn the_first_source_keeps_a_key() {
    let mut repository = with(&[policy("p", SSH)]);
    let RepositoryChange::Upsert(resource) = policy("p", "nodeSelector: {}\ningress: [{}]") else {
        unreachable!("an upsert");
    };
    let other = Resource {
        source: SourceName::Api,
        ..resource
    };
    check(
        &mut repository,
        &RepositoryChange::Upsert(other.clone()),
        "refused in_force=true metadata.name: \"p\": belongs to the source manifests; delete it \
         there first, or use another name",
    );
    let by_api = RepositoryChange::Delete {
        key: other.key.clone(),
        source: SourceName::Api,
    };
    check(&mut repository, &by_api, "unchanged");
    let name = delete(ResourceKind::CiliumClusterwideNetworkPolicy, "p");
    check(
        &mut repository,
        &name,
        "revision 3 host=false policy-deleted",
    );
    check(
        &mut repository,
        &RepositoryChange::Upsert(other),
        "revision 4 host=true policy-added",
    );
}

#[test]
fn addresses_have_identities() {
    let mut options = options();
    options.failsafe = vec![FailsafeEntry {
        direction: 0,
        proto: 6,
        port: 22,
        peer: Some("10.9.0.0/16".parse().expect("a prefix")),
    }];
    let mut repository = Repository::new(options);
    for change in [
        node("self", "a: b", &["10.0.0.1", "2001:db8::1"]),
        node("other", "", &["10.0.0.2", "10.9.0.2"]),
        policy(
            "p",
            "nodeSelector: {}\ningress: [{fromCIDR: [10.0.0.0/8, 10.0.0.2/32, 10.1.0.0/16]}, \
             {fromCIDRSet: [{cidr: \"::/0\", except: [\"2001:db8::/32\"]}]}]",
        ),
        policy(
            "elsewhere",
            "nodeSelector: {matchLabels: {c: d}}\ningress: [{fromCIDR: [192.0.2.0/24]}]",
        ),
        RepositoryChange::LocalAddresses(vec!["192.0.2.1".parse().expect("an address")]),
    ] {
        assert!(matches!(repository.apply(&change), Applied::Changed(_)));
    }
    let cases = [
        ("10.0.0.1", "1 k8s:a=b reserved:host"),
        ("192.0.2.1", "1 k8s:a=b reserved:host"),
        ("10.0.0.2", "6 reserved:remote-node"),
        ("10.9.0.2", "33554433 reserved:remote-node"),
        (
            "10.9.0.3",
            "16777217 cidr:10.0.0.0/8 cidr:10.9.0.0/16 reserved:world",
        ),
        (
            "10.1.2.3",
            "16777220 cidr:10.0.0.0/8 cidr:10.1.0.0/16 reserved:world",
        ),
        ("10.2.2.3", "16777218 cidr:10.0.0.0/8 reserved:world"),
        ("192.0.2.7", "2 reserved:world"),
        ("2001:db8::1", "1 k8s:a=b reserved:host"),
        (
            "2001:db8::2",
            "16777221 cidr:2001:db8::/32 cidr:::/0 reserved:world",
        ),
        ("2002::1", "10 cidr:::/0 reserved:world reserved:world-ipv6"),
    ];
    for (address, expected) in cases {
        assert_eq!(identity_of(&repository, address), expected, "{address}");
    }
}

#[test]
fn numbers_of_rules_are_stable() {
    let show = |repository: &Repository| -> Vec<String> {
        let rules = repository.snapshot().rules.clone();
        rules
            .iter()
            .map(|(number, entry)| {
                let rule = &entry.rule;
                let name = rule.resource.as_ref().map_or("", |key| &key.name);
                format!(
                    "{} {name} {} {}",
                    number.0,
                    rule.section.as_str(),
                    rule.index
                )
            })
            .collect()
    };
    let one = "nodeSelector: {}\ningress: [{}]";
    let two = "nodeSelector: {}\ningress: [{}, {}]\negressDeny: [{}]";
    let mut repository = with(&[policy("b", one), policy("a", two)]);
    let all = [
        "1 b ingress 0",
        "2 a ingress 0",
        "3 a ingress 1",
        "4 a egressDeny 0",
    ];
    assert_eq!(show(&repository), all);
    repository.apply(&policy("a", one));
    assert_eq!(show(&repository), all[..2]);
    repository.apply(&policy("a", two));
    let moved = ["5 a ingress 1", "6 a egressDeny 0"];
    assert_eq!(show(&repository), [all[0], all[1], moved[0], moved[1]]);
    repository.apply(&policy("b", SSH));
    assert_eq!(show(&repository), [all[1], moved[0], moved[1]]);
}

#[test]
fn more_than_fits_is_refused_whole() {
    let prefixes: Vec<String> = (0..140_000u32)
        .map(|number| {
            let [_, b, c, d] = number.to_be_bytes();
            format!("\"10.{b}.{c}.{d}/32\"")
        })
        .collect();
    let spec = |from: usize, to: usize| {
        let list = prefixes[from..to].join(", ");
        serde_yaml_ng::from_str(&format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {{name: \
             p}}, spec: {{nodeSelector: {{}}, ingress: [{{fromCIDR: [{list}]}}]}}}}"
        ))
        .expect("YAML")
    };
    let upsert = |body| {
        RepositoryChange::Upsert(Resource {
            key: ResourceKey {
                kind: ResourceKind::CiliumClusterwideNetworkPolicy,
                namespace: None,
                name: "p".to_owned(),
            },
            source: SourceName::Kubernetes,
            origin: Origin::default(),
            body,
        })
    };
    let mut repository = Repository::new(options());
    check(
        &mut repository,
        &upsert(spec(0, 70_000)),
        "revision 2 host=true policy-added,identities-changed",
    );
    check(
        &mut repository,
        &upsert(spec(0, 140_000)),
        "refused in_force=true 140000 CIDR prefixes are needed on this node with it, 131061 fit; \
         merge rules or prefixes",
    );
    assert_eq!(repository.snapshot().identities.len(), 70_011);
    // What the old version gives back is room for the new one.
    check(
        &mut repository,
        &upsert(spec(70_000, 140_000)),
        "revision 3 host=true policy-added,identities-changed",
    );
    let snapshot = repository.snapshot();
    let policy = resolve(&snapshot, Subject::Host(EndpointId(1)), false).expect("fits");
    assert_eq!(policy.directions[0].table.different_rows().0.len(), 2);
}

/// The same changes give the same state, and a record of it gives it again.
#[test]
fn records_are_bit_identical() {
    let mut changes = vec![
        policy("b", "nodeSelector: {}\ningress: [{fromCIDR: [10.0.0.0/8]}]"),
        node("self", "node-access: ssh", &["10.0.0.1"]),
        policy("a", SSH),
        policy(
            "b",
            "nodeSelector: {}\ningress: [{fromCIDR: [10.1.0.0/16]}, {}]",
        ),
        policy("c", "nodeSelector: {}\negress: [{toCIDR: [0.0.0.0/0]}, {}]"),
        policy("c", "nodeSelector: 5\negress: []"),
        policy(
            "b",
            "nodeSelector: {}\ningress: [{fromCIDR: [10.2.0.0/16]}]",
        ),
        node("other", "", &["10.2.0.2", "2001:db8::2"]),
        RepositoryChange::LocalAddresses(vec!["192.0.2.1".parse().expect("an address")]),
        RepositoryChange::NodeLabels(BTreeMap::from([("z".to_owned(), "1".to_owned())])),
    ];
    let build = |changes: &[RepositoryChange]| {
        let mut repository = Repository::new(options());
        for change in changes {
            repository.apply(change);
        }
        repository
    };
    let text = |repository: &Repository| {
        serde_json::to_string(&repository.export()).expect("a record is JSON")
    };
    let (one, two) = (build(&changes), build(&changes));
    assert_eq!(text(&one), text(&two));
    let record = serde_json::from_str(&text(&one)).expect("a record");
    let mut copy = Repository::import(record, options()).expect("of this version");
    assert_eq!(text(&copy), text(&one));
    // Both go on alike.
    let mut one = one;
    changes.reverse();
    for change in &changes {
        assert_eq!(one.apply(change), copy.apply(change));
    }
    assert_eq!(text(&copy), text(&one));
    let (one, copy) = (one.snapshot(), copy.snapshot());
    assert_eq!(one.ipcache4, copy.ipcache4);
    assert_eq!(one.identities, copy.identities);
    let subject = Subject::Host(EndpointId(1));
    assert_eq!(
        resolve(&one, subject, false),
        resolve(&copy, subject, false)
    );
    let mut newer = Repository::new(options()).export();
    newer.version = 3;
    let error = Repository::import(newer, options())
        .map(|_| ())
        .expect_err("newer");
    assert!(error.to_string().contains("layout 3"), "{error}");
}
