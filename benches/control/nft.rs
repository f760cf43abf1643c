//! nftables with one set of the same CIDRs, in a network namespace of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::grid::prefix;
use crate::measure::timed;
use crate::private;

/// Spans of the tasks: load, replace at once, one element more. None without nft.
pub(crate) fn set(prefixes: usize, other: usize, runs: usize) -> Option<[Vec<Duration>; 3]> {
    Command::new("nft").arg("--version").output().ok()?;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let work = || {
        private::enter(path);
        let mut spans = [const { Vec::new() }; 3];
        for _ in 0..runs {
            measure(path, prefixes, other, &mut spans);
        }
        spans
    };
    let result = std::thread::scope(|scope| scope.spawn(work).join());
    Some(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn measure(dir: &Path, prefixes: usize, other: usize, spans: &mut [Vec<Duration>; 3]) {
    let (file, empty) = (
        dir.join("rules.nft"),
        "table ip filter {}\ndelete table ip filter\n",
    );
    let mut run = |place: usize, text: &str| {
        std::fs::write(&file, text).expect("written");
        let mut span = Duration::ZERO;
        timed(&mut span, || nft(&file));
        spans[place].push(span);
    };
    run(0, &(empty.to_owned() + &table(0..prefixes)));
    run(
        2,
        &format!(
            "add element ip filter sources {{ {} }}\n",
            prefix(2 * prefixes)
        ),
    );
    run(1, &(empty.to_owned() + &table(other..other + prefixes)));
    std::fs::write(&file, empty).expect("written");
    nft(&file);
}

fn nft(file: &Path) {
    let status = Command::new("nft").arg("-f").arg(file).status();
    assert!(status.expect("nft starts").success(), "nft refused");
}

fn table(numbers: std::ops::Range<usize>) -> String {
    let elements: Vec<String> = numbers.map(prefix).collect();
    format!(
        "table ip filter {{
  set sources {{
    type ipv4_addr
    flags interval
    elements = {{ {} }}
  }}
  chain input {{
    type filter hook input priority filter; policy drop
    ct state established,related accept
    ip saddr @sources tcp dport 443 accept
  }}
}}
",
        elements.join(", ")
    )
}
