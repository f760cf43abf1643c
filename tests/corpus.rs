//! Replays the corpora of the fuzz targets, and what they found, on stable
//! Rust: every input goes through the door whose name its folder bears.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use targets::TARGETS;

/// Inputs of a folder, by name.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_input_goes_through_its_door() {
    let mut count = 0;
    for (name, target) in TARGETS {
        for kind in ["corpus", "finds"] {
            for file in inputs(&root().join(kind).join(name)) {
                // A panic names the file that brought it.
                println!("{}", file.display());
                target(&fs::read(&file).expect("read"));
                count += 1;
            }
        }
        assert!(
            !inputs(&root().join("corpus").join(name)).is_empty(),
            "{name} has no corpus"
        );
    }
    println!("{count} inputs");
}

/// Seeds are cut, doubled and turned at every place: cheap, the same each time,
/// and enough to see that no door rots between two runs of the fuzzer.
#[test]
fn every_door_survives_small_changes_of_its_seeds() {
    const BYTES_MAX: usize = 600;
    for (name, target) in TARGETS {
        for file in inputs(&root().join("corpus").join(name)) {
            let seed = fs::read(&file).expect("read");
            if seed.len() > BYTES_MAX {
                continue;
            }
            println!("{}", file.display());
            for at in (0..seed.len()).step_by(1 + seed.len() / 64) {
                target(&seed[..at]);
                target(&seed[at..]);
                target(&[&seed[..at], &seed[..]].concat());
                for bit in [0x01, 0x20, 0x80] {
                    let mut turned = seed.clone();
                    turned[at] ^= bit;
                    target(&turned);
                }
            }
        }
    }
}

/// Folders, fuzz targets and doors bear the same names.
#[test]
fn every_target_has_its_door() {
    let doors: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let named = |folder: &str| -> BTreeSet<String> {
        let files = inputs(&root().join(folder));
        let stems = files.iter().filter_map(|file| file.file_stem());
        stems
            .map(|stem| stem.to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(named("fuzz_targets"), doors);
    assert_eq!(named("corpus"), doors);
    assert!(named("finds").is_subset(&doors));
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    for door in &doors {
        assert!(
            manifest.contains(&format!("name = \"{door}\"")),
            "{door} is not built"
        );
    }
}
