//! `palisade policy validate`.

use std::fs;

use serde_json::Value;

use super::{CLUSTER_AND_SSH, expect, policy};

#[test]
fn valid_files_and_directories() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.yaml");
    fs::write(&file, policy("a", CLUSTER_AND_SSH)).expect("written");
    fs::write(folder.path().join("notes.txt"), "not: [yaml").expect("written");
    let said = expect(&["policy", "validate", file.to_str().expect("UTF-8")], 0);
    assert_eq!(said.out, "valid: 1 resources in 1 files\n");
    expect(
        &["policy", "validate", folder.path().to_str().expect("UTF-8")],
        0,
    );
}

#[test]
fn every_error_of_every_document_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.yaml");
    let wrong_port = policy("a", CLUSTER_AND_SSH).replace("\"22\"", "\"70000\"");
    let wrong_entity = policy("b", CLUSTER_AND_SSH).replace("- cluster", "- clutter");
    let misspelt = policy("c", CLUSTER_AND_SSH).replace("toPorts", "toPort");
    let text = format!("{wrong_port}---\n{wrong_entity}---\n{misspelt}");
    fs::write(&path, &text).expect("written");
    let name = path.to_str().expect("UTF-8");
    let said = expect(&["policy", "validate", name], 1);
    let line_of = |needle: &str| {
        let line = text.lines().position(|line| line.contains(needle));
        line.expect("it stands there") + 1
    };
    for (needle, field) in [
        ("70000", "spec.ingress[1].toPorts[0].ports[0].port"),
        ("clutter", "spec.ingress[0].fromEntities[0]"),
        ("toPort:", "spec.ingress[1].toPort"),
    ] {
        let place = format!("{name}:{}:", line_of(needle));
        let found = said
            .out
            .lines()
            .find(|line| line.contains(&format!("{field}:")));
        let found = found.unwrap_or_else(|| panic!("no {field} in {}", said.out));
        assert!(found.starts_with(&place), "{found} is not at {place}");
    }
    assert!(said.err.contains("3 errors"), "{}", said.err);
    let said = expect(&["policy", "validate", "-o", "json", name], 1);
    let report: Value = serde_json::from_str(&said.out).expect("JSON alone on stdout");
    assert_eq!(report["valid"], false);
    assert_eq!(report["errors"].as_array().map(Vec::len), Some(3));
    assert_eq!(report["errors"][0]["line"], line_of("70000"));
}

#[test]
fn a_resource_that_stands_twice_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["a.yaml", "b.yaml"] {
        fs::write(folder.path().join(file), policy("p", CLUSTER_AND_SSH)).expect("written");
    }
    let said = expect(
        &["policy", "validate", folder.path().to_str().expect("UTF-8")],
        1,
    );
    assert!(said.out.contains("b.yaml:1:1"), "{}", said.out);
    assert!(said.out.contains("a.yaml, which wins"), "{}", said.out);
}

#[test]
fn broken_files_and_missing_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.yaml");
    let name = path.to_str().expect("UTF-8");
    for bytes in [&b"kind: [\n"[..], b"\xff\xfe", b"\0", b"- just\n- a list\n"] {
        fs::write(&path, bytes).expect("written");
        let said = expect(&["policy", "validate", name], 1);
        assert!(said.out.starts_with(name), "{}", said.out);
    }
    let said = expect(&["policy", "validate", "/nonexistent/x.yaml"], 1);
    assert!(said.err.contains("/nonexistent/x.yaml"), "{}", said.err);
}

/// What only all files together tell, and what a second reading would not change.
#[test]
fn warnings_of_single_resources_and_of_all_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |file: &str, text: &str| fs::write(folder.path().join(file), text).expect("written");
    let head = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n";
    write(
        "a.yaml",
        &format!(
            "{head}metadata: {{name: a}}\nspec:\n  nodeSelector: {{matchLabels: {{role: db}}}}\n  \
             ingress:\n  - fromCIDR: [10.1.2.3]\n    toPorts: [{{ports: [{{port: ssh}}]}}]\n"
        ),
    );
    write(
        "b.yaml",
        &format!(
            "{head}metadata: {{name: b}}\nspec:\n  nodeSelector: {{}}\n  ingressDeny:\n  - \
             fromEntities: [world]\n---\n{head}metadata: {{name: held}}\nspec: {{endpointSelector: \
             {{}}, ingress: [{{fromEntities: [all]}}]}}\n"
        ),
    );
    write(
        "node.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: n, labels: {role: web}}\nstatus: {addresses: \
         [{type: Odd, address: x}]}\n",
    );
    let name = folder.path().to_str().expect("UTF-8");
    let said = expect(&["policy", "validate", "-o", "json", name], 0);
    let report: Value = serde_json::from_str(&said.out).expect("JSON alone on stdout");
    assert_eq!(report["valid"], true);
    assert_eq!(report["errors"], serde_json::json!([]));
    let mut found: Vec<String> = Vec::new();
    for warning in report["warnings"].as_array().expect("a list") {
        let file = warning["file"].as_str().unwrap_or_default();
        let file = file.rsplit('/').next().unwrap_or_default();
        found.push(format!(
            "{file}:{}:{} {} {}",
            warning["line"],
            warning["column"],
            warning["field"].as_str().unwrap_or("-"),
            warning["reason"].as_str().unwrap_or_default()
        ));
        assert!(warning["resource"].is_string(), "{warning}");
        assert!(warning["document"].is_u64(), "{warning}");
    }
    let shadowed = "allows nothing: CiliumClusterwideNetworkPolicy/b spec.ingressDeny[0] denies all \
                    of it";
    let starts = [
        "a.yaml:7:16 spec.ingress[0].fromCIDR[0] a bare address".to_owned(),
        "b.yaml:12:8 spec.endpointSelector accepted and held".to_owned(),
        "node.yaml:4:22 status.addresses[0] address of unknown type".to_owned(),
        "a.yaml:5:3 spec.nodeSelector matches no known node".to_owned(),
        "a.yaml:7:5 spec.ingress[0] \"ssh\": this host has no port of this name".to_owned(),
        format!("a.yaml:7:5 spec.ingress[0] {shadowed}"),
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(&starts) {
        assert!(found.starts_with(start), "{found} is not {start}");
    }
}

/// Each finding in JSON names its place, its value and what would be valid.
#[test]
fn findings_in_json_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.yaml");
    let name = path.to_str().expect("UTF-8");
    let text = format!(
        "{}---\n{}",
        policy("a", CLUSTER_AND_SSH),
        policy("b", CLUSTER_AND_SSH).replace("- cluster", "- clutser")
    );
    fs::write(&path, &text).expect("written");
    let said = expect(&["policy", "validate", "-o", "json", name], 1);
    let report: Value = serde_json::from_str(&said.out).expect("JSON alone on stdout");
    let error = &report["errors"][0];
    assert_eq!(error["file"], name);
    assert_eq!(error["document"], 1);
    assert_eq!(error["resource"], "CiliumClusterwideNetworkPolicy/b");
    assert_eq!(error["field"], "spec.ingress[0].fromEntities[0]");
    assert_eq!(error["value"], "\"clutser\"");
    assert_eq!(error["reason"], "unsupported entity");
    assert_eq!(error["suggestion"], "did you mean \"cluster\"?");
    let line = text.lines().position(|line| line.contains("clutser"));
    assert_eq!(error["line"], line.expect("it stands there") + 1);
    assert_eq!(error["column"], 7);
}
