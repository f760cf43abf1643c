//! `toServices`.

use serde_json::{Map, Value};

use super::selector::{Matched, read_selector};
use super::types::{Peer, ServiceBy, ServiceReference};
use crate::policy::checker::{At, Checker, Fault, field};

/// Reads one element; one that names no service selects nobody.
pub(super) fn read_service(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    peers: &mut Vec<Peer>,
) {
    const BY_NAME: &str = "k8sService";
    const BY_LABELS: &str = "k8sServiceSelector";
    checker.known_fields(at, object, &[BY_NAME, BY_LABELS]);
    let at_name = at.key(BY_NAME);
    let by_name = field(object, BY_NAME).and_then(|value| checker.object(&at_name, value));
    if let Some(service) = by_name {
        checker.known_fields(&at_name, service, &["serviceName", "namespace"]);
        let namespace = text(checker, &at_name, service, "namespace");
        match text(checker, &at_name, service, "serviceName") {
            Some(name) => peers.push(Peer::Services(ServiceReference {
                namespace,
                by: ServiceBy::Name(name),
            })),
            None => warn_of_nobody(checker, &at_name),
        }
    }
    let at_labels = at.key(BY_LABELS);
    let by_labels = field(object, BY_LABELS).and_then(|value| checker.object(&at_labels, value));
    if let Some(service) = by_labels {
        checker.known_fields(&at_labels, service, &["selector", "namespace"]);
        let namespace = text(checker, &at_labels, service, "namespace");
        let Some(value) = field(service, "selector") else {
            let fault = Fault::missing("selector: missing; {} selects every service");
            return checker.error(&at_labels, fault);
        };
        let at = at_labels.key("selector");
        if let Some(selector) = read_selector(checker, &at, value, Matched::Objects) {
            peers.push(Peer::Services(ServiceReference {
                namespace,
                by: ServiceBy::Labels(selector),
            }));
        }
    }
    if field(object, BY_NAME).is_none() && field(object, BY_LABELS).is_none() {
        warn_of_nobody(checker, at);
    }
}

fn warn_of_nobody(checker: &mut Checker, at: &At<'_>) {
    let fault = Fault::missing("names no service: this selects nobody");
    checker.warn(
        at,
        fault.suggest("write k8sService: {serviceName: ..., namespace: ...}"),
    );
}

/// A string that is written and not empty.
fn text(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    name: &str,
) -> Option<String> {
    field(object, name)
        .and_then(|value| checker.string(&at.key(name), value))
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}
