//! What is kept of objects, and that the readers find all they look for in it.

use serde_json::{Value, json};

use super::trim::trim;
use crate::events::ResourceKind;
use crate::policy::language::read_policy;
use crate::policy::objects::{Object, read_object};

fn pod(host_network: bool, phase: &str, address: &str) -> Value {
    json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "labels": {"app": "web"},
            "resourceVersion": "7", "managedFields": [{}], "annotations": {"note": "x"}},
        "spec": {
            "hostNetwork": host_network, "serviceAccountName": "shop", "nodeName": "n1",
            "containers": [
                {"name": "web", "image": "web:1", "env": [{"name": "A", "value": "b"}],
                 "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}]},
                {"name": "side", "image": "side:1"}]},
        "status": {
            "phase": phase, "podIP": address, "podIPs": [{"ip": address}],
            "containerStatuses": [{"restartCount": 3}]},
    })
}

#[test]
fn of_a_pod_the_reader_finds_all_it_found_before() {
    let whole = pod(false, "Running", "10.0.0.7");
    let trimmed = trim(ResourceKind::Pod, whole.clone()).expect("a pod");
    let body = trimmed.body.expect("it has an address");
    let read = |body: &Value| read_object(&trimmed.key, body).value.expect("readable");
    assert_eq!(read(&body), read(&whole));
    let Object::Pod(found) = read(&body) else {
        panic!("a pod");
    };
    assert_eq!(found.named_ports.len(), 1);
    assert_eq!(found.service_account, "shop");
    let text = body.to_string();
    for word in [
        "image",
        "managedFields",
        "annotations",
        "containerStatuses",
        "9090",
    ] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

#[test]
fn pods_without_an_address_of_their_own_do_not_matter() {
    for pod in [
        pod(true, "Running", "10.0.0.7"),
        pod(false, "Pending", ""),
        pod(false, "Succeeded", "10.0.0.7"),
    ] {
        let trimmed = trim(ResourceKind::Pod, pod).expect("a pod");
        assert_eq!(trimmed.body, None);
        assert_eq!(trimmed.key.to_string(), "Pod/shop/web-1");
    }
}

#[test]
fn a_heartbeat_changes_nothing() {
    let node = |seconds: u32| {
        json!({
            "metadata": {"name": "n1", "labels": {"role": "web"}, "resourceVersion": seconds.to_string()},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                "conditions": [{"type": "Ready", "lastHeartbeatTime": seconds}],
                "images": [{"names": ["web:1"]}]},
        })
    };
    let kept = |seconds| trim(ResourceKind::Node, node(seconds)).expect("a node");
    assert_eq!(kept(1), kept(2));
    let object = read_object(&kept(1).key, &kept(1).body.expect("a body")).value;
    let Some(Object::Node(node)) = object else {
        panic!("a node");
    };
    assert_eq!((node.labels.len(), node.addresses.len()), (1, 1));
}

#[test]
fn of_a_policy_everything_stays_but_status_and_bookkeeping() {
    let policy = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {
            "name": "p", "uid": "u", "generation": 3, "managedFields": [{}],
            "annotations": {
                "palisade.io/enforcement": "audit",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "sepc": {}, "spec": {"nodeSelector": {}, "ingress": []},
        "status": {"conditions": []},
    });
    let trimmed = trim(ResourceKind::CiliumClusterwideNetworkPolicy, policy).expect("a policy");
    let body = trimmed.body.expect("a body");
    assert_eq!(
        body["metadata"],
        json!({"name": "p", "uid": "u", "generation": 3, "annotations": {"palisade.io/enforcement": "audit"}})
    );
    assert!(body.get("status").is_none());
    // What the server kept of a misspelt field is still refused.
    let reading = read_policy(&trimmed.key, &body);
    assert!(reading.value.is_none());
    assert!(reading.errors[0].to_string().contains("sepc"));
}

#[test]
fn slices_services_and_ciliums_objects_keep_what_is_read() {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1beta1",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.9"], "conditions": {"ready": true},
            "targetRef": {"name": "x"}, "nodeName": "n1"}],
        "ports": [{"port": 6443}],
    });
    let trimmed = trim(ResourceKind::EndpointSlice, slice).expect("a slice");
    let body = trimmed.body.expect("a body");
    assert_eq!(body["apiVersion"], "discovery.k8s.io/v1");
    assert!(body["endpoints"][0].get("targetRef").is_none());
    let Some(Object::EndpointSlice(slice)) = read_object(&trimmed.key, &body).value else {
        panic!("a slice");
    };
    assert_eq!(slice.addresses.len(), 1);
    assert_eq!(slice.service.as_deref(), Some("kubernetes"));

    let endpoint = json!({
        "metadata": {"name": "web-1", "namespace": "shop"},
        "status": {"id": 7, "identity": {"id": 300, "labels": ["k8s:app=web"]},
            "networking": {"addressing": [{"ipv4": "10.0.0.7"}], "node": "192.0.2.1"}},
    });
    let trimmed = trim(ResourceKind::CiliumEndpoint, endpoint).expect("an endpoint");
    let body = trimmed.body.expect("a body");
    let Some(Object::Endpoint(endpoint)) = read_object(&trimmed.key, &body).value else {
        panic!("an endpoint");
    };
    assert_eq!(
        (endpoint.identity, endpoint.addresses.len()),
        (Some(300), 1)
    );
    assert_eq!(trim(ResourceKind::Node, json!({"metadata": {}})), None);
}
