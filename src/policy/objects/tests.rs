//! Objects as clusters write them, and broken ones.

use super::{Object, read_object};
use crate::events::SourceName;
use crate::policy::documents;
use crate::policy::language::{FieldError, Reading};

fn read(text: &str) -> Reading<Object> {
    let reading = documents::read("f.yaml", text.as_bytes(), SourceName::Manifests);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let resource = &reading.documents[0].resource;
    read_object(&resource.key, &resource.body.value())
}

fn lines(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn check_errors(text: &str, expected: &[&str]) {
    let reading = read(text);
    assert_eq!(lines(&reading.errors), expected, "{text}");
    assert_eq!(reading.value.is_none(), !expected.is_empty(), "{text}");
}

fn valid(text: &str) -> Object {
    let reading = read(text);
    assert_eq!(lines(&reading.errors), Vec::<String>::new(), "{text}");
    reading.value.expect("no errors")
}

fn shown<T: ToString>(list: &[T]) -> String {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    list.join(" ")
}

fn ports(list: &[crate::policy::language::NamedPort]) -> String {
    let list: Vec<String> = list
        .iter()
        .map(|port| format!("{}={:?}/{}", port.name, port.protocol, port.port))
        .collect();
    list.join(" ")
}

#[test]
fn nodes() {
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {x: \"1\"}}\nstatus:\n  \
                addresses:\n  - {type: InternalIP, address: 10.0.0.1}\n  - {type: Hostname, \
                address: a}\n  - {type: ExternalIP, address: \"2001:db8::1\"}\n  - {type: Odd, \
                address: b}\n";
    assert_eq!(
        lines(&read(text).warnings),
        ["status.addresses[3]: address of unknown type \"Odd\": ignored"]
    );
    let Object::Node(node) = valid(text) else {
        panic!("not a node");
    };
    assert_eq!(node.labels["x"], "1");
    assert_eq!(shown(&node.addresses), "10.0.0.1 2001:db8::1");
    check_errors(
        "apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {name: a, labels: {x: 1}}\nspec:\n  \
         addresses:\n  - {type: CiliumInternalIP, ip: 10.0.0.1}\n  - {type: InternalIP, ip: \
         10.0.0}\n  - {type: InternalIP}\n",
        &[
            "spec.addresses[1].ip: \"10.0.0\": not an IP address",
            "spec.addresses[2]: ip: missing",
            "metadata.labels.x: 1: expected a string; put it in quotes",
        ],
    );
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: web}}\n";

#[test]
fn pods() {
    let spec = "spec: {serviceAccountName: robot, nodeName: n, containers: [{name: c, ports: \
                [{name: Web, containerPort: 8080}, {containerPort: 9}, {name: dns, \
                containerPort: 53, protocol: UDP}]}, {name: d}], initContainers: [{ports: \
                [{name: side, containerPort: 1, protocol: SCTP}]}]}\n";
    let status = "status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: \
                  \"fd00::1\"}]}\n";
    let Object::Pod(pod) = valid(&format!("{POD}{spec}{status}")) else {
        panic!("not a pod");
    };
    assert_eq!(pod.labels["app"], "web");
    assert_eq!(pod.service_account, "robot");
    assert_eq!(shown(&pod.addresses), "10.1.0.1 fd00::1");
    assert_eq!(
        ports(&pod.named_ports),
        "dns=Udp/53 side=Sctp/1 web=Tcp/8080"
    );
    let without_addresses = [
        format!("{POD}{}", status.replace("Running", "Succeeded")),
        format!("{POD}{}", status.replace("Running", "Failed")),
        format!("{POD}spec: {{hostNetwork: true}}\n{status}"),
        format!("{POD}status: {{podIP: \"\", podIPs: null}}"),
        POD.to_owned(),
    ];
    for text in without_addresses {
        let Object::Pod(pod) = valid(&text) else {
            panic!("not a pod");
        };
        assert!(pod.addresses.is_empty(), "{text}");
        assert_eq!(pod.service_account, "default");
    }
    check_errors(
        &format!(
            "{POD}spec: {{hostNetwork: 1, containers: [{{ports: [{{name: a, containerPort: \
             70000}}, {{name: a, containerPort: \"80\"}}, {{name: a, containerPort: 1, protocol: \
             TPC}}, {{name: a}}]}}]}}\nstatus: {{podIP: 10.0.0.256, podIPs: [{{ip: 5}}]}}"
        ),
        &[
            "spec.hostNetwork: 1: expected true or false",
            "spec.containers[0].ports[0].containerPort: 70000: not a port; a number from 1 to \
             65535",
            "spec.containers[0].ports[1].containerPort: \"80\": not a port; a number from 1 to \
             65535",
            "spec.containers[0].ports[2].protocol: \"TPC\": unknown protocol; TCP, UDP or SCTP",
            "spec.containers[0].ports[3]: containerPort: missing",
            "status.podIP: \"10.0.0.256\": not an IP address",
            "status.podIPs[0].ip: 5: expected a string; put it in quotes",
        ],
    );
}

#[test]
fn namespaces_and_services() {
    let Object::Namespace(namespace) =
        valid("apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {team: a, b: null}}")
    else {
        panic!("not a namespace");
    };
    assert_eq!(
        format!("{:?}", namespace.labels),
        r#"{"b": "", "team": "a"}"#
    );
    let head = "apiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {l: x}}\n";
    let Object::Service(service) = valid(&format!("{head}spec: {{selector: {{app: web}}}}")) else {
        panic!("not a service");
    };
    assert_eq!(
        (&service.labels["l"][..], &service.selector["app"][..]),
        ("x", "web")
    );
    for spec in ["", "spec: {type: ExternalName, selector: {app: web}}"] {
        let Object::Service(service) = valid(&format!("{head}{spec}")) else {
            panic!("not a service");
        };
        assert!(service.selector.is_empty(), "{spec}");
    }
    check_errors(
        &format!("{head}spec: {{selector: [a]}}"),
        &["spec.selector: [...]: expected an object"],
    );
}

const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, \
                     labels: {kubernetes.io/service-name: kubernetes}}\n";

