//! Peers by labels, groups and services; what namespaces add to them.

use super::tests::{check_errors, check_item, read, read_spec};
use super::{Peers, Reading, RuleSubject};
use crate::policy::language::Policy;

const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";

#[test]
fn endpoints_are_pods_of_any_namespace() {
    let cases = [
        ("{}", NAMESPACE.to_owned()),
        (
            "{matchLabels: {app: web}}",
            format!("any:app=web, {NAMESPACE}"),
        ),
        (
            "{matchLabels: {io.kubernetes.pod.namespace: n}}",
            "any:io.kubernetes.pod.namespace=n".to_owned(),
        ),
        (
            "{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": n}}",
            format!("{NAMESPACE}=n"),
        ),
        (
            "{matchLabels: {\"cni:io.kubernetes.pod.namespace\": n}}",
            format!("cni:io.kubernetes.pod.namespace=n, {NAMESPACE}"),
        ),
        (
            "{matchExpressions: [{key: \"reserved:host\", operator: Exists}]}",
            "reserved:host".to_owned(),
        ),
        (
            "{matchExpressions: [{key: $health, operator: DoesNotExist}]}",
            "!reserved:health".to_owned(),
        ),
    ];
    for (selector, expected) in cases {
        check_item(
            &format!("{{fromEndpoints: [{selector}]}}"),
            &format!("endpoints {expected}"),
            "all",
        );
    }
    check_item("{fromEndpoints: [], toPorts: []}", "", "all");
}

fn of_namespace(spec: &str) -> Reading<Policy> {
    read(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: \
         team}}\nspec: {spec}\n"
    ))
}

/// The selector that the defaults make of a peer, in a rule with this subject.
fn bound(namespace: Option<&str>, subject: &str, peer: &str) -> String {
    use super::LabelSelector;
    use super::namespaces::PeerScope;
    let read = |text: &str| -> LabelSelector {
        let reading = read_spec(&format!("endpointSelector: {text}\ningress: [{{}}]"));
        match &reading.value.expect("valid").rules[0].subject {
            RuleSubject::Endpoint(selector) => selector.clone(),
            RuleSubject::Node(_) => panic!("not for endpoints"),
        }
    };
    let subject = read(subject);
    let mut peer = read(peer);
    PeerScope::new(namespace, Some(&subject)).bind(&mut peer);
    peer.to_string()
}

#[test]
fn peers_of_a_namespaced_policy_are_of_its_namespace() {
    let cases = [
        ("{}", format!("{NAMESPACE}=team")),
        (
            "{matchLabels: {app: web}}",
            format!("any:app=web, {NAMESPACE}=team"),
        ),
        (
            "{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": other}}",
            format!("{NAMESPACE}=other"),
        ),
        (
            "{matchLabels: {io.cilium.k8s.namespace.labels.a: b}}",
            "any:io.cilium.k8s.namespace.labels.a=b".to_owned(),
        ),
        (
            "{matchLabels: {\"cni:io.cilium.k8s.namespace.labels.a\": b}}",
            format!("cni:io.cilium.k8s.namespace.labels.a=b, {NAMESPACE}=team"),
        ),
        (
            "{matchLabels: {\"reserved:host\": \"\"}}",
            "reserved:host=".to_owned(),
        ),
    ];
    for (peer, expected) in cases {
        assert_eq!(bound(Some("team"), "{}", peer), expected, "{peer}");
    }
    let init = "{matchLabels: {\"reserved:init\": \"\"}}";
    for namespace in [None, Some("team")] {
        assert_eq!(bound(namespace, init, "{matchLabels: {a: b}}"), "any:a=b");
    }
    assert_eq!(bound(None, "{}", "{}"), NAMESPACE);
}

