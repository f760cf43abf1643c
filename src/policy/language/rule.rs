//! A whole policy: metadata, `spec` and `specs`, subjects and sections.

use serde_json::{Map, Value};

use super::Reading;
use super::item::{Around, read_item};
use super::metadata::{check_extras, check_metadata, check_top, read_audit};
use super::namespaces::{PeerScope, bind_subject};
use super::selector::{LabelSelector, Matched, read_selector};
use super::types::{Item, Policy, Rule, RuleSubject};
use crate::events::ResourceKey;
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::{Direction, Section};

pub(super) const SPEC_FIELDS: [&str; 10] = [
    "nodeSelector",
    "endpointSelector",
    "ingress",
    "ingressDeny",
    "egress",
    "egressDeny",
    "enableDefaultDeny",
    "labels",
    "description",
    "log",
];

/// What a rule for workload endpoints is told.
const HELD: &str = "accepted and held: there are no workload endpoints here, and a rule with \
                    endpointSelector never selects the host";

/// Reads a CiliumClusterwideNetworkPolicy or a CiliumNetworkPolicy, as the key
/// says: all its errors at once.
#[must_use]
pub fn read_policy(key: &ResourceKey, body: &Value) -> Reading<Policy> {
    let mut reader = PolicyReader {
        namespace: key.namespace.clone(),
        checker: Checker::default(),
        counts: [0; 4],
    };
    let policy = reader.policy(body);
    let (errors, warnings) = reader.checker.finish();
    Reading {
        value: policy.filter(|_| errors.is_empty()),
        errors,
        warnings,
    }
}

struct PolicyReader {
    /// Of a CiliumNetworkPolicy.
    namespace: Option<String>,
    checker: Checker,
    /// Items so far, by [`Section`]: the sections of all rules are concatenated.
    counts: [usize; 4],
}

impl PolicyReader {
    fn policy(&mut self, body: &Value) -> Option<Policy> {
        let at = At::ROOT;
        let object = self.checker.object(&at, body)?;
        check_top(&mut self.checker, &at, object);
        check_metadata(&mut self.checker, &at, object, self.namespace.is_none());
        let mut rules = Vec::new();
        let spec = field(object, "spec");
        let specs_at = at.key("specs");
        let specs = field(object, "specs").and_then(|value| self.checker.list(&specs_at, value));
        if spec.is_none() && specs.is_none_or(Vec::is_empty) {
            let fault = Fault::missing("neither spec nor specs is written");
            self.checker.error(&at, fault);
        }
        if let Some(spec) = spec {
            rules.extend(self.rule(&at.key("spec"), spec));
        }
        for (index, spec) in specs.into_iter().flatten().enumerate() {
            rules.extend(self.rule(&specs_at.index(index), spec));
        }
        Some(Policy {
            rules,
            audit: read_audit(&mut self.checker, object),
        })
    }

    fn rule(&mut self, at: &At<'_>, value: &Value) -> Option<Rule> {
        let object = self.checker.object(at, value)?;
        self.checker.known_fields(at, object, &SPEC_FIELDS);
        let subject = self.subject(at, object);
        let held = self.namespace.is_some() || field(object, "nodeSelector").is_none();
        let selector = match &subject {
            Some(RuleSubject::Endpoint(selector)) => Some(selector),
            Some(RuleSubject::Node(_)) | None => None,
        };
        let namespace = self.namespace.clone();
        let scope = PeerScope::new(namespace.as_deref(), selector);
        let default_deny = self.default_deny(at, object);
        let log = check_extras(&mut self.checker, at, object);
        let mut items = Vec::new();
        for section in Section::OF_RULES {
            items.extend(self.section(at, object, section, held, scope));
        }
        let written = Direction::BOTH
            .into_iter()
            .any(|direction| has_items(object, direction));
        if !written {
            let reason = "the rule has no item: at least one of ingress, ingressDeny, egress and \
                          egressDeny must not be empty";
            self.checker.error(at, Fault::missing(reason));
        }
        Some(Rule {
            subject: subject?,
            default_deny,
            items,
            log,
        })
    }

