//! `cargo xtask bpf`: builds the eBPF objects, or compares fresh builds with
//! the committed ones.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use crate::command::{self, root};
use crate::toolchain::{self, TARGET, Toolchain};
use crate::{object, stamp};

/// A package of eBPF programs and the object that is committed for it.
struct Package {
    folder: &'static str,
    object: &'static str,
    stamp: &'static str,
    sources: &'static [&'static str],
    features: &'static [&'static str],
}

/// The programs that are shipped.
const SHIPPED: Package = Package {
    folder: "bpf-prog",
    object: stamp::OBJECT,
    stamp: stamp::STAMP,
    sources: stamp::SOURCES,
    features: &[],
};

/// The same programs with another layout of conntrack: they play another version
/// in the tests of upgrade and downgrade.
const OLDER: Package = Package {
    folder: "bpf-prog",
    object: "bpf-prog/older.bpf.o",
    stamp: "bpf-prog/older.bpf.stamp",
    sources: stamp::SOURCES,
    features: &["older"],
};

/// The floors and wrappers of `cargo xtask bench datapath`.
const FLOORS: Package = Package {
    folder: "bpf-prog/bench",
    object: "bpf-prog/floors.bpf.o",
    stamp: "bpf-prog/floors.bpf.stamp",
    sources: &[
        "bpf-prog/bench/src",
        "bpf-prog/bench/Cargo.toml",
        "bpf-prog/bench/Cargo.lock",
        "bpf-prog/abi/src",
        "bpf-prog/abi/Cargo.toml",
    ],
    features: &[],
};

const PACKAGES: [Package; 3] = [SHIPPED, OLDER, FLOORS];

/// Builds the objects into place and writes their stamps.
pub(crate) fn rebuild() -> Result<()> {
    let toolchain = toolchain::find()?;
    for package in PACKAGES {
        let object = build(&toolchain, &package)?;
        fs::write(root().join(package.object), &object)?;
        // After the build: cargo may have written the lock file.
        let mut text = format!("sources: {}\n", source_hash(&package)?);
        for (key, value) in &toolchain.versions {
            text.push_str(&format!("{key}: {value}\n"));
        }
        fs::write(root().join(package.stamp), text)?;
        println!("{}: {} bytes, stamp written", package.object, object.len());
    }
    Ok(())
}

fn source_hash(package: &Package) -> Result<String> {
    Ok(stamp::source_hash(&root(), package.sources)?)
}

/// Builds them elsewhere. Under the tools of the stamp the result must equal
/// the committed object; under others the kernel tests must pass with it.
pub(crate) fn check() -> Result<()> {
    let toolchain = toolchain::find()?;
    for package in PACKAGES {
        check_one(&toolchain, &package)?;
    }
    Ok(())
}

fn check_one(toolchain: &Toolchain, package: &Package) -> Result<()> {
    let text = fs::read_to_string(root().join(package.stamp)).context(package.stamp)?;
    if stamp::field(&text, "sources") != Some(&source_hash(package)?) {
        bail!(
            "{} is stale: run `cargo xtask bpf` and commit",
            package.stamp
        );
    }
    let fresh = build(toolchain, package)?;
    let same_tools = toolchain
        .versions
        .iter()
        .all(|(key, value)| stamp::field(&text, key) == Some(value));
    if !same_tools {
        println!("the tools differ from those of the stamp, so the bytes may too:");
        for (key, value) in &toolchain.versions {
            let recorded = stamp::field(&text, key).unwrap_or("nothing");
            println!("  {key}: {value} here, {recorded} in the stamp");
        }
        if package.object == SHIPPED.object {
            return test_fresh(&fresh);
        }
        println!("{}: builds; not compared", package.object);
        return Ok(());
    }
    let committed = fs::read(root().join(package.object)).context(package.object)?;
    let found = object::differences(&committed, &fresh)?;
    if !found.is_empty() {
        bail!(
            "{} is not what its sources and tools build; run `cargo xtask bpf`. It differs in:\n  {}",
            package.object,
            found.join("\n  ")
        );
    }
    println!("{} equals a fresh build", package.object);
    Ok(())
}

/// Loads and runs the fresh object in the kernel tests.
fn test_fresh(fresh: &[u8]) -> Result<()> {
    let path = target_dir().join("fresh.bpf.o");
    fs::write(&path, fresh)?;
    println!("running the kernel tests with the fresh object");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tests = Command::new(cargo);
    tests.current_dir(root()).env("PALISADE_BPF_OBJECT", &path);
    tests.env("PALISADE_REQUIRE_PRIVILEGED", "1");
    tests.args(["test", "--quiet", "--test", "packets", "--test", "kernel"]);
    command::run(&mut tests)
}

fn target_dir() -> PathBuf {
    root().join("bpf-prog/target")
}

/// Builds a package and returns the stripped object.
fn build(toolchain: &Toolchain, package: &Package) -> Result<Vec<u8>> {
    let mut cargo = toolchain.cargo_build();
    cargo.current_dir(root().join(package.folder));
    cargo.args(["--release", "--quiet", "--target", TARGET]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    cargo.arg(format!("--features={}", package.features.join(",")));
    cargo.arg("--target-dir").arg(target_dir());
    // What an outer cargo or rustup says about itself is not for this build.
    for name in [
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags()?.join("\u{1f}"));
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", command::line(&cargo)))?;
    if !output.status.success() {
        bail!("{} failed: {}", command::line(&cargo), output.status);
    }
    let path = executable(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| package.folder.to_owned())?;
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    let stripped = object::strip(&bytes)?;
    let home = root();
    let home = home.to_string_lossy();
    if stripped
        .windows(home.len())
        .any(|part| part == home.as_bytes())
    {
        bail!("the object names the folder {home} that it was built in");
    }
    Ok(stripped)
}

/// Compiler flags; paths of this machine are replaced in all that is written.
fn flags() -> Result<Vec<String>> {
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let mut flags = vec!["-Cdebuginfo=2".into(), "-Clinker=bpf-linker".into()];
    flags.extend(["-Clink-arg=--btf", "-Ctarget-cpu=v3"].map(String::from));
    // The last matching prefix wins, so the more special ones come later.
    let mut places = vec![(cargo_home.clone(), "/cargo"), (root(), "/palisade")];
    let registries = fs::read_dir(cargo_home.join("registry/src"));
    for registry in registries.into_iter().flatten() {
        places.push((registry?.path(), "/registry"));
    }
    for (place, name) in places {
        let place = place.to_str().context("a path that is not UTF-8")?;
        flags.push(format!("--remap-path-prefix={place}={name}"));
    }
    Ok(flags)
}

/// The one executable among cargo's messages.
fn executable(messages: &str) -> Result<PathBuf> {
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo's messages")?;
        if let Some(path) = message["executable"].as_str() {
            return Ok(path.into());
        }
    }
    bail!("no executable was built: the package needs one binary target");
}
