//! An apt beside the system's: what it fetches is unpacked into a folder, and
//! neither the system's lists nor its packages change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::command::{capture, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists and settings of its own.
pub(crate) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// One that knows this kind (`deb`, `deb-src`) of packages of a suite.
    pub(crate) fn new(work: &Path, kind: &str, suite: &str) -> Result<Self> {
        let apt = work.join("apt");
        for part in [
            "lists/partial",
            "cache/archives/partial",
            "etc/sources.list.d",
            "etc/apt.conf.d",
            "etc/preferences.d",
        ] {
            fs::create_dir_all(apt.join(part))?;
        }
        let shown = apt.display();
        let config = apt.join("apt.conf");
        // No package is installed in its eyes. A mirror may be one of another day:
        // what it has is signed all the same.
        fs::write(apt.join("status"), "")?;
        fs::write(
            &config,
            format!(
                "Dir::Etc \"{shown}/etc\"; Dir::Etc::sourcelist \"{shown}/etc/sources.list\";\n\
                 Dir::Etc::sourceparts \"{shown}/etc/sources.list.d\";\n\
                 Dir::State::lists \"{shown}/lists\"; Dir::State::status \"{shown}/status\";\n\
                 Dir::Cache \"{shown}/cache\"; APT::Sandbox::User \"root\";\n\
                 Acquire::Check-Valid-Until \"false\";\n"
            ),
        )?;
        fs::write(
            apt.join("etc/sources.list"),
            format!("{kind} [signed-by={KEYRING}] {} {suite} main\n", mirror()),
        )?;
        let apt = Self { config };
        apt.run(work, &["update", "-qq"])?;
        Ok(apt)
    }

    /// Runs apt-get in a folder.
    pub(crate) fn run(&self, folder: &Path, words: &[&str]) -> Result<()> {
        run(self.get(folder, words).stdout(Stdio::null()))
    }

    /// Packages that these need, themselves among them.
    pub(crate) fn with_needs(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut words = vec!["install", "--simulate", "--no-install-recommends"];
        words.extend(packages);
        let plan = capture(&mut self.get(Path::new("/"), &words))?;
        let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
        let names = lines.filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    fn get(&self, folder: &Path, words: &[&str]) -> Command {
        let mut get = Command::new("apt-get");
        get.current_dir(folder).env("APT_CONFIG", &self.config);
        get.args(words);
        get
    }
}

/// The mirror that this system uses, else Debian's.
fn mirror() -> String {
    let lists = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let line = lists.lines().find_map(|line| line.strip_prefix("URIs:"));
    let first = line.and_then(|uris| uris.split_whitespace().next());
    first.unwrap_or("http://deb.debian.org/debian").to_owned()
}

/// The only file of a folder whose name ends so.
pub(crate) fn find(folder: &Path, end: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = files.filter(|path| path.to_string_lossy().ends_with(end));
    found
        .next()
        .with_context(|| format!("{} has no *{end}", folder.display()))
}
