//! An emulated machine: a kernel, an initramfs, perhaps a disk, and two serial
//! lines. The first one is the kernel's own, so its messages never stand between
//! what the guest says on the second.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::kernels::Kernel;
use crate::tools;

const EMULATOR: &str = "qemu-system-x86_64";
const PACKAGES: &[&str] = &["qemu-system-x86", "seabios", "busybox-static"];
/// Emulated: every machine can, and tests do not depend on what else the host
/// virtualises. `rep movs` is emulated byte by byte, so the kernel is told to copy
/// without it where it may.
const CPU: &str = "max,-erms,-fsrm";
const MEMORY_MIB: &str = "2048";
/// Boots of one guest. Now and then an emulated kernel dies of its own while it
/// starts (it patches its code under a processor that runs it).
const BOOTS_MAX: usize = 3;
const POLL: Duration = Duration::from_millis(250);
/// Lines of a guest that did not end by itself which are shown.
const SHOWN_LINES_MAX: usize = 60;
const SHOWN_CHARACTERS_MAX: usize = 1_000;
/// Begins each line that our scripts say, so that nothing else can be mistaken
/// for it.
pub(crate) const MARK: &str = "palisade-guest:";

/// Makes sure that there is an emulator, or says why not.
pub(crate) fn ensure() -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!(
            "the test binaries are for {}, the kernels for x86-64",
            env::consts::ARCH
        );
    }
    if !(tools::exists(EMULATOR) && tools::exists("busybox")) {
        tools::apt_install(PACKAGES).with_context(|| {
            format!(
                "no {EMULATOR} or no busybox here; on Debian, as root: \
                 apt-get install --no-install-recommends {}",
                PACKAGES.join(" ")
            )
        })?;
    }
    Ok(())
}

/// What is switched on.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) initramfs: Vec<u8>,
    pub(crate) disk: Option<&'a Path>,
    /// A guest that is not done by then hangs.
    pub(crate) limit: Duration,
}

/// What it said before it was switched off, by itself or by us.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) results: String,
    console: String,
    /// Why it was switched off by us.
    pub(crate) hung: Option<String>,
}

impl Ended {
    /// Whether the kernel died before our scripts began.
    fn died_early(&self) -> bool {
        !self.results.contains(MARK) && self.console.contains("Kernel panic")
    }

    /// The last lines of both serial lines, to find out what went wrong.
    pub(crate) fn last_lines(&self) -> String {
        let mut text = String::new();
        for (name, all) in [("results", &self.results), ("console", &self.console)] {
            let lines: Vec<&str> = all.lines().collect();
            text.push_str(&format!("\n  last lines of its {name}:\n"));
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..] {
                text.extend(line.chars().take(SHOWN_CHARACTERS_MAX));
                text.push('\n');
            }
        }
        text
    }
}

impl Machine<'_> {
    /// Boots it and waits for its end. A reboot is an end, too.
    pub(crate) fn run(&self, folder: &Folder) -> Result<Ended> {
        for _ in 1..BOOTS_MAX {
            let ended = self.boot(folder)?;
            if !ended.died_early() {
                return Ok(ended);
            }
            println!("the emulated kernel died before it started anything: once more");
        }
        self.boot(folder)
    }

    fn boot(&self, folder: &Folder) -> Result<Ended> {
        let file = |name: &str| folder.path.join(name);
        let (initramfs, console, results) = (file("initramfs"), file("console"), file("results"));
        fs::write(&initramfs, &self.initramfs)?;
        let mut emulator = Command::new(EMULATOR);
        emulator.args(["-accel", "tcg", "-cpu", CPU, "-smp", "2", "-m", MEMORY_MIB]);
        emulator.args([
            "-display",
            "none",
            "-monitor",
            "none",
            "-nic",
            "none",
            "-no-reboot",
        ]);
        for line in [&console, &results] {
            emulator
                .arg("-serial")
                .arg(format!("file:{}", line.display()));
        }
        if let Some(disk) = self.disk {
            emulator
                .arg("-drive")
                .arg(format!("if=virtio,format=raw,file={}", disk.display()));
        }
        emulator.arg("-kernel").arg(&self.kernel.image);
        emulator.arg("-initrd").arg(&initramfs);
        emulator.args(["-append", "console=ttyS0 panic=1 quiet mitigations=off"]);
        let child = emulator
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {EMULATOR}"))?;
        let ended = wait(child, self.limit)?;
        let text =
            |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Ok(Ended {
            results: text(&results),
            console: text(&console),
            hung: (!ended).then(|| format!("not done after {} s, killed", self.limit.as_secs())),
        })
    }
}

/// Whether it ended by itself within the limit.
fn wait(mut child: Child, limit: Duration) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("{EMULATOR} failed: {status}");
            }
            return Ok(true);
        }
        sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

/// A folder of one guest; gone with the guard.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("palisade-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.path);
    }
}

/// A binary without what only debuggers read; itself where there is no `strip`.
pub(crate) fn stripped(binary: &Path, folder: &Folder, name: &str) -> PathBuf {
    let small = folder.path.join(name);
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&small).arg(binary);
    // A large one only takes longer to unpack.
    match crate::command::run(&mut strip) {
        Ok(()) => small,
        Err(_) => binary.to_owned(),
    }
}
