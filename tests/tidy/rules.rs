//! Rules for one source file.

use std::path::Path;

use super::source::{code, has_word, tests_start};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// A table of cases is long, not deep.
const TEST_FUNCTION_LINES_MAX: usize = 100;
const INDEX_LINES_MAX: usize = 150;
const INLINE_TESTS_LINES_MAX: usize = 100;

/// Rooms from the bottom to the top: a room names only rooms of its own layer
/// and of those before it.
const LAYERS: &[&[&str]] = &[
    &["limits", "clock", "catalogue"],
    &["events"],
    &["identity"],
    &["policy"],
    &["datapath"],
    &["endpoint"],
    &["queues"],
    &["model", "config"],
    &["sources"],
    &["monitor"],
    &["metrics"],
    &["api"],
    &["daemon", "lab"],
    &["cli"],
];
/// Lowest layer that may name the state crate.
const STATE_LAYER: usize = 4;

/// Everything that is wrong with the file.
pub(crate) fn check(path: &Path, text: &str) -> Vec<String> {
    let code = code(text);
    let mut faults = Vec::new();
    budgets(path, text, &code, &mut faults);
    functions(path, &code, &mut faults);
    layers(path, &code, &mut faults);
    words(path, &code, &mut faults);
    if !text.starts_with("//!") {
        faults.push(format!("{}: begins without //!", path.display()));
    }
    faults
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.iter().any(|part| part == "tests") || name == "tests.rs" || name.ends_with("_tests.rs")
}

fn budgets(path: &Path, text: &str, code: &str, faults: &mut Vec<String>) {
    let shown = path.display();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{shown}: {lines} lines, at most {FILE_LINES_MAX}"));
    }
    let is_index = path.ends_with("mod.rs") || path.ends_with("main.rs");
    let is_bpf = path.starts_with("bpf-prog/src");
    if is_index && !is_bpf && lines > INDEX_LINES_MAX {
        faults.push(format!(
            "{shown}: {lines} lines, an index has at most {INDEX_LINES_MAX}"
        ));
    }
    if let Some(start) = tests_start(code) {
        let length = lines - start;
        if !is_test_file(path) && length > INLINE_TESTS_LINES_MAX {
            faults.push(format!(
                "{shown}:{start}: {length} lines of tests: give them their own file"
            ));
        }
    }
}

/// Relies on rustfmt: a function ends at the first `}` with its own indent.
fn functions(path: &Path, code: &str, faults: &mut Vec<String>) {
    let lines: Vec<&str> = code.lines().collect();
    let max = if is_test_file(path) {
        TEST_FUNCTION_LINES_MAX
    } else {
        FUNCTION_LINES_MAX
    };
    for (index, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line) else {
            continue;
        };
        let signature_end = lines[index..]
            .iter()
            .position(|line| line.trim_end().ends_with(['{', ';', '}']));
        let Some(open) = signature_end.map(|offset| index + offset) else {
            continue;
        };
        if !lines[open].trim_end().ends_with('{') {
            continue;
        }
        let close = lines[open + 1..].iter().position(|line| {
            line.trim_start().starts_with('}') && line.len() - line.trim_start().len() == indent
        });
        let length = close.map_or(0, |offset| open + 1 + offset - index + 1);
        if length > max {
            faults.push(format!(
                "{}:{}: fn {name} has {length} lines, at most {max}",
                path.display(),
                index + 1
            ));
        }
    }
}

fn function_name(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "fn")?;
    let modifiers = &words[..at];
    let known = |word: &&str| {
        word.starts_with("pub")
            || ["async", "const", "unsafe", "extern", "crate)", "super)"].contains(word)
    };
    if !modifiers.iter().all(known) {
        return None;
    }
    words.get(at + 1)?.split(['(', '<']).next()
}

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&room))
}

/// The room of a file below src/; None for lib.rs and main.rs.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let first = inside.iter().next()?.to_string_lossy().into_owned();
    Some(first.trim_end_matches(".rs").to_owned()).filter(|room| room != "lib" && room != "main")
}

