//! Hostile files against the real binary: an answer in words, within 200 MB,
//! never a crash. The memory is a limit of the process, so a case that needs
//! more dies; the figures are printed (`--nocapture`).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// The largest file; a build that is not optimised reads an eighth of it
/// (`cargo test --release --test it robustness -- --nocapture` for all).
const FILE: usize = if cfg!(debug_assertions) {
    2 * MIB
} else {
    16 * MIB
};
/// Address space of the process, in KiB: more than it can ever have in memory.
const MEMORY_KIB_MAX: usize = 200_000;
/// A guard against a stall; the build that tests run is not optimised.
const STALL: Duration = Duration::from_secs(60);

const POLICY: &str = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n\
                      metadata: {name: NAME}\nspec:\n  nodeSelector: {}\n  ingress:\n";

/// A file and what must be said of it: a part of the first error, or nothing
/// for a file that is valid.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    says: Option<&'static str>,
}

fn refused(name: &'static str, bytes: impl Into<Vec<u8>>, says: &'static str) -> Case {
    let (bytes, says) = (bytes.into(), Some(says));
    Case { name, bytes, says }
}

fn valid(name: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let (bytes, says) = (bytes.into(), None);
    Case { name, bytes, says }
}

/// `unit` as often as it fits into `bytes`.
fn fill(unit: &str, bytes: usize) -> String {
    unit.repeat(bytes / unit.len())
}

fn policy(items: &str) -> String {
    format!("{}{items}", POLICY.replace("NAME", "p"))
}

/// As many policies, each with the same items.
fn policies(count: usize, items: &str) -> String {
    let document = |number: usize| {
        let head = POLICY.replace("NAME", &format!("p{number}"));
        format!("---\n{head}{items}")
    };
    (0..count).map(document).collect()
}

/// How one run went.
struct Run {
    took: Duration,
    peak_kib: usize,
    code: Option<i32>,
    out: String,
}

