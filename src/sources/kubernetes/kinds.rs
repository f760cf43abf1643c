//! What is watched: kinds, where they are served, how little of them is asked for.

use super::behind::{API_SLICES, NAMESPACE};
use super::needs::Scope;
use crate::events::ResourceKind;

/// How a kind is served and asked for.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) kind: ResourceKind,
    /// Empty: the core group.
    pub(super) group: &'static str,
    /// Versions that can be read, the best first.
    pub(super) versions: &'static [&'static str],
    pub(super) plural: &'static str,
    /// Served only where somebody installed its definition.
    pub(super) is_custom: bool,
    /// What of it is never asked for.
    pub(super) without: Option<&'static str>,
    /// Only metadata is read of it.
    pub(super) metadata_only: bool,
}

const CILIUM: &str = "cilium.io";

const fn custom(
    kind: ResourceKind,
    versions: &'static [&'static str],
    plural: &'static str,
) -> Watched {
    Watched {
        kind,
        group: CILIUM,
        versions,
        plural,
        is_custom: true,
        without: None,
        metadata_only: false,
    }
}

const fn core(kind: ResourceKind, plural: &'static str) -> Watched {
    Watched {
        kind,
        group: "",
        versions: &["v1"],
        plural,
        is_custom: false,
        without: None,
        metadata_only: false,
    }
}

/// All of them. `Pod` is watched only where Cilium does not tell its endpoints.
pub(super) const WATCHED: &[Watched] = &[
    custom(
        ResourceKind::CiliumClusterwideNetworkPolicy,
        &["v2"],
        "ciliumclusterwidenetworkpolicies",
    ),
    custom(
        ResourceKind::CiliumNetworkPolicy,
        &["v2"],
        "ciliumnetworkpolicies",
    ),
    custom(
        ResourceKind::CiliumCIDRGroup,
        &["v2", "v2alpha1"],
        "ciliumcidrgroups",
    ),
    core(ResourceKind::Node, "nodes"),
    custom(ResourceKind::CiliumNode, &["v2"], "ciliumnodes"),
    Watched {
        metadata_only: true,
        ..core(ResourceKind::Namespace, "namespaces")
    },
    Watched {
        // What has ended has given its address back.
        without: Some("status.phase!=Succeeded,status.phase!=Failed"),
        ..core(ResourceKind::Pod, "pods")
    },
    core(ResourceKind::Service, "services"),
    Watched {
        group: "discovery.k8s.io",
        versions: &["v1", "v1beta1"],
        ..core(ResourceKind::EndpointSlice, "endpointslices")
    },
    custom(ResourceKind::CiliumIdentity, &["v2"], "ciliumidentities"),
    custom(ResourceKind::CiliumEndpoint, &["v2"], "ciliumendpoints"),
];

impl Watched {
    /// Name of the definition of a custom kind.
    pub(super) fn definition(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// Path of its collection in one namespace, or in all.
    pub(super) fn path_in(&self, version: &str, namespace: Option<&str>) -> String {
        let whole = self.path(version);
        match (namespace, whole.rsplit_once('/')) {
            (Some(namespace), Some((group, plural))) => {
                format!("{group}/namespaces/{namespace}/{plural}")
            }
            _ => whole,
        }
    }

    /// Path of as much of its collection as is asked for.
    pub(super) fn path_of(&self, version: &str, scope: Scope) -> String {
        let is_narrow = scope == Scope::Own && self.kind == ResourceKind::EndpointSlice;
        self.path_in(version, is_narrow.then_some(NAMESPACE))
    }

    /// Which of the objects there, by their fields: of nodes, this one.
    pub(super) fn field_selector(&self, scope: Scope, node: &str) -> Option<String> {
        match (scope, self.kind) {
            (Scope::Own, ResourceKind::Node | ResourceKind::CiliumNode) => {
                Some(format!("metadata.name={node}"))
            }
            _ => self.without.map(str::to_owned),
        }
    }

    /// Which of them, by their labels: of slices, those of the API servers.
    pub(super) fn label_selector(&self, scope: Scope) -> Option<String> {
        let is_narrow = scope == Scope::Own && self.kind == ResourceKind::EndpointSlice;
        is_narrow.then(|| API_SLICES.to_owned())
    }

    /// Path of its collection, all namespaces together.
    pub(super) fn path(&self, version: &str) -> String {
        if self.group.is_empty() {
            format!("/api/{version}/{}", self.plural)
        } else {
            format!("/apis/{}/{version}/{}", self.group, self.plural)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let path = |kind: ResourceKind| {
            let watched = WATCHED.iter().find(|watched| watched.kind == kind);
            let watched = watched.expect("watched");
            watched.path(watched.versions[0])
        };
        assert_eq!(path(ResourceKind::Node), "/api/v1/nodes");
        assert_eq!(
            path(ResourceKind::CiliumCIDRGroup),
            "/apis/cilium.io/v2/ciliumcidrgroups"
        );
        assert_eq!(
            path(ResourceKind::EndpointSlice),
            "/apis/discovery.k8s.io/v1/endpointslices"
        );
    }

    #[test]
    fn without_policies_only_the_node_and_the_api_servers_are_asked_for() {
        let asked = |kind: ResourceKind, scope: Scope| {
            let watched = WATCHED.iter().find(|watched| watched.kind == kind);
            let watched = watched.expect("watched");
            let selectors = (
                watched.field_selector(scope, "a"),
                watched.label_selector(scope),
            );
            (watched.path_of("v1", scope), selectors)
        };
        let own = |field: Option<&str>, label: Option<&str>| {
            (field.map(str::to_owned), label.map(str::to_owned))
        };
        assert_eq!(
            asked(ResourceKind::Node, Scope::Own),
            (
                "/api/v1/nodes".to_owned(),
                own(Some("metadata.name=a"), None)
            )
        );
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_owned();
        let of_api = own(None, Some("kubernetes.io/service-name=kubernetes"));
        assert_eq!(
            asked(ResourceKind::EndpointSlice, Scope::Own),
            (slices, of_api)
        );
        assert_eq!(asked(ResourceKind::Node, Scope::All).1, own(None, None));
    }
}
