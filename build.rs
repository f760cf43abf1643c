//! Hands the committed eBPF object to the library, and refuses it when its
//! sources have changed since it was built.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

#[path = "xtask/src/stamp.rs"]
mod stamp;

/// Names another object to embed: `cargo xtask bpf --check` tests a freshly
/// built one with it.
const OVERRIDE: &str = "PALISADE_BPF_OBJECT";

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    for path in stamp::SOURCES.iter().chain([&stamp::OBJECT, &stamp::STAMP]) {
        println!("cargo::rerun-if-changed={path}");
    }
    let object = match env::var_os(OVERRIDE) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            PathBuf::from(path)
        }
        None => {
            refuse_stale(&root);
            root.join(stamp::OBJECT)
        }
    };
    if let Err(error) = fs::copy(&object, out.join("palisade.bpf.o")) {
        fail(&format!("cannot copy {}: {error}", object.display()));
    }
}

fn refuse_stale(root: &Path) {
    let text = match fs::read_to_string(root.join(stamp::STAMP)) {
        Ok(text) => text,
        Err(error) => fail(&format!("cannot read {}: {error}", stamp::STAMP)),
    };
    let recorded = stamp::field(&text, "sources").unwrap_or("nothing");
    let actual = match stamp::source_hash(root, stamp::SOURCES) {
        Ok(hash) => hash,
        Err(error) => fail(&format!("cannot hash the eBPF sources: {error}")),
    };
    if recorded != actual {
        fail(&format!(
            "{} is stale: built from sources {recorded}, the sources are now {actual}",
            stamp::OBJECT
        ));
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}\nrun `cargo xtask bpf` and commit bpf-prog/palisade.bpf.o and .stamp");
    process::exit(1);
}
