//! The thread on real directories: what files do is told within a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::watch::{ManifestWatch, Stopper};
use crate::clock::SystemClock;
use crate::events::{RepositoryChange, ResourceKey, ResourceKind, SourceName};
use crate::limits::MANIFEST_FILE_BYTES_MAX;
use crate::queues::SubmitError;
use crate::sources::{ChangeSink, SourceBoard};

/// Sends every change as a word.
struct Recorder(Sender<String>);

impl ChangeSink for Recorder {
    fn submit(&self, change: RepositoryChange) -> Result<(), SubmitError> {
        let word = match &change {
            RepositoryChange::Upsert(resource) => format!("+{}", resource.key.name),
            RepositoryChange::Delete { key, .. } => format!("-{}", key.name),
            RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => "?".to_owned(),
        };
        self.0.send(word).map_err(|_| SubmitError::Stopped)
    }
    fn in_sync(
        &self,
        source: SourceName,
        owned: &std::collections::BTreeSet<ResourceKey>,
    ) -> Result<(), SubmitError> {
        let word = format!("sync {} {}", source.as_str(), owned.len());
        self.0.send(word).map_err(|_| SubmitError::Stopped)
    }
    fn freed(&self, _source: SourceName) -> std::collections::BTreeSet<ResourceKind> {
        std::collections::BTreeSet::new()
    }
}

struct Watched {
    directory: tempfile::TempDir,
    changes: Receiver<String>,
    board: Arc<SourceBoard>,
    stopper: Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watched {
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        prepare(directory.path());
        let (sender, changes) = bounded(1_024);
        let board = Arc::new(SourceBoard::default());
        let watch = ManifestWatch::new(
            &[directory.path().join("m")],
            Vec::new(),
            Arc::new(Recorder(sender)),
            Arc::clone(&board),
            Arc::new(SystemClock::default()),
        );
        let stopper = watch.stopper();
        let thread = std::thread::spawn(move || watch.run());
        Self {
            directory,
            changes,
            board,
            stopper,
            thread: Some(thread),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("m").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn expect(&self, word: &str) {
        let told = self.changes.recv_timeout(Duration::from_secs(1));
        assert_eq!(told.as_deref(), Ok(word));
    }

    fn expect_silence(&self) {
        let told = self.changes.recv_timeout(Duration::from_millis(600));
        assert!(told.is_err(), "{told:?}");
    }

    /// The report follows the changes.
    fn expect_problems(&self, count: usize) {
        let mut found = usize::MAX;
        for _ in 0..100 {
            let reports = self.board.reports();
            let report = reports.get(&SourceName::Manifests);
            found = report.map_or(0, |report| report.problems.len());
            if found == count {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(found, count);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread ends well");
        }
    }
}

fn policy(name: &str, port: u16) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: {name}\n\
         spec:\n  nodeSelector: {{}}\n  ingress:\n  - toPorts:\n    - ports:\n      \
         - port: \"{port}\"\n        protocol: TCP\n"
    )
}

fn with_directory() -> Watched {
    let watched = Watched::start(|root| fs::create_dir(root.join("m")).expect("a directory"));
    watched.expect("sync manifests 0");
    watched
}

#[test]
fn what_lies_there_is_told_before_in_sync() {
    let watched = Watched::start(|root| {
        let directory = root.join("m");
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join("b.yml"), policy("b", 1)).expect("a file");
        fs::write(directory.join("a.yaml"), policy("a", 1)).expect("a file");
        fs::write(directory.join("notes.txt"), "hello").expect("a file");
        fs::write(directory.join(".hidden.yaml"), policy("h", 1)).expect("a file");
        fs::write(directory.join("a.yaml~"), policy("t", 1)).expect("a file");
        fs::create_dir(directory.join("d.yaml")).expect("a directory");
    });
    watched.expect("+a");
    watched.expect("+b");
    watched.expect("sync manifests 2");
    watched.expect_silence();
}

