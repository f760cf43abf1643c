//! What is kept of an object: what the readers in `policy` look at, and nothing
//! that changes without meaning (versions, managers, heartbeats, containers).
//! So a heartbeat is not a change, and the journal stays small.

use serde_json::{Map, Value, json};

use super::behind;
use crate::events::{ResourceKey, ResourceKind};

/// An object as the pipeline takes it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Trimmed {
    pub(super) key: ResourceKey,
    /// None: nothing of the object matters now, such as a pod without an address.
    pub(super) body: Option<Value>,
}

/// None: the object has no name, so it is none.
pub(super) fn trim(kind: ResourceKind, mut object: Value) -> Option<Trimmed> {
    let metadata = metadata(kind, &object)?;
    let text = |name: &str| Some(metadata.get(name)?.as_str()?.to_owned());
    let key = ResourceKey {
        kind,
        namespace: text("namespace").filter(|_| kind.is_namespaced()),
        name: text("name")?,
    };
    let mut body = match kind {
        ResourceKind::CiliumClusterwideNetworkPolicy | ResourceKind::CiliumNetworkPolicy => {
            // Everything but the status: a misspelt field must be found.
            let mut whole = std::mem::take(object.as_object_mut()?);
            whole.remove("status");
            whole
        }
        ResourceKind::CiliumCIDRGroup => copy(&object, &["spec"]),
        ResourceKind::Node => within(&object, "status", &["addresses"]),
        ResourceKind::CiliumNode => within(&object, "spec", &["addresses"]),
        ResourceKind::Namespace => Map::new(),
        ResourceKind::Pod => match pod(&object) {
            Some(pod) => pod,
            None => return Some(Trimmed { key, body: None }),
        },
        ResourceKind::Service => within(&object, "spec", &["type", "selector"]),
        ResourceKind::EndpointSlice => slice(&object),
        ResourceKind::CiliumIdentity => copy(&object, &["security-labels"]),
        ResourceKind::CiliumEndpoint => within(
            &object,
            "status",
            &["networking", "identity", "named-ports"],
        ),
    };
    body.insert("apiVersion".to_owned(), json!(api_version(kind)));
    body.insert("kind".to_owned(), json!(kind.as_str()));
    body.insert("metadata".to_owned(), Value::Object(metadata));
    let body = Some(Value::Object(body));
    Some(Trimmed { key, body })
}

/// As in a manifest, whichever version the server spoke.
fn api_version(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Node
        | ResourceKind::Namespace
        | ResourceKind::Pod
        | ResourceKind::Service => "v1",
        ResourceKind::EndpointSlice => "discovery.k8s.io/v1",
        ResourceKind::CiliumClusterwideNetworkPolicy
        | ResourceKind::CiliumNetworkPolicy
        | ResourceKind::CiliumCIDRGroup
        | ResourceKind::CiliumNode
        | ResourceKind::CiliumIdentity
        | ResourceKind::CiliumEndpoint => "cilium.io/v2",
    }
}

/// Annotations say something of policies only.
fn metadata(kind: ResourceKind, object: &Value) -> Option<Map<String, Value>> {
    const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let whole = object.get("metadata")?.as_object()?;
    let mut kept = pick(whole, &["name", "namespace", "labels"]);
    if kind.is_policy() {
        // The generation changes with the specification only.
        kept.extend(pick(whole, &["annotations", "uid", "generation"]));
        if let Some(Value::Object(annotations)) = kept.get_mut("annotations") {
            annotations.remove(APPLIED);
        }
    }
    Some(kept)
}

fn pick(map: &Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    let found = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), map.get(*name)?.clone())));
    found.collect()
}

fn copy(object: &Value, names: &[&str]) -> Map<String, Value> {
    object
        .as_object()
        .map_or_else(Map::new, |map| pick(map, names))
}

/// Some fields of one part.
fn within(object: &Value, part: &str, names: &[&str]) -> Map<String, Value> {
    let found = object.get(part).map(|part| copy(part, names));
    let mut body = Map::new();
    if let Some(found) = found {
        body.insert(part.to_owned(), Value::Object(found));
    }
    body
}

/// A pod that has an address of its own.
fn pod(object: &Value) -> Option<Map<String, Value>> {
    let spec = object.get("spec")?;
    let status = object.get("status")?;
    let phase = status.get("phase").and_then(Value::as_str);
    let on_host = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    let has_address = status
        .get("podIP")
        .and_then(Value::as_str)
        .is_some_and(|address| !address.is_empty());
    if on_host || !has_address || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let mut kept = copy(spec, &["serviceAccountName", "nodeName"]);
    for list in ["initContainers", "containers"] {
        let ports = named_ports(spec.get(list));
        if !ports.is_empty() {
            kept.insert(list.to_owned(), Value::Array(ports));
        }
    }
    let mut body = Map::new();
    body.insert("spec".to_owned(), Value::Object(kept));
    let addresses = copy(status, &["podIP", "podIPs"]);
    body.insert("status".to_owned(), Value::Object(addresses));
    Some(body)
}

/// Of each container only the ports that have a name.
fn named_ports(containers: Option<&Value>) -> Vec<Value> {
    let named = |port: &&Value| port.get("name").is_some_and(|name| name.is_string());
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    let ports = containers.filter_map(|container| {
        let ports = container.get("ports")?.as_array()?;
        let ports: Vec<Value> = ports.iter().filter(named).cloned().collect();
        (!ports.is_empty()).then(|| json!({ "ports": ports }))
    });
    ports.collect()
}

/// Addresses with their conditions; not the pods and nodes behind them.
fn slice(object: &Value) -> Map<String, Value> {
    let mut body = copy(object, &["addressType"]);
    let endpoints = object.get("endpoints").and_then(Value::as_array);
    let endpoints = endpoints.into_iter().flatten();
    let endpoints = endpoints.map(|it| Value::Object(copy(it, &["addresses", "conditions"])));
    body.insert("endpoints".to_owned(), endpoints.collect());
    let metadata = &object["metadata"];
    let text = |part: &str| metadata[part].as_str();
    if behind::is_it(text("namespace"), text("name").unwrap_or_default()) {
        // Where the API servers listen is asked of it, too.
        body.extend(copy(object, &["ports"]));
    }
    body
}
