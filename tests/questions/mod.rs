//! Questions in Markdown: manifests in a `yaml` block, flows and their answers
//! in the `questions` block below it, asked of the real binary.
//!
//! A `yaml context` block stands for all blocks below it. A line of questions:
//! `ingress 192.0.2.9 tcp/22 -> allowed by NAME ingress[0]`; without `by` no
//! rule may decide. More words: `unenforced`, `id NUMBER`, `label LABEL`.
//! Lines that begin with `--` are flags for all questions of the block.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Asks every question of a page; how many there were.
pub(crate) fn ask_all(page: &Path) -> usize {
    let text = fs::read_to_string(page).expect("the page can be read");
    let (mut context, mut manifests) = (String::new(), String::new());
    let (mut count, mut wrong) = (0, String::new());
    for (line, kind, body) in blocks(&text) {
        match kind.as_str() {
            "yaml context" => context = body,
            "yaml" => manifests = body,
            "questions" => {
                let folder = tempfile::tempdir().expect("a folder");
                let file = folder.path().join("example.yaml");
                let whole = format!("{manifests}\n---\n{context}\n");
                fs::write(&file, whole).expect("written");
                let (flags, questions): (Vec<&str>, Vec<&str>) = body
                    .lines()
                    .filter(|line| !line.trim().is_empty())
                    .partition(|line| line.starts_with("--"));
                let flags: Vec<&str> = flags.iter().flat_map(|line| line.split(' ')).collect();
                for question in questions {
                    count += 1;
                    if let Err(found) = ask(&file, &flags, question) {
                        let _ =
                            writeln!(wrong, "{}:{line}: {question}\n    {found}", page.display());
                    }
                }
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    count
}

/// Line, kind and body of each fenced block.
fn blocks(text: &str) -> Vec<(usize, String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some((number + 1, kind.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, _, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

fn ask(manifests: &Path, flags: &[&str], question: &str) -> Result<(), String> {
    let (flow, wanted) = question.split_once("->").expect("an arrow");
    let flow: Vec<&str> = flow.split_whitespace().collect();
    let [direction, peer, packet] = flow[..] else {
        panic!("{question}: direction, peer, packet");
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.args(["policy", "explain", "-o", "json", "--manifests"]);
    command.arg(manifests).args(["--node-name", "self"]);
    command.args(["--direction", direction, "--peer", peer]);
    let (proto, value) = packet.split_once('/').unwrap_or((packet, ""));
    command.args(["--proto", proto]).args(flags);
    if !value.is_empty() {
        let flag = if proto.starts_with("icmp") {
            "--type"
        } else {
            "--port"
        };
        command.args([flag, value]);
    }
    let output = command.output().expect("the binary starts");
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || told.contains("left out") {
        return Err(told.into_owned());
    }
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON alone on stdout");
    let found = shown(&answer, wanted);
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let wanted = wanted.join(" ");
    if found == wanted {
        return Ok(());
    }
    Err(format!("found: {found}\n    {answer}"))
}

/// An answer in the words of a question; of the identity what is `wanted`.
fn shown(answer: &Value, wanted: &str) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut shown = text(&answer["verdict"]);
    if let Some(rule) = answer["rule"].as_object() {
        let resource = text(&rule["resource"]);
        let name = resource.rsplit('/').next().unwrap_or("?");
        let _ = write!(
            shown,
            " by {name} {}[{}]",
            text(&rule["section"]),
            rule["index"]
        );
    }
    if answer["enforced"] == false {
        shown.push_str(" unenforced");
    }
    if wanted.contains(" id ") {
        let _ = write!(shown, " id {}", answer["identity"]["id"]);
    }
    for part in wanted.split(" label ").skip(1) {
        let label = part.split_whitespace().next().unwrap_or("?");
        let labels = answer["identity"]["labels"].as_array();
        if labels.is_some_and(|labels| labels.iter().any(|one| one == label)) {
            let _ = write!(shown, " label {label}");
        }
    }
    shown
}