#[test]
fn endpoint_slices() {
    let Object::EndpointSlice(slice) = valid(&format!(
        "{SLICE}addressType: IPv4\nendpoints:\n- addresses: [10.0.0.2, 10.0.0.1]\n- addresses: \
         [10.0.0.1]\n  conditions: {{ready: true}}\n- addresses: [10.0.0.3]\n  conditions: {{ready: \
         false}}\n- addresses: [10.0.0.4]\n  conditions: {{ready: false, serving: true, \
         terminating: true}}\n"
    )) else {
        panic!("not a slice");
    };
    assert_eq!(slice.service.as_deref(), Some("kubernetes"));
    assert_eq!(shown(&slice.addresses), "10.0.0.1 10.0.0.2 10.0.0.4");
    let Object::EndpointSlice(slice) = valid(&format!(
        "{SLICE}addressType: FQDN\nendpoints: [{{addresses: [example.com]}}]"
    )) else {
        panic!("not a slice");
    };
    assert!(slice.addresses.is_empty());
    let of_none = SLICE.replace(", labels: {kubernetes.io/service-name: kubernetes}", "");
    assert_eq!(
        lines(&read(&of_none).warnings),
        ["metadata: no label kubernetes.io/service-name: the slice is of no service"]
    );
    check_errors(
        &format!("{SLICE}endpoints: [{{addresses: [10.0.0.0/8]}}, 5]"),
        &[
            "endpoints[0].addresses[0]: \"10.0.0.0/8\": not an IP address",
            "endpoints[1]: 5: expected an object",
        ],
    );
}

#[test]
fn identities() {
    let text = "apiVersion: cilium.io/v2\nkind: CiliumIdentity\nmetadata: {name: \"12345\"}\n\
                security-labels: {\"k8s:app\": web, \"k8s:io.kubernetes.pod.namespace\": n}";
    let Object::Identity(identity) = valid(text) else {
        panic!("not an identity");
    };
    assert_eq!(
        identity.labels.to_strings(),
        ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=n"]
    );
    for name in ["abc", "255", "16777216"] {
        check_errors(
            &text.replace("12345", name),
            &[&format!(
                "metadata.name: \"{name}\": the name of a CiliumIdentity is its number; a number \
                 from 256 to 16777215"
            )],
        );
    }
    check_errors(
        "apiVersion: cilium.io/v2\nkind: CiliumIdentity\nmetadata: {name: \"300\"}",
        &["no security-labels: an identity is what its labels say"],
    );
}

#[test]
fn endpoints() {
    let head = "apiVersion: cilium.io/v2\nkind: CiliumEndpoint\nmetadata: {name: p}\n";
    let Object::Endpoint(endpoint) = valid(&format!(
        "{head}status:\n  identity: {{id: 300, labels: [\"k8s:app=web\", \"reserved:init\"]}}\n  \
         networking: {{addressing: [{{ipv4: 10.1.0.1, ipv6: \"fd00::1\"}}], node: 10.0.0.1}}\n  \
         named-ports: [{{name: web, port: 8080, protocol: TCP}}]\n"
    )) else {
        panic!("not an endpoint");
    };
    assert_eq!(endpoint.identity, Some(300));
    assert_eq!(
        endpoint.labels.to_strings(),
        ["k8s:app=web", "reserved:init"]
    );
    assert_eq!(shown(&endpoint.addresses), "10.1.0.1 fd00::1");
    assert_eq!(ports(&endpoint.named_ports), "web=Tcp/8080");
    for status in ["", "status: {identity: {id: 0}}"] {
        let Object::Endpoint(endpoint) = valid(&format!("{head}{status}")) else {
            panic!("not an endpoint");
        };
        assert_eq!(endpoint.identity, None, "{status}");
        assert!(!endpoint.is_somebody(), "{status}");
    }
    check_errors(
        &format!(
            "{head}status: {{identity: {{id: a}}, networking: {{addressing: [{{ipv4: x}}]}}}}"
        ),
        &[
            "status.networking.addressing[0].ipv4: \"x\": not an IP address",
            "status.identity.id: \"a\": not an identity number",
        ],
    );
}

#[test]
fn prefix_groups() {
    for version in ["v2", "v2alpha1"] {
        let head = format!(
            "apiVersion: cilium.io/{version}\nkind: CiliumCIDRGroup\nmetadata: {{name: g, labels: \
             {{side: vpn}}}}\n"
        );
        let text = format!("{head}spec: {{externalCIDRs: [10.1.0.0/8, 10.0.0.0/8, \"fd00::/8\"]}}");
        let Object::CidrGroup(group) = valid(&text) else {
            panic!("not a group");
        };
        assert_eq!(group.labels["side"], "vpn");
        assert_eq!(shown(&group.cidrs), "10.0.0.0/8 fd00::/8");
        let missing = "spec.externalCIDRs: missing; write [] for an empty group";
        check_errors(&head, &[missing]);
        check_errors(
            &format!("{head}spec: {{externalCIDR: [10.0.0.0/8]}}"),
            &[missing],
        );
        check_errors(
            &format!("{head}spec: {{externalCIDRs: [10.0.0.0/40]}}"),
            &[
                "spec.externalCIDRs[0]: \"10.0.0.0/40\": the prefix length must be at most 32; a \
                 valid one is \"10.0.0.0/8\" or \"2001:db8::/32\"",
            ],
        );
    }
}
