//! Label selectors and Cilium's label filter, read a second time.

use std::collections::BTreeMap;

use crate::identity::{Label, LabelSet};
use crate::policy::language::{LabelSelector, Operator, Requirement};

/// Whether every requirement of a selector holds.
pub(super) fn matches(selector: &LabelSelector, labels: &LabelSet) -> bool {
    failing(selector, labels).is_none()
}

/// The first requirement that does not hold.
pub(super) fn failing<'a>(
    selector: &'a LabelSelector,
    labels: &LabelSet,
) -> Option<&'a Requirement> {
    let holds = |wanted: &Requirement| {
        let mut found: Vec<&str> = Vec::new();
        for label in labels.iter() {
            let right_source = match &wanted.source {
                None => true,
                Some(source) => label.source == *source,
            };
            if right_source && label.key == wanted.key {
                found.push(&label.value);
            }
        }
        let listed = found
            .iter()
            .any(|value| wanted.values.iter().any(|one| one == value));
        match wanted.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => !found.is_empty(),
            Operator::DoesNotExist => found.is_empty(),
        }
    };
    selector.requirements.iter().find(|wanted| !holds(wanted))
}

/// Labels of an object, with a source.
pub(super) fn of_source(source: &str, labels: &BTreeMap<String, String>) -> LabelSet {
    let labels = labels.iter();
    labels
        .map(|(key, value)| Label::new(source, key, value))
        .collect()
}

/// Whether a label of a pod becomes part of its identity (REFERENCE.md 3.3):
/// what is included beats what is excluded if it is the longer match.
pub(super) fn survives_filter(key: &str) -> bool {
    const INCLUDED: [&str; 5] = [
        "io.kubernetes.pod.namespace",
        "io.cilium.k8s.namespace.labels",
        "app.kubernetes.io",
        "io.cilium.k8s.policy.cluster",
        "io.cilium.k8s.policy.serviceaccount",
    ];
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
    const BETA: &str = "beta.kubernetes.io";
    let starts = |list: &[&str]| -> Vec<usize> {
        list.iter()
            .filter(|start| key.starts_with(**start))
            .map(|start| start.len())
            .collect()
    };
    let included = starts(&INCLUDED).into_iter().max();
    let mut excluded = starts(&EXCLUDED);
    excluded.extend(key.rfind(BETA).map(|at| at + BETA.len()));
    match (included, excluded.into_iter().min()) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(included), Some(excluded)) => included > excluded,
    }
}
