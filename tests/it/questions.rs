//! The semantics of the language, asked through `policy explain` offline.

use std::path::Path;

use super::questions;

#[test]
fn what_rules_mean() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/questions/semantics.md");
    assert!(questions::ask_all(&page) > 150);
}
