//! The endpoint as `endpoint list` shows it, and audit mode.

use palisade::lab::network::Place;
use palisade::lab::probe::{Kind, Seen};
use rustix::process::Signal;

use super::harness::{DEMO_POLICY, HTTP, SSH, World, demo_rows, open_rows, privileged};
use super::monitor::Events;

#[test]
fn endpoint_list_shows_the_host() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let list = world.agent().json(&["endpoint", "list"]).expect("a list");
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    let host = &list[0];
    assert_eq!(host["identity"], 1);
    assert_eq!(host["kind"], "host");
    let labels = host["labels"].to_string();
    for label in ["reserved:host", "k8s:node-access=ssh"] {
        assert!(labels.contains(label), "{label} is not in {labels}");
    }
    assert_eq!(host["policy"]["ingress"], "enabled");
    assert_eq!(host["policy"]["egress"], "disabled");
    assert_eq!(host["state"], "ready");
    assert_eq!(host["revision"]["desired"], host["revision"]["realized"]);
    let text = String::from_utf8(world.client(&["endpoint", "list"]).stdout).expect("text");
    for part in [
        "ENDPOINT",
        "POLICY (ingress)",
        "POLICY (egress)",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "IPv6",
        "IPv4",
        "STATUS",
        "reserved:host",
        "k8s:node-access=ssh",
        "Enabled",
        "Disabled",
        "ready",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn audit_mode_passes_and_tells_and_lasts() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let host = world.agent().host_endpoint().expect("the endpoint");
    let id = host["id"].to_string();
    let mut events = Events::follow(&mut world);
    let set = world.client(&["endpoint", "config", &id, "PolicyAuditMode=Enabled"]);
    assert!(set.status.success(), "{set:?}");
    world.wait("ingress", "audit");
    let text = String::from_utf8(world.client(&["endpoint", "list"]).stdout).expect("text");
    assert!(text.contains("Disabled (Audit)"), "{text}");
    world.expect(&open_rows());
    let event = events.find("an audited packet", |event| {
        event["type"] == "policy-verdict"
            && event["verdict"] == "audited"
            && event["destination"]["port"] == HTTP
    });
    assert!(
        event["policies"].to_string().contains("demo-host-policy"),
        "{event}"
    );
    // A restart does not start to enforce by itself.
    world.agent().end(Signal::TERM).expect("the agent ends");
    world.expect(&open_rows());
    world.start_agent();
    world.wait("ingress", "audit");
    world.expect(&[(Place::Outsider, Place::Host, Kind::Tcp(HTTP), Seen::Passed)]);
    let set = world.client(&["endpoint", "config", &id, "PolicyAuditMode=Disabled"]);
    assert!(set.status.success(), "{set:?}");
    world.wait("ingress", "enabled");
    world.expect(&demo_rows());
}

/// The demo policy with another name, in audit.
fn staged() -> String {
    let named = "name: staged\n  annotations: {palisade.io/enforcement: audit}";
    DEMO_POLICY.replace("name: \"demo-host-policy\"", named)
}

#[test]
fn a_policy_in_audit_drops_nothing_and_tells_what_it_would() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    world.manifest("policy.yaml", &staged());
    world.wait("ingress", "audit");
    let mut events = Events::follow(&mut world);
    world.expect(&open_rows());
    let event = events.find("an audited packet", |event| {
        event["type"] == "policy-verdict"
            && event["verdict"] == "audited"
            && event["destination"]["port"] == HTTP
    });
    assert!(event["policies"].to_string().contains("staged"), "{event}");
    let status = world.agent().json(&["status", "--verify"]).expect("status");
    let reason = status["enforcing"]["reason"].to_string();
    assert!(reason.contains("in audit: staged"), "{status}");
    let checks = status["checks"].as_array().expect("checks");
    assert!(checks.iter().all(|check| check["ok"] == true), "{checks:?}");
    // A restart does not start to enforce by itself.
    world.agent().end(Signal::TERM).expect("the agent ends");
    world.expect(&open_rows());
    world.start_agent();
    world.wait("ingress", "audit");
    world.expect(&open_rows());
    // Without its annotation the same policy is enforced.
    world.manifest("policy.yaml", DEMO_POLICY);
    world.wait("ingress", "enabled");
    world.expect(&demo_rows());
}

/// It is staged beside the enforced ones, not mixed with them: what it allows
/// opens nothing, what it denies passes and is told.
#[test]
fn enforced_policies_decide_as_if_none_were_in_audit() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let revision = world.revision();
    world.manifest(
        "staged.yaml",
        &format!(
            "{}  - toPorts: [{{ports: [{{port: \"80\"}}]}}]\n  ingressDeny:\n  - toPorts: \
             [{{ports: [{{port: \"22\"}}]}}]\n",
            staged()
        ),
    );
    world.wait_revision_after(revision);
    let endpoint = world.agent().host_endpoint().expect("the endpoint");
    assert_eq!(endpoint["policy"]["ingress"], "enabled");
    let mut events = Events::follow(&mut world);
    world.expect(&demo_rows());
    let event = events.find("an audited packet", |event| {
        event["verdict"] == "audited" && event["destination"]["port"] == SSH
    });
    assert_eq!(event["rule"]["section"], "ingressDeny", "{event}");
    assert!(event["policies"].to_string().contains("staged"), "{event}");
    let event = events.find("a denied packet", |event| {
        event["type"] == "drop" && event["destination"]["port"] == HTTP
    });
    let policies = event["policies"].to_string();
    assert!(policies.contains("demo-host-policy") && !policies.contains("staged"));
}
