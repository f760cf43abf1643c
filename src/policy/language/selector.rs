//! Label selectors: `matchLabels` and `matchExpressions`, with sources.

use serde_json::{Map, Value};

use crate::identity::{LabelSet, is_identity_label};
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::nearest::nearest;

/// All requirements must hold; none selects everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

/// One requirement on one key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Requirement {
    /// None: of any source.
    pub source: Option<String>,
    pub key: String,
    pub operator: Operator,
    /// Sorted; empty for Exists and DoesNotExist.
    pub values: Vec<String>,
}

/// Kubernetes' operators.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether all requirements hold.
    #[must_use]
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &LabelSet) -> bool {
        let mut with_key = labels.iter().filter(|label| {
            label.key == self.key
                && self
                    .source
                    .as_ref()
                    .is_none_or(|source| *source == label.source)
        });
        match self.operator {
            Operator::In => with_key.any(|label| self.values.contains(&label.value)),
            Operator::NotIn => !with_key.any(|label| self.values.contains(&label.value)),
            Operator::Exists => with_key.next().is_some(),
            Operator::DoesNotExist => with_key.next().is_none(),
        }
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("{}");
        }
        for (number, requirement) in self.requirements.iter().enumerate() {
            if number > 0 {
                f.write_str(", ")?;
            }
            let source = requirement.source.as_deref().unwrap_or("any");
            let (key, values) = (&requirement.key, requirement.values.join(" "));
            match requirement.operator {
                Operator::In if requirement.values.len() == 1 => {
                    write!(f, "{source}:{key}={values}")?;
                }
                Operator::In => write!(f, "{source}:{key} in ({values})")?,
                Operator::NotIn => write!(f, "{source}:{key} notin ({values})")?,
                Operator::Exists => write!(f, "{source}:{key}")?,
                Operator::DoesNotExist => write!(f, "!{source}:{key}")?,
            }
        }
        Ok(())
    }
}

/// What the labels of a selector are compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Matched {
    /// This node, by all labels of its Node.
    Host,
    /// Pods, by their identity: without the labels that the filter takes away.
    Pods,
    /// Other nodes, by labels of the source `node`.
    OtherNodes,
    /// Objects (groups, services), by their own labels: any source is meant.
    Objects,
}

/// Reads a selector.
pub(super) fn read_selector(
    checker: &mut Checker,
    at: &At<'_>,
    value: &Value,
    matched: Matched,
) -> Option<LabelSelector> {
    let object = checker.object(at, value)?;
    checker.known_fields(at, object, &["matchLabels", "matchExpressions"]);
    let mut requirements = Vec::new();
    if let Some(labels) = field(object, "matchLabels") {
        let at = at.key("matchLabels");
        for (key, value) in checker.object(&at, labels)?.iter() {
            let at = at.key(key);
            let key = read_key(checker, &at, key);
            let value = checker
                .string(&at, value)
                .filter(|text| check_value(checker, &at, value, text));
            let (Some((source, key)), Some(value)) = (key, value) else {
                continue;
            };
            requirements.push(Requirement {
                source,
                key,
                operator: Operator::In,
                values: vec![value.to_owned()],
            });
        }
    }
    if let Some(expressions) = field(object, "matchExpressions") {
        let at = at.key("matchExpressions");
        for (index, value) in checker.list(&at, expressions)?.iter().enumerate() {
            let at = at.index(index);
            if let Some(object) = checker.object(&at, value) {
                requirements.extend(read_expression(checker, &at, object));
            }
        }
    }
    for requirement in &mut requirements {
        match matched {
            Matched::Host | Matched::Pods => note_filtered(checker, at, requirement, matched),
            Matched::OtherNodes => note_other_source(checker, at, requirement),
            // The labels of an object have no source but the object.
            Matched::Objects => requirement.source = None,
        }
    }
    requirements.sort();
    Some(LabelSelector { requirements })
}

fn read_expression(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
) -> Option<Requirement> {
    checker.known_fields(at, object, &["key", "operator", "values"]);
    let key = match field(object, "key") {
        Some(value) => {
            let at = at.key("key");
            checker
                .string(&at, value)
                .and_then(|key| read_key(checker, &at, key))
        }
        None => {
            checker.error(at, Fault::missing("key: missing"));
            None
        }
    };
    let operator = read_operator(checker, at, object);
    let mut values = Vec::new();
    let at_values = at.key("values");
    if let Some(list) = field(object, "values").and_then(|list| checker.list(&at_values, list)) {
        for (index, value) in list.iter().enumerate() {
            let at = at_values.index(index);
            if let Some(text) = checker.string(&at, value)
                && check_value(checker, &at, value, text)
            {
                values.push(text.to_owned());
            }
        }
    }
    let written = field(object, "values")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty());
    let (operator, (source, key)) = (operator?, key?);
    match operator {
        Operator::In | Operator::NotIn if !written => {
            checker.error(at, Fault::missing("values: In and NotIn need at least one"));
        }
        Operator::Exists | Operator::DoesNotExist if written => {
            checker.error(
                at,
                Fault::missing("values: must be empty for Exists and DoesNotExist"),
            );
        }
        Operator::In | Operator::NotIn | Operator::Exists | Operator::DoesNotExist => {}
    }
    values.sort();
    Some(Requirement {
        source,
        key,
        operator,
        values,
    })
}

