//! EndpointSlice: the addresses behind a service.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::common::{address, boolean, labels, list, part, settle, text};
use crate::policy::checker::{At, Checker, Fault};

/// The label that names the service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

/// An EndpointSlice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointSliceObject {
    /// Label `kubernetes.io/service-name`; the service stands in its namespace.
    pub service: Option<String>,
    /// Of endpoints that take connections. Sorted, without duplicates.
    pub addresses: Vec<IpAddr>,
}

pub(super) fn read(checker: &mut Checker, object: &Map<String, Value>) -> EndpointSliceObject {
    let service = labels(checker, object)
        .remove(SERVICE)
        .filter(|name| !name.is_empty());
    if service.is_none() {
        let fault = Fault::missing(format!("no label {SERVICE}: the slice is of no service"));
        checker.warn(&At::ROOT.key("metadata"), fault);
    }
    let by_name = text(checker, &At::ROOT, object, "addressType") == Some("FQDN");
    let mut addresses = Vec::new();
    let endpoints = list(checker, &At::ROOT, object, "endpoints");
    let at = At::ROOT.key("endpoints");
    for (index, value) in endpoints.iter().enumerate() {
        let at = at.index(index);
        let Some(endpoint) = checker.object(&at, value) else {
            continue;
        };
        let serves = takes_connections(checker, &at, endpoint);
        let entries = list(checker, &at, endpoint, "addresses");
        if by_name {
            continue;
        }
        let at = at.key("addresses");
        for (index, value) in entries.iter().enumerate() {
            let found = address(checker, &at.index(index), value);
            addresses.extend(found.filter(|_| serves));
        }
    }
    EndpointSliceObject {
        service,
        addresses: settle(addresses),
    }
}

/// Ready, or ending but still serving; without a word about it: ready.
fn takes_connections(checker: &mut Checker, at: &At<'_>, endpoint: &Map<String, Value>) -> bool {
    let Some(conditions) = part(checker, at, endpoint, "conditions") else {
        return true;
    };
    let at = at.key("conditions");
    let [ready, serving, terminating] =
        ["ready", "serving", "terminating"].map(|name| boolean(checker, &at, conditions, name));
    ready.unwrap_or(true) || (serving == Some(true) && terminating == Some(true))
}
