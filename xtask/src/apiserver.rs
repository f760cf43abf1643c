//! A real kube-apiserver for the tests: that of KUBEBUILDER_ASSETS, or Debian
//! 12's, built once from its source package into the user's cache (minutes, and
//! 0.8 GiB while it is built). etcd comes from Debian's package.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::apt::{Apt, find};
use crate::command::{capture, run};
use crate::tools;

/// Debian's newest source of a server; the tests know where it is built to.
const SOURCE: &str = "kubernetes=1.20.5+really1.20.2-1.1+deb12u1";
const VERSION: &str = "v1.20.2";
/// The compiler that this source needs.
const GO: &str = "/usr/lib/go-1.19/bin";
const NAME: &str = "kube-apiserver";

/// Makes sure that the tests find a server.
pub(crate) fn ensure() -> Result<()> {
    if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS") {
        for name in [NAME, "etcd"] {
            let program = Path::new(&assets).join(name);
            if !program.is_file() {
                bail!("KUBEBUILDER_ASSETS has no {name}: unset it, or name a folder that has");
            }
        }
        return Ok(());
    }
    let mut packages = Vec::new();
    for (program, package) in [("etcd", "etcd-server"), ("openssl", "openssl")] {
        if !tools::exists(program) {
            packages.push(package);
        }
    }
    if !packages.is_empty() {
        tools::apt_install(&packages)?;
    }
    let place = tools::cache(&format!("{NAME}/{VERSION}"))?;
    if place.join(NAME).is_file() {
        return Ok(());
    }
    println!(
        "building {NAME} {VERSION} into {} (minutes)",
        place.display()
    );
    let work = place.join(format!("build-{}", std::process::id()));
    let built = build(&work).and_then(|server| Ok(fs::rename(server, place.join(NAME))?));
    // The sources and Go's cache are of no further use, whatever happened.
    drop(fs::remove_dir_all(&work));
    built
}

/// Builds in `work`; returns where the server is.
fn build(work: &Path) -> Result<PathBuf> {
    if !Path::new(GO).join("go").is_file() || !tools::exists("dpkg-source") {
        tools::apt_install(&["golang-1.19-go", "dpkg-dev"])?;
    }
    let tree = work.join("gopath/src/k8s.io/kubernetes");
    fetch(work, &tree)?;
    newer_reflection(work, &tree)?;
    generate_api(work, &tree)?;
    let server = work.join(NAME);
    let mut flags = "-s -w".to_owned();
    for package in ["client-go/pkg/version", "component-base/version"] {
        let package = format!("k8s.io/kubernetes/vendor/k8s.io/{package}");
        flags.push_str(&format!(
            " -X {package}.gitVersion={VERSION} -X {package}.gitMajor=1 -X {package}.gitMinor=20"
        ));
    }
    let mut go = go(work, &tree);
    go.args([
        "build",
        "-trimpath",
        "-tags",
        "providerless",
        "-ldflags",
        &flags,
    ]);
    run(go
        .arg("-o")
        .arg(&server)
        .arg("k8s.io/kubernetes/cmd/kube-apiserver"))?;
    Ok(server)
}

/// Go as its releases before modules: the source brings its dependencies.
fn go(work: &Path, tree: &Path) -> Command {
    let mut go = Command::new(Path::new(GO).join("go"));
    let path = env::var("PATH").unwrap_or_default();
    go.current_dir(tree)
        .env("PATH", format!("{GO}:{path}"))
        .env("GOPATH", work.join("gopath"))
        .env("GOCACHE", work.join("gocache"))
        .envs([
            ("GO111MODULE", "off"),
            ("GOPROXY", "off"),
            ("GOSUMDB", "off"),
            ("CGO_ENABLED", "0"),
            ("GOFLAGS", "-p=2"),
        ]);
    go
}

/// The source package: the system's lists may have no sources.
fn fetch(work: &Path, tree: &Path) -> Result<()> {
    let apt = Apt::new(work, "deb-src", "bookworm")?;
    apt.run(work, &["-qq", "source", "--download-only", SOURCE])?;
    let source = find(work, ".dsc")?;
    if let Some(folder) = tree.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut unpack = Command::new("dpkg-source");
    unpack.args(["--no-check", "-x"]).arg(source).arg(tree);
    run(unpack.stdout(Stdio::null()))
}

/// The source's reflect2 crashes under this Go at the first custom object;
/// Debian's own package of it does not.
fn newer_reflection(work: &Path, tree: &Path) -> Result<()> {
    const PACKAGE: &str = "golang-github-modern-go-reflect2-dev";
    let folder = work.join("reflect2");
    fs::create_dir_all(&folder)?;
    let mut download = Command::new("apt-get");
    download.current_dir(&folder);
    capture(download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", PACKAGE]))?;
    let mut unpack = Command::new("dpkg-deb");
    run(unpack.arg("-x").arg(find(&folder, ".deb")?).arg(&folder))?;
    let old = tree.join("vendor/github.com/modern-go/reflect2");
    fs::remove_dir_all(&old)?;
    let new = folder.join("usr/share/gocode/src/github.com/modern-go/reflect2");
    run(Command::new("cp").arg("-r").arg(new).arg(old))
}

/// The one generated file that the source package lacks.
fn generate_api(work: &Path, tree: &Path) -> Result<()> {
    let generator = work.join("openapi-gen");
    let mut build = go(work, tree);
    build.arg("build").arg("-o").arg(&generator);
    run(build.arg("./vendor/k8s.io/kube-openapi/cmd/openapi-gen"))?;
    let mut marked = marked(tree, &["cmd", "pkg", "plugin"], "/testdata/")?;
    for entry in fs::read_dir(tree.join("staging/src/k8s.io"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "code-generator" && name != "sample-apiserver" {
            let folder = format!("staging/src/k8s.io/{name}");
            marked.extend(self::marked(tree, &[&folder], "_test.go")?);
        }
    }
    let mut packages: Vec<String> = marked
        .iter()
        .map(|folder| {
            let vendored = folder.strip_prefix("staging/src/");
            let folder = vendored.map_or_else(|| folder.clone(), |rest| format!("vendor/{rest}"));
            format!("k8s.io/kubernetes/{folder}")
        })
        .collect();
    packages.sort();
    packages.dedup();
    let mut generate = Command::new(&generator);
    let path = env::var("PATH").unwrap_or_default();
    generate
        .current_dir(tree)
        .env("PATH", format!("{GO}:{path}"))
        .env("GOPATH", work.join("gopath"))
        .env("GOCACHE", work.join("gocache"))
        .env("GO111MODULE", "off")
        .args(["--logtostderr", "-i", &packages.join(",")])
        .args(["-p", "k8s.io/kubernetes/pkg/generated/openapi"])
        .args(["-O", "zz_generated.openapi"])
        .args(["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"])
        .arg("-r")
        .arg(work.join("violations"));
    run(generate.stderr(Stdio::null()))
}

/// Folders whose Go files ask for a generated description.
fn marked(tree: &Path, roots: &[&str], without: &str) -> Result<Vec<String>> {
    const MARK: &str = "+k8s:openapi-gen=";
    let mut grep = Command::new("grep");
    grep.current_dir(tree);
    grep.args(["-rl", "--include=*.go", "--exclude=*_test.go", MARK]);
    let output = grep.args(roots).output().context("grep")?;
    // Nothing found is an answer too.
    let files = String::from_utf8_lossy(&output.stdout).into_owned();
    let files = files.lines().filter(|file| !file.contains(without));
    Ok(files
        .filter_map(|file| Some(file.rsplit_once('/')?.0.to_owned()))
        .collect())
}