#[test]
fn write_edit_rename_over_and_delete() {
    let watched = with_directory();
    watched.write("a.yaml", &policy("a", 22));
    watched.expect("+a");
    watched.write("a.yaml", &policy("a", 23));
    watched.expect("+a");
    fs::write(watched.path(".a.tmp"), policy("a", 24)).expect("a file");
    fs::rename(watched.path(".a.tmp"), watched.path("a.yaml")).expect("rename");
    watched.expect("+a");
    watched.write("a.yaml", &policy("a", 24));
    watched.expect_silence();
    fs::rename(watched.path("a.yaml"), watched.path("a.yaml.off")).expect("rename");
    watched.expect("-a");
    fs::rename(watched.path("a.yaml.off"), watched.path("b.yaml")).expect("rename");
    watched.expect("+a");
    fs::remove_file(watched.path("b.yaml")).expect("remove");
    watched.expect("-a");
}

#[test]
fn a_half_written_file_is_not_read() {
    use std::io::Write;
    let watched = with_directory();
    watched.write("a.yaml", &policy("a", 22));
    watched.expect("+a");
    // Truncated and filled again slowly: never seen as empty.
    let mut file = fs::File::create(watched.path("a.yaml")).expect("a file");
    let text = policy("a", 25);
    for part in text.as_bytes().chunks(40) {
        std::thread::sleep(Duration::from_millis(100));
        file.write_all(part).expect("written");
    }
    drop(file);
    watched.expect("+a");
    watched.expect_silence();
}

#[test]
fn a_broken_file_beside_good_ones() {
    let watched = with_directory();
    watched.write("a.yaml", &policy("a", 22));
    watched.expect("+a");
    watched.write("a.yaml", "kind: [\n");
    watched.write("b.yaml", &policy("b", 22));
    watched.expect("+b");
    watched.expect_problems(1);
    fs::remove_file(watched.path("a.yaml")).expect("remove");
    watched.expect("-a");
    watched.expect_problems(0);
}

#[test]
fn a_directory_that_is_missing_or_vanishes_deletes_nothing() {
    let watched = Watched::start(|_| {});
    watched.expect_silence();
    watched.expect_problems(1);
    let directory = watched.path("");
    fs::create_dir(&directory).expect("a directory");
    watched.write("a.yaml", &policy("a", 22));
    let mut told = Vec::new();
    while !told.iter().any(|word: &String| word.starts_with("sync")) || told.len() < 2 {
        let word = watched.changes.recv_timeout(Duration::from_secs(2));
        told.push(word.expect("a change and in-sync"));
    }
    assert!(told.contains(&"+a".to_owned()), "{told:?}");
    fs::rename(&directory, watched.directory.path().join("away")).expect("rename");
    watched.expect_silence();
    fs::rename(watched.directory.path().join("away"), &directory).expect("rename");
    std::thread::sleep(Duration::from_millis(700));
    // The directory that came back is listened to again.
    watched.write("c.yaml", &policy("c", 22));
    watched.expect("+c");
}

#[test]
fn a_changed_symlink_is_seen() {
    let watched = with_directory();
    let (one, two) = (watched.path("..one"), watched.path("..two"));
    for (directory, port) in [(&one, 1), (&two, 2)] {
        fs::create_dir(directory).expect("a directory");
        fs::write(directory.join("p.yaml"), policy("p", port)).expect("a file");
    }
    // As a mounted ConfigMap does it.
    std::os::unix::fs::symlink("..one", watched.path("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/p.yaml", watched.path("p.yaml")).expect("a link");
    watched.expect("+p");
    std::os::unix::fs::symlink("..two", watched.path("..new")).expect("a link");
    fs::rename(watched.path("..new"), watched.path("..data")).expect("rename");
    watched.expect("+p");
}

#[test]
fn many_files_at_once() {
    let watched = with_directory();
    for number in 0..300 {
        watched.write(
            &format!("f{number:03}.yaml"),
            &policy(&format!("p{number:03}"), 22),
        );
    }
    let mut told: Vec<String> = (0..300)
        .map(|_| {
            watched
                .changes
                .recv_timeout(Duration::from_secs(2))
                .expect("a change")
        })
        .collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 300);
}

#[test]
fn a_file_that_is_too_large_is_reported_and_keeps_what_it_held() {
    let watched = with_directory();
    watched.write("a.yaml", &policy("a", 22));
    watched.expect("+a");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(watched.path("a.yaml"));
    let file = file.expect("a file");
    file.set_len(MANIFEST_FILE_BYTES_MAX + 1).expect("a length");
    drop(file);
    watched.expect_silence();
    watched.expect_problems(1);
    fs::remove_file(watched.path("a.yaml")).expect("remove");
    watched.expect("-a");
    watched.expect_problems(0);
}
