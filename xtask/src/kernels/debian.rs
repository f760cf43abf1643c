//! Debian's kernels: found with apt, fetched and unpacked once into the user's
//! cache directory. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{capture, run};
use crate::tools;

/// The smallest flavour that has every driver an emulated machine needs.
const FLAVOUR: &str = "-cloud-amd64";

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
}

/// The newest kernel of a release (6.1, 6.12): from the cache, or fetched.
pub(crate) fn kernel(release: &str) -> Result<Kernel> {
    let cache = tools::cache("kernels")?;
    let prefix = format!("linux-image-{release}.");
    let cached = fs::read_dir(&cache)
        .with_context(|| cache.display().to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix) && name.ends_with(FLAVOUR));
    if let Some(package) = cached.max_by_key(|name| version_key(name)) {
        return unpacked(&cache.join(&package), &package);
    }
    let package = match newest(&prefix)? {
        Some(package) => package,
        None => {
            update_lists()?;
            newest(&prefix)?.with_context(|| {
                format!("the package sources have no {prefix}*{FLAVOUR} (Debian bookworm has)")
            })?
        }
    };
    fetch(&cache, &package)?;
    unpacked(&cache.join(&package), &package)
}

/// The numbers in a name, to compare it by.
fn version_key(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// The newest package that apt could fetch.
fn newest(prefix: &str) -> Result<Option<String>> {
    if !tools::exists("apt-cache") || !tools::exists("dpkg-deb") {
        bail!("this system has no apt: the kernels come from Debian's packages");
    }
    let known = capture(Command::new("apt-cache").args(["pkgnames", prefix]))?;
    let names: Vec<&str> = known
        .lines()
        .filter(|name| name.ends_with(FLAVOUR))
        .collect();
    if names.is_empty() {
        return Ok(None);
    }
    // apt also knows names that it only read in other packages' dependencies.
    let offered = capture(Command::new("apt-cache").arg("madison").args(names))?;
    let packages = offered.lines().filter_map(|line| line.split('|').next());
    Ok(packages
        .map(|name| name.trim().to_owned())
        .max_by_key(|name| version_key(name)))
}

fn update_lists() -> Result<()> {
    let Some(mut update) = tools::as_root("apt-get") else {
        bail!("apt's lists name no such kernel, and without root they cannot be renewed");
    };
    run(update.args(["update", "-qq"]))
}

/// Fetches beside the final place, so that what is there is whole.
fn fetch(cache: &Path, package: &str) -> Result<()> {
    println!("fetching {package} into {}", cache.display());
    let part = cache.join(format!("part-{}", std::process::id()));
    fs::create_dir_all(&part)?;
    let outcome = fetch_into(&part, package)
        .and_then(|()| Ok(fs::rename(part.join("tree"), cache.join(package))?));
    // Nothing in it is of use any more, whatever happened.
    drop(fs::remove_dir_all(&part));
    outcome
}

fn fetch_into(part: &Path, package: &str) -> Result<()> {
    let mut download = Command::new("apt-get");
    download.current_dir(part);
    capture(download.args(["download", "-q", package]))?;
    let file = fs::read_dir(part)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get downloaded no package")?;
    let mut unpack = Command::new("dpkg-deb");
    run(unpack.arg("-x").arg(file).arg(part.join("tree")))
}

fn unpacked(tree: &Path, package: &str) -> Result<Kernel> {
    let version = package.trim_start_matches("linux-image-").to_owned();
    let image = tree.join(format!("boot/vmlinuz-{version}"));
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|folder| tree.join(folder).join(&version))
        .into_iter()
        .find(|folder| folder.is_dir());
    let Some(modules) = modules.filter(|_| image.is_file()) else {
        bail!(
            "{} holds no kernel: remove it and run this again",
            tree.display()
        );
    };
    Ok(Kernel {
        version,
        image,
        modules,
    })
}

#[cfg(test)]
mod tests {
    use super::version_key;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let newest = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-48-cloud-amd64",
        ]
        .into_iter()
        .max_by_key(|name| version_key(name));
        assert_eq!(newest, Some("linux-image-6.1.0-56-cloud-amd64"));
        assert!(version_key("6.12.117+deb12") > version_key("6.12.20+deb12"));
    }
}
