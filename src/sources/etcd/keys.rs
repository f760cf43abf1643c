//! The layout of the keys: Cilium's, and one prefix more for policies.

use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{Label, LabelSet};

/// All that is watched; what stands there besides is passed over.
pub const STATE: &str = "cilium/state/";
/// `<kind>/<name>` or `<kind>/<namespace>/<name>`: a manifest.
pub const POLICIES: &str = "cilium/state/policies/v1/";
/// `<cluster>/<node>`: addresses and labels, under the lease of the node.
pub const NODES: &str = "cilium/state/nodes/v1/";
/// `<address>`: its identity, under the lease of the node that has it.
pub const ADDRESSES: &str = "cilium/state/ip/v1/default/";
/// `<number>`: the labels that it stands for.
pub const MASTERS: &str = "cilium/state/identities/v1/id/";
/// `<labels>/<node>`: the number that the node uses for them, under its lease.
pub const SLAVES: &str = "cilium/state/identities/v1/value/";
/// The number that was given last.
pub const CURSOR: &str = "cilium/state/identities/v1/cursor";
/// Who collects numbers that nobody uses, under its lease.
pub const COLLECTOR: &str = "cilium/state/identities/v1/locks/collector";

/// What is listed; all of it stands under [`STATE`].
pub const LISTED: [&str; 4] = [MASTERS, ADDRESSES, NODES, POLICIES];

/// Kinds that policies' keys may name: the others have prefixes of their own.
pub const MANIFEST_KINDS: [ResourceKind; 8] = [
    ResourceKind::CiliumClusterwideNetworkPolicy,
    ResourceKind::CiliumNetworkPolicy,
    ResourceKind::CiliumCIDRGroup,
    ResourceKind::Node,
    ResourceKind::Namespace,
    ResourceKind::Pod,
    ResourceKind::Service,
    ResourceKind::EndpointSlice,
];

/// What a key names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    Manifest(ResourceKey),
    Node { cluster: String, node: String },
    Address(String),
    Identity(u32),
}

impl Name {
    /// None: nothing that is read; an error: it stands where something is read,
    /// and cannot be.
    #[must_use]
    pub fn of(key: &str) -> Option<Result<Self, String>> {
        if let Some(rest) = key.strip_prefix(POLICIES) {
            return Some(manifest(rest).map(Self::Manifest));
        }
        if let Some(rest) = key.strip_prefix(NODES) {
            return Some(match rest.split_once('/') {
                Some((cluster, node)) if !cluster.is_empty() && !node.is_empty() => {
                    let (cluster, node) = (cluster.to_owned(), node.to_owned());
                    Ok(Self::Node { cluster, node })
                }
                _ => Err(format!("expected {NODES}<cluster>/<node>")),
            });
        }
        if let Some(rest) = key.strip_prefix(ADDRESSES) {
            return Some(Ok(Self::Address(rest.to_owned())));
        }
        let rest = key.strip_prefix(MASTERS)?;
        let number = rest.parse().map(Self::Identity);
        Some(number.map_err(|_| format!("expected {MASTERS}<number>")))
    }

    /// The kind of the objects that such keys become.
    #[must_use]
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Manifest(key) => key.kind,
            Self::Node { .. } => ResourceKind::CiliumNode,
            Self::Address(_) => ResourceKind::CiliumEndpoint,
            Self::Identity(_) => ResourceKind::CiliumIdentity,
        }
    }
}

/// Where the objects of a kind stand.
#[must_use]
pub fn prefix_of(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::CiliumNode => NODES,
        ResourceKind::CiliumEndpoint => ADDRESSES,
        ResourceKind::CiliumIdentity => MASTERS,
        ResourceKind::CiliumClusterwideNetworkPolicy
        | ResourceKind::CiliumNetworkPolicy
        | ResourceKind::CiliumCIDRGroup
        | ResourceKind::Node
        | ResourceKind::Namespace
        | ResourceKind::Pod
        | ResourceKind::Service
        | ResourceKind::EndpointSlice => POLICIES,
    }
}

