//! Usage errors, help, and clients without an agent.

use super::{expect, run};

#[test]
fn usage_errors_are_two_and_help_is_zero() {
    for arguments in [&["--help"][..], &["--version"], &["agent", "--help"]] {
        let said = expect(arguments, 0);
        assert!(!said.out.is_empty() && said.err.is_empty(), "{arguments:?}");
    }
    for arguments in [
        &[][..],
        &["fly"],
        &["endpoint", "list", "--wings"],
        &["endpoint", "get"],
        &["endpoint", "get", "x"],
        &["status", "-o", "sculpture"],
        &["policy", "validate"],
        &["policy", "wait"],
        &["monitor", "-t", "weather"],
        &["ip", "get", "not-an-ip"],
        &["endpoint", "config", "1", "Colour=Red"],
        &["endpoint", "config", "1", "PolicyAuditMode=Perhaps"],
        &["policy", "explain", "--direction", "ingress"],
        &["policy", "validate", "--cluster-name", "A B", "/dev/null"],
        &["policy", "validate", "--named-ports", "ssh", "/dev/null"],
    ] {
        let said = expect(arguments, 2);
        assert!(said.out.is_empty(), "{arguments:?}: {}", said.out);
        assert!(!said.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_command_of_the_contract_is_there() {
    for words in [
        "agent",
        "lab",
        "status",
        "endpoint list",
        "endpoint get",
        "endpoint log",
        "endpoint regenerate",
        "endpoint config",
        "policy validate",
        "policy explain",
        "policy get",
        "policy import",
        "policy delete",
        "policy wait",
        "policy selectors",
        "identity list",
        "identity get",
        "ip list",
        "ip get",
        "history",
        "replay",
        "monitor",
        "bpf policy list",
        "bpf ct list",
        "bpf ipcache list",
        "bpf metrics list",
        "bpf rules list",
        "metrics list",
        "detach",
    ] {
        let mut arguments: Vec<&str> = words.split(' ').collect();
        arguments.push("--help");
        expect(&arguments, 0);
    }
}

#[test]
fn a_client_without_an_agent_names_the_socket_and_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("none.sock");
    let socket = socket.to_str().expect("UTF-8");
    for command in [
        &["status"][..],
        &["endpoint", "list", "-o", "json"],
        &["monitor"],
        &["policy", "get"],
        &["metrics", "list"],
        &["bpf", "ct", "list"],
    ] {
        let said = expect(&[command, &["--socket", socket]].concat(), 1);
        assert!(said.out.is_empty(), "{}", said.out);
        assert!(said.err.contains(socket), "{}", said.err);
        assert!(said.err.contains("palisade agent"), "{}", said.err);
    }
    // Before the command, and by the environment, as well.
    assert!(run(&["--socket", socket, "status"]).err.contains(socket));
    let by_variable = super::palisade()
        .env("PALISADE_SOCKET", socket)
        .arg("status")
        .output()
        .expect("the binary starts");
    assert!(String::from_utf8_lossy(&by_variable.stderr).contains(socket));
}

#[test]
fn something_else_on_the_socket_is_no_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let said = expect(&["status", "--socket", socket.to_str().expect("UTF-8")], 1);
    assert!(said.err.contains("nobody listens"), "{}", said.err);
}

#[test]
fn a_replay_of_nothing_says_so_and_makes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("state");
    let place = place.to_str().expect("UTF-8");
    let said = expect(&["replay", "--to", "3", "--state-dir", place], 1);
    assert!(said.out.is_empty(), "{}", said.out);
    assert!(said.err.contains("holds no store"), "{}", said.err);
    assert!(!std::path::Path::new(place).exists());
    expect(&["replay", "--state-dir", place], 2);
}
