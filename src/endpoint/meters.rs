//! What the pipeline reports as it happens, by name. Help, units and gauges are
//! the catalogue's in `metrics/`, which also puts the prefix before each name.

use std::time::Duration;

use metrics::{counter, histogram};

use crate::events::{RegenerationCause, SourceName};

pub const ENDPOINT_REGENERATIONS: &str = "endpoint_regenerations_total";
pub const ENDPOINT_REGENERATION_TIME: &str = "endpoint_regeneration_time_stats_seconds";
pub const POLICY_CHANGE: &str = "policy_change_total";
pub const POLICY_IMPLEMENTATION_DELAY: &str = "policy_implementation_delay";
pub const JOURNAL_FLUSH: &str = "journal_flush_seconds";
pub const WRITTEN_ENTRIES: &str = "datapath_written_entries_total";

/// Entries that a commit had to write; 0 where the kernel held all of it.
pub fn written(entries: usize) {
    counter!(WRITTEN_ENTRIES).increment(entries as u64);
}

/// Label value of an outcome.
#[must_use]
pub fn outcome(success: bool) -> &'static str {
    if success { "success" } else { "fail" }
}

/// A regeneration ended.
pub fn regeneration(causes: impl Iterator<Item = RegenerationCause>, success: bool) {
    for cause in causes {
        counter!(ENDPOINT_REGENERATIONS, "reason" => cause.as_str(), "outcome" => outcome(success))
            .increment(1);
    }
}

/// One part of a regeneration took this long.
pub fn regeneration_time(scope: &'static str, span: Duration, success: bool) {
    histogram!(ENDPOINT_REGENERATION_TIME, "scope" => scope, "status" => outcome(success))
        .record(span.as_secs_f64());
}

/// A change was enforced this long after its acceptance.
pub fn implementation_delay(source: SourceName, span: Duration) {
    histogram!(POLICY_IMPLEMENTATION_DELAY, "source" => source_label(source))
        .record(span.as_secs_f64());
}

/// A change of the repository.
pub fn policy_change(source: SourceName, operation: &'static str, success: bool) {
    counter!(
        POLICY_CHANGE,
        "source" => source_label(source),
        "operation" => operation,
        "outcome" => outcome(success)
    )
    .increment(1);
}

/// A flush of the journal.
pub fn journal_flush(span: Duration) {
    histogram!(JOURNAL_FLUSH).record(span.as_secs_f64());
}

/// Label value of a source.
#[must_use]
pub fn source_label(source: SourceName) -> &'static str {
    match source {
        SourceName::Manifests => "manifests",
        SourceName::Kubernetes => "kubernetes",
        SourceName::Etcd => "etcd",
        SourceName::Api => "api",
        SourceName::Local => "local",
    }
}
