//! What a change costs the control plane, from the text of a manifest to
//! enforced: `cargo xtask bench control [--json] [--kernel] [--rules N]`, a grid
//! of rules and identities; with `--kernel` (root) everything is staged and
//! committed in namespaces of its own, and nftables does the same beside it
//! (`--sets`: this comparison alone).
//!
//! With `--pods`, `--policies` or `--pairs`: one world, what a cluster of some
//! size tells one node, and what changes in it cost beside all from nothing.
//! Reading text is not in those figures.

mod grid;
mod kernel;
mod measure;
mod nft;
#[path = "../shared/private.rs"]
mod private;
mod report;
mod world;

use world::Size;

const SIZE: Size = Size {
    pods: 10_000,
    policies: 1_000,
    nodes: 100,
    pairs: 0,
};

fn main() {
    let (mut json, mut kernel, mut sets, mut rules) = (false, false, false, None);
    let (mut size, mut is_world) = (SIZE, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = |is_of_world: bool| {
            is_world |= is_of_world;
            let number = words.next().and_then(|word| word.parse().ok());
            number.unwrap_or_else(|| wrong(&format!("{word} asks for a number")))
        };
        match word.as_str() {
            "--json" => json = true,
            "--kernel" => kernel = true,
            "--sets" => sets = true,
            "--rules" => rules = Some(number(false)),
            "--pods" => size.pods = number(true),
            "--policies" => size.policies = number(true),
            "--pairs" => size.pairs = number(true),
            // From `cargo bench` itself.
            "--bench" => {}
            other => wrong(&format!("unknown option {other}")),
        }
    }
    if is_world {
        let report = if kernel {
            kernel::with_datapath(|datapath| measure::run(size, Some(datapath)))
        } else {
            measure::run(size, None)
        };
        report::world(&report, json);
        return;
    }
    let points = match sets {
        true => Vec::new(),
        false => grid::points(kernel, rules),
    };
    let tasks = match (kernel, rules) {
        (true, None) => grid::tasks(),
        _ => Vec::new(),
    };
    report::grid(&points, &tasks, json);
}

fn wrong(problem: &str) -> ! {
    eprintln!(
        "{problem}: [--json] [--kernel] [--rules N | --sets] | [--json] [--kernel] [--pods N] [--policies N] [--pairs N]"
    );
    std::process::exit(2);
}
