//! A key and its value as the object that a manifest would hold. No I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::keys::{Name, read_labels};
use crate::events::{Origin, Resource, ResourceKey, ResourceKind, SourceName};
use crate::identity::{IdentityNumber, Reserved};
use crate::policy::documents::{self, Positions};

/// Namespace of the objects that addresses become.
const SPACE: &str = "default";

/// Who we are: what we published ourselves is not read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Own {
    pub(super) cluster: String,
    pub(super) node: String,
}

impl Own {
    /// As Cilium marks who an address belongs to.
    pub(super) fn mark(&self) -> String {
        format!("cilium-global:{}:{}:", self.cluster, self.node)
    }

    /// Whether this node wrote the address, now or before it was restarted.
    pub(super) fn has_written(&self, value: &[u8]) -> bool {
        read_json(value).is_ok_and(|address: Address| address.metadata.starts_with(&self.mark()))
    }
}

/// What a value means to others: what must never be mixed up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// A number stands for labels.
    Number {
        number: u32,
        labels: String,
    },
    /// An address has a number.
    Address {
        number: u32,
    },
    Other,
}

/// An object, and what it means.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Translated {
    pub(super) resource: Resource,
    pub(super) positions: Option<Positions>,
    pub(super) meaning: Meaning,
}

/// A node, as Cilium writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    name: String,
    #[serde(default)]
    cluster: String,
    #[serde(rename = "IPAddresses", default)]
    addresses: Option<Vec<NodeAddress>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeAddress {
    r#type: String,
    #[serde(rename = "IP")]
    address: IpAddr,
}

/// Who has an address, as Cilium writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    #[serde(rename = "IP")]
    address: IpAddr,
    #[serde(default)]
    mask: Option<String>,
    #[serde(rename = "ID")]
    number: u32,
    #[serde(default)]
    metadata: String,
    /// What the number meant to who wrote it: Palisade's, Cilium writes none.
    #[serde(default)]
    labels: Option<String>,
    #[serde(default)]
    named_ports: Option<Vec<Value>>,
}

/// None: nothing of it matters here, for it is our own word.
pub(super) fn translate(
    own: &Own,
    key: &str,
    name: Name,
    value: &[u8],
) -> Result<Option<Translated>, String> {
    match name {
        Name::Manifest(named) => manifest(key, &named, value).map(Some),
        Name::Node { cluster, node } => {
            if cluster == own.cluster && node == own.node {
                return Ok(None);
            }
            let ours = cluster == own.cluster;
            let name = if ours {
                node.clone()
            } else {
                format!("{cluster}/{node}")
            };
            node_object(key, (&cluster, &node), &name, value).map(Some)
        }
        Name::Address(text) => address_object(own, key, &text, value),
        Name::Identity(number) => identity_object(key, number, value).map(Some),
    }
}

fn manifest(key: &str, named: &ResourceKey, value: &[u8]) -> Result<Translated, String> {
    let mut reading = documents::read(key, value, SourceName::Etcd);
    if let Some(error) = reading.errors.first() {
        return Err(match error.line {
            0 => error.reason.clone(),
            line => format!("line {line}, column {}: {}", error.column, error.reason),
        });
    }
    let count = reading.documents.len() + reading.skipped.len();
    let document = match reading.documents.pop() {
        Some(document) if count == 1 => document,
        _ => return Err(format!("{count} objects, expected one: the {named}")),
    };
    let found = &document.resource.key;
    if found != named {
        return Err(format!("the value is about {found}, the key about {named}"));
    }
    Ok(Translated {
        resource: document.resource,
        positions: Some(document.positions),
        meaning: Meaning::Other,
    })
}