#[test]
fn subjects_of_a_namespaced_policy() {
    let subject = |selector: &str| {
        let reading = of_namespace(&format!(
            "{{endpointSelector: {selector}, ingress: [{{}}]}}"
        ));
        let warnings = reading.warnings.len();
        match &reading.value.expect("valid").rules[0].subject {
            RuleSubject::Endpoint(selector) => (selector.to_string(), warnings),
            RuleSubject::Node(_) => panic!("never a node"),
        }
    };
    assert_eq!(subject("{}"), (format!("{NAMESPACE}=team"), 2));
    let other = "{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": other}}";
    assert_eq!(subject(other), (format!("{NAMESPACE}=team"), 3));
    let own = "{matchLabels: {\"io.kubernetes.pod.namespace\": team}}";
    assert_eq!(subject(own), (format!("{NAMESPACE}=team"), 2));
}

/// REFERENCE 1.9, number 9.
#[test]
fn a_namespaced_policy_never_selects_a_node() {
    let errors = |spec: &str| {
        let reading = of_namespace(spec);
        assert_eq!(reading.value, None, "{spec}");
        reading
            .errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let missing = "spec: endpointSelector: missing; endpointSelector: {} selects every pod of the \
                   namespace";
    let node = "spec.nodeSelector: {...}: a CiliumNetworkPolicy cannot select nodes; use a \
                CiliumClusterwideNetworkPolicy";
    assert_eq!(errors("{ingress: [{}]}"), [missing]);
    assert_eq!(errors("{nodeSelector: {}, ingress: [{}]}"), [node, missing]);
    assert_eq!(
        errors("{nodeSelector: {}, endpointSelector: {}, ingress: [{}]}"),
        [node]
    );
    // Each of several specs counts.
    let reading = read(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspecs: \
         [{endpointSelector: {}, ingress: [{}]}, {nodeSelector: {}, endpointSelector: {}, ingress: \
         [{}]}, {ingress: [{}]}]\n",
    );
    let paths: Vec<&str> = reading.errors.iter().map(|error| &error.path[..]).collect();
    assert_eq!(paths, ["specs[1].nodeSelector", "specs[2]"]);
}

#[test]
fn nodes_are_other_nodes() {
    check_item(
        "{fromNodes: [{}, {matchLabels: {role: db}}, {matchLabels: {\"node:role\": web}}]}",
        "nodes any:role=db, reserved:remote-node; nodes node:role=web, reserved:remote-node; nodes \
         reserved:remote-node",
        "all",
    );
    check_item(
        "{toNodes: [{matchExpressions: [{key: \"reserved:remote-node\", operator: Exists}]}]}",
        "nodes reserved:remote-node",
        "all",
    );
    let reading =
        read_spec("nodeSelector: {}\ningress: [{fromNodes: [{matchLabels: {\"k8s:a\": b}}]}]");
    assert_eq!(
        reading.warnings[0].to_string(),
        "spec.ingress[0].fromNodes[0]: labels of other nodes have the source \"node\": this matches \
         nothing; write \"a\" without a source"
    );
}

#[test]
fn groups_of_prefixes() {
    check_item(
        "{fromCIDRSet: [{cidrGroupRef: office, except: [10.1.0.0/16]}, {cidrGroupSelector: \
         {matchLabels: {\"k8s:side\": vpn, \"cidrgroup:x\": \"y\"}}}, {cidrGroupSelector: {}}]}",
        "cidr group office except 10.1.0.0/16; cidr groups {}; cidr groups any:side=vpn, any:x=y",
        "all",
    );
}

#[test]
fn services() {
    check_item(
        "{toServices: [{k8sService: {serviceName: db, namespace: n}}, {k8sService: {serviceName: \
         db}}, {k8sServiceSelector: {selector: {matchLabels: {a: b}}, namespace: n}}, \
         {k8sServiceSelector: {selector: {}}}]}",
        "service */db; services */{}; service n/db; services n/any:a=b",
        "all",
    );
    check_item(
        "{toServices: [{}, {k8sService: {namespace: n}}], toPorts: [{ports: [{port: \"80\", \
         protocol: TCP}]}]}",
        "",
        "[{Tcp, first: 80, last: 80 }]",
    );
    check_errors(
        "nodeSelector: {}\negress: [{toServices: [{k8sServiceSelector: {namespace: n}}, \
         {k8sService: {name: a}}, {k8sServices: {}}, {k8sServiceSelector: {selector: {matchLabels: \
         {\"a b\": c}}}}]}]",
        &[
            "spec.egress[0].toServices[0].k8sServiceSelector: selector: missing; {} selects every \
             service",
            "spec.egress[0].toServices[1].k8sService.name: \"a\": unknown field; known here: \
             serviceName, namespace",
            "spec.egress[0].toServices[2].k8sServices: {...}: unknown field; did you mean \
             \"k8sService\"?",
            "spec.egress[0].toServices[3].k8sServiceSelector.selector.matchLabels[\"a b\"]: \"a \
             b\": invalid label selector: the key must be 1 to 63 letters, digits, '-', '_' or \
             '.', and begin and end with a letter or digit",
        ],
    );
}

/// What would select nothing says so.
#[test]
fn warnings_of_peers_and_ports() {
    let cases = [
        (
            "ingress: [{fromCIDR: []}]",
            "spec.ingress[0].fromCIDR: an empty list selects nobody",
        ),
        (
            "ingress: [{fromEntities: [none]}]",
            "spec.ingress[0].fromEntities[0]: \"none\": selects nobody",
        ),
        (
            "egressDeny: [{}]",
            "spec.egressDeny[0]: denies nothing by itself; egress is denied by default all the same",
        ),
        (
            "ingress: [{toPorts: [{}]}]",
            "spec.ingress[0]: no port is written: the item matches nothing; remove toPorts to match \
             every protocol",
        ),
        (
            "ingress: [{toPorts: [{ports: [{port: \"0\"}]}]}]",
            "spec.ingress[0].toPorts[0].ports[0]: port 0 is every port",
        ),
        (
            "ingress: [{toPorts: [{ports: [{port: 22}]}]}]",
            "spec.ingress[0].toPorts[0].ports[0].port: 22: a number; the Kubernetes API wants a \
             string; write \"22\"",
        ),
        (
            "ingress: [{toPorts: [{ports: [{port: ssh, endPort: 9}]}]}]",
            "spec.ingress[0].toPorts[0].ports[0].endPort: 9: ignored, since the port is a name",
        ),
        (
            "enableDefaultDeny: {egress: true}\ningress: [{fromEntities: [all]}]",
            "spec.enableDefaultDeny.egress: true: no effect: the rule has no item for egress",
        ),
        (
            "ingress: [{fromEndpoints: [{matchLabels: {pod-template-hash: a}}]}]",
            "spec.ingress[0].fromEndpoints[0]: selects by \"pod-template-hash\", which the label \
             filter takes away from pods, as in Cilium: this matches nothing",
        ),
        (
            "egress: [{toServices: [{}]}]",
            "spec.egress[0].toServices[0]: names no service: this selects nobody; write k8sService: \
             {serviceName: ..., namespace: ...}",
        ),
    ];
    for (spec, expected) in cases {
        let reading = read_spec(&format!("nodeSelector: {{}}\n{spec}"));
        assert_eq!(reading.errors, [], "{spec}");
        let warnings: Vec<String> = reading.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, [expected], "{spec}");
    }
}

/// POLICY.md 3: Cilium leaves these two as wildcards.
#[test]
fn empty_names_and_groups_select_nobody() {
    for field in ["fromGroups", "toGroups", "toFQDNs"] {
        let section = if field.starts_with("from") {
            "ingress"
        } else {
            "egress"
        };
        let reading = read_spec(&format!(
            "nodeSelector: {{}}\n{section}: [{{{field}: [], toPorts: [{{ports: [{{port: \"1\"}}]}}]}}]"
        ));
        let policy = reading.value.expect("valid");
        assert_eq!(
            policy.rules[0].items[0].peers,
            Peers::Select(Vec::new()),
            "{field}"
        );
    }
}
