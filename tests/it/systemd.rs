//! The systemd unit and the configuration beside it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::palisade;

fn deploy(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/systemd")
        .join(name)
}

fn unit() -> String {
    fs::read_to_string(deploy("palisade.service")).expect("the unit")
}

#[test]
fn systemd_finds_nothing_to_complain_about_in_the_unit() {
    let tool = Command::new("systemd-analyze").arg("--version").output();
    if !tool.is_ok_and(|output| output.status.success()) {
        let required = std::env::var_os("PALISADE_REQUIRE_PRIVILEGED").is_some();
        assert!(!required, "systemd-analyze (Debian: systemd) is missing");
        println!("SKIPPED: systemd-analyze (Debian: systemd) is missing");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("palisade.service");
    // The binary is where it was built, not where a package puts it.
    let here = unit().replace("/usr/bin/palisade", env!("CARGO_BIN_EXE_palisade"));
    fs::write(&copy, here).expect("a copy");
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&copy);
    let output = verify.output().expect("systemd-analyze starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("palisade.service"), "{said}");
}

/// What the unit promises, by what stands in it.
#[test]
fn the_unit_comes_before_the_network_and_nothing_in_it_opens_the_node() {
    let unit = unit();
    let lines: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
    for needed in [
        "DefaultDependencies=no",
        "Before=network-pre.target",
        "Wants=network-pre.target",
        "RequiresMountsFor=/var/lib/palisade /sys/fs/bpf",
        "Type=notify",
        "Restart=always",
        "LimitMEMLOCK=infinity",
    ] {
        assert!(lines.contains(&needed), "{needed}");
    }
    let opens = [
        "ExecStop",
        "detach",
        "ProtectSystem",
        "PrivateTmp",
        "PrivateMounts",
    ];
    for line in lines {
        assert!(!opens.iter().any(|word| line.contains(word)), "{line}");
    }
}

#[test]
fn the_example_configuration_is_one_that_the_agent_takes() {
    // A wrong key or value would be told beside this one.
    let mut agent = palisade();
    agent.arg("agent").arg("--config").arg(deploy("agent.yaml"));
    let output = agent
        .args(["--log-format", "of-this-test"])
        .output()
        .expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("of-this-test") && !said.contains("agent.yaml"),
        "{said}"
    );
}
