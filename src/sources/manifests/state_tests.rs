//! What follows from what was seen of the files.

use std::path::Path;

use super::state::{ManifestState, Observation};
use crate::events::RepositoryChange;

fn policy(name: &str, port: u16) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: {name}\n\
         spec:\n  nodeSelector: {{}}\n  ingress:\n  - toPorts:\n    - ports:\n      \
         - port: \"{port}\"\n        protocol: TCP\n"
    )
}

fn see(state: &mut ManifestState, path: &str, text: &str) {
    state.observe(Path::new(path), Observation::Content(text.into()));
}

/// `+name` and `-name` of each change.
fn settle(state: &mut ManifestState) -> Vec<String> {
    let words = |change: RepositoryChange| match change {
        RepositoryChange::Upsert(resource) => {
            let file = resource.origin.file.rsplit('/').next().map(str::to_owned);
            format!("+{}@{}", resource.key.name, file.unwrap_or_default())
        }
        RepositoryChange::Delete { key, .. } => format!("-{}", key.name),
        RepositoryChange::LocalAddresses(_) | RepositoryChange::NodeLabels(_) => "?".to_owned(),
    };
    state.settle().changes.into_iter().map(words).collect()
}

fn problems(state: &ManifestState) -> Vec<String> {
    let problems = state.problems().into_iter();
    problems
        .map(|problem| format!("{}: {}", problem.subject, problem.message))
        .collect()
}

#[test]
fn new_changed_and_deleted_files() {
    let mut state = ManifestState::default();
    see(&mut state, "/m/a.yaml", &policy("a", 22));
    see(&mut state, "/m/b.yaml", &policy("b", 80));
    assert_eq!(settle(&mut state), ["+a@a.yaml", "+b@b.yaml"]);
    assert!(settle(&mut state).is_empty());
    see(&mut state, "/m/a.yaml", &policy("a", 22));
    assert!(settle(&mut state).is_empty(), "the same again is no change");
    see(&mut state, "/m/a.yaml", &policy("a", 23));
    assert_eq!(settle(&mut state), ["+a@a.yaml"]);
    state.observe(Path::new("/m/b.yaml"), Observation::Gone);
    state.observe(Path::new("/m/unknown.yaml"), Observation::Gone);
    assert_eq!(settle(&mut state), ["-b"]);
    assert_eq!(state.keys().len(), 1);
}

#[test]
fn a_document_that_left_a_valid_file_is_deleted() {
    let mut state = ManifestState::default();
    let both = format!("{}---\n{}", policy("a", 22), policy("b", 80));
    see(&mut state, "/m/x.yaml", &both);
    assert_eq!(settle(&mut state), ["+a@x.yaml", "+b@x.yaml"]);
    see(&mut state, "/m/x.yaml", &policy("b", 80));
    let changes = settle(&mut state);
    assert!(changes.contains(&"-a".to_owned()), "{changes:?}");
    see(&mut state, "/m/x.yaml", "");
    assert_eq!(settle(&mut state), ["-b"]);
}

#[test]
fn a_broken_file_keeps_what_it_held() {
    let mut state = ManifestState::default();
    see(&mut state, "/m/a.yaml", &policy("a", 22));
    see(&mut state, "/m/b.yaml", &policy("b", 80));
    settle(&mut state);
    see(&mut state, "/m/a.yaml", "kind: [unclosed\n");
    assert!(settle(&mut state).is_empty());
    let told = problems(&state);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("/m/a.yaml:"), "{told:?}");
    assert!(
        told[0].contains("last valid version of CiliumClusterwideNetworkPolicy/a"),
        "{told:?}"
    );
    // Still broken in another way: still kept.
    see(&mut state, "/m/a.yaml", "\u{0}");
    assert!(settle(&mut state).is_empty());
    // Valid again, with other content: what it does not hold any more goes.
    see(&mut state, "/m/a.yaml", &policy("c", 25));
    assert_eq!(settle(&mut state), ["+c@a.yaml", "-a"]);
    assert!(problems(&state).is_empty());
}

