//! When the files are looked at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pending::{Pending, Touch};
use crate::clock::Moment;
use crate::limits::{MANIFEST_DEBOUNCE, MANIFEST_DEBOUNCE_MAX, MANIFEST_WRITER_QUIET};

fn at(ms: u64) -> Moment {
    Moment(Duration::from_millis(ms))
}

fn file() -> PathBuf {
    PathBuf::from("/m/a.yaml")
}

#[test]
fn silence_makes_it_due() {
    let mut pending = Pending::default();
    assert_eq!(pending.due(), None);
    pending.note(file(), Touch::Settled, at(1_000));
    assert_eq!(pending.due(), Some(at(1_000).after(MANIFEST_DEBOUNCE)));
    pending.note(file(), Touch::Settled, at(1_040));
    assert_eq!(pending.due(), Some(at(1_040).after(MANIFEST_DEBOUNCE)));
    let look = pending.take(at(1_090));
    assert!(look.must_read(&file()) && !look.is_busy(&file()) && look.is_complete());
    assert!(!look.must_read(Path::new("/m/other.yaml")));
    assert_eq!(pending.due(), None);
}

#[test]
fn a_stream_of_events_does_not_put_it_off_for_ever() {
    let mut pending = Pending::default();
    for ms in (0..2_000).step_by(20) {
        pending.note(file(), Touch::Settled, at(ms));
    }
    assert_eq!(pending.due(), Some(at(0).after(MANIFEST_DEBOUNCE_MAX)));
}

#[test]
fn a_file_that_is_being_written_waits_for_its_writer() {
    let mut pending = Pending::default();
    pending.note(file(), Touch::Writing, at(0));
    let look = pending.take(at(60));
    assert!(look.is_busy(&file()) && !look.is_complete());
    assert!(pending.due().is_some(), "it is looked at again");
    // Closed: at once.
    pending.note(file(), Touch::Settled, at(100));
    let look = pending.take(at(150));
    assert!(!look.is_busy(&file()) && look.must_read(&file()));
    assert_eq!(pending.due(), None);
}

#[test]
fn a_writer_that_never_closes_is_read_after_it_was_quiet() {
    let mut pending = Pending::default();
    pending.note(file(), Touch::Writing, at(0));
    assert!(pending.take(at(60)).is_busy(&file()));
    let quiet = at(0).after(MANIFEST_WRITER_QUIET);
    let look = pending.take(quiet);
    assert!(!look.is_busy(&file()) && look.must_read(&file()));
    assert_eq!(pending.due(), None);
}
