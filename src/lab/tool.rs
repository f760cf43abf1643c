//! Runs the tools of the operating system that the lab builds its network
//! with, and says what to install when one is missing.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs `tool` to the end; its output is shown only when it fails.
pub fn run<S: AsRef<OsStr>>(tool: &str, arguments: &[S]) -> Result<String> {
    let output = match Command::new(tool).args(arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "`{tool}` is not installed; {}",
            match tool {
                "ip" => "install iproute2 (apt-get install iproute2, dnf install iproute)",
                _ => "install the package that brings it",
            }
        ),
        Err(error) => return Err(error).with_context(|| format!("cannot start `{tool}`")),
    };
    if !output.status.success() {
        let line: Vec<_> = arguments
            .iter()
            .map(|a| a.as_ref().to_string_lossy())
            .collect();
        bail!(
            "`{tool} {}` failed: {}",
            line.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `ip` with its words given as one line.
pub fn ip(line: &str) -> Result<String> {
    run("ip", &line.split_whitespace().collect::<Vec<_>>())
}
