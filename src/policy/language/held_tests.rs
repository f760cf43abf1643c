//! Rules for workload endpoints: refused where Cilium refuses them, accepted
//! where it accepts them (REFERENCE 1.9).

use super::tests::read_spec;

fn errors(spec: &str) -> Vec<String> {
    let reading = read_spec(&format!("endpointSelector: {{}}\n{spec}"));
    assert_eq!(reading.value.is_none(), !reading.errors.is_empty());
    reading.errors.iter().map(ToString::to_string).collect()
}

fn check(spec: &str, expected: &[&str]) {
    assert_eq!(errors(spec), expected, "{spec}");
}

const TCP80: &str = "ports: [{port: \"80\", protocol: TCP}]";
const DNS53: &str = "ports: [{port: \"53\", protocol: ANY}]";

#[test]
fn what_cilium_accepts_for_workloads() {
    for spec in [
        "ingress: [{fromGroups: [{aws: {securityGroupsIds: [sg-1], region: eu, labels: {a: b}}}]}]",
        "egressDeny: [{toGroups: [{aws: {securityGroupsNames: [a]}}]}]",
        "egress: [{toFQDNs: [{matchName: a_b.example.com}, {matchPattern: \"**.example.*\"}, {}]}]",
        "egress: [{toFQDNs: [{matchName: example.com}], toPorts: [{ports: [{port: \"443\"}]}]}]",
        "ingress: [{fromEndpoints: [{}], authentication: {mode: required}}]",
        "ingress: [{fromRequires: []}]",
        "ingress: [{fromNodes: [{}]}]",
        "egress: [{toServices: [{k8sService: {serviceName: a}}]}]",
        "egress: [{toPorts: [{ports: [{port: web}]}]}]",
    ] {
        check(spec, &[]);
    }
    for element in [
        format!("{{{TCP80}, rules: {{http: [{{method: GET, path: /a, headers: [x]}}]}}}}"),
        format!("{{{TCP80}, rules: {{kafka: [{{role: produce, topic: t}}]}}}}"),
        format!("{{{TCP80}, rules: {{l7proto: r2d2, l7: [{{cmd: READ}}]}}}}"),
        format!("{{{TCP80}, serverNames: [a.example.com]}}"),
        format!(
            "{{{TCP80}, terminatingTLS: {{secret: {{name: a}}}}, serverNames: [a], rules: {{http: []}}}}"
        ),
        "{rules: {http: [{}]}}".to_owned(),
    ] {
        check(&format!("ingress: [{{toPorts: [{element}]}}]"), &[]);
        check(&format!("egress: [{{toPorts: [{element}]}}]"), &[]);
    }
    for element in [
        format!("{{{DNS53}, rules: {{dns: [{{matchPattern: \"*\"}}]}}}}"),
        format!(
            "{{{TCP80}, listener: {{envoyConfig: {{kind: A, name: b}}, name: c, priority: 1}}}}"
        ),
    ] {
        check(&format!("egress: [{{toPorts: [{element}]}}]"), &[]);
    }
}

/// Each condition of 1.9, number 6.
#[test]
fn what_looks_into_packets() {
    let tcp = "application-layer rules other than DNS need protocol: TCP on each port";
    let zero = "application-layer rules do not go with port 0";
    let cases = [
        (
            "ingress",
            "{PORTS53, rules: {dns: [{}]}}",
            "DNS rules are not allowed on ingress",
        ),
        (
            "egress",
            "{ports: [{port: \"80\"}], rules: {http: [{}]}}",
            tcp,
        ),
        (
            "egress",
            "{ports: [{port: \"80\", protocol: UDP}], rules: {kafka: []}}",
            tcp,
        ),
        (
            "egress",
            "{ports: [{port: \"0\", protocol: TCP}], rules: {http: [{}]}}",
            zero,
        ),
        (
            "egress",
            "{ports: [{port: \"0\"}], rules: {dns: [{}]}}",
            zero,
        ),
        (
            "egress",
            "{rules: {dns: [{}]}}",
            "DNS rules need a port: 53",
        ),
        (
            "egress",
            "{ports: [{port: \"53\", endPort: 54}], rules: {dns: [{}]}}",
            "DNS rules do not go with port ranges",
        ),
        (
            "egress",
            "{PORTS80, rules: {http: [{}], kafka: [{}]}}",
            "http and kafka in one element are not allowed; write two elements of toPorts",
        ),
    ];
    for (section, element, expected) in cases {
        let element = element.replace("PORTS80", TCP80).replace("PORTS53", DNS53);
        let expected = format!("spec.{section}[0].toPorts[0].rules: {expected}");
        check(
            &format!("{section}: [{{toPorts: [{element}]}}]"),
            &[&expected],
        );
    }
    let element = format!("{{{TCP80}, rules: {{l7: []}}}}");
    check(
        &format!("egress: [{{toPorts: [{element}]}}]"),
        &["spec.egress[0].toPorts[0].rules.l7: l7 needs l7proto"],
    );
    let element = format!("{{{TCP80}, rules: {{kafka: [{{role: a, apiKey: b}}]}}}}");
    check(
        &format!("egress: [{{toPorts: [{element}]}}]"),
        &["spec.egress[0].toPorts[0].rules.kafka[0]: role and apiKey exclude each other"],
    );
}

