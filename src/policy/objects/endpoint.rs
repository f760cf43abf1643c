//! CiliumEndpoint: addresses of a pod and the identity that Cilium gave it.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::common::{address_in, label, list, named_port, part, settle};
use crate::identity::LabelSet;
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::language::NamedPort;

/// A CiliumEndpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointObject {
    /// `status.networking.addressing`, sorted.
    pub addresses: Vec<IpAddr>,
    /// `status.identity.id`; None while Cilium has not assigned one.
    pub identity: Option<u32>,
    /// `status.identity.labels`; a CiliumIdentity of that number knows better.
    pub labels: LabelSet,
    /// `status.named-ports`, sorted.
    pub named_ports: Vec<NamedPort>,
}

impl EndpointObject {
    /// Whether it says who it is: by a number, or, as etcd's words of Palisade, by
    /// labels alone.
    #[must_use]
    pub fn is_somebody(&self) -> bool {
        self.identity.is_some() || self.labels.iter().next().is_some()
    }
}

pub(super) fn read(checker: &mut Checker, object: &Map<String, Value>) -> EndpointObject {
    let mut endpoint = EndpointObject::default();
    let Some(status) = part(checker, &At::ROOT, object, "status") else {
        return endpoint;
    };
    let at = At::ROOT.key("status");
    endpoint.addresses = addresses(checker, &at, status);
    if let Some(identity) = part(checker, &at, status, "identity") {
        let at = at.key("identity");
        endpoint.identity = number(checker, &at, identity);
        let texts = list(checker, &at, identity, "labels");
        let at = at.key("labels");
        for (index, value) in texts.iter().enumerate() {
            if let Some(text) = checker.string(&at.index(index), value) {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                endpoint.labels.insert(label(key, value));
            }
        }
    }
    let mut ports = Vec::new();
    let entries = list(checker, &at, status, "named-ports");
    let at = at.key("named-ports");
    for (index, value) in entries.iter().enumerate() {
        let at = at.index(index);
        if let Some(entry) = checker.object(&at, value) {
            ports.extend(named_port(checker, &at, entry, "port"));
        }
    }
    endpoint.named_ports = settle(ports);
    endpoint
}

/// 0 is what Cilium writes before it knows.
fn number(checker: &mut Checker, at: &At<'_>, identity: &Map<String, Value>) -> Option<u32> {
    let value = field(identity, "id")?;
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    if number.is_none() {
        let fault = Fault::new(value, "not an identity number");
        checker.error(&at.key("id"), fault);
    }
    number.filter(|number| *number != 0)
}

fn addresses(checker: &mut Checker, at: &At<'_>, status: &Map<String, Value>) -> Vec<IpAddr> {
    let Some(networking) = part(checker, at, status, "networking") else {
        return Vec::new();
    };
    let at = at.key("networking");
    let pairs = list(checker, &at, networking, "addressing");
    let at = at.key("addressing");
    let mut addresses = Vec::new();
    for (index, value) in pairs.iter().enumerate() {
        let at = at.index(index);
        if let Some(pair) = checker.object(&at, value) {
            addresses.extend(address_in(checker, &at, pair, "ipv4"));
            addresses.extend(address_in(checker, &at, pair, "ipv6"));
        }
    }
    settle(addresses)
}
