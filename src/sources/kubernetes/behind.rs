//! The API servers behind the Service `default/kubernetes`: a connection to the
//! Service's address leaves the node with one of theirs, by kube-proxy or by what
//! stands in its place.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::events::{ResourceKey, ResourceKind};
use crate::policy::PolicySnapshot;

/// The namespace and the name of both the Service and its EndpointSlice.
pub(super) const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// What selects the slice among those of its namespace.
pub(super) const API_SLICES: &str = "kubernetes.io/service-name=kubernetes";

/// Where this slice stands in the repository.
pub(super) fn is_it(namespace: Option<&str>, name: &str) -> bool {
    namespace == Some(NAMESPACE) && name == NAME
}

/// The servers, as they were last heard of.
#[must_use]
pub fn api_servers(snapshot: &PolicySnapshot) -> BTreeSet<SocketAddr> {
    let key = ResourceKey {
        kind: ResourceKind::EndpointSlice,
        namespace: Some(NAMESPACE.to_owned()),
        name: NAME.to_owned(),
    };
    let slice = snapshot.objects.get(&key);
    slice.map_or_else(BTreeSet::new, |slice| servers(&slice.resource.body.value()))
}

fn servers(slice: &Value) -> BTreeSet<SocketAddr> {
    let items = |value: &Value, part: &str| value[part].as_array().cloned().unwrap_or_default();
    let ports = items(slice, "ports").into_iter().filter_map(|port| {
        let is_tcp = matches!(port["protocol"].as_str(), None | Some("TCP"));
        let number = u16::try_from(port["port"].as_u64()?).ok()?;
        is_tcp.then_some(number)
    });
    let ports: Vec<u16> = ports.collect();
    let addresses = items(slice, "endpoints");
    let addresses = addresses.iter().flat_map(|it| items(it, "addresses"));
    let addresses = addresses.filter_map(|it| it.as_str()?.parse::<IpAddr>().ok());
    addresses
        .flat_map(|address| {
            ports
                .iter()
                .map(move |port| SocketAddr::new(address, *port))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn servers_are_each_address_with_each_port() {
        let slice = json!({"addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}, {"addresses": ["192.0.2.2", "nonsense"]}],
            "ports": [{"name": "https", "port": 6443, "protocol": "TCP"},
                {"port": 9, "protocol": "UDP"}]});
        let all: Vec<_> = servers(&slice).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["192.0.2.1:6443", "192.0.2.2:6443"]);
        assert_eq!(servers(&json!({"endpoints": "none"})), BTreeSet::new());
    }
}
