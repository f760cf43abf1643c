//! `cargo xtask streaming`: the Kubernetes source against a server that streams
//! lists. Debian's stable release has none, and its unstable one the sources of one:
//! the API server of custom resources, which is built once into the user's cache
//! (minutes, 4 GiB while it is built) with the Go and the etcd of that release.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::{Apt, find};
use crate::command::{root, run};
use crate::{apiserver, tools};

const SERVER: &str = "apiextensions-apiserver";
const PACKAGES: [&str; 2] = ["golang-k8s-apiextensions-apiserver-dev", "golang-go"];

/// Builds what is missing, and runs the test of lists with it (root).
pub(crate) fn run_all() -> Result<()> {
    apiserver::ensure()?;
    let place = ensure()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo.args(["test", "--quiet", "--locked", "--test", "kubernetes", "--"]);
    cargo.args(["--exact", "streaming::lists_come_as_the_server_has_them"]);
    cargo.arg("--nocapture");
    cargo
        .env("PALISADE_REQUIRE_PRIVILEGED", "1")
        .env("PALISADE_STREAMING_SERVER", &place);
    run(&mut cargo)
}

/// Where the server and its etcd are.
fn ensure() -> Result<PathBuf> {
    let place = tools::cache("streaming-server")?;
    if place.join(SERVER).is_file() {
        return Ok(place);
    }
    println!(
        "building {SERVER} into {} (minutes; remove it to have a newer one)",
        place.display()
    );
    let work = place.join(format!("build-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let built = build(&work).and_then(|(server, etcd)| {
        fs::rename(etcd, place.join("etcd"))?;
        Ok(fs::rename(server, place.join(SERVER))?)
    });
    // The sources and Go's cache are of no further use, whatever happened.
    drop(fs::remove_dir_all(&work));
    built.map(|()| place)
}

/// Builds in `work`; the server, and its etcd.
fn build(work: &Path) -> Result<(PathBuf, PathBuf)> {
    let apt = Apt::new(work, "deb", "sid")?;
    let mut packages = apt.with_needs(&PACKAGES)?;
    // Sources and the compiler; of C and the like nothing is needed.
    packages.retain(|package| package.starts_with("golang-"));
    packages.push("etcd-server".to_owned());
    let archives = work.join("archives");
    let unpacked = work.join("unpacked");
    fs::create_dir_all(&archives)?;
    let mut words = vec!["-qq", "download"];
    words.extend(packages.iter().map(String::as_str));
    apt.run(&archives, &words)?;
    for archive in fs::read_dir(&archives)? {
        let mut unpack = Command::new("dpkg-deb");
        run(unpack.arg("-x").arg(archive?.path()).arg(&unpacked))?;
    }
    let compilers = fs::read_dir(unpacked.join("usr/lib"))?;
    let mut compilers = compilers.filter_map(|entry| Some(entry.ok()?.path()));
    let compiler = compilers.find(|path| path.join("bin/go").is_file() && !path.is_symlink());
    let compiler = compiler.context("the packages brought no Go")?;
    let sources = unpacked.join("usr/share/gocode");
    let server = work.join(SERVER);
    let mut go = Command::new(compiler.join("bin/go"));
    go.current_dir(sources.join("src/k8s.io").join(SERVER))
        .env("GOROOT", &compiler)
        .env("GOPATH", &sources)
        .env("GOCACHE", work.join("gocache"))
        .envs([
            ("GO111MODULE", "off"),
            ("GOTOOLCHAIN", "local"),
            ("GOPROXY", "off"),
            ("GOSUMDB", "off"),
            ("CGO_ENABLED", "0"),
            ("GOFLAGS", "-p=2"),
        ]);
    go.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]);
    run(go.arg(&server).arg("."))?;
    Ok((server, find(&unpacked.join("usr/bin"), "/etcd")?))
}
