//! Rules for the documents: ARCHITECTURE.md maps the house as it is.

use std::fs;
use std::path::Path;

const ARCHITECTURE_LINES_MAX: usize = 300;

/// Every room is named and every path in backticks exists.
pub(crate) fn check(root: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        faults.push(format!(
            "ARCHITECTURE.md: {lines} lines, at most {ARCHITECTURE_LINES_MAX}"
        ));
    }
    for entry in fs::read_dir(root.join("src")).expect("src") {
        let entry = entry.expect("src");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !text.contains(&format!("`src/{name}/`")) {
            faults.push(format!("ARCHITECTURE.md: does not name `src/{name}/`"));
        }
    }
    for path in named_paths(text) {
        if !root.join(path).exists() {
            faults.push(format!(
                "ARCHITECTURE.md: names {path}, which does not exist"
            ));
        }
    }
    faults
}

/// Words in backticks that look like paths of the repository.
fn named_paths(text: &str) -> Vec<&str> {
    const TOP: &[&str] = &[
        "src/",
        "state/",
        "bpf-prog/",
        "tests/",
        "xtask/",
        "docs/",
        ".ci/",
    ];
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| TOP.iter().any(|top| word.starts_with(top)))
        .filter(|word| !word.contains([' ', '*', '{', '<']))
        .collect()
}

/// Home and work folders of the machine have no place in the repository.
pub(crate) fn check_paths(path: &Path, text: &str) -> Vec<String> {
    // In pieces, so that this file may be checked too.
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
    ];
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for place in places {
            if line.contains(place) {
                faults.push(format!("{}:{}: names {place}", path.display(), index + 1));
            }
        }
    }
    faults
}
