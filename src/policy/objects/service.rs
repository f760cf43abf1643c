//! Service: labels and selector.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::common::{labels, part, strings, text};
use crate::policy::checker::{At, Checker};

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceObject {
    pub labels: BTreeMap<String, String>,
    /// Empty: its EndpointSlices are made by hand.
    pub selector: BTreeMap<String, String>,
}

pub(super) fn read(checker: &mut Checker, object: &Map<String, Value>) -> ServiceObject {
    let mut selector = BTreeMap::new();
    let at = At::ROOT.key("spec");
    if let Some(spec) = part(checker, &At::ROOT, object, "spec") {
        selector = strings(checker, &at, spec, "selector");
        // An ExternalName stands for a DNS name; Kubernetes ignores its selector.
        if text(checker, &at, spec, "type") == Some("ExternalName") {
            selector.clear();
        }
    }
    ServiceObject {
        labels: labels(checker, object),
        selector,
    }
}
