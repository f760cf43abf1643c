//! `palisade lab`: a network of namespaces, the real agent, the real programs,
//! and a table of what passes and what is dropped and why.
//!
//! Runs on the main thread of its own process; each probe on a thread that
//! ends with it. Touches no device of the machine: all it makes carries the
//! sandbox's name and is removed with it. The e2e tests stand on the same parts.

pub mod agent;
pub mod echo;
pub mod network;
pub mod probe;
pub mod sandbox;
pub mod scenario;
mod session;
pub mod table;
pub mod tool;

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

const PREFIX: &str = "palisade-lab-";
/// Exit code of a lab that was interrupted (128 + SIGINT).
const INTERRUPTED: u8 = 130;

/// Options of `palisade lab`.
#[derive(Args, Clone, Debug)]
pub struct LabArgs {
    /// Leave everything up and print commands to play with it
    #[arg(long)]
    pub keep: bool,
    /// Exit 1 if anything is not as expected
    #[arg(long)]
    pub check: bool,
    /// Remove what `--keep` left up
    #[arg(long, conflicts_with_all = ["keep", "check"])]
    pub remove: bool,
    /// Serve echoes in a namespace (the lab starts itself with this)
    #[arg(long, hide = true, value_name = "NAMESPACE")]
    pub echo: Option<String>,
    #[arg(long, hide = true, requires = "echo")]
    pub tcp: Vec<u16>,
    #[arg(long, hide = true, requires = "echo")]
    pub udp: Vec<u16>,
}

/// Runs the lab.
pub fn run(args: &LabArgs) -> Result<ExitCode> {
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    if !rustix::process::geteuid().is_root() {
        return as_root(&exe);
    }
    if let Some(namespace) = &args.echo {
        echo::serve(namespace, &args.tcp, &args.udp)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.remove {
        return remove_all();
    }
    tool::run("ip", &["-Version"])?;
    let name = format!("{PREFIX}{}", std::process::id());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (keep, check) = (args.keep, args.check);
    let outcome = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let work = {
            let name = name.clone();
            tokio::task::spawn_blocking(move || session::run(&name, &exe, keep, check))
        };
        tokio::select! {
            done = work => done.context("the lab panicked")?,
            _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(INTERRUPTED)),
        }
    });
    // After an interruption the session still waits somewhere; do not wait for it.
    runtime.shutdown_background();
    if !keep
        || outcome
            .as_ref()
            .map_or(true, |code| *code == ExitCode::from(INTERRUPTED))
    {
        sandbox::remove(&name);
    }
    outcome
}

fn remove_all() -> Result<ExitCode> {
    let names = sandbox::all(PREFIX)?;
    for name in &names {
        sandbox::remove(name);
        println!("removed {name}");
    }
    if names.is_empty() {
        println!("no lab is up");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs this program again through sudo, with the same arguments.
fn as_root(exe: &Path) -> Result<ExitCode> {
    eprintln!("Network namespaces and eBPF need root: running again with sudo");
    let arguments = std::env::args_os().skip(1);
    match Command::new("sudo")
        .arg("--")
        .arg(exe)
        .args(arguments)
        .status()
    {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Ok(ExitCode::from(code.unwrap_or(INTERRUPTED)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("sudo is not installed: run this command as root")
        }
        Err(error) => Err(error).context("cannot start sudo"),
    }
}