fn manifest(rest: &str) -> Result<ResourceKey, String> {
    let mut parts = rest.split('/');
    let word = parts.next().unwrap_or_default();
    let Some(kind) = MANIFEST_KINDS
        .into_iter()
        .find(|kind| kind.as_str() == word)
    else {
        let known = MANIFEST_KINDS.map(ResourceKind::as_str).join(", ");
        return Err(format!("`{word}` is no kind that may stand here: {known}"));
    };
    let mut part = || {
        parts
            .next()
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
    };
    let found = if kind.is_namespaced() {
        part()
            .zip(part())
            .map(|(namespace, name)| (Some(namespace), name))
    } else {
        part().map(|name| (None, name))
    };
    match (found, parts.next()) {
        (Some((namespace, name)), None) => Ok(ResourceKey {
            kind,
            namespace,
            name,
        }),
        _ if kind.is_namespaced() => Err(format!("expected {POLICIES}{word}/<namespace>/<name>")),
        _ => Err(format!("expected {POLICIES}{word}/<name>")),
    }
}

/// The key of a node.
#[must_use]
pub fn node(cluster: &str, node: &str) -> String {
    format!("{NODES}{cluster}/{node}")
}

/// The key of a number.
#[must_use]
pub fn master(number: u32) -> String {
    format!("{MASTERS}{number}")
}

/// Prefix of the keys of all nodes that use these labels.
#[must_use]
pub fn slaves(labels: &str) -> String {
    format!("{SLAVES}{labels}/")
}

/// Labels as Cilium writes them: by key, `source:key=value;` each.
#[must_use]
pub fn labels_text(labels: &LabelSet) -> String {
    let mut sorted: Vec<&Label> = labels.iter().collect();
    sorted.sort_by_key(|label| (&label.key, &label.source));
    let each = sorted
        .into_iter()
        .map(|label| format!("{}:{}={};", label.source, label.key, label.value));
    each.collect()
}

/// The labels of a text, as pairs of `source:key` and value.
///
/// # Errors
/// What is no label.
pub fn read_labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let each = text.split(';').filter(|part| !part.is_empty());
    let pairs: Result<Vec<_>, String> = each
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if key
                .split_once(':')
                .is_none_or(|(source, key)| source.is_empty() || key.is_empty())
            {
                return Err(format!("`{part}`: expected source:key=value;"));
            }
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect();
    let pairs = pairs?;
    if pairs.is_empty() {
        return Err("no labels: an identity is what its labels say".to_owned());
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_what_they_hold_or_say_why_not() {
        let manifest = |kind, namespace: Option<&str>, name: &str| {
            Name::Manifest(ResourceKey {
                kind,
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
            })
        };
        let node = Name::Node {
            cluster: "default".to_owned(),
            node: "a".to_owned(),
        };
        let cluster_wide = ResourceKind::CiliumClusterwideNetworkPolicy;
        let namespaced = ResourceKind::CiliumNetworkPolicy;
        for (key, name) in [
            (
                "policies/v1/CiliumClusterwideNetworkPolicy/ssh",
                manifest(cluster_wide, None, "ssh"),
            ),
            (
                "policies/v1/CiliumNetworkPolicy/shop/ssh",
                manifest(namespaced, Some("shop"), "ssh"),
            ),
            ("nodes/v1/default/a", node),
            (
                "ip/v1/default/10.0.0.1",
                Name::Address("10.0.0.1".to_owned()),
            ),
            ("identities/v1/id/256", Name::Identity(256)),
        ] {
            assert_eq!(Name::of(&format!("{STATE}{key}")), Some(Ok(name)));
        }
        for key in [
            "policies/v1/CiliumClusterwideNetworkPolicy/a/b",
            "policies/v1/CiliumNetworkPolicy/a",
            "policies/v1/CiliumNode/a",
            "policies/v1/",
            "nodes/v1/a",
            "identities/v1/id/x",
        ] {
            let name = Name::of(&format!("{STATE}{key}"));
            assert!(matches!(name, Some(Err(_))), "{key}: {name:?}");
        }
        for key in [
            "identities/v1/value/k8s:a=b;/10.0.0.1",
            "identities/v1/cursor",
            "other",
        ] {
            assert_eq!(Name::of(&format!("{STATE}{key}")), None);
        }
    }

    #[test]
    fn labels_are_written_as_cilium_writes_them() {
        let labels = [("k8s", "b", "1"), ("unspec", "a", ""), ("k8s", "a", "2")];
        let labels = labels.map(|(source, key, value)| Label::new(source, key, value));
        let text = labels_text(&labels.into_iter().collect());
        assert_eq!(text, "k8s:a=2;unspec:a=;k8s:b=1;");
        let read = read_labels(&text).expect("labels");
        assert_eq!(read[1], ("unspec:a".to_owned(), String::new()));
        for broken in ["", "a=b;", "k8s:;", ":a=b;"] {
            assert!(read_labels(broken).is_err(), "{broken}");
        }
    }
}
