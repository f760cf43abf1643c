//! Each rule fails on what it forbids and passes what it allows.

use std::fs;
use std::path::Path;

use super::{house, manifests, rules};

fn faults(path: &str, text: &str) -> Vec<String> {
    rules::check(Path::new(path), &format!("//! A module.\n{text}"))
}

#[track_caller]
fn refuses(path: &str, text: &str) {
    assert_eq!(
        faults(path, text).len(),
        1,
        "{path} {text:?} has {:?}",
        faults(path, text)
    );
}

#[track_caller]
fn accepts(path: &str, text: &str) {
    assert_eq!(faults(path, text), Vec::<String>::new(), "{path} {text:?}");
}

#[test]
fn budgets_of_lines() {
    accepts("src/policy/a.rs", &"\n".repeat(599));
    refuses("src/policy/a.rs", &"\n".repeat(600));
    refuses("src/policy/mod.rs", &"\n".repeat(150));
    let function = |lines: usize| {
        format!(
            "pub(crate) fn long(\n    a: u8,\n) {{\n{}}}\n",
            "    a;\n".repeat(lines)
        )
    };
    accepts("src/policy/a.rs", &function(66));
    refuses("src/policy/a.rs", &function(67));
    let tests = |lines: usize| {
        format!(
            "#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    use a;\n".repeat(lines)
        )
    };
    accepts("src/policy/a.rs", &tests(90));
    refuses("src/policy/a.rs", &tests(110));
}

#[test]
fn modules_say_what_they_are() {
    assert_eq!(
        rules::check(Path::new("src/policy/a.rs"), "use std::fs;\n").len(),
        1
    );
}

#[test]
fn layers_point_downwards() {
    accepts("src/endpoint/a.rs", "use crate::policy::Repository;\n");
    refuses("src/policy/a.rs", "use crate::endpoint::Endpoint;\n");
    refuses(
        "src/policy/a.rs",
        "use crate::{limits, queues::{Queue, events}, clock};\n",
    );
    accepts(
        "src/queues/a.rs",
        "use crate::{limits, endpoint::{Endpoint, daemon}, clock};\n",
    );
    refuses(
        "src/policy/a.rs",
        "fn f(e: &crate::datapath::Generation) {}\n",
    );
    refuses("src/events/a.rs", "use palisade_state::Journal;\n");
    refuses("src/attic/a.rs", "");
}

#[test]
fn fences_hold() {
    refuses("src/queues/a.rs", "use sled::Db;\n");
    accepts("state/src/a.rs", "use sled::Db;\n");
    refuses("src/queues/a.rs", "use aya::Ebpf;\n");
    accepts("src/datapath/a.rs", "use aya::Ebpf;\n");
    refuses(
        "src/queues/a.rs",
        "let (a, b) = crossbeam_channel::unbounded();\n",
    );
    refuses("src/queues/a.rs", "let t = Instant::now();\n");
    refuses("src/queues/a.rs", "thread::spawn(run);\n");
    accepts("src/queues/tests.rs", "thread::spawn(run);\n");
    accepts(
        "src/queues/a.rs",
        "#[cfg(test)]\nmod tests {\n    fn f() {\n        thread::spawn(g);\n    }\n}\n",
    );
    refuses("src/daemon/a.rs", "println!();\n");
    accepts("src/cli/a.rs", "println!();\n");
    refuses("src/policy/a.rs", "unsafe { f() };\n");
    refuses(
        "src/policy/a.rs",
        "#[allow(dead_code, reason = \"\")]\nfn f() {}\n",
    );
}

#[test]
fn comments_and_literals_are_no_code() {
    accepts("src/policy/a.rs", "// sled and println! are elsewhere\n");
    accepts(
        "src/policy/a.rs",
        "/* unsafe */ const A: &str = \"unsafe \\\" unsafe\";\n",
    );
    accepts(
        "src/policy/a.rs",
        "const A: &str = r#\"unsafe \" unsafe\"#;\n",
    );
    accepts(
        "src/policy/a.rs",
        "const A: char = '\"'; const B: u8 = 1; // \"\n",
    );
    refuses(
        "src/policy/a.rs",
        "const A: char = '\"'; unsafe fn f<'a>() {}\n",
    );
}

#[test]
fn manifests_give_reasons() {
    let check = |path: &str, text: &str| manifests::check(Path::new(path), text).len();
    let lints = "[lints]\nworkspace = true\n";
    assert_eq!(
        check(
            "xtask/Cargo.toml",
            &format!("{lints}[dependencies]\n# Why.\na = \"1\"\n")
        ),
        0
    );
    assert_eq!(
        check(
            "xtask/Cargo.toml",
            &format!("{lints}[dependencies]\n# Why.\na = \"1\"\nb = \"1\"\n")
        ),
        1
    );
    assert_eq!(
        check("xtask/Cargo.toml", "[dependencies]\n# Why.\na = \"1\"\n"),
        1
    );
    assert_eq!(
        check(
            "xtask/Cargo.toml",
            &format!("{lints}[dependencies]\n# Why.\nsled = \"1\"\n")
        ),
        1
    );
}

#[test]
fn the_map_is_of_this_house() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("src/policy")).expect("a folder");
    assert_eq!(
        house::check(folder.path(), "`src/policy/` decides").len(),
        0
    );
    assert_eq!(house::check(folder.path(), "nothing").len(), 1);
    assert_eq!(
        house::check(folder.path(), "`src/policy/` `src/policy/gone.rs`").len(),
        1
    );
    let line = concat!("see /ro", "ot/x");
    assert_eq!(house::check_paths(Path::new("a.md"), line).len(), 1);
}
