//! Files as an operator would write and break them.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{FileReading, read};
use crate::events::SourceName;

fn read_text(file: &str, text: &str) -> FileReading {
    read(file, text.as_bytes(), SourceName::Manifests)
}

/// What the operator would see of a file, one line each.
fn show(reading: &FileReading) -> String {
    let mut lines = String::new();
    for document in &reading.documents {
        let origin = &document.resource.origin;
        let (key, number, line) = (&document.resource.key, origin.document, origin.line);
        let _ = writeln!(lines, "{key} document {number} line {line}");
    }
    for error in &reading.errors {
        let _ = writeln!(lines, "error {error}");
    }
    for skipped in &reading.skipped {
        let _ = writeln!(lines, "skipped {skipped}");
    }
    lines
}

fn check(text: &str, expected: &[&str]) {
    let shown = show(&read_text("f.yaml", text));
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{text}");
}

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n";

#[test]
fn many_documents_and_comments() {
    let text = format!(
        "# head\n%YAML 1.2\n---\n{NODE}---\n# nothing\n---\napiVersion: v1\nkind: Node\n\
         metadata:\n  name: b\n...\n---   \n"
    );
    check(
        &text,
        &["Node/a document 0 line 4", "Node/b document 1 line 10"],
    );
}

#[test]
fn a_broken_document_does_not_hide_the_others() {
    let text =
        format!("{NODE}---\nkind: [\n---\napiVersion: v1\nkind: Node\nmetadata: {{name: c}}\n");
    let reading = read_text("f.yaml", &text);
    assert_eq!(reading.documents.len(), 2);
    assert_eq!(reading.errors.len(), 1, "{}", show(&reading));
    let error = &reading.errors[0];
    assert_eq!((error.document, error.line), (1, 6), "{error}");
}

#[test]
fn lists_are_taken_apart() {
    check(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: a}\n\
         - apiVersion: cilium.io/v2\n  kind: CiliumNode\n  metadata: {name: b}\n",
        &["Node/a document 0 line 4", "CiliumNode/b document 0 line 7"],
    );
    check(
        "apiVersion: v1\nkind: NodeList\nitems:\n- metadata: {name: a}\n- 5\n",
        &[
            "Node/a document 0 line 4",
            "error f.yaml: document 1, line 5, column 3: 5: an item of a list must be an object",
        ],
    );
}

#[test]
fn kinds_that_are_not_read() {
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n---\n\
         apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolcy\nmetadata: {name: q}\n",
        &[
            "error f.yaml: document 3, line 10, column 7: kind: \"CiliumClusterwideNetworkPolcy\": \
             unknown; did you mean \"CiliumClusterwideNetworkPolicy\"?",
            "skipped f.yaml: line 1: Deployment/d skipped: palisade does not read this kind",
            "skipped f.yaml: line 5: NetworkPolicy/p skipped: palisade does not read this kind",
        ],
    );
}

