//! Manifest files: every way of changing one changes what is enforced.

use std::fs;
use std::net::IpAddr;

use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{Kind, Seen};

use super::harness::{DEMO_POLICY, HTTP, SSH, World, demo_rows, open_rows, privileged, until};

fn host() -> IpAddr {
    Place::Host.address(Family::V4)
}

/// The demo policy with another port.
fn with_port(port: u16) -> String {
    DEMO_POLICY.replace("\"22\"", &format!("\"{port}\""))
}

fn problems(world: &mut World) -> String {
    let status = world.agent().json(&["status"]).expect("status");
    status["problems"].to_string()
}

#[test]
fn write_rename_edit_and_delete_change_enforcement() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    // A plain write.
    fs::write(world.manifest_path("policy.yaml"), DEMO_POLICY).expect("written");
    world.wait("ingress", "enabled");
    world.expect(&demo_rows());
    // A rename over it.
    let revision = world.revision();
    world.manifest("policy.yaml", &with_port(HTTP));
    world.wait_revision_after(revision);
    assert_eq!(
        world.probe("outsider", Kind::Tcp(HTTP), host()),
        Seen::Passed
    );
    assert_eq!(
        world.probe("outsider", Kind::Tcp(SSH), host()),
        Seen::Dropped
    );
    // An edit in place.
    let revision = world.revision();
    fs::write(world.manifest_path("policy.yaml"), with_port(SSH)).expect("written");
    world.wait_revision_after(revision);
    assert_eq!(
        world.probe("outsider", Kind::Tcp(SSH), host()),
        Seen::Passed
    );
    assert_eq!(
        world.probe("outsider", Kind::Tcp(HTTP), host()),
        Seen::Dropped
    );
    // The last policy goes: the direction opens again.
    world.remove_manifest("policy.yaml");
    world.wait("ingress", "disabled");
    world.expect(&open_rows());
}

#[test]
fn a_broken_file_is_reported_and_changes_nothing_else() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let broken = DEMO_POLICY
        .replace("demo-host-policy", "broken-policy")
        .replace("toPorts", "toPort");
    world.manifest("broken.yaml", &broken);
    let said = until("the broken file is reported", || {
        let said = problems(&mut world);
        said.contains("broken.yaml").then_some(said)
    });
    for part in ["broken-policy", "spec.ingress[1].toPort"] {
        assert!(said.contains(part), "{part} is not named in {said}");
    }
    world.expect(&demo_rows());
    // A good file beside it still counts.
    let revision = world.revision();
    let second = with_port(HTTP).replace("demo-host-policy", "second");
    world.manifest("second.yaml", &second);
    world.wait_revision_after(revision);
    assert_eq!(
        world.probe("outsider", Kind::Tcp(HTTP), host()),
        Seen::Passed
    );
    // Mended, the message goes.
    world.remove_manifest("broken.yaml");
    until("the message goes", || {
        (!problems(&mut world).contains("broken")).then_some(())
    });
}

#[test]
fn an_invalid_edit_leaves_the_last_valid_version_in_force() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let revision = world.revision();
    world.manifest(
        "policy.yaml",
        &DEMO_POLICY.replace("protocol: TCP", "protocol: TPC"),
    );
    let said = until("the invalid edit is reported", || {
        let said = problems(&mut world);
        said.contains("policy.yaml").then_some(said)
    });
    for part in [
        "demo-host-policy",
        "spec.ingress[1].toPorts[0].ports[0].protocol",
        "TPC",
    ] {
        assert!(said.contains(part), "{part} is not named in {said}");
    }
    assert_eq!(world.revision(), revision, "an invalid edit is no revision");
    world.expect(&demo_rows());
    // Nor does text that is not YAML at all.
    world.manifest("policy.yaml", "{{{ not yaml");
    until("the new error is reported", || {
        problems(&mut world)
            .contains("key must be a string")
            .then_some(())
    });
    world.expect(&demo_rows());
}
