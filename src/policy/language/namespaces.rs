//! What Cilium adds to selectors of pods: the namespace they are meant in.
//!
//! Written into the selector here, so that nobody else has to know. Never into a
//! nodeSelector.

use super::selector::{LabelSelector, Operator, Requirement};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";

/// Where the peers of a rule are looked for, unless they say so themselves.
#[derive(Clone, Copy)]
pub(super) enum PeerScope<'a> {
    /// CiliumNetworkPolicy: in its own namespace.
    Namespace(&'a str),
    /// CiliumClusterwideNetworkPolicy: in any namespace, so pods only.
    AnyNamespace,
    /// The rule is for endpoints that have no labels yet (`reserved:init`), nor
    /// have their peers a namespace.
    Unbound,
}

impl<'a> PeerScope<'a> {
    /// Of a rule for pods: `namespace` of the policy, subject of the rule.
    pub(super) fn new(namespace: Option<&'a str>, subject: Option<&LabelSelector>) -> Self {
        let init = subject.is_some_and(|subject| {
            let of_init = |requirement: &Requirement| {
                requirement.source.as_deref() == Some("reserved") && requirement.key == "init"
            };
            subject.requirements.iter().any(of_init)
        });
        match namespace {
            _ if init => Self::Unbound,
            Some(namespace) => Self::Namespace(namespace),
            None => Self::AnyNamespace,
        }
    }

    /// Adds the default to the selector of a peer.
    pub(super) fn bind(self, selector: &mut LabelSelector) {
        let mentions =
            |mentioned: fn(&Requirement) -> bool| selector.requirements.iter().any(mentioned);
        let reserved = mentions(|requirement| requirement.source.as_deref() == Some("reserved"));
        let namespace = mentions(is_namespace);
        let requirement = match self {
            Self::Unbound => return,
            Self::Namespace(_) | Self::AnyNamespace if reserved || namespace => return,
            Self::Namespace(_) if mentions(is_label_of_namespace) => return,
            Self::Namespace(name) => in_namespace(name),
            Self::AnyNamespace => Requirement {
                operator: Operator::Exists,
                values: Vec::new(),
                ..in_namespace("")
            },
        };
        selector.requirements.push(requirement);
        selector.requirements.sort();
    }
}

/// Binds the subject of a CiliumNetworkPolicy to its namespace. Tells the other
/// namespace that it names, which does not count.
pub(super) fn bind_subject(selector: &mut LabelSelector, namespace: &str) -> Option<String> {
    let (of_namespace, others): (Vec<_>, Vec<_>) =
        selector.requirements.drain(..).partition(is_namespace);
    selector.requirements = others;
    selector.requirements.push(in_namespace(namespace));
    selector.requirements.sort();
    of_namespace
        .into_iter()
        .flat_map(|requirement| requirement.values)
        .find(|value| value != namespace)
}

fn in_namespace(name: &str) -> Requirement {
    Requirement {
        source: Some("k8s".to_owned()),
        key: NAMESPACE.to_owned(),
        operator: Operator::In,
        values: vec![name.to_owned()],
    }
}

fn of_pod(requirement: &Requirement) -> bool {
    matches!(requirement.source.as_deref(), None | Some("k8s"))
}

fn is_namespace(requirement: &Requirement) -> bool {
    of_pod(requirement) && requirement.key == NAMESPACE
}

fn is_label_of_namespace(requirement: &Requirement) -> bool {
    of_pod(requirement) && requirement.key.starts_with(NAMESPACE_LABELS)
}