#[test]
fn one_broken_document_does_not_hide_the_others() {
    let mut state = ManifestState::default();
    let both = format!("{}---\n{}", policy("a", 22), policy("b", 80));
    see(&mut state, "/m/x.yaml", &both);
    settle(&mut state);
    // The first one lost its name: it may be `a`, so `a` stays; `b` changes.
    let nameless = "kind: CiliumClusterwideNetworkPolicy\napiVersion: cilium.io/v2\nspec: {}\n";
    see(
        &mut state,
        "/m/x.yaml",
        &format!("{nameless}---\n{}", policy("b", 81)),
    );
    assert_eq!(settle(&mut state), ["+b@x.yaml"]);
    assert_eq!(state.keys().len(), 2);
    assert_eq!(problems(&state).len(), 1);
}

#[test]
fn a_deleted_broken_file_takes_its_resources_along() {
    let mut state = ManifestState::default();
    see(&mut state, "/m/a.yaml", &policy("a", 22));
    settle(&mut state);
    see(&mut state, "/m/a.yaml", "{");
    settle(&mut state);
    state.observe(Path::new("/m/a.yaml"), Observation::Gone);
    assert_eq!(settle(&mut state), ["-a"]);
    assert!(problems(&state).is_empty());
}

#[test]
fn an_unreadable_file_keeps_what_it_held() {
    let mut state = ManifestState::default();
    see(&mut state, "/m/a.yaml", &policy("a", 22));
    settle(&mut state);
    let denied = Observation::Unreadable("Permission denied".to_owned());
    state.observe(Path::new("/m/a.yaml"), denied);
    assert!(settle(&mut state).is_empty());
    let told = problems(&state);
    assert!(told[0].contains("Permission denied"), "{told:?}");
    see(&mut state, "/m/a.yaml", &policy("a", 22));
    assert!(problems(&state).is_empty());
}

#[test]
fn the_first_file_by_path_wins() {
    let mut state = ManifestState::default();
    see(&mut state, "/m/b.yaml", &policy("p", 80));
    assert_eq!(settle(&mut state), ["+p@b.yaml"]);
    see(&mut state, "/m/a.yaml", &policy("p", 22));
    assert_eq!(settle(&mut state), ["+p@a.yaml"]);
    let told = problems(&state);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("/m/b.yaml:1: "), "{told:?}");
    assert!(told[0].contains("/m/a.yaml:1"), "{told:?}");
    // The winner goes: the other one takes over, without a gap.
    state.observe(Path::new("/m/a.yaml"), Observation::Gone);
    assert_eq!(settle(&mut state), ["+p@b.yaml"]);
    assert!(problems(&state).is_empty());
}

#[test]
fn a_resource_may_move_to_another_file_in_one_look() {
    let mut state = ManifestState::default();
    see(&mut state, "/m/a.yaml", &policy("p", 22));
    settle(&mut state);
    state.observe(Path::new("/m/a.yaml"), Observation::Gone);
    see(&mut state, "/m/z.yaml", &policy("p", 22));
    assert_eq!(settle(&mut state), ["+p@z.yaml"], "no deletion in between");
}

#[test]
fn a_restored_resource_survives_a_broken_file() {
    let mut first = ManifestState::default();
    see(&mut first, "/m/a.yaml", &policy("a", 22));
    let restored = first
        .settle()
        .changes
        .into_iter()
        .filter_map(|change| match change {
            RepositoryChange::Upsert(resource) => Some(resource),
            _ => None,
        });
    let mut state = ManifestState::restore(restored);
    see(&mut state, "/m/a.yaml", "kind: [");
    assert!(settle(&mut state).is_empty());
    assert_eq!(state.keys().len(), 1, "it belongs to the full key set");
    state.observe(Path::new("/m/a.yaml"), Observation::Gone);
    assert_eq!(settle(&mut state), ["-a"]);
}

#[test]
fn a_file_in_no_watched_directory_is_a_stray() {
    let mut state = ManifestState::default();
    see(&mut state, "/old/a.yaml", &policy("a", 22));
    see(&mut state, "/m/b.yaml", &policy("b", 22));
    let strays = state.strays(&["/m".into()]);
    assert_eq!(strays, [Path::new("/old/a.yaml")]);
}