fn layers(path: &Path, code: &str, faults: &mut Vec<String>) {
    let Some(room) = room_of(path) else { return };
    let shown = path.display();
    let Some(own) = layer_of(&room) else {
        faults.push(format!(
            "{shown}: room {room} has no layer: add it to tests/tidy/rules.rs"
        ));
        return;
    };
    if own < STATE_LAYER && has_word(code, "palisade_state") {
        faults.push(format!("{shown}: {room} may not name the state crate"));
    }
    for other in rooms_named(code) {
        if let Some(layer) = layer_of(&other)
            && layer > own
        {
            faults.push(format!("{shown}: {room} names {other}, which is above it"));
        }
    }
}

/// Rooms after `crate::`, alone or in braces.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            rooms.extend(heads(group));
        } else {
            rooms.push(name_at(rest).to_owned());
        }
    }
    rooms.sort();
    rooms.dedup();
    rooms
}

fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// First names of the members of a brace group, up to its end.
fn heads(group: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut depth, mut fresh) = (1, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if c.is_whitespace() => {}
            _ if fresh && depth == 1 => {
                found.push(name_at(&group[at..]).to_owned());
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// A word and where it may stand.
struct Fence {
    word: &'static str,
    /// Path prefixes that the fence covers.
    within: &'static [&'static str],
    /// Path prefixes of those that may.
    except: &'static [&'static str],
    /// Whether tests are free to.
    tests_may: bool,
}

const EVERYWHERE: &[&str] = &["src", "state", "bpf-prog", "xtask", "tests", "build.rs"];
const PRODUCT: &[&str] = &["src", "state"];
const THREADS: &[&str] = &["src/daemon/threads.rs", "src/datapath/netns.rs"];
/// Entering a namespace takes a thread, which ends before the call returns.
const SHORT_THREADS: &[&str] = &["src/daemon/threads.rs", "src/datapath"];
const TERMINAL: &[&str] = &["src/cli", "src/lab", "src/main.rs"];

const fn fence(
    word: &'static str,
    within: &'static [&'static str],
    except: &'static [&'static str],
    tests_may: bool,
) -> Fence {
    Fence {
        word,
        within,
        except,
        tests_may,
    }
}

const FENCES: &[Fence] = &[
    fence("sled", EVERYWHERE, &["state"], false),
    fence(
        "aya",
        EVERYWHERE,
        &[
            "src/datapath",
            "tests/packets",
            "tests/kernel",
            "tests/kernel.rs",
        ],
        false,
    ),
    fence("aya_ebpf", EVERYWHERE, &["bpf-prog"], false),
    fence("unbounded", EVERYWHERE, &[], false),
    fence("unbounded_channel", EVERYWHERE, &[], false),
    fence("Instant::now", PRODUCT, &["src/clock.rs"], true),
    fence("SystemTime::now", PRODUCT, &["src/clock.rs"], true),
    fence("thread::spawn", PRODUCT, THREADS, true),
    fence("thread::scope", PRODUCT, SHORT_THREADS, true),
    fence("thread::Builder", PRODUCT, THREADS, true),
    fence("print!", PRODUCT, TERMINAL, true),
    fence("println!", PRODUCT, TERMINAL, true),
    fence("eprint!", PRODUCT, TERMINAL, true),
    fence("eprintln!", PRODUCT, TERMINAL, true),
    fence(
        "unsafe",
        EVERYWHERE,
        &[
            "src/datapath",
            "bpf-prog",
            "tests/kernel",
            "tests/kernel.rs",
            "tests/e2e/frames.rs",
            "tests/sim/heap.rs",
        ],
        false,
    ),
    fence("#[allow", EVERYWHERE, &[], false),
    fence("#![allow", EVERYWHERE, &[], false),
];

fn words(path: &Path, code: &str, faults: &mut Vec<String>) {
    let tests_start = tests_start(code).unwrap_or(usize::MAX);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    for fence in FENCES {
        if !starts(fence.within) || starts(fence.except) || fence.tests_may && is_test_file(path) {
            continue;
        }
        for (index, line) in code.lines().enumerate() {
            let in_tests = index + 1 >= tests_start;
            if has_word(line, fence.word) && !(fence.tests_may && in_tests) {
                faults.push(format!(
                    "{}:{}: `{}` may not stand here",
                    path.display(),
                    index + 1,
                    fence.word
                ));
            }
        }
    }
}
