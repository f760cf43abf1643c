//! Finds a Rust compiler that can build for `bpfel-unknown-none`, and the
//! linker that turns its bitcode into an eBPF object.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::capture;

/// The target of all eBPF programs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Debian's packages that build for the target.
pub(crate) const DEBIAN_PACKAGES: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
];

const INSTALL: &str = "\
install one of these and run the command again:
  Debian, as root:  apt-get install --no-install-recommends rustc-web libstd-rust-web-dev-bpf llvm-22-dev libpolly-22-dev
                    LLVM_SYS_221_PREFIX=/usr/lib/llvm-22 LLVM_PREFIX=/usr/lib/llvm-22 \\
                      cargo install bpf-linker --no-default-features --features llvm-22
  rustup:           rustup toolchain install nightly --component rust-src
                    cargo install bpf-linker";

/// Where the compiler comes from.
#[derive(Debug)]
pub(crate) enum Compiler {
    /// A rustc with `core` for the target already built (Debian's packages).
    Prebuilt { rustc: PathBuf },
    /// A rustup toolchain that builds `core` from rust-src.
    Nightly { rustc: PathBuf },
}

/// A compiler, a linker and their versions.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    /// `key: value` lines of the stamp.
    pub(crate) versions: [(&'static str, String); 3],
}

/// What is installed here; the error says what to install otherwise.
pub(crate) fn find() -> Result<Toolchain> {
    let compiler = match prebuilt().or_else(nightly) {
        Some(compiler) => compiler,
        None => bail!("no Rust compiler here can build for {TARGET}\n{INSTALL}"),
    };
    let linker = capture(Command::new("bpf-linker").arg("--version"))
        .with_context(|| format!("bpf-linker is missing\n{INSTALL}"))?;
    let (Compiler::Prebuilt { rustc } | Compiler::Nightly { rustc }) = &compiler;
    let verbose = capture(Command::new(rustc).arg("-vV"))?;
    let llvm = verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .context("rustc -vV names no LLVM version")?
        .to_owned();
    let rustc = verbose.lines().next().unwrap_or_default().to_owned();
    Ok(Toolchain {
        compiler,
        versions: [("rustc", rustc), ("llvm", llvm), ("linker", linker)],
    })
}

impl Toolchain {
    /// `cargo build` for the target, up to the arguments both kinds share.
    pub(crate) fn cargo_build(&self) -> Command {
        match &self.compiler {
            Compiler::Prebuilt { rustc } => {
                let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let mut command = Command::new(cargo);
                command.env("RUSTC", rustc).arg("build");
                // aya-ebpf names unstable features, which this compiler, being
                // a stable one, opens only when told so.
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Compiler::Nightly { rustc } => {
                let mut command = Command::new(rustc.with_file_name("cargo"));
                command.env("RUSTC", rustc).arg("build");
                command.args(["-Z", "build-std=core"]);
                command
            }
        }
    }
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    capture(Command::new(rustc).args(["--print", "sysroot"]))
        .ok()
        .map(PathBuf::from)
}

fn prebuilt() -> Option<Compiler> {
    let candidates = ["/usr/bin/rustc", "rustc"].map(PathBuf::from);
    candidates.into_iter().find_map(|rustc| {
        let lib = sysroot(&rustc)?
            .join("lib/rustlib")
            .join(TARGET)
            .join("lib");
        lib.is_dir().then_some(Compiler::Prebuilt { rustc })
    })
}

fn nightly() -> Option<Compiler> {
    let rustc = capture(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]));
    let rustc = PathBuf::from(rustc.ok()?);
    let library = sysroot(&rustc)?.join("lib/rustlib/src/rust/library/core");
    library.is_dir().then_some(Compiler::Nightly { rustc })
}