#[test]
fn kinds_that_are_read_and_their_namespaces() {
    let kinds = [
        ("v1", "Node", false),
        ("v1", "Namespace", false),
        ("v1", "Pod", true),
        ("v1", "Service", true),
        ("discovery.k8s.io/v1", "EndpointSlice", true),
        ("cilium.io/v2", "CiliumNode", false),
        ("cilium.io/v2", "CiliumIdentity", false),
        ("cilium.io/v2", "CiliumEndpoint", true),
        ("cilium.io/v2", "CiliumNetworkPolicy", true),
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", false),
        ("cilium.io/v2", "CiliumCIDRGroup", false),
        ("cilium.io/v2alpha1", "CiliumCIDRGroup", false),
    ];
    for (version, kind, namespaced) in kinds {
        for (namespace, expected) in [
            ("", "/default"),
            ("namespace: \"\"", "/default"),
            ("namespace: null", "/default"),
            ("namespace: team-a", "/team-a"),
        ] {
            let expected = if namespaced { expected } else { "" };
            check(
                &format!(
                    "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: \"300\", {namespace}}}\n"
                ),
                &[&format!("{kind}{expected}/300 document 0 line 1")],
            );
        }
    }
    check(
        "apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: p}}, {metadata: {name: p, \
         namespace: n}}, {metadata: {name: p, namespace: default}}]\n",
        &[
            "Pod/default/p document 0 line 3",
            "Pod/n/p document 0 line 3",
            "error f.yaml: document 1, line 3, column 87: Pod/p: defined twice in this file; the \
             first one counts, in line 3: rename or remove one of them",
        ],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: A_b}\n---\n\
         apiVersion: v1\nkind: CiliumCIDRGroup\nmetadata: {name: p}\n",
        &[
            "error f.yaml: document 1, line 3, column 32: Pod/p: metadata.namespace: \"A_b\": must \
             be lower-case letters, digits and '-', at most 63, and begin and end with a letter or \
             digit",
            "error f.yaml: document 2, line 5, column 13: CiliumCIDRGroup/p: apiVersion: \"v1\": \
             not a version that is read; write \"cilium.io/v2\" or \"cilium.io/v2alpha1\"",
        ],
    );
}

#[test]
fn objects_without_their_basics() {
    let cases = [
        (
            "5",
            "1, column 1: 5: not an object; write apiVersion, kind, metadata and what belongs to \
             the kind",
        ),
        (
            "metadata: {}",
            "1, column 1: kind: missing; every object needs one",
        ),
        (
            "kind: 5",
            "1, column 7: kind: 5: expected the name of a kind",
        ),
        (
            "kind: Node\nmetadata: {name: a}",
            "1, column 1: Node/a: apiVersion: missing; write \"v1\"",
        ),
        (
            "kind: Node\napiVersion: v2\nmetadata: {name: a}",
            "2, column 13: Node/a: apiVersion: \"v2\": not a version that is read; write \"v1\"",
        ),
        (
            "kind: CiliumNode\napiVersion: cilium.io/v1\nmetadata: {name: a}",
            "2, column 13: CiliumNode/a: apiVersion: \"cilium.io/v1\": not a version that is \
             read; write \"cilium.io/v2\"",
        ),
        (
            "kind: Node\napiVersion: v1\nmetadata: {}",
            "3, column 1: Node: metadata.name: missing; every object needs one",
        ),
        (
            "kind: Node\napiVersion: v1\nmetadata: x",
            "3, column 11: Node: metadata: \"x\": expected an object: {name: ...}",
        ),
        (
            "kind: Node\napiVersion: v1\nmetadata: {name: 5}",
            "3, column 18: Node: metadata.name: 5: expected a string; put it in quotes",
        ),
        (
            "kind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: [b]}",
            "3, column 21: Pod/a: metadata.namespace: [...]: expected a string",
        ),
        (
            "kind: Node\napiVersion: v1\nmetadata: {name: A/b}",
            "3, column 18: Node/A/b: metadata.name: \"A/b\": must be lower-case letters, digits, \
             '-' and '.', at most 253, and begin and end with a letter or digit",
        ),
        (
            "kind: List",
            "1, column 1: items: missing; a list needs its items, even if there are none",
        ),
        (
            "kind: PodList\nitems: 5",
            "2, column 8: items: 5: expected a list",
        ),
        (
            "kind: List\nitems:\n- kind: List\n  items: []",
            "3, column 9: kind: \"List\": a list inside of a list; write its items into the outer \
             one",
        ),
    ];
    for (text, expected) in cases {
        check(
            text,
            &[&format!("error f.yaml: document 1, line {expected}")],
        );
    }
    // Every fault of one object at once.
    let reading = read_text("f.yaml", "kind: Pod\nmetadata: {name: A, namespace: B}");
    assert_eq!(reading.errors.len(), 3, "{}", show(&reading));
    // Nothing, and kinds that other APIs call the same.
    check("kind: List\nitems: null", &[]);
    check("kind: List\nitems: []", &[]);
    check(
        "kind: Service\napiVersion: serving.knative.dev/v1\nmetadata: {name: a}\n---\n\
         kind: AllowList\napiVersion: x.io/v1\nmetadata: {name: b}",
        &[
            "skipped f.yaml: line 1: Service/a skipped: another kind of this name; palisade reads \
             v1",
            "skipped f.yaml: line 5: AllowList/b skipped: palisade does not read this kind",
        ],
    );
}

