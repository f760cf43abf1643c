//! Upgrade and downgrade under streams: an agent of another version of the
//! layout is ended, the next one takes over, and back.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use palisade::cli;
use palisade::datapath::kernel::Layout;
use palisade_abi::ABI_VERSION;
use rustix::process::Signal;

use super::harness::{World, exe, privileged};
use super::streams::{self, Streams};
use super::versions::{newer, older};

const A_WHILE: Duration = Duration::from_millis(500);

/// Runs the agent of another version, if this process was started by its name alone,
/// as `Cast` does: its layout's number and the words of its command line come by
/// standard input. Among all tests it does nothing.
#[test]
fn plays_another_version() {
    let mut input = String::new();
    let is_alone = std::env::args().any(|word| word == "--exact");
    if !is_alone || std::io::stdin().read_to_string(&mut input).is_err() {
        return;
    }
    let mut lines = input.lines();
    let Some(version) = lines.next().and_then(|line| line.parse::<u32>().ok()) else {
        return;
    };
    let layouts = [older(), newer()];
    let layout = layouts.into_iter().find(|it| it.version == version);
    let words = std::iter::once("palisade").chain(lines);
    let words: Vec<OsString> = words.map(OsString::from).collect();
    let outcome = cli::main_with(&words, layout.expect("a version that is played"));
    assert_eq!(format!("{outcome:?}"), format!("{:?}", ExitCode::SUCCESS));
}

/// Programs that are started as the agent of a version.
struct Cast {
    folder: tempfile::TempDir,
}

impl Cast {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        Self { folder }
    }

    /// The program of a version; that of this one is the real binary.
    fn program(&self, layout: Layout) -> PathBuf {
        if layout == Layout::current() {
            return exe().to_owned();
        }
        let path = self.folder.path().join(format!("v{}", layout.version));
        let tests = std::env::current_exe().expect("our own path");
        let text = format!(
            "#!/bin/sh\n\
             if [ \"$1\" != agent ]; then exec {} \"$@\"; fi\n\
             exec {} upgrade::plays_another_version --exact --nocapture <<END\n\
             {}\n$(printf '%s\\n' \"$@\")\nEND\n",
            exe().display(),
            tests.display(),
            layout.version,
        );
        if !path.exists() {
            fs::write(&path, text).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        path
    }
}

/// The versions that have pins.
fn versions(world: &World) -> Vec<u32> {
    let entries = fs::read_dir(world.sandbox.path("bpf")).expect("pins");
    let version = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("a pin").file_name();
        let name = name.to_string_lossy().into_owned();
        name.rsplit_once("_v").and_then(|(_, it)| it.parse().ok())
    };
    let mut versions: Vec<u32> = entries.filter_map(version).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// Each version takes over from the one before, under streams.
fn relay(lives: &[(Layout, Signal)]) {
    if !privileged() {
        return;
    }
    let cast = Cast::new();
    let mut world = World::bare();
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.run_as_agent(&cast.program(lives[0].0));
    world.start_agent();
    streams::prepare(&mut world);
    assert_eq!(versions(&world), [lives[0].0.version]);
    let revision = world.revision();
    let streams = Streams::start(&mut world);
    for pair in lives.windows(2) {
        let ((from, signal), (to, _)) = (pair[0], pair[1]);
        sleep(A_WHILE);
        world.agent().end(signal).expect("the agent ends");
        sleep(A_WHILE);
        world.run_as_agent(&cast.program(to));
        world.start_agent();
        assert_eq!(versions(&world), [to.version], "{from:?} to {to:?}");
    }
    sleep(A_WHILE);
    let report = streams.finish(&mut world);
    println!("{report}");
    let faults = report.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(world.revision(), revision, "nothing has changed");
    let verified = world.client(&["status", "--verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn upgrade_and_downgrade_lose_nothing_and_pass_nothing() {
    let current = Layout::current();
    relay(&[
        (older(), Signal::TERM),
        (current, Signal::TERM),
        (older(), Signal::KILL),
        (current, Signal::KILL),
    ]);
}

#[test]
fn the_same_with_a_version_whose_conntrack_is_shared() {
    let current = Layout::current();
    relay(&[
        (current, Signal::TERM),
        (newer(), Signal::KILL),
        (current, Signal::TERM),
    ]);
}

/// Agents of two versions are killed at any moment of their start, in turns.
#[test]
fn takeovers_that_are_killed_at_any_moment_lose_nothing() {
    if !privileged() {
        return;
    }
    let cast = Cast::new();
    let mut world = World::new();
    streams::prepare(&mut world);
    let streams = Streams::start(&mut world);
    let turns = [older(), Layout::current(), newer(), Layout::current()];
    let (mut pause, mut left) = (60, rounds());
    while left > 0 {
        for layout in turns {
            world.agent().end(Signal::KILL).expect("the agent ends");
            world.run_as_agent(&cast.program(layout));
            world.launch_agent();
            sleep(Duration::from_millis(pause));
            // Moments between 0 and 1.2 s, in no order.
            pause = (pause * 7 + 131) % 1_200;
            left = left.saturating_sub(1);
        }
    }
    world.agent().end(Signal::KILL).expect("the agent ends");
    world.run_as_agent(exe());
    world.start_agent();
    sleep(A_WHILE);
    let report = streams.finish(&mut world);
    println!("{report}");
    let faults = report.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(versions(&world), [ABI_VERSION]);
}

/// How many starts are killed: few, or as many as `cargo xtask upgrades` says.
fn rounds() -> u32 {
    let given = std::env::var("PALISADE_UPGRADES").ok();
    given.and_then(|given| given.parse().ok()).unwrap_or(8)
}