#[test]
fn listeners_and_server_names() {
    let element = format!("{{{TCP80}, listener: {{name: a}}}}");
    check(
        &format!("ingress: [{{toPorts: [{element}]}}]"),
        &["spec.ingress[0].toPorts[0].listener: {...}: not allowed on ingress"],
    );
    let element = format!("{{{TCP80}, listener: {{name: a}}, rules: {{http: [{{}}]}}}}");
    check(
        &format!("egress: [{{toPorts: [{element}]}}]"),
        &["spec.egress[0].toPorts[0].listener: {...}: not allowed beside application-layer rules"],
    );
    let element = format!("{{{TCP80}, serverNames: [a, \"\"], rules: {{http: [{{}}]}}}}");
    check(
        &format!("egress: [{{toPorts: [{element}]}}]"),
        &[
            "spec.egress[0].toPorts[0].serverNames: not allowed beside application-layer rules \
             unless terminatingTLS is written",
            "spec.egress[0].toPorts[0].serverNames[1]: \"\": an empty server name",
        ],
    );
}

/// 1.9, number 8, and the form of groups.
#[test]
fn names_groups_and_modes() {
    let plain = "illegal in a DNS name; only letters, digits, '-', '_' and '.'";
    let pattern = "illegal in a DNS name; only letters, digits, '-', '_', '.' and '*'";
    let cases = [
        (
            "{matchName: a, matchPattern: b}",
            ": matchName and matchPattern exclude each other; write two elements".to_owned(),
        ),
        (
            "{matchName: \"*.a\"}",
            format!(".matchName: \"*.a\": {plain}"),
        ),
        ("{matchName: a/b}", format!(".matchName: \"a/b\": {plain}")),
        (
            "{matchPattern: \"a b\"}",
            format!(".matchPattern: \"a b\": {pattern}"),
        ),
        (
            "{matchPattern: \"[a]\"}",
            format!(".matchPattern: \"[a]\": {pattern}"),
        ),
        (
            "{name: a}",
            ".name: \"a\": unknown field; known here: matchName, matchPattern".to_owned(),
        ),
    ];
    for (name, expected) in cases {
        let expected = format!("spec.egress[0].toFQDNs[0]{expected}");
        check(&format!("egress: [{{toFQDNs: [{name}]}}]"), &[&expected]);
    }
    check(
        "ingress: [{fromGroups: [{gcp: {}}, {aws: {region: 5}}], authentication: {mode: requird}}]",
        &[
            "spec.ingress[0].authentication.mode: \"requird\": unknown mode; did you mean \
             \"required\"?",
            "spec.ingress[0].fromGroups[0].gcp: {...}: unknown field; known here: aws",
            "spec.ingress[0].fromGroups[1].aws.region: 5: expected a string; put it in quotes",
        ],
    );
    check(
        "ingress: [{authentication: {}}]",
        &["spec.ingress[0].authentication: mode: missing"],
    );
}

/// Deny sections are as strict as the others, and have less.
#[test]
fn deny_sections() {
    check(
        "egressDeny: [{toFQDNs: []}, {toPorts: [{rules: {}}]}, {authentication: {mode: required}}, \
         {toEntities: [wrld]}, {toCIDR: [10.0.0.0/33]}, {toCIDR: [10.0.0.0/8], toEntities: [all]}]",
        &[
            "spec.egressDeny[0].toFQDNs: [...]: toFQDNs is not allowed in a deny section; use \
             toEntities or toCIDR",
            "spec.egressDeny[1].toPorts[0].rules: {...}: not allowed in a deny section; remove it, \
             or use ports and protocols only",
            "spec.egressDeny[2].authentication: {...}: authentication is not allowed in a deny \
             section",
            "spec.egressDeny[3].toEntities[0]: \"wrld\": unsupported entity; did you mean \"world\"?",
            "spec.egressDeny[4].toCIDR[0]: \"10.0.0.0/33\": the prefix length must be at most 32; a \
             valid one is \"10.0.0.0/8\" or \"2001:db8::/32\"",
            "spec.egressDeny[5]: combining toEntities and toCIDR in one item is not allowed; write \
             two items",
        ],
    );
    check(
        "ingressDeny: [{fromRequires: [{}]}]",
        &[
            "spec.ingressDeny[0].fromRequires: [...]: fromRequires is no longer part of Cilium; use \
             fromEntities or fromCIDR",
        ],
    );
}

/// Two kinds of peers never stand in one item, whichever they are.
#[test]
fn each_pair_of_peer_kinds_is_refused() {
    let ingress = [
        "fromEndpoints: [{}]",
        "fromCIDR: [10.0.0.0/8]",
        "fromCIDRSet: [{cidr: 10.0.0.0/8}]",
        "fromEntities: [all]",
        "fromNodes: [{}]",
        "fromGroups: [{}]",
    ];
    let egress = [
        "toEndpoints: [{}]",
        "toCIDR: [10.0.0.0/8]",
        "toCIDRSet: [{cidr: 10.0.0.0/8}]",
        "toEntities: [all]",
        "toNodes: [{}]",
        "toGroups: [{}]",
        "toServices: [{}]",
        "toFQDNs: [{}]",
    ];
    for (section, fields) in [("ingress", &ingress[..]), ("egress", &egress[..])] {
        for (number, first) in fields.iter().enumerate() {
            check(&format!("{section}: [{{{first}}}]"), &[]);
            for second in &fields[number + 1..] {
                let found = errors(&format!("{section}: [{{{first}, {second}}}]"));
                assert_eq!(found.len(), 1, "{first} and {second}");
                assert!(found[0].contains("in one item is not allowed"), "{found:?}");
            }
        }
    }
}
