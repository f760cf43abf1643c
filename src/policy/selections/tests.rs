//! Whom selectors select.

use crate::policy::language::{Entity, Peer};
use crate::policy::repository::tests::{node, policy, with};
use crate::policy::{PolicySnapshot, Selector};

/// The numbers of the identities that a selector selects, rising.
fn selected(snapshot: &PolicySnapshot, selector: &Selector) -> Vec<u32> {
    let id = snapshot.selections.ids.get(selector).expect("in use");
    let mut numbers: Vec<u32> = snapshot
        .identities
        .iter()
        .filter(|identity| {
            let signature = snapshot.selections.by_identity.get(&identity.index);
            signature.expect("all are there").contains(&id)
        })
        .map(|identity| identity.number.0)
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn entities_are_questions_about_labels() {
    let names: Vec<_> = Entity::ALL.map(Entity::as_str).to_vec();
    let everyone = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    let spec = format!(
        "nodeSelector: {{}}\ningress: [{{fromEntities: [{}]}}]",
        names.join(", ")
    );
    let snapshot = with(&[policy("p", &spec)]).snapshot();
    // Everyone is not looked up, and told all the same.
    let told = snapshot.selectors();
    let all = told.iter().find(|entry| entry.selector.contains("all"));
    let all = all.map(|entry| entry.identities.iter().map(|number| number.0).collect());
    assert_eq!(all, Some(everyone.to_vec()));
    let cases: [(Entity, &[u32]); 13] = [
        (Entity::World, &[2, 9, 10]),
        (Entity::WorldIpv4, &[9]),
        (Entity::WorldIpv6, &[10]),
        (Entity::Cluster, &[1, 3, 4, 5, 6, 7, 8]),
        (Entity::ClusterMesh, &[1, 3, 4, 5, 6, 7, 8]),
        (Entity::Host, &[1]),
        (Entity::RemoteNode, &[6, 7]),
        (Entity::KubeApiserver, &[7]),
        (Entity::Health, &[4]),
        (Entity::Init, &[5]),
        (Entity::Ingress, &[8]),
        (Entity::Unmanaged, &[3]),
        (Entity::None, &[]),
    ];
    for (entity, expected) in cases {
        let selector = Selector::Peer(Peer::Entity(entity));
        assert_eq!(selected(&snapshot, &selector), expected, "{entity:?}");
    }
}

#[test]
fn prefixes_select_what_is_within_but_not_what_is_excepted() {
    let cidr = |cidr: &str, except: &[&str]| {
        Selector::Peer(Peer::Cidr {
            cidr: cidr.parse().expect("a prefix"),
            except: except
                .iter()
                .map(|prefix| prefix.parse().expect("a prefix"))
                .collect(),
        })
    };
    let spec = "nodeSelector: {}\ningress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: \
                [10.1.0.0/16]}, {cidr: 10.1.2.0/24}, {cidr: 0.0.0.0/0}]}, {fromEntities: [world]}]";
    let snapshot = with(&[policy("p", spec), node("other", "", &["10.0.0.2"])]).snapshot();
    let number = |prefix: &str| {
        let label = format!("cidr:{prefix}");
        let mut of_prefix = snapshot.identities.iter().filter(|identity| {
            let labels = identity.labels.to_strings();
            let prefixes = labels.iter().filter(|label| label.starts_with("cidr:"));
            prefixes.max_by_key(|label| label.rsplit('/').next().and_then(|l| l.parse::<u8>().ok()))
                == Some(&label)
        });
        of_prefix.next().expect("an identity").number.0
    };
    let mut eight = vec![number("10.0.0.0/8")];
    assert_eq!(
        selected(&snapshot, &cidr("10.0.0.0/8", &["10.1.0.0/16"])),
        eight
    );
    assert_eq!(
        selected(&snapshot, &cidr("10.1.2.0/24", &[])),
        [number("10.1.2.0/24")]
    );
    eight.extend([9, number("10.1.0.0/16"), number("10.1.2.0/24")]);
    eight.sort_unstable();
    assert_eq!(selected(&snapshot, &cidr("0.0.0.0/0", &[])), eight);
    eight.extend([2, 10]);
    eight.sort_unstable();
    let world = Selector::Peer(Peer::Entity(Entity::World));
    assert_eq!(selected(&snapshot, &world), eight);
}