#[test]
fn the_first_of_two_with_one_name_counts() {
    check(
        &format!("{NODE}---\n{NODE}"),
        &[
            "Node/a document 0 line 1",
            "error f.yaml: document 2, line 7, column 18: Node/a: defined twice in this file; the \
             first one counts, in line 1: rename or remove one of them",
        ],
    );
}

#[test]
fn what_no_manifest_may_hold() {
    let deep = format!("a: {}{}", "[".repeat(70), "]".repeat(70));
    let cases = [
        (
            "a: &x 1\nb: *x",
            "line 2, column 4: aliases (`*name`) are refused; write the value out",
        ),
        (
            "a: 1\na: 2",
            "line 2, column 1: the key \"a\" is there twice; keep one of the two",
        ),
        (
            "a: !foo 1",
            "line 1, column 9: the tag !foo is refused; write the value without it",
        ),
        (
            "? [a]\n: 1",
            "line 1, column 3: a key must be a string; put it in quotes",
        ),
        (
            &deep,
            "line 1, column 67: nested deeper than 64 levels; no manifest needs that",
        ),
        (
            "a\0",
            "line 1, column 2: a NUL byte; manifests are text, remove it",
        ),
    ];
    for (text, expected) in cases {
        check(text, &[&format!("error f.yaml: document 1, {expected}")]);
    }
    let reading = read("f.yaml", b"a: 1\nb: \xff\n", SourceName::Manifests);
    assert_eq!(
        show(&reading),
        "error f.yaml: document 1, line 2, column 4: the byte 0xff is not valid UTF-8 (is it \
         another encoding?); save the file as UTF-8\n"
    );
    let large = format!("a: {}", "x".repeat(1 << 20));
    assert!(show(&read_text("f.yaml", &large)).contains("at most 1048576 are read"));
    let huge = vec![b'#'; (16 << 20) + 1];
    assert!(show(&read("f.yaml", &huge, SourceName::Manifests)).contains("at most 16777216"));
}

#[test]
fn scalars_have_the_core_schema() {
    let reading = read_text(
        "f.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nx: [22, \"22\", 0x16, 010, 1.5, true, ~, \
         yes, 1.2.3.4, !!str 5, -3, 2001:db8::/32, '', 18446744073709551615]\n",
    );
    assert_eq!(
        reading.documents[0].resource.body.value()["x"].to_string(),
        "[22,\"22\",22,\"010\",1.5,true,null,\"yes\",\"1.2.3.4\",\"5\",-3,\"2001:db8::/32\",\"\",\
         18446744073709551615]"
    );
}

#[test]
fn json_files() {
    let text = "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"a\\u0062\"}}\n\n\
                {\"apiVersion\":\"v1\",\n\t\"kind\":\"Node\",\"metadata\":{\"name\":\"c\"}}";
    for file in ["f.json", "f.yaml"] {
        let shown = show(&read_text(file, text));
        assert_eq!(
            shown,
            "Node/ab document 0 line 1\nNode/c document 1 line 3\n"
        );
    }
    let cases = [
        (
            "{\"a\":1,\"a\":2}",
            "line 1, column 10: the key \"a\" is there twice; keep one of the two",
        ),
        (
            "{\"a\":",
            "line 1, column 5: the JSON ends too soon; a quote, bracket or brace is not closed",
        ),
    ];
    for (text, expected) in cases {
        let shown = show(&read_text("f.json", text));
        assert_eq!(shown, format!("error f.json: document 1, {expected}\n"));
    }
    let deep = "[".repeat(100_000);
    assert_eq!(read_text("f.json", &deep).errors.len(), 1);
    assert_eq!(read_text("f.yaml", &deep).errors.len(), 1);
}

