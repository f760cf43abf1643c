//! `palisade monitor`: a drop names its reason, its sides and its policy.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{Kind, Seen};
use serde_json::Value;

use super::harness::{ECHO, HTTP, World, privileged, until};

/// The events that a monitor has printed so far.
#[derive(Debug)]
pub(crate) struct Events {
    child: Child,
    file: PathBuf,
}

impl Events {
    /// Starts a monitor, and returns when it listens.
    pub(crate) fn follow(world: &mut World) -> Self {
        let file = world.sandbox.path("events.jsonl");
        let sandbox = &world.sandbox.path("");
        assert!(sandbox.is_dir());
        let mut command = world.agent().client(&["monitor", "-o", "json"]);
        command.stdout(fs::File::create(&file).expect("a file"));
        let child = command.spawn().expect("a monitor");
        // Its connection is made within the time in which a client command runs.
        std::thread::sleep(std::time::Duration::from_millis(300));
        Self { child, file }
    }

    pub(crate) fn all(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).expect("the monitor's file");
        // The last line may be half written.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Waits for an event.
    #[track_caller]
    pub(crate) fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.all().into_iter().find(|event| wanted(event)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_drop_names_reason_sides_and_policy() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let mut events = Events::follow(&mut world);
    for family in Family::BOTH {
        let to = Place::Host.address(family);
        assert_eq!(world.probe("outsider", Kind::Tcp(HTTP), to), Seen::Dropped);
        let event = events.find("the drop", |event| {
            event["type"] == "drop"
                && event["destination"]["ip"] == to.to_string()
                && event["destination"]["port"] == HTTP
        });
        assert_eq!(
            event["source"]["ip"],
            Place::Outsider.address(family).to_string()
        );
        assert_eq!(event["protocol"], "tcp");
        assert_eq!(event["direction"], "ingress");
        assert_eq!(event["verdict"], "denied");
        assert_eq!(event["reason"], "Policy denied");
        assert_eq!(event["destination"]["identity"], 1);
        assert_ne!(event["source"]["identity"], 0, "{event}");
        assert!(
            event["source"]["labels"]
                .to_string()
                .contains("reserved:world"),
            "{event}"
        );
        assert!(
            event["policies"].to_string().contains("demo-host-policy"),
            "{event}"
        );
        assert!(event["rule"].is_null(), "{event}");
    }
}

#[test]
fn a_denied_packet_names_the_rule_that_denied() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let revision = world.revision();
    world.manifest(
        "deny.yaml",
        "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: no-echo-from-the-cluster
spec:
  nodeSelector: {}
  ingressDeny:
  - fromEntities: [cluster]
    toPorts:
    - ports:
      - {port: \"9000\", protocol: UDP}
",
    );
    world.wait_revision_after(revision);
    let mut events = Events::follow(&mut world);
    let to = Place::Host.address(Family::V4);
    assert_eq!(world.probe("peer", Kind::Udp(ECHO), to), Seen::Dropped);
    assert_eq!(world.probe("peer", Kind::Ping, to), Seen::Passed);
    let event = events.find("the drop", |event| {
        event["type"] == "drop" && event["destination"]["port"] == ECHO
    });
    assert_eq!(event["reason"], "Policy denied by denylist");
    let rule = &event["rule"];
    assert!(
        rule["resource"]
            .to_string()
            .contains("no-echo-from-the-cluster"),
        "{event}"
    );
    assert_eq!(rule["section"], "ingressDeny");
    assert_eq!(rule["index"], 0);
    // The same in the table form, for people.
    let rules = world
        .agent()
        .json(&["bpf", "rules", "list"])
        .expect("rules");
    let hits = rules.as_array().expect("a list").iter().find(|line| {
        line["name"]
            .as_str()
            .is_some_and(|name| name.contains("no-echo-from-the-cluster"))
    });
    let hits = hits.unwrap_or_else(|| panic!("the rule is not in {rules}"));
    assert!(hits["packets"].as_u64() > Some(0), "{rules}");
}
