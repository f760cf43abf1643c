//! A door for keys and values that others wrote, as the agent hears them: in a
//! list, and as one change. For the fuzz target and the replay of its finds
//! (`fuzz/`); the agent does not pass here.

use super::heard::{Entry, Heard};
use super::keys::Name;
use super::mirror::{Mirror, Told};
use super::translate::Own;
use crate::events::RepositoryChange;

/// What follows from a key with its value: changes of the list that holds it, and
/// what `status` says against it.
///
/// # Panics
/// When the two ways in which a value is heard differ, or when a key where
/// something is read is neither taken nor refused.
#[must_use]
pub fn hear(key: &str, value: &[u8]) -> (Vec<RepositoryChange>, Vec<String>) {
    let own = Own {
        cluster: "default".to_owned(),
        node: "here".to_owned(),
    };
    let entry = || {
        let (key, value) = (key.to_owned(), value.to_vec());
        Heard::Entry(Entry { key, value })
    };
    let changes = |told: Vec<Told>| -> Vec<RepositoryChange> {
        told.into_iter().map(|told| told.change).collect()
    };
    let mut listed = Mirror::new(own.clone(), []);
    // The first list is told as it comes, as changes are.
    listed.take(Heard::Begins);
    listed.take(Heard::Whole);
    listed.take(Heard::Begins);
    listed.take(entry());
    let of_list = changes(listed.take(Heard::Whole));
    let mut watched = Mirror::new(own, []);
    let of_watch = changes(watched.take(entry()));
    assert_eq!(of_list, of_watch, "{key}");

    let problems = |mirror: &Mirror| -> Vec<String> {
        let broken = mirror.broken().map(|(key, problem, _)| {
            assert!(!problem.is_empty(), "{key}: refused without a reason");
            format!("{key}: {problem}")
        });
        broken.collect()
    };
    let said = problems(&listed);
    assert_eq!(said, problems(&watched));
    assert!(of_list.len() + said.len() <= 1, "{of_list:?} {said:?}");
    if matches!(Name::of(key), Some(Err(_)) | None) {
        assert!(of_list.is_empty(), "{key} names nothing");
    }
    (of_list, said)
}
