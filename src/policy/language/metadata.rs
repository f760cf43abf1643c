//! What stands around the rules: metadata, status, labels, descriptions.

use serde_json::{Map, Value};

use super::rule::SPEC_FIELDS;
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::nearest::nearest;

/// The fields beside `spec`. One that hides rules, since it is misspelt or stands
/// a level too high, is an error; any other is what Kubernetes drops.
pub(super) fn check_top(checker: &mut Checker, at: &At<'_>, object: &Map<String, Value>) {
    const KNOWN: [&str; 6] = ["apiVersion", "kind", "metadata", "spec", "specs", "status"];
    let hides_rules = |key: &str| {
        let of_spec = SPEC_FIELDS.contains(&key) && !matches!(key, "description" | "labels");
        of_spec || matches!(nearest(key, KNOWN), Some("spec" | "specs"))
    };
    for (key, value) in object {
        let of_spec = SPEC_FIELDS.contains(&&key[..]);
        let at = at.key(key);
        if KNOWN.contains(&&key[..]) {
            continue;
        }
        let mut fault = Fault::new(value, "unknown field");
        if let Some(meant) = nearest(key, KNOWN) {
            fault = fault.suggest(format!("did you mean {meant:?}?"));
        } else if of_spec {
            fault = fault.suggest(format!("it belongs into spec: spec.{key}"));
        }
        if hides_rules(key) {
            checker.error(&at, fault);
        } else {
            checker.warn(&at, fault);
        }
    }
}

/// `labels`, `description` and `log`, checked for form; `log.value`.
pub(super) fn check_extras(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
) -> Option<String> {
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
                for name in ["key", "value", "source"] {
                    if let Some(value) = field(object, name) {
                        checker.string(&at.key(name), value);
                    }
                }
                if field(object, "key").is_none() {
                    checker.error(&at, Fault::missing("key: missing"));
                }
            }
        }
    }
    let at = at.key("log");
    let log = field(object, "log").and_then(|value| checker.object(&at, value))?;
    checker.known_fields(&at, log, &["value"]);
    let at = at.key("value");
    let value = field(log, "value")?;
    let text = checker.string(&at, value)?;
    if text.chars().count() > LOG_CHARS_MAX || text.chars().any(char::is_control) {
        let reason = format!("at most {LOG_CHARS_MAX} printable characters");
        checker.error(&at, Fault::new(value, reason));
    }
    (!text.is_empty()).then(|| text.to_owned())
}

/// Annotation `palisade.io/enforcement: audit`. Another word could mean that the
/// policy is to be enforced, or only watched: an error.
pub(super) fn read_audit(checker: &mut Checker, object: &Map<String, Value>) -> bool {
    const ENFORCEMENT: &str = "palisade.io/enforcement";
    const AUDIT: &str = "audit";
    let annotations = field(object, "metadata")
        .and_then(|metadata| metadata.get("annotations"))
        .and_then(Value::as_object);
    let Some(value) = annotations.and_then(|annotations| annotations.get(ENFORCEMENT)) else {
        return false;
    };
    if value.as_str() != Some(AUDIT) {
        let at = At::ROOT.key("metadata");
        let fault = Fault::new(value, format!("the one valid value is {AUDIT:?}"))
            .suggest("remove the annotation to enforce the policy");
        checker.error(&at.key("annotations").key(ENFORCEMENT), fault);
    }
    true
}

/// Unknown fields of metadata and status are harmless: warnings.
pub(super) fn check_metadata(
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
    }
    if let Some(status) = field(object, "status").and_then(Value::as_object) {
        let known = ["conditions", "nodes", "derivativePolicies"];
        checker.familiar_fields(&at.key("status"), status, &known);
    }
}
