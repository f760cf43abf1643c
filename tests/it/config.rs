//! The agent's configuration: precedence, and every error at once.

use std::fs;

use super::{Said, expect, palisade};

fn agent(file: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("palisade.yaml");
    fs::write(&path, file).expect("written");
    let mut command = palisade();
    command.arg("agent").arg("--config").arg(&path);
    command.args(arguments).envs(variables.iter().copied());
    command.output().expect("the binary starts").into()
}

/// Each layer is shown by what it makes invalid, which names its origin.
#[test]
fn flag_beats_variable_beats_file() {
    let variable = [("PALISADE_POLICY_ENFORCEMENT", "from-variable")];
    let file = "policy-enforcement: from-file\n";
    let said = agent(file, &[], &[]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err
            .contains("palisade.yaml: policy-enforcement: `from-file`"),
        "{}",
        said.err
    );
    let said = agent(file, &variable, &[]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err
            .contains("environment variable PALISADE_POLICY_ENFORCEMENT: `from-variable`"),
        "{}",
        said.err
    );
    let said = agent(file, &variable, &["--policy-enforcement", "from-flag"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("--policy-enforcement: `from-flag`"),
        "{}",
        said.err
    );
}

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    let said = agent(
        "manifest: /etc/palisade\npolicy_audit_mode: true\n",
        &[],
        &[],
    );
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("did you mean `manifests`?"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("did you mean `policy-audit-mode`?"),
        "{}",
        said.err
    );
}

#[test]
fn all_errors_come_at_once() {
    let said = agent(
        "vlan-allow: [1, 5000]\nfailsafe: [tcp]\n",
        &[("PALISADE_METRICS_ADDR", "nowhere")],
        &["--log-format", "xml"],
    );
    assert_eq!(said.code, Some(2));
    for place in [
        "vlan-allow",
        "failsafe",
        "PALISADE_METRICS_ADDR",
        "--log-format",
    ] {
        assert!(said.err.contains(place), "{place}: {}", said.err);
    }
}

/// One bad value in each place where it can stand.
#[test]
fn options_about_policy_are_checked_wherever_they_come_from() {
    let said = agent(
        "named-ports: [ssh=22/tcp, web=http/tcp]\n",
        &[("PALISADE_CLUSTER_NAME", "Prod")],
        &["--policy-cidr-match-mode", "everyone"],
    );
    assert_eq!(said.code, Some(2));
    for part in [
        "palisade.yaml: named-ports: `web=http/tcp`: `http` is not a port (1 to 65535)",
        "environment variable PALISADE_CLUSTER_NAME: `Prod`: expected at most 32 lower-case",
        "--policy-cidr-match-mode: `everyone`: expected nodes",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!said.err.contains("ssh=22/tcp"), "{}", said.err);
}

#[test]
fn a_config_file_that_is_not_there_or_not_yaml() {
    let said = expect(&["agent", "--config", "/nonexistent/palisade.yaml"], 2);
    assert!(
        said.err.contains("/nonexistent/palisade.yaml"),
        "{}",
        said.err
    );
    let said = agent("a: [\n", &[], &[]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("palisade.yaml"), "{}", said.err);
}

#[test]
fn options_of_sources_are_refused_with_the_next_step() {
    let said = agent("", &[], &["--etcd", "127.0.0.1:2379"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("http://HOST:PORT"), "{}", said.err);
    let said = agent("", &[], &["--kubeconfig", "cluster.yaml"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("without --kubernetes"), "{}", said.err);
}

#[test]
fn always_without_a_way_in_is_refused() {
    let said = agent("policy-enforcement: always\n", &[], &[]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("--failsafe"), "{}", said.err);
    assert!(said.err.contains("--yes-seal-this-node"), "{}", said.err);
}
