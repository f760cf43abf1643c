//! Errors of items: peers, prefixes, ports, what is not supported.

use super::tests::{check_errors, check_item};

fn check_ingress(item: &str, expected: &[&str]) {
    check_errors(&format!("nodeSelector: {{}}\ningress: [{item}]"), expected);
}

/// REFERENCE 1.9, item level: peers.
#[test]
fn errors_of_peers() {
    check_ingress(
        "{fromEntities: [wrld, 5, banana]}",
        &[
            "spec.ingress[0].fromEntities[0]: \"wrld\": unsupported entity; did you mean \
             \"world\"?",
            "spec.ingress[0].fromEntities[1]: 5: expected a string; put it in quotes",
            "spec.ingress[0].fromEntities[2]: \"banana\": unsupported entity; one of all, world, \
             world-ipv4, world-ipv6, cluster, cluster-mesh, host, remote-node, kube-apiserver, \
             health, init, ingress, unmanaged, none",
        ],
    );
    check_ingress(
        "{fromEntities: [all], fromCIDR: [10.0.0.0/8]}",
        &[
            "spec.ingress[0]: combining fromEntities and fromCIDR in one item is not allowed; write \
           two items",
        ],
    );
    check_ingress("{fromEntities: [], fromCIDR: [10.0.0.0/8]}", &[]);
    let example = "a valid one is \"10.0.0.0/8\" or \"2001:db8::/32\"";
    let cases = [
        ("\"\"", "\"\": an empty prefix"),
        (
            "10.0.0.0/33",
            "\"10.0.0.0/33\": the prefix length must be at most 32",
        ),
        (
            "\"2001:db8::/129\"",
            "\"2001:db8::/129\": the prefix length must be at most 128",
        ),
        (
            "10.0.0/8",
            "\"10.0.0/8\": not a prefix: the part before \"/\" is not an IP address",
        ),
        (
            "10.0.0.0/08",
            "\"10.0.0.0/08\": not a prefix: the part after \"/\" is not a number",
        ),
        ("host", "\"host\": not an address and not a prefix"),
    ];
    for (text, expected) in cases {
        let expected = format!("spec.ingress[0].fromCIDR[0]: {expected}; {example}");
        check_ingress(&format!("{{fromCIDR: [{text}]}}"), &[&expected]);
    }
}

#[test]
fn errors_of_prefix_sets() {
    let one = "spec.ingress[0].fromCIDRSet[0]: exactly one of cidr, cidrGroupRef and \
               cidrGroupSelector must be written";
    check_ingress("{fromCIDRSet: [{}]}", &[one]);
    check_ingress(
        "{fromCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: a}]}",
        &[one],
    );
    check_ingress(
        "{fromCIDRSet: [{cidrGroupSelector: {}, cidrGroupRef: a}]}",
        &[one],
    );
    check_ingress("{fromCIDRSet: [{cidr: \"\", cidrGroupRef: a}]}", &[]);
    check_ingress(
        "{fromCIDRSet: [{cidrGroupRef: A_b}]}",
        &[
            "spec.ingress[0].fromCIDRSet[0].cidrGroupRef: \"A_b\": not the name of a \
             CiliumCIDRGroup; lower-case letters, digits, '-' and '.'",
        ],
    );
    check_ingress(
        "{fromCIDRSet: [{cidrGroupSelector: {matchLabels: {a: b c}}, except: [x]}]}",
        &[
            "spec.ingress[0].fromCIDRSet[0].except[0]: \"x\": not an address and not a prefix; a \
             valid one is \"10.0.0.0/8\" or \"2001:db8::/32\"",
            "spec.ingress[0].fromCIDRSet[0].cidrGroupSelector.matchLabels.a: \"b c\": invalid \
             label selector: a value must be at most 63 letters, digits, '-', '_' or '.', and \
             begin and end with a letter or digit",
        ],
    );
    let lie = "each except must lie within its cidr";
    let cases = [
        (
            "\"2001:db8::/32\"",
            "of another address family than cidr 10.0.0.0/8",
        ),
        ("0.0.0.0/0", "shorter than cidr 10.0.0.0/8"),
        ("11.0.0.0/16", "not within cidr 10.0.0.0/8"),
    ];
    for (except, reason) in cases {
        let shown = except.trim_matches('"');
        let expected =
            format!("spec.ingress[0].fromCIDRSet[0].except[0]: \"{shown}\": {reason}; {lie}");
        let set = format!("{{fromCIDRSet: [{{cidr: 10.0.0.0/8, except: [{except}]}}]}}");
        check_ingress(&set, &[&expected]);
    }
    check_item(
        "{fromCIDRSet: [{cidr: 10.1.2.3/8, except: [10.2.0.0/16, 10.1.0.1]}]}",
        "cidr 10.0.0.0/8 except 10.1.0.1/32, 10.2.0.0/16",
        "all",
    );
}

/// What a host cannot enforce, or cannot yet, is never ignored.
#[test]
fn errors_of_what_is_not_supported() {
    for (section, prefix) in [
        ("ingress", "from"),
        ("ingressDeny", "from"),
        ("egress", "to"),
    ] {
        for kind in ["Groups", "Requires", "FQDNs"] {
            if kind == "FQDNs" && prefix == "from" {
                continue;
            }
            let spec = format!("nodeSelector: {{}}\n{section}: [{{{prefix}{kind}: [{{}}]}}]");
            let expected = format!(
                "spec.{section}[0].{prefix}{kind}: [...]: {prefix}{kind} cannot be enforced on a \
                 host; use {prefix}Entities or {prefix}CIDR"
            );
            check_errors(&spec, &[&expected]);
        }
    }
    check_ingress(
        "{toCIDR: [10.0.0.0/8], toPort: [], authentication: {mode: required}}",
        &[
            "spec.ingress[0].toCIDR: [...]: unknown field; in this direction it is \"fromCIDR\"",
            "spec.ingress[0].toPort: [...]: unknown field; did you mean \"toPorts\"?",
            "spec.ingress[0].authentication: {...}: mutual authentication cannot be enforced on a \
             host",
        ],
    );
}

