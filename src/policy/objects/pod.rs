//! Pod: labels, addresses, service account, named ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::common::{address_in, boolean, labels, list, named_port, part, settle, text};
use crate::policy::checker::{At, Checker};
use crate::policy::language::NamedPort;

/// A Pod.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodObject {
    pub labels: BTreeMap<String, String>,
    /// `status.podIPs` (or `podIP`), sorted; empty for pods in the host's network
    /// and for those that have ended, whose addresses may be another's by now.
    pub addresses: Vec<IpAddr>,
    /// `default` where none is written.
    pub service_account: String,
    /// `ports[]` with names, of all containers; sorted.
    pub named_ports: Vec<NamedPort>,
}

pub(super) fn read(checker: &mut Checker, object: &Map<String, Value>) -> PodObject {
    let mut pod = PodObject {
        labels: labels(checker, object),
        service_account: "default".to_owned(),
        ..PodObject::default()
    };
    let mut host_network = false;
    let at = At::ROOT.key("spec");
    if let Some(spec) = part(checker, &At::ROOT, object, "spec") {
        host_network = boolean(checker, &at, spec, "hostNetwork") == Some(true);
        // `serviceAccount` is the old name of the same field.
        let account = text(checker, &at, spec, "serviceAccountName")
            .or_else(|| text(checker, &at, spec, "serviceAccount"));
        if let Some(account) = account {
            account.clone_into(&mut pod.service_account);
        }
        pod.named_ports = named_ports(checker, &at, spec);
    }
    let at = At::ROOT.key("status");
    if let Some(status) = part(checker, &At::ROOT, object, "status") {
        let phase = text(checker, &at, status, "phase");
        let addresses = addresses(checker, &at, status);
        if !host_network && !matches!(phase, Some("Succeeded" | "Failed")) {
            pod.addresses = addresses;
        }
    }
    pod
}

/// Of containers, and of init containers: some of those run beside them.
fn named_ports(checker: &mut Checker, at: &At<'_>, spec: &Map<String, Value>) -> Vec<NamedPort> {
    let mut ports = Vec::new();
    for name in ["initContainers", "containers"] {
        let containers = list(checker, at, spec, name);
        let at = at.key(name);
        for (index, value) in containers.iter().enumerate() {
            let at = at.index(index);
            let Some(container) = checker.object(&at, value) else {
                continue;
            };
            let entries = list(checker, &at, container, "ports");
            let at = at.key("ports");
            for (index, value) in entries.iter().enumerate() {
                let at = at.index(index);
                if let Some(entry) = checker.object(&at, value) {
                    ports.extend(named_port(checker, &at, entry, "containerPort"));
                }
            }
        }
    }
    settle(ports)
}

fn addresses(checker: &mut Checker, at: &At<'_>, status: &Map<String, Value>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    addresses.extend(address_in(checker, at, status, "podIP"));
    let entries = list(checker, at, status, "podIPs");
    let at = at.key("podIPs");
    for (index, value) in entries.iter().enumerate() {
        let at = at.index(index);
        if let Some(entry) = checker.object(&at, value) {
            addresses.extend(address_in(checker, &at, entry, "ip"));
        }
    }
    settle(addresses)
}
