//! Checks the budgets and fences of the house: what a compiler does not.
//!
//! Each rule is a function from a file's path and text to its faults, so that
//! the self-tests at the end can show that it fails on what it forbids.

#[path = "tidy/house.rs"]
mod house;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/selftest.rs"]
mod selftest;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below the given folders whose names end so, relative to the root.
fn files(folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let full = root().join(&path);
        if full.is_dir() {
            if path.ends_with("target") || path.ends_with(".git") {
                continue;
            }
            for entry in fs::read_dir(&full).expect("a readable folder") {
                let name = entry.expect("a readable folder").file_name();
                open.push(path.join(name));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

const CODE: &[&str] = &["src", "state", "bpf-prog", "xtask", "tests", "build.rs"];

fn report(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "\n{} faults:\n{}\n",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn every_source_file_keeps_the_rules() {
    let mut faults = Vec::new();
    for path in files(CODE, "rs") {
        let text = fs::read_to_string(root().join(&path)).expect("a text file");
        faults.extend(rules::check(&path, &text));
    }
    report(&faults);
}

#[test]
fn every_member_and_dependency_is_accounted_for() {
    let mut faults = Vec::new();
    for path in files(&["Cargo.toml", "state", "bpf-prog", "xtask"], "toml") {
        if !path.ends_with("Cargo.toml") {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a text file");
        faults.extend(manifests::check(&path, &text));
    }
    report(&faults);
}

#[test]
fn architecture_names_every_room_and_only_what_exists() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    report(&house::check(root(), &text));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut faults = Vec::new();
    for extension in ["rs", "md", "toml", "yaml", "yml", "json"] {
        for path in files(&["."], extension) {
            let text = fs::read_to_string(root().join(&path)).expect("a text file");
            faults.extend(house::check_paths(&path, &text));
        }
    }
    report(&faults);
}
