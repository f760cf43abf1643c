//! The real binary without privileges: forms, exit codes, offline commands,
//! configuration.

#[path = "it/config.rs"]
mod config;
#[path = "it/explain.rs"]
mod explain;
#[path = "it/image.rs"]
mod image;
mod questions;
#[path = "it/robustness.rs"]
mod robustness;
#[path = "it/questions.rs"]
mod semantics;
#[path = "it/systemd.rs"]
mod systemd;
#[path = "it/usage.rs"]
mod usage;
#[path = "it/validate.rs"]
mod validate;

use std::process::{Command, Output};

/// The binary, without the caller's `PALISADE_...` variables.
fn palisade() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PALISADE_") {
            command.env_remove(name);
        }
    }
    command
}

/// What a command says, and its exit code.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            err: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }
}

fn run(arguments: &[&str]) -> Said {
    let output = palisade().args(arguments).output();
    output.expect("the binary starts").into()
}

#[track_caller]
fn expect(arguments: &[&str], code: i32) -> Said {
    let said = run(arguments);
    assert_eq!(
        said.code,
        Some(code),
        "{arguments:?}: {} {}",
        said.out,
        said.err
    );
    said
}

/// A host policy that allows what stands in `ingress`.
fn policy(name: &str, ingress: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: {name}\n\
         spec:\n  nodeSelector:\n    matchLabels:\n      node-access: ssh\n  ingress:\n{ingress}"
    )
}

const CLUSTER_AND_SSH: &str = "  - fromEntities:\n    - cluster\n  - toPorts:\n    - ports:\n      \
                               - port: \"22\"\n        protocol: TCP\n";