fn read_operator(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
) -> Option<Operator> {
    let Some(value) = field(object, "operator") else {
        checker.error(at, Fault::missing("operator: missing"));
        return None;
    };
    match value.as_str() {
        Some("In") => Some(Operator::In),
        Some("NotIn") => Some(Operator::NotIn),
        Some("Exists") => Some(Operator::Exists),
        Some("DoesNotExist") => Some(Operator::DoesNotExist),
        Some(_) | None => {
            checker.error(
                &at.key("operator"),
                Fault::new(value, "not an operator").suggest("In, NotIn, Exists or DoesNotExist"),
            );
            None
        }
    }
}

const SOURCES: [&str; 11] = [
    "any",
    "cidr",
    "cidrgroup",
    "cni",
    "directory",
    "fqdn",
    "gen",
    "k8s",
    "node",
    "reserved",
    "unspec",
];

/// Splits `source:key`; `$key` stands for `reserved:key`.
fn read_key(checker: &mut Checker, at: &At<'_>, text: &str) -> Option<(Option<String>, String)> {
    let shown = Value::String(text.to_owned());
    let (source, key) = match text.strip_prefix('$') {
        Some(key) => (Some("reserved"), key),
        None => match text.split_once(':') {
            Some(("any", key)) => (None, key),
            Some((source, key)) => (Some(source), key),
            None => (None, text),
        },
    };
    if let Some(source) = source
        && !SOURCES.contains(&source)
    {
        let mut fault = Fault::new(&shown, format!("unknown label source {source:?}"));
        if let Some(meant) = nearest(source, SOURCES) {
            fault = fault.suggest(format!("did you mean {meant:?}?"));
        }
        checker.error(at, fault);
        return None;
    }
    if let Err(reason) = check_key(key) {
        let reason = format!("invalid label selector: the key {reason}");
        checker.error(at, Fault::new(&shown, reason));
        return None;
    }
    Some((source.map(str::to_owned), key.to_owned()))
}

/// Kubernetes' rule for label keys: `[prefix/]name`.
fn check_key(key: &str) -> Result<(), &'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if !word(name) {
        return Err(
            "must be 1 to 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit",
        );
    }
    let subdomain = prefix.is_none_or(|prefix| {
        prefix.len() <= 253
            && prefix.split('.').all(|part| {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                part.bytes().all(|byte| plain(byte) || byte == b'-')
                    && part.bytes().next().is_some_and(plain)
                    && part.bytes().last().is_some_and(plain)
            })
    });
    if subdomain {
        Ok(())
    } else {
        Err("has a prefix that is not a DNS name")
    }
}

fn check_value(checker: &mut Checker, at: &At<'_>, value: &Value, text: &str) -> bool {
    let valid = text.is_empty() || word(text);
    if !valid {
        let reason = "invalid label selector: a value must be at most 63 letters, digits, '-', \
                      '_' or '.', and begin and end with a letter or digit";
        checker.error(at, Fault::new(value, reason));
    }
    valid
}

fn word(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Notes a selector that Cilium's default label filter makes match nothing:
/// there (the host) or here too (pods).
fn note_filtered(checker: &mut Checker, at: &At<'_>, requirement: &Requirement, matched: Matched) {
    let key = requirement.key.as_str();
    let positive = matches!(requirement.operator, Operator::In | Operator::Exists);
    let of_kubernetes = matches!(requirement.source.as_deref(), None | Some("k8s"));
    if !positive || !of_kubernetes || is_identity_label(key) {
        return;
    }
    let reason = if matched == Matched::Host {
        format!(
            "selects by {key:?}, which works here; Cilium's default label filter hides it, so \
             that there this selects no node"
        )
    } else {
        format!(
            "selects by {key:?}, which the label filter takes away from pods, as in Cilium: this \
             matches nothing"
        )
    };
    checker.warn(at, Fault::missing(reason));
}

/// Notes a label of a node that is asked for under a source it does not have.
fn note_other_source(checker: &mut Checker, at: &At<'_>, requirement: &Requirement) {
    let positive = matches!(requirement.operator, Operator::In | Operator::Exists);
    if let Some(source) = requirement.source.as_deref()
        && positive
        && !matches!(source, "node" | "reserved")
    {
        let key = &requirement.key;
        let reason = "labels of other nodes have the source \"node\": this matches nothing";
        let fault = Fault::missing(reason).suggest(format!("write {key:?} without a source"));
        checker.warn(at, fault);
    }
}