#[test]
fn errors_of_what_looks_into_packets() {
    let l7 = "application-layer rules cannot be enforced on a host; remove it, or use ports and \
              protocols only";
    for field in [
        "rules: {http: []}",
        "listener: {}",
        "terminatingTLS: {}",
        "serverNames: [a]",
    ] {
        let (name, value) = field.split_once(": ").unwrap_or_default();
        let shown = if value.starts_with('{') {
            "{...}"
        } else {
            "[...]"
        };
        let expected = format!("spec.ingress[0].toPorts[0].{name}: {shown}: {l7}");
        check_ingress(
            &format!("{{toPorts: [{{ports: [{{port: 80}}], {field}}}]}}"),
            &[&expected],
        );
    }
    check_ingress(
        "{toPorts: [{ports: [{port: 80}], rules: {}, serverNames: []}]}",
        &[],
    );
    check_errors(
        "nodeSelector: {}\negressDeny: [{toFQDNs: [{}]}, {toPorts: [{rules: {dns: []}}]}]",
        &[
            "spec.egressDeny[0].toFQDNs: [...]: toFQDNs is not allowed in a deny section; use \
             toEntities or toCIDR",
            "spec.egressDeny[1].toPorts[0].rules: {...}: not allowed in a deny section; remove \
             it, or use ports and protocols only",
        ],
    );
}

/// REFERENCE 1.9, item level: ports and ICMP.
#[test]
fn errors_of_ports() {
    let not_a_port = "not a port; a number from 0 to 65535 (0 is every port)";
    let cases = [
        ("{port: 65536}", format!(".port: 65536: {not_a_port}")),
        ("{port: -1}", format!(".port: -1: {not_a_port}")),
        ("{port: 1.5}", format!(".port: 1.5: {not_a_port}")),
        (
            "{port: \"65536\"}",
            format!(".port: \"65536\": {not_a_port}"),
        ),
        ("{port: \"08\"}", format!(".port: \"08\": {not_a_port}")),
        ("{port: \"a--b\"}", format!(".port: \"a--b\": {not_a_port}")),
        (
            "{port: true}",
            ".port: true: expected a string; put it in quotes".to_owned(),
        ),
        (
            "{port: 1, endPort: 70000}",
            ".endPort: 70000: not a port; a number from 1 to 65535".to_owned(),
        ),
        (
            "{port: 1, protocol: TPC}",
            ".protocol: \"TPC\": unknown protocol; TCP, UDP, SCTP, ANY, VRRP, IGMP, GRE, IPIP, \
             IPv6, ESP or AH"
                .to_owned(),
        ),
        (
            "{port: 1, protocol: ICMP}",
            ".protocol: \"ICMP\": unknown protocol; use icmps".to_owned(),
        ),
        (
            "{port: 1, protocol: GRE}",
            ".port: 1: the protocol has no ports: port must be empty or 0".to_owned(),
        ),
        (
            "{prot: TCP}",
            ".prot: \"TCP\": unknown field; did you mean \"port\"?".to_owned(),
        ),
    ];
    for (port, expected) in cases {
        let expected = format!("spec.ingress[0].toPorts[0].ports[0]{expected}");
        check_ingress(&format!("{{toPorts: [{{ports: [{port}]}}]}}"), &[&expected]);
    }
}

#[test]
fn errors_of_icmp_and_of_too_many() {
    let many = vec!["{port: 1}"; 41].join(", ");
    check_ingress(
        &format!("{{toPorts: [{{ports: [{many}]}}]}}"),
        &[
            "spec.ingress[0].toPorts[0].ports: 41 ports, at most 40 in one element of toPorts; use \
           several elements",
        ],
    );
    let many = vec!["{type: 1}"; 41].join(", ");
    check_ingress(
        &format!("{{icmps: [{{fields: [{many}]}}]}}"),
        &[
            "spec.ingress[0].icmps[0].fields: 41 fields, at most 40 in one element of icmps; use \
           several elements",
        ],
    );
    check_ingress(
        "{toPorts: [{ports: [{port: 1}]}], icmps: [{fields: [{type: 8}]}]}",
        &["spec.ingress[0]: toPorts and icmps in one item are not allowed; write two items"],
    );
    check_ingress(
        "{icmps: [{fields: [{type: EchoRequst}, {family: IPv6, type: Photuris}, {family: ipv4, \
         type: 8}, {type: 256}, {family: IPv6}]}]}",
        &[
            "spec.ingress[0].icmps[0].fields[0].type: \"EchoRequst\": not an ICMP type of IPv4; \
             did you mean \"EchoRequest\"?",
            "spec.ingress[0].icmps[0].fields[1].type: \"Photuris\": not an ICMP type of IPv6",
            "spec.ingress[0].icmps[0].fields[2].family: \"ipv4\": unknown family; IPv4 or IPv6",
            "spec.ingress[0].icmps[0].fields[3].type: 256: not an ICMP type; a number from 0 to \
             255, or a name",
            "spec.ingress[0].icmps[0].fields[4]: type: missing",
        ],
    );
}