#[test]
fn positions_of_fields() {
    let text = "---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata:\n    \
                name: a\n    labels:\n      x.y/z: \"1\"\n  status:\n    addresses:\n    - type: InternalIP\n      \
                address: 10.0.0.1\n";
    let reading = read_text("f.yaml", text);
    let positions = &reading.documents[0].positions;
    let cases = [
        ("", (5, 3)),
        ("metadata.name", (8, 11)),
        ("metadata.labels", (9, 5)),
        ("metadata.labels[\"x.y/z\"]", (10, 14)),
        ("status.addresses[0].address", (14, 16)),
        ("status.addresses[0].missing", (13, 7)),
        ("spec", (5, 3)),
    ];
    for (path, expected) in cases {
        assert_eq!(positions.get(path), Some(expected), "{path}");
    }
}

/// Where each rule item of each policy begins.
#[test]
fn lines_of_rule_items() {
    let item_lines = |text: &str| -> Vec<String> {
        let reading = read_text("f.yaml", text);
        assert_eq!(reading.errors, []);
        let documents = reading.documents.iter();
        let lines = documents.flat_map(|document| &document.resource.origin.item_lines);
        lines.map(|(path, line)| format!("{path} {line}")).collect()
    };
    let head = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n";
    let rules = "metadata: {name: p}\nspec:\n  nodeSelector: {}\n  ingress:\n  - fromEntities: \
                 [all]\n    icmps: []\n  - {}\n  egressDeny:\n    -\n      toCIDR: []\nspecs:\n- \
                 {nodeSelector: {}, ingress: [{}, {}]}\n";
    let expected = |base: usize| {
        [
            format!("spec.egressDeny[0] {}", base + 9),
            format!("spec.ingress[0] {}", base + 4),
            format!("spec.ingress[1] {}", base + 6),
            format!("specs[0].ingress[0] {}", base + 11),
            format!("specs[0].ingress[1] {}", base + 11),
        ]
    };
    assert_eq!(item_lines(&format!("{head}{rules}")), expected(3));
    assert_eq!(
        item_lines(&format!("{NODE}---\n{head}{rules}")),
        expected(7)
    );
    let item = format!("{head}{rules}").replace('\n', "\n  ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n");
    assert_eq!(item_lines(&list), expected(6));
    // Services have a `spec` too, but no rules.
    assert_eq!(
        item_lines("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ingress: [{}]}\n"),
        Vec::<String>::new()
    );
}

#[test]
fn each_item_of_a_long_list_has_its_place() {
    let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    let mut json = "{\"kind\": \"List\", \"items\": [".to_owned();
    for _ in 0..8_000 {
        text.push_str("- {}\n- {kind: Job}\n");
        json.push_str("{}, {\"kind\": \"Nodes\", \"a\": [\n]},");
    }
    let reading = read_text("f.yaml", &text);
    assert_eq!(reading.errors.len(), 8_000);
    let place = |at: usize| (reading.errors[at].line, reading.errors[at].column);
    assert_eq!(
        (place(0), place(1), place(7_999)),
        ((4, 3), (6, 3), (16_002, 3))
    );
    json.push_str("5]}");
    let reading = read_text("f.json", &json);
    let place = |at: usize| (reading.errors[at].line, reading.errors[at].column);
    // The list begins at column 28; `[` and a new line are inside of each pair.
    assert_eq!(
        (place(0), place(1)),
        ((1, 28), (1, 41)),
        "{}",
        reading.errors[1]
    );
    assert_eq!((place(2), place(3)), ((2, 4), (2, 17)));
}

