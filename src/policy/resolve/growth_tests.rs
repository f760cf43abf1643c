//! What one change costs must not follow from what there is. Counted, not timed.

use super::tests::HOST;
use super::{Resolver, Work};
use crate::events::{RepositoryChange, SourceName};
use crate::policy::Repository;
use crate::policy::repository::tests::{options, policy};

/// Rules in a policy.
const BATCH: usize = 20;
/// Rules for the same port.
const USERS: usize = 4;

fn prefix(number: usize) -> String {
    format!("10.1.{}.{}/32", number / 250, number % 250)
}

fn rule(prefixes: &[usize], port: usize) -> String {
    let prefixes: Vec<String> = prefixes.iter().map(|number| prefix(*number)).collect();
    format!(
        "- fromCIDR: [{}]\n  toPorts: [{{ports: [{{port: {port}, protocol: TCP}}]}}]\n",
        prefixes.join(", ")
    )
}

/// Ports in no order.
fn port(number: usize) -> usize {
    1_000 + number * 40_503 % 50_021
}

fn batch(name: &str, rules: &[String]) -> RepositoryChange {
    let spec = format!("nodeSelector: {{}}\ningress:\n{}", rules.concat());
    policy(name, &spec)
}

fn gone(name: &str) -> RepositoryChange {
    let RepositoryChange::Upsert(resource) = policy(name, "nodeSelector: {}") else {
        unreachable!("a policy is brought");
    };
    RepositoryChange::Delete {
        key: resource.key,
        source: SourceName::Manifests,
    }
}

/// A world of so many rules for a prefix of its own each.
struct World {
    rules: usize,
    ports: usize,
    repository: Repository,
    resolver: Resolver,
}

impl World {
    fn new(rules: usize) -> Self {
        let mut world = Self {
            rules,
            ports: rules / USERS,
            repository: Repository::new(options()),
            resolver: Resolver::new(HOST),
        };
        for first in (0..rules).step_by(BATCH) {
            world
                .repository
                .apply(&batch(&format!("p{first:05}"), &world.usual(first)));
        }
        world.work();
        world
    }

    fn port(&self, number: usize) -> usize {
        port(number % self.ports)
    }

    fn usual(&self, first: usize) -> Vec<String> {
        (first..first + BATCH)
            .map(|number| rule(&[number], self.port(number)))
            .collect()
    }

    fn work(&mut self) -> Work {
        let snapshot = self.repository.snapshot();
        self.resolver.resolve(&snapshot, false).expect("fits");
        self.resolver.work()
    }

    fn after(&mut self, change: &RepositoryChange) -> Work {
        self.repository.apply(change);
        self.work()
    }

    /// There and back.
    fn both(&mut self, there: &RepositoryChange, back: &RepositoryChange) -> [Work; 2] {
        [self.after(there), self.after(back)]
    }

    /// A policy in the middle with another first rule, and as it was.
    fn edited(&mut self, first_rule: String) -> [Work; 2] {
        let first = self.rules / 2 / BATCH * BATCH;
        let (name, usual) = (format!("p{first:05}"), self.usual(first));
        let mut edited = usual.clone();
        edited[0] = first_rule;
        self.both(&batch(&name, &edited), &batch(&name, &usual))
    }
}

#[test]
fn a_rule_or_a_prefix_costs_the_same_in_a_larger_world() {
    let works = [200, 2_000].map(|rules| {
        let mut world = World::new(rules);
        let middle = rules / 2 / BATCH * BATCH;
        let known = world.port(7);
        let first = batch("a", &[rule(&[3], known)]);
        let new_port = batch("n", &[rule(&[5], port(world.ports + 1))]);
        let everyone = |section: &str| {
            let rule = "[{toPorts: [{ports: [{port: 443}]}]}]";
            policy("e", &format!("nodeSelector: {{}}\n{section}: {rule}"))
        };
        let [opened, denied] = ["ingress", "ingressDeny"].map(everyone);
        let entity = policy("e", "nodeSelector: {}\ningress: [{fromEntities: [all]}]");
        let last = batch("z", &[rule(&[rules - 3, rules + 9], known)]);
        [
            world.both(&first, &gone("a")),
            world.both(&last, &gone("z")),
            world.edited(rule(&[middle], known)),
            world.edited(rule(&[middle, rules + 1], world.port(middle))),
            world.both(&new_port, &gone("n")),
            world.both(&opened, &gone("e")),
            world.both(&denied, &gone("e")),
            world.both(&entity, &gone("e")),
        ]
    });
    assert_eq!(works[0], works[1]);
    for work in works[0].iter().flatten() {
        assert!(work.given <= 2, "{work:?}");
        assert_eq!(work.directions, 0);
    }
}
