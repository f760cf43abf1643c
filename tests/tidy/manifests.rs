//! Rules for Cargo.toml files.

use std::path::Path;

/// Everything that is wrong with the manifest.
pub(crate) fn check(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut faults = Vec::new();
    let opts_in = text.contains("[lints]\nworkspace = true");
    // What is built for the BPF target stands in a workspace of its own.
    let own_lints = path.starts_with("bpf-prog") && text.contains("[lints.rust]");
    if !opts_in && !own_lints {
        faults.push(format!("{shown}: does not opt in to the workspace's lints"));
    }
    let mut section = "";
    let mut comment_above = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
        }
        let is_dependency = section.contains("dependencies]") && line.contains('=');
        let name = line.split(['=', '.']).next().unwrap_or_default().trim();
        if is_dependency && !comment_above {
            faults.push(format!(
                "{shown}:{}: dependency {name} has no reason above it",
                index + 1
            ));
        }
        if is_dependency && name == "sled" && !path.starts_with("state") {
            faults.push(format!(
                "{shown}:{}: only state/ may depend on sled",
                index + 1
            ));
        }
        comment_above = line.starts_with('#');
    }
    faults
}
