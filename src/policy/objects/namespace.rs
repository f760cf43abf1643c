//! Namespace: its labels.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::common::labels;
use crate::policy::checker::Checker;

/// A Namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceObject {
    /// They stand on its pods as `io.cilium.k8s.namespace.labels.<key>`.
    pub labels: BTreeMap<String, String>,
}

pub(super) fn read(checker: &mut Checker, object: &Map<String, Value>) -> NamespaceObject {
    NamespaceObject {
        labels: labels(checker, object),
    }
}
