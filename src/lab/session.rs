//! One lab from start to end, and what to try when it stays up.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::sandbox::Sandbox;
use super::scenario;

/// One lab from start to end.
pub(super) fn run(name: &str, exe: &Path, keep: bool, check: bool) -> Result<ExitCode> {
    println!("Building a network of namespaces ({name}-*) and starting the agent in it");
    let mut sandbox = Sandbox::create(name)?;
    let mut scenario = scenario::start(&sandbox, exe)?;
    let holds = scenario.show(&sandbox)?;
    if keep {
        sandbox.keep();
        scenario.let_go();
        println!("{}", invitation(&sandbox, exe));
    }
    Ok(if check && !holds {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What to try while the lab is up.
fn invitation(sandbox: &Sandbox, exe: &Path) -> String {
    let exe = exe.display();
    let socket = sandbox.path("agent.sock");
    let manifests = sandbox.path("manifests");
    format!(
        "
The lab stays up. As root:

  export PALISADE_SOCKET={socket}
  {exe} endpoint list
  {exe} monitor -t drop
  ip netns exec {outsider} ping -c 1 10.88.0.1
  $EDITOR {manifests}/policy.yaml
  {exe} lab --remove",
        socket = socket.display(),
        manifests = manifests.display(),
        outsider = sandbox.namespace("outsider"),
    )
}