    fn subject(&mut self, at: &At<'_>, object: &Map<String, Value>) -> Option<RuleSubject> {
        let node = field(object, "nodeSelector");
        let endpoint = field(object, "endpointSelector");
        if let Some(namespace) = self.namespace.clone() {
            return self.namespaced_subject(at, node, endpoint, &namespace);
        }
        let mut read = |name: &str, value, matched| -> Option<LabelSelector> {
            read_selector(&mut self.checker, &at.key(name), value, matched)
        };
        let node_selector = node.and_then(|value| read("nodeSelector", value, Matched::Host));
        let endpoint_selector =
            endpoint.and_then(|value| read("endpointSelector", value, Matched::Pods));
        match (node, endpoint) {
            (Some(_), None) => node_selector.map(RuleSubject::Node),
            (None, Some(_)) => {
                let at = at.key("endpointSelector");
                self.checker.warn(&at, Fault::missing(HELD));
                endpoint_selector.map(RuleSubject::Endpoint)
            }
            (Some(_), Some(_)) => {
                let reason = "nodeSelector and endpointSelector exclude each other";
                self.checker.error(at, Fault::missing(reason));
                None
            }
            (None, None) => {
                let fault = Fault::missing("neither nodeSelector nor endpointSelector is written");
                let fault = fault.suggest("nodeSelector: {} selects every node");
                self.checker.error(at, fault);
                None
            }
        }
    }

    /// A CiliumNetworkPolicy is for the pods of its namespace, never for a host.
    fn namespaced_subject(
        &mut self,
        at: &At<'_>,
        node: Option<&Value>,
        endpoint: Option<&Value>,
        namespace: &str,
    ) -> Option<RuleSubject> {
        if let Some(value) = node {
            let reason = "a CiliumNetworkPolicy cannot select nodes";
            let fault = Fault::new(value, reason).suggest("use a CiliumClusterwideNetworkPolicy");
            self.checker.error(&at.key("nodeSelector"), fault);
        }
        let Some(value) = endpoint else {
            let fault = Fault::missing("endpointSelector: missing")
                .suggest("endpointSelector: {} selects every pod of the namespace");
            self.checker.error(at, fault);
            return None;
        };
        let at = at.key("endpointSelector");
        let mut selector = read_selector(&mut self.checker, &at, value, Matched::Pods)?;
        if let Some(other) = bind_subject(&mut selector, namespace) {
            let reason = format!(
                "names the namespace {other:?}; the policy is of {namespace:?}, which counts"
            );
            self.checker.warn(&at, Fault::missing(reason));
        }
        self.checker.warn(&at, Fault::missing(HELD));
        Some(RuleSubject::Endpoint(selector))
    }

    fn default_deny(&mut self, at: &At<'_>, spec: &Map<String, Value>) -> [Option<bool>; 2] {
        let at = at.key("enableDefaultDeny");
        let Some(object) =
            field(spec, "enableDefaultDeny").and_then(|value| self.checker.object(&at, value))
        else {
            return [None; 2];
        };
        self.checker
            .known_fields(&at, object, &["ingress", "egress"]);
        Direction::BOTH.map(|direction| {
            let name = direction.as_str();
            let at = at.key(name);
            let written = field(object, name)?;
            if !has_items(spec, direction) {
                let reason = format!("no effect: the rule has no item for {name}");
                self.checker.warn(&at, Fault::new(written, reason));
            }
            self.checker.boolean(&at, written)
        })
    }

    fn section(
        &mut self,
        at: &At<'_>,
        object: &Map<String, Value>,
        section: Section,
        held: bool,
        scope: PeerScope<'_>,
    ) -> Vec<Item> {
        let at = at.key(section.as_str());
        let Some(direction) = section.direction() else {
            return Vec::new();
        };
        let Some(list) =
            field(object, section.as_str()).and_then(|value| self.checker.list(&at, value))
        else {
            return Vec::new();
        };
        let around = Around {
            section,
            direction,
            held,
            scope,
        };
        let mut items = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let number = &mut self.counts[section as usize];
            let item = read_item(&mut self.checker, &at.index(index), value, around, *number);
            *number += 1;
            items.extend(item);
        }
        items
    }
}

/// Whether a section of the direction is not empty.
fn has_items(spec: &Map<String, Value>, direction: Direction) -> bool {
    Section::OF_RULES
        .into_iter()
        .filter(|section| section.direction() == Some(direction))
        .filter_map(|section| field(spec, section.as_str())?.as_array())
        .any(|list| !list.is_empty())
}
