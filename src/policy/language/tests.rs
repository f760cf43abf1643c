//! Rules, subjects, empty and absent fields, warnings, nodes.

use super::{FieldError, Peers, Policy, Ports, Reading};
use crate::events::SourceName;
use crate::policy::documents;

/// Reads the policy of a manifest.
pub(super) fn read(text: &str) -> Reading<Policy> {
    let reading = documents::read("f.yaml", text.as_bytes(), SourceName::Manifests);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let resource = &reading.documents[0].resource;
    super::read_policy(&resource.key, &resource.body.value())
}

/// Reads the policy of a spec.
pub(super) fn read_spec(spec: &str) -> Reading<Policy> {
    let indented = spec.replace('\n', "\n  ");
    read(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: p}}\n\
         spec:\n  {indented}\n"
    ))
}

fn lines(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Reads a spec and compares its errors, as the operator reads them.
pub(super) fn check_errors(spec: &str, expected: &[&str]) {
    let reading = read_spec(spec);
    assert_eq!(lines(&reading.errors), expected, "{spec}");
    assert_eq!(reading.value.is_none(), !expected.is_empty(), "{spec}");
}

fn valid(spec: &str) -> Policy {
    let reading = read_spec(spec);
    assert_eq!(lines(&reading.errors), Vec::<String>::new(), "{spec}");
    reading.value.expect("no errors")
}

/// The first item of a spec with one item: what it matches.
pub(super) fn check_item(item: &str, peers: &str, ports: &str) {
    let section = if item.contains("to") && !item.contains("from") && !item.contains("toPorts: [")
        || item.contains("toFQDNs")
        || item.contains("toServices")
    {
        "egress"
    } else {
        "ingress"
    };
    let policy = valid(&format!("nodeSelector: {{}}\n{section}: [{item}]"));
    let item_read = &policy.rules[0].items[0];
    let shown = match &item_read.peers {
        Peers::Any => "any".to_owned(),
        Peers::Select(list) => list
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
    };
    assert_eq!(shown, peers, "peers of {item}");
    let shown = match &item_read.ports {
        Ports::All => "all".to_owned(),
        Ports::Some(list) => format!("{list:?}").replace("Ports { protocol: ", "{"),
    };
    assert_eq!(shown, ports, "ports of {item}");
}

/// REFERENCE 1.7, column "newest".
#[test]
fn what_is_empty_and_what_is_absent() {
    let port = "toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]";
    let tcp80 = "[{Tcp, first: 80, last: 80 }]";
    check_item(&format!("{{{port}}}"), "any", tcp80);
    check_item("{}", "", "all");
    check_item("{fromEndpoints: []}", "", "all");
    for field in [
        "fromEndpoints",
        "fromEntities",
        "fromCIDR",
        "fromCIDRSet",
        "fromNodes",
        "fromGroups",
        "toFQDNs",
        "toServices",
    ] {
        check_item(&format!("{{{field}: [], {port}}}"), "", tcp80);
        check_item(&format!("{{{field}: null, {port}}}"), "any", tcp80);
    }
    check_item("{fromRequires: [], toPorts: []}", "", "all");
    check_item(&format!("{{fromRequires: [], {port}}}"), "any", tcp80);
    check_item("{fromEntities: [all], toPorts: []}", "entity all", "all");
    check_item("{fromEntities: [all], icmps: []}", "entity all", "all");
    check_item("{fromEntities: [all], toPorts: [{}]}", "entity all", "[]");
    check_item(
        "{fromEntities: [all], toPorts: [{ports: []}]}",
        "entity all",
        "[]",
    );
    check_item("{fromEntities: [all], icmps: [{}]}", "entity all", "[]");
    check_item(
        "{toPorts: [{}, {ports: [{port: 0, protocol: ANY}]}]}",
        "any",
        "[{Tcp, first: 0, last: 65535 }, {Udp, first: 0, last: 65535 }, \
         {Sctp, first: 0, last: 65535 }]",
    );
    let nothing = "spec: the rule has no item: at least one of ingress, ingressDeny, egress and \
                   egressDeny must not be empty";
    check_errors("nodeSelector: {}\ningress: []", &[nothing]);
    check_errors("nodeSelector: {}", &[nothing]);
    check_errors(
        "nodeSelector: {}\nenableDefaultDeny: {egress: true}",
        &[nothing],
    );
    let policy = valid("nodeSelector: {}\ningress: []\negress: [{}]");
    assert_eq!(policy.rules[0].items.len(), 1);
}

#[test]
fn ports_and_protocols() {
    let cases = [
        (
            "{port: 22}",
            "[{Tcp, first: 22, last: 22 }, {Udp, first: 22, last: 22 }, {Sctp, first: 22, last: 22 }]",
        ),
        (
            "{port: \"22\", protocol: tcp}",
            "[{Tcp, first: 22, last: 22 }]",
        ),
        (
            "{port: \"1000\", endPort: 1999, protocol: UDP}",
            "[{Udp, first: 1000, last: 1999 }]",
        ),
        (
            "{port: \"1000\", endPort: 999, protocol: UDP}",
            "[{Udp, first: 1000, last: 1000 }]",
        ),
        (
            "{port: \"1000\", endPort: 0, protocol: UDP}",
            "[{Udp, first: 1000, last: 1000 }]",
        ),
        (
            "{port: \"0\", endPort: 9, protocol: SCTP}",
            "[{Sctp, first: 0, last: 65535 }]",
        ),
        ("{protocol: TCP}", "[{Tcp, first: 0, last: 65535 }]"),
        (
            "{port: \"\", protocol: TCP}",
            "[{Tcp, first: 0, last: 65535 }]",
        ),
        (
            "{port: \"010\", protocol: TCP}",
            "[{Tcp, first: 8, last: 8 }]",
        ),
        (
            "{port: HTTP, protocol: TCP}",
            "[Named { protocol: Tcp, name: \"http\" }]",
        ),
        (
            "{port: \"0x10\", endPort: 9, protocol: SCTP}",
            "[Named { protocol: Sctp, name: \"0x10\" }]",
        ),
        ("{protocol: VRRP}", "[Protocol(112)]"),
        ("{port: \"0\", protocol: igmp}", "[Protocol(2)]"),
        ("{protocol: IPv6}", "[Protocol(41)]"),
    ];
    for (port, expected) in cases {
        check_item(
            &format!("{{fromCIDR: [], toPorts: [{{ports: [{port}]}}]}}"),
            "",
            expected,
        );
    }
    let cases = [
        ("{type: 8}", "[Icmp(8)]"),
        ("{type: \"8\"}", "[Icmp(8)]"),
        ("{family: IPv4, type: EchoRequest}", "[Icmp(8)]"),
        ("{family: IPv6, type: EchoRequest}", "[Icmpv6(128)]"),
        ("{family: IPv6, type: 143}", "[Icmpv6(143)]"),
    ];
    for (field, expected) in cases {
        check_item(
            &format!("{{icmps: [{{fields: [{field}]}}]}}"),
            "any",
            expected,
        );
    }
}

/// REFERENCE 1.9, rule level, and the form of whole policies.
#[test]
fn errors_of_rules() {
    check_errors(
        "ingress: [{}]",
        &[
            "spec: neither nodeSelector nor endpointSelector is written; nodeSelector: {} selects \
           every node",
        ],
    );
    check_errors(
        "nodeSelector: {}\nendpointSelector: {}\ningress: [{}]",
        &["spec: nodeSelector and endpointSelector exclude each other"],
    );
    check_errors(
        "nodeSelector: {matchLabels: {\"a b\": x, \"k9s:a\": x, a: \"-\", b: 5}, matchExpressions: \
         [{key: c, operator: in, values: [d]}, {key: c, operator: In}, {key: c, operator: Exists, \
         values: [d]}, {operator: Exists}]}\ningress: [{}]",
        &[
            "spec.nodeSelector.matchLabels.a: \"-\": invalid label selector: a value must be at \
             most 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit",
            "spec.nodeSelector.matchLabels[\"a b\"]: \"a b\": invalid label selector: the key must \
             be 1 to 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit",
            "spec.nodeSelector.matchLabels.b: 5: expected a string; put it in quotes",
            "spec.nodeSelector.matchLabels[\"k9s:a\"]: \"k9s:a\": unknown label source \"k9s\"; \
             did you mean \"k8s\"?",
            "spec.nodeSelector.matchExpressions[0].operator: \"in\": not an operator; In, NotIn, \
             Exists or DoesNotExist",
            "spec.nodeSelector.matchExpressions[1]: values: In and NotIn need at least one",
            "spec.nodeSelector.matchExpressions[2]: values: must be empty for Exists and \
             DoesNotExist",
            "spec.nodeSelector.matchExpressions[3]: key: missing",
        ],
    );
}

#[test]
fn errors_of_fields() {
    check_errors(
        "nodeSelector: {}\ningres: [{}]\nspecs: 1\nenableDefaultDeny: {ingress: \"no\", x: true}\n\
         log: {value: aaaaaaaaaabbbbbbbbbbccccccccccddd}\nlabels: [{source: a}]\ndescription: 1\n\
         egress: [null]",
        &[
            "spec.ingres: [...]: unknown field; did you mean \"ingress\"?",
            "spec.specs: 1: unknown field; known here: nodeSelector, endpointSelector, ingress, \
             ingressDeny, egress, egressDeny, enableDefaultDeny, labels, description, log",
            "spec.enableDefaultDeny.x: true: unknown field; known here: ingress, egress",
            "spec.enableDefaultDeny.ingress: \"no\": expected true or false",
            "spec.description: 1: expected a string; put it in quotes",
            "spec.labels[0]: key: missing",
            "spec.log.value: \"aaaaaaaaaabbbbbbbbbbccccccccccddd\": at most 32 printable characters",
            "spec.egress[0]: null: expected an object",
        ],
    );
}

#[test]
fn errors_of_whole_policies() {
    let head = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n";
    let neither = read(&format!("{head}metadata: {{name: p}}\nspce: {{}}"));
    assert_eq!(
        lines(&neither.errors),
        [
            "spce: {...}: unknown field; did you mean \"spec\"?",
            "neither spec nor specs is written",
        ]
    );
    let both = read(&format!(
        "{head}metadata: {{name: p, x: 1, namespace: n}}\nstatus: {{y: 1}}\n\
         spec: {{nodeSelector: {{}}, ingress: [{{}}]}}\n\
         specs: [{{nodeSelector: {{}}, ingress: [{{}}, {{}}]}}, {{nodeSelector: {{}}, ingress: 5}}]"
    ));
    assert_eq!(
        lines(&both.errors),
        [
            "specs[1].ingress: 5: expected a list",
            "specs[1]: the rule has no item: at least one of ingress, ingressDeny, egress and \
             egressDeny must not be empty",
        ]
    );
    assert_eq!(
        lines(&both.warnings),
        [
            "metadata.x: 1: unknown field",
            "metadata.namespace: \"n\": ignored: the policy is cluster-wide",
            "status.y: 1: unknown field; known here: conditions, nodes, derivativePolicies",
            "spec.ingress[0]: allows nothing: all it does is that ingress is denied by default",
            "specs[0].ingress[0]: allows nothing: all it does is that ingress is denied by default",
            "specs[0].ingress[1]: allows nothing: all it does is that ingress is denied by default",
        ]
    );
}

#[test]
fn the_annotation_of_a_policy_in_audit() {
    let with = |value: &str| {
        read(&format!(
            "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: p, \
             annotations: {{other: x, palisade.io/enforcement: {value}}}}}\n\
             spec: {{nodeSelector: {{}}, ingress: [{{}}]}}"
        ))
    };
    assert!(with("audit").value.expect("valid").audit);
    for value in ["Audit", "enforce", "\"\"", "true", "null"] {
        let reading = with(value);
        assert_eq!(reading.value, None, "{value}");
        let shown = value.trim_matches('"');
        let shown = match shown {
            "true" | "null" => shown.to_owned(),
            _ => format!("{shown:?}"),
        };
        assert_eq!(
            lines(&reading.errors),
            [format!(
                "metadata.annotations[\"palisade.io/enforcement\"]: {shown}: the one valid value is \
                 \"audit\"; remove the annotation to enforce the policy"
            )]
        );
    }
    assert!(!valid("nodeSelector: {}\ningress: [{}]").audit);
}

/// Old manifests have `description` beside `spec`; rules beside it would be lost.
#[test]
fn fields_beside_spec() {
    let reading = read(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\n\
         description: x\nlabel: []\nspec: {nodeSelector: {}, ingress: [{fromEntities: [all]}]}",
    );
    assert_eq!(lines(&reading.errors), Vec::<String>::new());
    assert_eq!(
        lines(&reading.warnings),
        [
            "description: \"x\": unknown field; it belongs into spec: spec.description",
            "label: [...]: unknown field",
        ]
    );
    let reading = read(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\n\
         egressDeny: [{}]\nspecss: []\nspec: {nodeSelector: {}, ingress: [{fromEntities: [all]}]}",
    );
    assert_eq!(
        lines(&reading.errors),
        [
            "egressDeny: [...]: unknown field; it belongs into spec: spec.egressDeny",
            "specss: [...]: unknown field; did you mean \"specs\"?",
        ]
    );
}

/// Items of all rules of a policy are counted through, section by section.
#[test]
fn items_are_numbered_over_spec_and_specs() {
    let reading = read(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\n\
         spec: {nodeSelector: {}, ingress: [{}], egressDeny: [{}]}\n\
         specs: [{endpointSelector: {}, ingress: [{}]}, {nodeSelector: {}, ingress: [{}, {}]}]",
    );
    let policy = reading.value.expect("valid");
    let numbers: Vec<(&str, usize)> = policy
        .rules
        .iter()
        .flat_map(|rule| &rule.items)
        .map(|item| (item.section.as_str(), item.index))
        .collect();
    assert_eq!(
        numbers,
        [
            ("ingress", 0),
            ("egressDeny", 0),
            ("ingress", 1),
            ("ingress", 2),
            ("ingress", 3)
        ]
    );
}

#[test]
fn warnings() {
    let reading = read_spec(
        "nodeSelector: {matchLabels: {kubernetes.io/os: linux, node-access: ssh}}\n\
         ingress: [{fromCIDR: [10.0.0.1]}, {fromEntities: [world-ipv4], toPorts: [{ports: \
         [{port: ssh}, {port: \"9\", endPort: 8}]}]}]",
    );
    assert_eq!(
        lines(&reading.warnings),
        [
            "spec.nodeSelector: selects by \"kubernetes.io/os\", which works here; Cilium's \
             default label filter hides it, so that there this selects no node",
            "spec.ingress[0].fromCIDR[0]: \"10.0.0.1\": a bare address; write 10.0.0.1/32; newer \
             Cilium refuses it",
            "spec.ingress[1].fromEntities[0]: \"world-ipv4\": works here; the Kubernetes API \
             refuses it",
            "spec.ingress[1].toPorts[0].ports[1].endPort: 8: ignored, since 8 is less than port 9",
        ]
    );
    let held = read_spec(
        "endpointSelector: {}\negress: [{toFQDNs: [{}], toPorts: [{ports: [{port: \"53\"}], rules: {dns: []}}]}]",
    );
    assert_eq!(held.errors, []);
    let policy = held.value.expect("valid");
    let paths = policy.rules[0].items.iter().map(|item| item.path.as_str());
    assert!(paths.eq(["spec.egress[0]"]), "held rules are kept whole");
}

#[test]
fn a_thousand_errors_are_summarised() {
    let entities = vec!["x"; 1_000].join(", ");
    let reading = read_spec(&format!(
        "nodeSelector: {{}}\ningress: [{{fromEntities: [{entities}]}}]"
    ));
    assert_eq!(reading.errors.len(), 101);
    assert_eq!(reading.errors[100].to_string(), "and 900 more errors");
}
