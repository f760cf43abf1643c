//! A whole policy: metadata, `spec` and `specs`, subjects and sections.

use serde_json::{Map, Value};

use super::item::{Around, read_item};
use super::selector::read_selector;
use super::types::{Item, Policy, Rule, RuleSubject};
use super::{Reading, selector::LabelSelector};
use crate::events::ResourceKey;
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::{Direction, Section};

const SPEC_FIELDS: [&str; 10] = [
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
        self.checker.known_fields(
            &at,
            object,
            &["apiVersion", "kind", "metadata", "spec", "specs", "status"],
        );
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
            audit: false,
        })
    }

    fn rule(&mut self, at: &At<'_>, value: &Value) -> Option<Rule> {
        let object = self.checker.object(at, value)?;
        self.checker.known_fields(at, object, &SPEC_FIELDS);
        let subject = self.subject(at, object);
        let held = matches!(subject, Some(RuleSubject::Endpoint(_)));
        let default_deny = self.default_deny(at, object);
        check_extras(&mut self.checker, at, object);
        let mut items = Vec::new();
        for section in Section::OF_RULES {
            items.extend(self.section(at, object, section, held));
        }
        let written = Section::OF_RULES.iter().any(|section| {
            let list = field(object, section.as_str()).and_then(Value::as_array);
            list.is_some_and(|list| !list.is_empty())
        });
        if !written {
            let reason = "the rule has no item: at least one of ingress, ingressDeny, egress and \
                          egressDeny must not be empty";
            self.checker.error(at, Fault::missing(reason));
        }
        Some(Rule {
            subject: subject?,
            default_deny,
            items,
            log: None,
        })
    }

    fn subject(&mut self, at: &At<'_>, object: &Map<String, Value>) -> Option<RuleSubject> {
        let node = field(object, "nodeSelector");
        let endpoint = field(object, "endpointSelector");
        if self.namespace.is_some() {
            return self.namespaced_subject(at, node, endpoint);
        }
        let mut read = |name: &str, value, for_host| -> Option<LabelSelector> {
            read_selector(&mut self.checker, &at.key(name), value, for_host)
        };
        let node_selector = node.and_then(|value| read("nodeSelector", value, true));
        let endpoint_selector = endpoint.and_then(|value| read("endpointSelector", value, false));
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
        let selector = read_selector(&mut self.checker, &at, value, false)?;
        self.checker.warn(&at, Fault::missing(HELD));
        Some(RuleSubject::Endpoint(selector))
    }

    fn default_deny(&mut self, at: &At<'_>, object: &Map<String, Value>) -> [Option<bool>; 2] {
        let at = at.key("enableDefaultDeny");
        let Some(object) =
            field(object, "enableDefaultDeny").and_then(|value| self.checker.object(&at, value))
        else {
            return [None; 2];
        };
        self.checker
            .known_fields(&at, object, &["ingress", "egress"]);
        Direction::BOTH.map(|direction| {
            let name = direction.as_str();
            field(object, name).and_then(|value| self.checker.boolean(&at.key(name), value))
        })
    }

    fn section(
        &mut self,
        at: &At<'_>,
        object: &Map<String, Value>,
        section: Section,
        held: bool,
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
        };
        let mut items = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let number = &mut self.counts[section as usize];
            let item = read_item(&mut self.checker, &at.index(index), value, around, *number);
            *number += 1;
            // What a held rule says is not kept: nothing reads it yet.
            items.extend(item.filter(|_| !held));
        }
        items
    }
}

/// `labels`, `description` and `log`: accepted, checked for form.
fn check_extras(checker: &mut Checker, at: &At<'_>, object: &Map<String, Value>) {
    const LOG_CHARS_MAX: usize = 32;
    if let Some(value) = field(object, "description") {
        checker.string(&at.key("description"), value);
    }
    let at_labels = at.key("labels");
    if let Some(labels) = field(object, "labels").and_then(|value| checker.list(&at_labels, value))
    {
        for (index, value) in labels.iter().enumerate() {
            let at = at_labels.index(index);
            if let Some(object) = checker.object(&at, value) {
                checker.known_fields(&at, object, &["key", "value", "source"]);
                for (name, value) in object {
                    checker.string(&at.key(name), value);
                }
                if field(object, "key").is_none() {
                    checker.error(&at, Fault::missing("key: missing"));
                }
            }
        }
    }
    let at_log = at.key("log");
    if let Some(log) = field(object, "log").and_then(|value| checker.object(&at_log, value)) {
        checker.known_fields(&at_log, log, &["value"]);
        let at_value = at_log.key("value");
        if let Some(value) = field(log, "value")
            && let Some(text) = checker.string(&at_value, value)
            && (text.chars().count() > LOG_CHARS_MAX || text.chars().any(char::is_control))
        {
            let reason = format!("at most {LOG_CHARS_MAX} printable characters");
            checker.error(&at_value, Fault::new(value, reason));
        }
    }
}

/// The annotation of a policy in audit is not read yet. To enforce such a policy
/// in spite of it could cut what its author means to watch only.
fn refuse_enforcement(checker: &mut Checker, at: &At<'_>, metadata: &Map<String, Value>) {
    const ENFORCEMENT: &str = "palisade.io/enforcement";
    let annotations = field(metadata, "annotations").and_then(Value::as_object);
    if let Some(value) = annotations.and_then(|annotations| field(annotations, ENFORCEMENT)) {
        let reason = "not supported yet; remove it, or audit the whole endpoint with \
                      `palisade endpoint config ID PolicyAuditMode=Enabled`";
        let at = at.key("annotations");
        checker.error(&at.key(ENFORCEMENT), Fault::new(value, reason));
    }
}

/// Unknown fields of metadata and status are harmless: warnings.
fn check_metadata(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    cluster_wide: bool,
) {
    const METADATA: [&str; 15] = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "resourceVersion",
        "generation",
        "generateName",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "selfLink",
    ];
    if let Some(metadata) = field(object, "metadata").and_then(Value::as_object) {
        checker.familiar_fields(&at.key("metadata"), metadata, &METADATA);
        if cluster_wide && let Some(namespace) = field(metadata, "namespace") {
            let reason = "ignored: the policy is cluster-wide";
            let at = at.key("metadata");
            checker.warn(&at.key("namespace"), Fault::new(namespace, reason));
        }
        refuse_enforcement(checker, &at.key("metadata"), metadata);
    }
    if let Some(status) = field(object, "status").and_then(Value::as_object) {
        let known = ["conditions", "nodes", "derivativePolicies"];
        checker.familiar_fields(&at.key("status"), status, &known);
    }
}