/// Runs `policy validate` within the limit of memory.
fn validate(file: &Path) -> Run {
    let folder = file.parent().expect("a folder");
    let (out, err) = (folder.join("out"), folder.join("err"));
    let create = |path: &Path| Stdio::from(fs::File::create(path).expect("created"));
    let script = format!("ulimit -v {MEMORY_KIB_MAX} && exec \"$@\"");
    let begun = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_palisade")])
        .args(["policy", "validate"])
        .arg(file)
        .stdout(create(&out))
        .stderr(create(&err))
        .spawn()
        .expect("sh starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let code = loop {
        peak_kib = peak_kib.max(peak(&status));
        if let Some(status) = child.try_wait().expect("waited for") {
            break status.code();
        }
        if begun.elapsed() > STALL {
            child.kill().expect("killed");
            child.wait().expect("ended");
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let read = |path| String::from_utf8_lossy(&fs::read(path).expect("read")).into_owned();
    Run {
        took: begun.elapsed(),
        peak_kib,
        code,
        out: read(&out) + &read(&err),
    }
}

/// The largest memory that a process had so far.
fn peak(status: &str) -> usize {
    let text = fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

/// Every case is run; all that went wrong is told at the end.
fn check(extension: &str, cases: &[Case]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(format!("f.{extension}"));
    let mut wrong = Vec::new();
    for case in cases {
        fs::write(&file, &case.bytes).expect("written");
        let run = validate(&file);
        let first: String = run
            .out
            .lines()
            .next()
            .unwrap_or("")
            .chars()
            .take(300)
            .collect();
        let said = first
            .strip_prefix(file.to_str().expect("UTF-8"))
            .unwrap_or(&first);
        println!(
            "{:34} {:>5} ms {:>4} MB {:>9} bytes {:?} {said}",
            case.name,
            run.took.as_millis(),
            run.peak_kib / 1_000,
            case.bytes.len(),
            run.code,
        );
        let right = match case.says {
            Some(words) => run.code == Some(1) && is_placed(said) && said.contains(words),
            None => run.code == Some(0),
        };
        if !right || run.out.len() > 16 * MIB {
            wrong.push(format!("{}: {:?} {first}", case.name, run.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether it begins with `:line:column: `, both from 1 on.
fn is_placed(said: &str) -> bool {
    let mut parts = said.split(':').skip(1);
    let mut number = || parts.next().and_then(|part| part.parse().ok()) > Some(0usize);
    number() && number()
}

#[test]
fn deep_nesting_and_yaml_tricks() {
    let bomb: String = ('b'..='u')
        .zip('a'..='t')
        .map(|(name, before)| {
            let nine = vec![format!("*{before}"); 9].join(",");
            format!("{name}: &{name} [{nine}]\n")
        })
        .collect();
    let ladder: String = (0..1_400)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    let deep = "nested deeper than 64 levels";
    check(
        "yaml",
        &[
            refused("lists in lists", fill("[", MIB - 10), deep),
            refused(
                "lists in lists, closed",
                "[".repeat(9_000) + &"]".repeat(9_000),
                deep,
            ),
            refused(
                "lists in a field",
                format!("a: {}", fill("[", MIB / 2)),
                deep,
            ),
            refused("mappings in mappings", fill("{a: ", MIB / 2), deep),
            refused("block mappings", ladder, deep),
            refused("block lists", fill("- ", MIB / 2), deep),
            refused(
                "keys in keys",
                fill("? ", MIB / 2),
                "a key must be a string",
            ),
            refused(
                "alias bomb",
                format!("a: &a [x,x,x]\n{bomb}"),
                "aliases (`*name`) are refused",
            ),
            refused(
                "alias of nothing",
                "a: *b\n",
                "aliases (`*name`) are refused",
            ),
            refused(
                "merge key",
                "a: &a {x: 1}\nb:\n  <<: *a\n",
                "merge keys (`<<`) are refused",
            ),
            refused(
                "merge key, plain",
                policy("  - <<: {fromCIDR: [10.0.0.0/8]}\n"),
                "merge keys",
            ),
            valid(
                "anchors that nothing uses",
                policy("  - &a fromCIDR: &b [10.0.0.0/8]\n"),
            ),
            refused(
                "!!binary",
                "a: !!binary aGVsbG8=\n",
                "the tag tag:yaml.org,2002:!binary is refused",
            ),
            refused(
                "!!python/object",
                "a: !!python/object/apply:os.system [id]\n",
                "python/object",
            ),
            refused(
                "tag of a megabyte",
                format!("!{} x", fill("a", MIB - 10)),
                "is refused",
            ),
            refused("tags alone", fill("!", MIB - 10), "`!` begins a tag"),
            refused(
                "stars alone",
                fill("*", MIB - 10),
                "aliases (`*name`) are refused",
            ),
        ],
    );
}

#[test]
fn broken_yaml() {
    check(
        "yaml",
        &[
            refused("tabs as indentation", "a:\n\tb: 1\n", "indent with spaces"),
            refused(
                "quote without an end",
                format!("a: \"{}", fill("x\n", MIB / 2)),
                "closing quote",
            ),
            refused(
                "quote without an end, long",
                format!("a: '{}", fill("x", MIB / 2)),
                "closing quote",
            ),
            refused("list without an end", "a: [1, 2\nb: 3\n", "not closed"),
            refused("mapping without an end", "a: {b: 1\nc: 3\n", "not closed"),
            refused(
                "commas alone",
                format!("a: [{}]", fill(",", MIB / 2)),
                "a value is missing here",
            ),
            refused(
                "colons alone",
                fill("a:", MIB / 2),
                "a `: ` cannot stand here",
            ),
            refused(
                "a key of a megabyte",
                format!("? {}\n: 1\n", fill("k", MIB - 10)),
                "a key of",
            ),
            refused("text after the end", "[]\nfoo: 1\n", "`---`"),
        ],
    );
}

#[test]
fn large_files() {
    let file = FILE;
    let large = "bytes, at most 1048576 are read; split it";
    let objects = "more than 16384 objects";
    let nodes: String = (0..20_000)
        .map(|n| format!("---\nkind: Node\napiVersion: v1\nmetadata: {{name: n{n}}}\n"))
        .collect();
    check(
        "yaml",
        &[
            refused(
                "one byte more than 16 MiB",
                fill("#", 16 * MIB + 1),
                "larger than 16777216 bytes; split it",
            ),
            valid("16 MiB of comments", fill("# nothing\n", file)),
            valid("16 MiB of empty lines", fill("\n", file)),
            valid("16 MiB of tabs", fill("\t", file)),
            valid("16 MiB of document marks", fill("---\n", file)),
            refused(
                "one scalar of 16 MiB",
                format!("a: {}", fill("x", file - 10)),
                large,
            ),
            refused("16 MiB of `- {}`", fill("- {}\n", file), large),
            refused("16 MiB of `[`", fill("[", file), large),
            refused(
                "16 MiB of commas",
                format!("a: [{}]", fill(",", file - 10)),
                large,
            ),
            refused(
                "16 MiB of an open quote",
                format!("a: \"{}", fill("x", file - 10)),
                large,
            ),
            refused("2.7 million documents", fill("---\na\n", file), objects),
            refused("2.7 million broken ones", fill("---\n[\n", file), objects),
            refused("2 million of no kind", fill("---\na: 1\n", file), objects),
            refused("4 million in braces", fill("{}{}", file), objects),
            refused("20,000 nodes", nodes, objects),
            refused(
                "a list of 200,000 items",
                format!("kind: List\nitems:\n{}", fill("- {}\n", MIB - 30)),
                "more than 131072 values",
            ),
            refused(
                "a list of 100,000 items",
                format!("kind: List\nitems:\n{}", "- {}\n".repeat(100_000)),
                objects,
            ),
            refused(
                "one scalar of 1 MiB",
                format!("a: {}", fill("x", MIB - 10)),
                "kind: missing",
            ),
            valid(
                "a kind of 1 MiB, passed over",
                format!("kind: {}", fill("x", MIB - 10)),
            ),
            refused(
                "`-` alone, 1 MiB",
                fill("-\n", MIB),
                "more than 131072 values",
            ),
        ],
    );
}

#[test]
fn bytes_that_are_no_manifest() {
    let quoted = policy("  - fromEntities: [world]\n");
    let utf16: Vec<u8> = quoted.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16 = [b"\xff\xfe".to_vec(), utf16].concat();
    let many = fill("a: 1\n", MIB);
    check(
        "yaml",
        &[
            refused(
                "invalid UTF-8",
                [many.as_bytes(), b"b: \xff\n"].concat(),
                "not valid UTF-8",
            ),
            refused(
                "invalid UTF-8 after 16 MiB",
                [fill("# x\n", FILE - 8).as_bytes(), b"\xff"].concat(),
                "not valid UTF-8",
            ),
            refused("UTF-16", utf16, "is it UTF-16?"),
            refused("a NUL", format!("{many}b: \0\n"), "a NUL byte"),
            refused("16 MiB of NULs", vec![0; FILE], "a NUL byte"),
            refused("a key twice", fill("a: 1\n", MIB), "is there twice"),
            refused(
                "a number of a megabyte",
                format!("a: {}", fill("9", MIB - 10)),
                "is too large to be read",
            ),
            refused(
                "a huge exponent",
                policy("  - toPorts: [{ports: [{port: 1e999999999}]}]\n"),
                "is too large to be read",
            ),
            valid("a byte order mark", format!("\u{feff}{quoted}")),
            valid("CRLF", quoted.replace('\n', "\r\n")),
            valid("CR alone", quoted.replace('\n', "\r")),
            valid("nothing at all", ""),
            valid("comments alone", "# a\n---\n# b\n...\n"),
        ],
    );
}

#[test]
fn broken_json() {
    let list = |element: &str| {
        format!(
            "{{\"kind\":\"List\",\"items\":[{}0]}}",
            fill(element, MIB - 60)
        )
    };
    let text = fill("x", FILE - 20);
    check(
        "json",
        &[
            refused("16 MiB of `[`", fill("[", FILE), "ends too soon"),
            refused("objects in objects", fill("{\"a\":", MIB), "ends too soon"),
            refused(
                "deep, closed",
                "[".repeat(70) + &"]".repeat(70),
                "nested deeper than 64 levels",
            ),
            refused(
                "a huge exponent",
                "{\"a\": 1e999999999}",
                "a number too large",
            ),
            refused(
                "a number of a megabyte",
                format!("{{\"a\": {}}}", fill("9", MIB / 2)),
                "a number too large",
            ),
            refused("a key twice", "{\"a\":1,\"a\":1}", "is there twice"),
            refused(
                "an open quote of 16 MiB",
                format!("{{\"a\": \"{text}"),
                "ends too soon",
            ),
            refused(
                "a string of 16 MiB",
                format!("[\"{}\"]", &text[8..]),
                "at most 1048576 are read",
            ),
            refused(
                "8 million values",
                format!("[{}0]", fill("0,", FILE - 10)),
                "at most 1048576 are read",
            ),
            refused(
                "small objects in 16 MiB",
                format!("[{}0]", fill("{\"a\":0},", FILE - 10)),
                "at most 1048576 are read",
            ),
            refused(
                "5 million documents",
                fill("{}\n", FILE),
                "more than 16384 objects",
            ),
            refused(
                "8 million numbers",
                fill("1 ", FILE),
                "more than 16384 objects",
            ),
            refused(
                "a list of half a million",
                list("0,"),
                "more than 131072 values",
            ),
            refused(
                "a list of 40,000 objects",
                format!(
                    "{{\"kind\":\"List\",\"items\":[{}{{}}]}}",
                    "{},".repeat(40_000)
                ),
                "more than 16384 objects",
            ),
        ],
    );
}

#[test]
fn policies_with_too_much_in_them() {
    let fields: String = (0..50_000).map(|n| format!("  bogus{n}: 1\n")).collect();
    let labels: String = (0..50_000).map(|n| format!("k{n}: v,")).collect();
    let ports = format!(
        "  - toPorts:\n    - ports:\n{}",
        fill("      - port: \"22\"\n", MIB - 300)
    );
    let errors = format!("  - fromCIDR: [{}]\n", vec!["x"; 50].join(","));
    let listed: String = (0..7_000)
        .map(|n| {
            format!(
                "- {{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {{name: n{n}}}, spec: {{x: 1}}}}\n"
            )
        })
        .collect();
    check(
        "yaml",
        &[
            refused(
                "a million ports",
                policy(&ports),
                "at most 40 in one element of toPorts",
            ),
            refused(
                "ports out of range",
                policy(&"  - toPorts: [{ports: [{port: \"99999\"}]}]\n".repeat(15_000)),
                "not a port",
            ),
            refused(
                "50,000 unknown fields",
                policy("  - {}\n") + &fields,
                "unknown field",
            ),
            refused(
                "unknown field in 30,000 items",
                policy(&"  - {bogus: 1}\n".repeat(30_000)),
                "unknown field",
            ),
            refused(
                "invalid CIDRs",
                policy(&format!(
                    "  - fromCIDR:\n{}",
                    fill("    - 10.0.0.1/33\n", MIB - 300)
                )),
                "prefix length",
            ),
            refused("100,000 errors", policies(2_000, &errors), "not an address"),
            refused(
                "errors in a list",
                format!("apiVersion: v1\nkind: List\nitems:\n{listed}"),
                "unknown field",
            ),
            valid("120,000 empty items", policy(&"  - {}\n".repeat(120_000))),
            refused(
                "140,000 empty items of two",
                policies(2, &"  - {}\n".repeat(70_000)),
                "rule items are needed",
            ),
            valid(
                "120,000 entities",
                policy(&format!(
                    "  - fromEntities: [{}]\n",
                    "world,".repeat(120_000)
                )),
            ),
            valid(
                "a selector of 50,000 labels",
                policy("  - {}\n").replace(
                    "nodeSelector: {}",
                    &format!("nodeSelector: {{matchLabels: {{{labels}}}}}"),
                ),
            ),
        ],
    );
}