fn node_object(
    key: &str,
    (cluster, name): (&str, &str),
    object: &str,
    value: &[u8],
) -> Result<Translated, String> {
    let node: Node = read_json(value)?;
    if node.name != name || !(node.cluster.is_empty() || node.cluster == cluster) {
        return Err(format!(
            "the value is about the node {} of {}, the key about {name} of {cluster}",
            node.name, node.cluster
        ));
    }
    let addresses = node.addresses.unwrap_or_default();
    let addresses: Vec<Value> = addresses
        .iter()
        .filter(|it| {
            matches!(
                &*it.r#type,
                "InternalIP" | "ExternalIP" | "CiliumInternalIP"
            )
        })
        .map(|it| json!({"type": it.r#type, "ip": it.address}))
        .collect();
    let labels = node.labels.unwrap_or_default();
    let body = json!({"metadata": {"name": object, "labels": labels},
        "spec": {"addresses": addresses}});
    Ok(resource(
        key,
        ResourceKind::CiliumNode,
        None,
        object,
        body,
        Meaning::Other,
    ))
}

fn address_object(
    own: &Own,
    key: &str,
    text: &str,
    value: &[u8],
) -> Result<Option<Translated>, String> {
    let address: Address = read_json(value)?;
    if address.metadata.starts_with(&own.mark()) {
        return Ok(None);
    }
    let is_whole = address
        .mask
        .as_deref()
        .is_none_or(|mask| is_full(mask, address.address));
    let (bare, length) = text.split_once('/').unwrap_or((text, ""));
    let whole_length = if address.address.is_ipv4() {
        "32"
    } else {
        "128"
    };
    if !is_whole || !(length.is_empty() || length == whole_length) {
        return Err("a prefix: only single addresses have identities of others".to_owned());
    }
    if bare.parse() != Ok(address.address) {
        return Err(format!(
            "the value is about {}, the key about {text}",
            address.address
        ));
    }
    let number = address.number;
    let (identity, meaning) = match &address.labels {
        // The word itself says who it is: no number can be mistaken.
        Some(labels) => {
            let pairs = read_labels(labels).map_err(|error| format!("Labels: {error}"))?;
            let labels = pairs
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"));
            let labels: Vec<String> = labels.collect();
            (json!({ "labels": labels }), Meaning::Other)
        }
        None => (numbered(number), Meaning::Address { number }),
    };
    let family = if address.address.is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    };
    let name = address.address.to_string();
    let ports: Vec<Value> = address.named_ports.unwrap_or_default();
    let ports: Vec<Value> = ports.iter().filter_map(named_port).collect();
    let body = json!({"metadata": {"name": name, "namespace": SPACE},
        "status": {"identity": identity, "named-ports": ports,
            "networking": {"addressing": [{family: address.address}]}}});
    let kind = ResourceKind::CiliumEndpoint;
    Ok(Some(resource(key, kind, Some(SPACE), &name, body, meaning)))
}

/// Who has a number, as a CiliumEndpoint says it.
fn numbered(number: u32) -> Value {
    let mut identity = Map::from_iter([("id".to_owned(), json!(number))]);
    let reserved = Reserved::ALL
        .into_iter()
        .find(|it| it.number() == IdentityNumber(number));
    if let Some(reserved) = reserved {
        let label = format!("reserved:{}", reserved.name());
        identity.insert("labels".to_owned(), json!([label]));
    }
    Value::Object(identity)
}

/// Cilium's words for a port differ between its versions in their case.
fn named_port(port: &Value) -> Option<Value> {
    let get = |name: &str, other: &str| port.get(name).or_else(|| port.get(other)).cloned();
    let name = get("Name", "name")?;
    let number = get("Port", "port")?;
    let protocol = get("Protocol", "protocol").unwrap_or_else(|| json!("TCP"));
    Some(json!({"name": name, "port": number, "protocol": protocol}))
}

/// A mask is written as base64 of its bytes.
fn is_full(mask: &str, address: IpAddr) -> bool {
    let full = if address.is_ipv4() {
        "/////w=="
    } else {
        "/////////////////////w=="
    };
    mask.is_empty() || mask == full
}

fn identity_object(key: &str, number: u32, value: &[u8]) -> Result<Translated, String> {
    let given = IdentityNumber::CLUSTER_FIRST..IdentityNumber::GIVEN_END;
    if !given.contains(&IdentityNumber(number)) {
        let last = given.end.0 - 1;
        return Err(format!(
            "{number} is no number from {} to {last}",
            given.start
        ));
    }
    let text = std::str::from_utf8(value).map_err(|_| "not text".to_owned())?;
    let pairs = read_labels(text)?;
    let labels: Map<String, Value> = pairs
        .into_iter()
        .map(|(key, value)| (key, Value::String(value)))
        .collect();
    let name = number.to_string();
    let body = json!({"metadata": {"name": name}, "security-labels": labels});
    let labels = body["security-labels"].to_string();
    let meaning = Meaning::Number { number, labels };
    Ok(resource(
        key,
        ResourceKind::CiliumIdentity,
        None,
        &name,
        body,
        meaning,
    ))
}

fn resource(
    key: &str,
    kind: ResourceKind,
    namespace: Option<&str>,
    name: &str,
    mut body: Value,
    meaning: Meaning,
) -> Translated {
    body["apiVersion"] = json!("cilium.io/v2");
    body["kind"] = json!(kind.as_str());
    Translated {
        resource: Resource {
            key: ResourceKey {
                kind,
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
            },
            source: SourceName::Etcd,
            origin: Origin {
                file: key.to_owned(),
                ..Origin::default()
            },
            body: body.into(),
        },
        positions: None,
        meaning,
    }
}

/// An error names the field.
fn read_json<'v, T: Deserialize<'v>>(value: &'v [u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(value);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let reason = error.into_inner();
        match &*field {
            "." => format!("not as expected: {reason}"),
            field => format!("{field}: {reason}"),
        }
    })?;
    let end = reader.end();
    end.map_err(|error| format!("not as expected: {error}"))?;
    Ok(read)
}
