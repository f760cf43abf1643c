//! The catalogue keeps the rules of Prometheus; labels mean what they say.

use std::collections::BTreeSet;

use super::collect::enforcement_label;
use crate::catalogue::{ALL, Kind};
use crate::endpoint::{EndpointPolicyStatus, Enforcement};

#[test]
fn names_follow_the_conventions() {
    let mut seen = BTreeSet::new();
    for metric in ALL {
        let name = metric.name;
        assert!(seen.insert(name), "{name} stands twice");
        assert!(!metric.help.is_empty(), "{name} has no help");
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            metric.kind == Kind::Counter,
            "{name}: counters, and only they, end in _total"
        );
        for suffix in ["_count", "_sum", "_bucket", "_ms", "_milliseconds"] {
            assert!(!name.ends_with(suffix), "{name} ends in {suffix}");
        }
        let labels: BTreeSet<_> = metric.labels.iter().collect();
        assert_eq!(labels.len(), metric.labels.len(), "{name}: labels twice");
    }
}

/// An enforced direction counts, a watched one beside it does not.
#[test]
fn enforcement_is_counted_before_audit() {
    use Enforcement::{Audit, Disabled, Enabled};
    for (ingress, egress, label) in [
        (Disabled, Disabled, "none"),
        (Enabled, Disabled, "ingress"),
        (Disabled, Enabled, "egress"),
        (Enabled, Enabled, "both"),
        (Audit, Disabled, "audit-ingress"),
        (Disabled, Audit, "audit-egress"),
        (Audit, Audit, "audit-both"),
        (Enabled, Audit, "ingress"),
        (Audit, Enabled, "egress"),
    ] {
        let policy = EndpointPolicyStatus {
            ingress,
            egress,
            ..EndpointPolicyStatus::default()
        };
        assert_eq!(enforcement_label(policy), label, "{policy:?}");
    }
}
