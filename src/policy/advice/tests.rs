//! Whole runs: manifests in, warnings out.

use super::advise;
use crate::events::SourceName;
use crate::policy::language::{NamedPort, PortProtocol, read_policy};
use crate::policy::objects::read_object;
use crate::policy::{PolicyOptions, documents};

fn options() -> PolicyOptions {
    PolicyOptions {
        node_name: "own".to_owned(),
        named_ports: vec![NamedPort {
            name: "ssh".to_owned(),
            protocol: PortProtocol::Tcp,
            port: 22,
        }],
        ..PolicyOptions::default()
    }
}

fn check_with(options: &PolicyOptions, text: &str, expected: &[&str]) {
    let reading = documents::read("f.yaml", text.as_bytes(), SourceName::Manifests);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let (mut policies, mut objects) = (Vec::new(), Vec::new());
    for document in &reading.documents {
        let (key, body) = (&document.resource.key, &document.resource.body.value());
        if key.kind.is_policy() {
            policies.push((key, read_policy(key, body).value.expect("valid")));
        } else {
            objects.push((key, read_object(key, body).value.expect("valid")));
        }
    }
    let policies: Vec<_> = policies
        .iter()
        .map(|(key, policy)| (*key, policy))
        .collect();
    let objects: Vec<_> = objects.iter().map(|(key, object)| (*key, object)).collect();
    let advice: Vec<String> = advise(&policies, &objects, options)
        .iter()
        .map(|advice| format!("{} {}", advice.resource.name, advice.warning))
        .collect();
    assert_eq!(advice, expected, "{text}");
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: \
         {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn object(version: &str, kind: &str, name: &str, labels: &str) -> String {
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
    )
}

#[test]
fn subjects_that_match_no_known_node() {
    let other = policy(
        "p",
        "nodeSelector: {matchLabels: {role: db}}, ingress: [{}]",
    );
    check_with(&options(), &other, &[]);
    let node = object("v1", "Node", "a", "role: web");
    let expected = "p spec.nodeSelector: matches no known node";
    check_with(&options(), &format!("{other}{node}"), &[expected]);
    check_with(
        &options(),
        &format!("{other}{}", object("v1", "Node", "a", "role: db")),
        &[],
    );
    let mut own = options();
    own.node_labels.insert("role".to_owned(), "db".to_owned());
    check_with(&own, &format!("{other}{node}"), &[]);
}

#[test]
fn peers_that_match_no_known_object() {
    let text = policy(
        "p",
        "nodeSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}, {fromEndpoints: \
         [{matchLabels: {\"reserved:health\": \"\"}}]}, {fromNodes: [{matchLabels: {role: db}}]}, \
         {fromCIDRSet: [{cidrGroupRef: a}, {cidrGroupSelector: {matchLabels: {a: b}}}]}], egress: \
         [{toServices: [{k8sService: {serviceName: s, namespace: n}}, {k8sServiceSelector: \
         {selector: {matchLabels: {a: b}}}}]}]",
    );
    check_with(&options(), &text, &[]);
    let pod = object("v1", "Pod", "p", "app: db");
    let node = object("v1", "Node", "own", "role: db");
    let group =
        object("cilium.io/v2", "CiliumCIDRGroup", "b", "a: c") + "spec: {externalCIDRs: []}\n";
    let service = object("v1", "Service", "s", "a: c");
    let missing = [
        "p spec.ingress[0]: endpoints any:app=web, k8s:io.kubernetes.pod.namespace: matches no \
         known pod",
        "p spec.ingress[2]: nodes any:role=db, reserved:remote-node: matches no known other node",
        "p spec.ingress[3]: cidr group a: matches no known CiliumCIDRGroup",
        "p spec.ingress[3]: cidr groups any:a=b: matches no known CiliumCIDRGroup",
        "p spec.egress[0]: services */any:a=b: matches no known Service",
        "p spec.egress[0]: service n/s: matches no known Service",
    ];
    check_with(
        &options(),
        &format!("{text}{pod}---\n{node}---\n{group}---\n{service}"),
        &missing,
    );
    let pod = object("v1", "Pod", "p", "app: web");
    let node = object("v1", "Node", "other", "role: db");
    let group =
        object("cilium.io/v2", "CiliumCIDRGroup", "a", "a: b") + "spec: {externalCIDRs: []}\n";
    let service = object("v1", "Service", "s", "a: b").replace("name: s", "name: s, namespace: n");
    check_with(
        &options(),
        &format!("{text}{pod}---\n{node}---\n{group}---\n{service}"),
        &[],
    );
}

#[test]
fn named_ports() {
    let named = |section: &str, protocol: &str| {
        policy(
            "p",
            &format!(
                "nodeSelector: {{}}, {section}: [{{toPorts: [{{ports: [{{port: SSH, protocol: \
                 {protocol}}}]}}]}}]"
            ),
        )
    };
    check_with(&options(), &named("ingress", "ANY"), &[]);
    check_with(&options(), &named("ingress", "TCP"), &[]);
    let nothing = "p spec.ingress[0]: \"ssh\": this host has no port of this name: it matches \
                   nothing; name it with --named-ports, or write the number";
    check_with(&options(), &named("ingress", "UDP"), &[nothing]);
    check_with(
        &PolicyOptions::default(),
        &named("ingress", "ANY"),
        &[nothing],
    );
    check_with(&options(), &named("egress", "TCP"), &[]);
    let pod = object("v1", "Pod", "p", "");
    check_with(
        &options(),
        &format!("{}{pod}", named("egress", "TCP")),
        &["p spec.egress[0]: \"ssh\": no known pod has a port of this name; write the number"],
    );
    let ports = "spec: {containers: [{ports: [{name: ssh, containerPort: 22}]}]}";
    check_with(
        &options(),
        &format!("{}{pod}{ports}", named("egress", "TCP")),
        &[],
    );
}

/// An allow, a deny, and whether the deny takes all of it.
#[test]
fn allows_that_a_deny_shadows() {
    let tcp = |port: &str| format!("toPorts: [{{ports: [{{port: \"{port}\", protocol: TCP}}]}}]");
    let ssh = tcp("22");
    let low = ssh.replace("\"22\"", "\"1\", endPort: 1023");
    let cases = [
        (
            "fromEntities: [host]".to_owned(),
            "fromEntities: [all]".to_owned(),
            true,
        ),
        (
            "fromEntities: [host]".to_owned(),
            "fromEntities: [cluster]".to_owned(),
            true,
        ),
        (
            "fromEntities: [host, world]".to_owned(),
            "fromEntities: [cluster]".to_owned(),
            false,
        ),
        (
            "fromEntities: [none]".to_owned(),
            "fromEntities: [cluster]".to_owned(),
            false,
        ),
        (
            "fromEntities: [cluster]".to_owned(),
            "fromEntities: [host]".to_owned(),
            false,
        ),
        (
            "fromCIDR: [10.1.0.0/16]".to_owned(),
            "fromCIDR: [10.0.0.0/8]".to_owned(),
            true,
        ),
        (
            "fromCIDR: [10.0.0.0/8]".to_owned(),
            "fromCIDR: [10.1.0.0/16]".to_owned(),
            false,
        ),
        (
            "fromCIDR: [10.0.0.0/8]".to_owned(),
            "fromEntities: [world]".to_owned(),
            true,
        ),
        (
            "fromCIDR: [\"fd00::/8\"]".to_owned(),
            "fromEntities: [world-ipv4]".to_owned(),
            false,
        ),
        (
            "fromCIDR: [10.1.0.0/16]".to_owned(),
            "fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.1.0/24]}]".to_owned(),
            false,
        ),
        (
            "fromCIDR: [10.1.0.0/16]".to_owned(),
            "fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.2.0.0/16]}]".to_owned(),
            true,
        ),
        (
            "fromEndpoints: [{matchLabels: {a: b}}]".to_owned(),
            "fromEndpoints: [{}]".to_owned(),
            true,
        ),
        (
            "fromNodes: [{}]".to_owned(),
            "fromEntities: [remote-node]".to_owned(),
            true,
        ),
        (ssh.clone(), "fromEntities: [all]".to_owned(), true),
        (ssh.clone(), low.clone(), true),
        (low, ssh.clone(), false),
        ("fromEntities: [all]".to_owned(), ssh.clone(), false),
        (format!("fromEntities: [host], {ssh}"), ssh.clone(), true),
        (ssh.clone(), format!("fromEntities: [host], {ssh}"), false),
    ];
    for (allow, deny, shadowed) in cases {
        let text = policy("a", &format!("nodeSelector: {{}}, ingress: [{{{allow}}}]"))
            + &policy(
                "d",
                &format!("nodeSelector: {{}}, ingressDeny: [{{{deny}}}]"),
            );
        let expected = "a spec.ingress[0]: allows nothing: CiliumClusterwideNetworkPolicy/d \
                        spec.ingressDeny[0] denies all of it";
        let expected: &[&str] = if shadowed { &[expected] } else { &[] };
        check_with(&options(), &text, expected);
    }
}

#[test]
fn only_a_deny_for_the_same_or_more_nodes_shadows() {
    let run = |allow: &str, deny: &str, annotation: &str| {
        let deny = policy(
            "d",
            &format!("nodeSelector: {deny}, ingressDeny: [{{fromEntities: [all]}}]"),
        );
        policy(
            "a",
            &format!("nodeSelector: {allow}, ingress: [{{fromEntities: [host]}}]"),
        ) + &deny.replace(
            "{name: d}",
            &format!("{{name: d, annotations: {{{annotation}}}}}"),
        )
    };
    let expected = "a spec.ingress[0]: allows nothing: CiliumClusterwideNetworkPolicy/d \
                    spec.ingressDeny[0] denies all of it";
    let db = "{matchLabels: {role: db}}";
    check_with(&options(), &run(db, "{}", ""), &[expected]);
    check_with(&options(), &run(db, db, ""), &[expected]);
    check_with(&options(), &run("{}", db, ""), &[]);
    check_with(
        &options(),
        &run("{}", "{}", "palisade.io/enforcement: audit"),
        &[],
    );
    let egress = policy("e", "nodeSelector: {}, egressDeny: [{toEntities: [all]}]");
    let ingress = policy("a", "nodeSelector: {}, ingress: [{fromEntities: [host]}]");
    check_with(&options(), &format!("{ingress}{egress}"), &[]);
}