#[test]
fn items_in_any_style_know_their_fields() {
    let node = |name: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}");
    let flow = format!(
        "kind: List\nitems: [{}, {},\n  {}]\n",
        node("a"),
        node("ö"),
        node("C")
    );
    let block = "kind: List\nitems:\n-\n  apiVersion: v1\n  kind: Node\n  metadata: {name: A}\n\n# x\n-   apiVersion: v2\n    kind: Node\n";
    let places = |text: &str| -> Vec<(usize, usize)> {
        let reading = read_text("f.yaml", text);
        let places = reading
            .errors
            .iter()
            .map(|error| (error.line, error.column));
        places.collect()
    };
    assert_eq!(places(&flow), [(2, 106), (3, 49)]);
    assert_eq!(places(block), [(6, 20), (9, 17), (9, 5)]);
}

#[test]
fn limits_of_a_file_refuse_it_whole() {
    let many = format!("{NODE}{}", "---\n{}\n".repeat(20_000));
    let listed = format!("kind: List\nitems:\n{}", "- {}\n".repeat(20_000));
    let node = |number: usize, elements: String| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{{\"name\":\"n{number}\"}},\
             \"x\":[{elements}0]}}\n"
        )
    };
    let values: String = (0..10)
        .map(|number| node(number, "0,".repeat(130_000)))
        .collect();
    let maps: String = (0..8)
        .map(|number| node(number, "{\"a\":0},".repeat(60_000)))
        .collect();
    for (text, expected) in [
        (many, "more than 16384 objects"),
        (listed, "more than 16384 objects"),
        (values, "more than 1048576 values"),
        (maps, "more than 128 MiB of memory"),
    ] {
        let reading = read_text("f.yaml", &text);
        let shown = show(&reading);
        assert_eq!(
            (reading.documents.len(), reading.errors.len()),
            (0, 1),
            "{shown}"
        );
        assert!(shown.contains(expected), "{shown}");
        assert!(shown.contains("nothing of this file is read"), "{shown}");
    }
    let wide = format!("{NODE}x: [{}]\n", "a,".repeat(132_000));
    let shown = show(&read_text("f.yaml", &format!("{wide}---\n{NODE}")));
    assert!(shown.contains("more than 131072 values"), "{shown}");
    assert!(shown.contains("Node/a document 1"), "{shown}");
    let shown = show(&read_text("f.json", "{}{\"a\":1,\"a\":2}\n{\"a\":}\n{}"));
    let expected = [
        "error f.json: document 1, line 1, column 1: kind: missing; every object needs one",
        "error f.json: document 2, line 1, column 12: the key \"a\" is there twice; keep one of the two",
        "error f.json: document 3, line 2, column 6: not valid JSON: expected value",
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn line_ends_and_marks() {
    let second = NODE.replace("name: a", "name: b");
    for text in [
        format!("\u{feff}{NODE}---\n\u{feff}{second}"),
        format!("{NODE}...\n\u{feff}{second}"),
        format!("{NODE}---\n{second}").replace('\n', "\r\n"),
        format!("{NODE}---\n{second}").replace('\n', "\r"),
    ] {
        let shown = show(&read_text("f.yaml", &text));
        assert!(shown.contains("Node/a document 0"), "{shown}");
        assert!(shown.contains("Node/b document 1"), "{shown}");
        assert!(!shown.contains("error"), "{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read("f.yaml", &bytes, SourceName::Manifests);
        let _ = read("f.json", &bytes, SourceName::Manifests);
    }
    #[test]
    fn any_yaml_like_text_is_survived(text in "[-?:,\\[\\]{}#&*!|>'\"%@` a\\n\\t0~.<]{0,120}") {
        let reading = read_text("f.yaml", &text);
        for document in &reading.documents {
            let _ = document.positions.get("a[0]");
        }
    }
}
