//! Cilium's default label filter: which labels of a pod are part of its identity.

/// Keys that begin so are part of the identity, whatever excludes them more
/// briefly.
const INCLUDED: [&str; 5] = [
    "io.kubernetes.pod.namespace",
    "io.cilium.k8s.namespace.labels",
    "app.kubernetes.io",
    "io.cilium.k8s.policy.cluster",
    "io.cilium.k8s.policy.serviceaccount",
];
/// Keys that begin so are not: they change with each roll-out, or are on all.
const EXCLUDED: [&str; 14] = [
    "io.kubernetes",
    "kubernetes.io",
    "k8s.io",
    "topology.kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "controller-uid",
    "annotation",
    "etcd_node",
];
/// Excluded wherever it stands.
const EXCLUDED_WITHIN: &str = "beta.kubernetes.io";

/// Whether a label with this key is part of a pod's identity: it matches
/// nothing, or the longest that includes it is longer than the shortest that
/// excludes it.
#[must_use]
pub fn is_identity_label(key: &str) -> bool {
    let lengths = |list: &'static [&'static str]| {
        list.iter()
            .filter(|start| key.starts_with(**start))
            .map(|start| start.len())
    };
    let within = key
        .rfind(EXCLUDED_WITHIN)
        .map(|start| start + EXCLUDED_WITHIN.len());
    let included = lengths(&INCLUDED).max().unwrap_or(0);
    let excluded = lengths(&EXCLUDED).chain(within).min();
    excluded.is_none_or(|excluded| included > excluded)
}

#[cfg(test)]
mod tests {
    use super::is_identity_label;

    #[test]
    fn the_default_filter() {
        for key in [
            "app",
            "io.kubernetes.pod.namespace",
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            "app.kubernetes.io/name",
            "node-role.kubernetes.io/worker",
            "io.cilium.k8s.policy.cluster",
        ] {
            assert!(is_identity_label(key), "{key}");
        }
        for key in [
            "kubernetes.io/hostname",
            "io.kubernetes.x",
            "k8s.io/x",
            "pod-template-hash",
            "controller-revision-hash",
            "annotation.x",
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
            "statefulset.kubernetes.io/pod-name",
        ] {
            assert!(!is_identity_label(key), "{key}");
        }
    }
}
