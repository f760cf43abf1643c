//! Feeds against a small server of our own, for what the servers of
//! `tests/kubernetes.rs` cannot show in the order that is wanted: a stream that is
//! refused once it has begun, a version refused before a watch begins, silence.
//! What it says is said as real servers do (`cargo xtask streaming`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::access::{Access, Doors};
use super::feed::{Calls, Feed};
use super::heard::{Heard, What};
use super::kinds::WATCHED;
use super::needs::{Order, all};
use super::outlet::Outlet;
use crate::events::ResourceKind;
use crate::limits::KUBERNETES_HEARD_MAX;
use crate::sources::marked::marked;
use crate::sources::remote::Pace;

/// Longer than a loaded machine takes to answer.
const SILENCE: Duration = Duration::from_secs(1);
/// An answer that begins and says nothing.
const SILENT: &str = "silent";

/// What the server was asked for, and what it answers, in this order; the last
/// answer is never given.
#[derive(Clone, Default)]
struct Script {
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
}

async fn answer(State(script): State<Script>, RawQuery(query): RawQuery) -> Response {
    script.asked.lock().push(query.unwrap_or_default());
    let next = script.answers.lock().pop_front();
    match next {
        Some((code, body)) => {
            let code = StatusCode::from_u16(code).expect("a code");
            if body == SILENT {
                let nothing = stream::pending::<Result<String, std::io::Error>>();
                return (code, Body::from_stream(nothing)).into_response();
            }
            (code, body).into_response()
        }
        None => std::future::pending().await,
    }
}

/// Runs the feed of nodes against the answers until it has told `count` things.
async fn hear(answers: &[(u16, String)], count: usize) -> (Vec<String>, Vec<String>) {
    let script = Script::default();
    script.answers.lock().extend(answers.iter().cloned());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(answer).with_state(script.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kubeconfig");
    let text = json!({"clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}], "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&file, text.to_string()).expect("a kubeconfig");
    let (heard, mut telling) = mpsc::channel(KUBERNETES_HEARD_MAX);
    let watched = WATCHED.iter().find(|it| it.kind == ResourceKind::Node);
    let access = Access {
        kubeconfig: Some(file),
        context: None,
        status_lease: Duration::from_secs(300),
    };
    let feed = Feed {
        outlet: Outlet::Kind {
            watched: watched.expect("nodes"),
            node: "a".to_owned(),
            heard,
        },
        doors: Doors::new(access, marked().0),
        pace: Pace::new("test"),
        calls: Calls::default(),
        reached: Arc::default(),
        streams: true,
        silence: SILENCE,
        yields_to: None,
        leads: None,
        order: all(),
        version: String::new(),
        place: None,
        asked: Order::default(),
    };
    let feed = tokio::spawn(feed.run());
    let mut words = Vec::new();
    while words.len() < count {
        let Heard { what, .. } = telling.recv().await.expect("the feed goes on");
        words.push(word(&what));
    }
    feed.abort();
    server.abort();
    let asked = script.asked.lock().clone();
    (words, asked)
}

fn word(what: &What) -> String {
    match what {
        What::Begins => "begins".to_owned(),
        What::Object(object) => format!("+{}", object.key.name),
        What::Gone(object) => format!("-{}", object.key.name),
        What::Whole(_) => "whole".to_owned(),
        What::Follows => "follows".to_owned(),
        What::Absent(why) => format!("absent: {why}"),
        What::Trouble(message) => format!("trouble: {message}"),
        What::Unneeded => "unneeded".to_owned(),
        What::Tick => "tick".to_owned(),
    }
}

fn node(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

/// Lines of a watch.
fn events(events: &[(&str, Value)]) -> String {
    let lines = events
        .iter()
        .map(|(kind, object)| format!("{}\n", json!({"type": kind, "object": object})));
    lines.collect()
}

fn bookmark(version: u32, ends: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if ends {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
}

fn status(code: u16) -> String {
    json!({"kind": "Status", "status": "Failure", "code": code, "message": "no"}).to_string()
}

fn list(names: &[&str], version: u32, next: &str) -> String {
    let items: Vec<Value> = names.iter().map(|name| node(name, version)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    json!({"metadata": metadata, "items": items}).to_string()
}

#[tokio::test]
async fn a_list_comes_as_a_stream_where_the_server_has_it() {
    let stream = events(&[
        ("ADDED", node("a", 3)),
        ("ADDED", node("b", 5)),
        ("BOOKMARK", bookmark(7, true)),
        ("DELETED", node("a", 8)),
        ("BOOKMARK", bookmark(9, false)),
    ]);
    let changed = events(&[("MODIFIED", node("b", 10))]);
    let (words, asked) = hear(&[(200, stream), (200, changed)], 8).await;
    let expected = [
        "begins", "+a", "+b", "whole", "follows", "-a", "follows", "+b",
    ];
    assert_eq!(words, expected);
    assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(asked[0].contains("resourceVersionMatch=NotOlderThan"));
    // It goes on from the bookmark, and lists nothing again.
    assert!(asked[1].contains("resourceVersion=9"), "{asked:?}");
    assert!(!asked[1].contains("sendInitialEvents"), "{asked:?}");
}

#[tokio::test]
async fn pages_are_asked_for_where_streams_are_refused() {
    let answers = [
        (422, status(422)),
        (200, list(&["a"], 5, "more")),
        (200, list(&["b"], 5, "")),
        (200, events(&[("ADDED", node("c", 6))])),
    ];
    let (words, asked) = hear(&answers, 6).await;
    assert_eq!(words, ["begins", "+a", "+b", "whole", "follows", "+c"]);
    assert!(asked[1].contains("limit="), "{asked:?}");
    assert!(asked[2].contains("continue=more"), "{asked:?}");
    assert!(asked[3].contains("allowWatchBookmarks=true"), "{asked:?}");
    assert!(asked[3].contains("resourceVersion=5"), "{asked:?}");
}

#[tokio::test]
async fn an_expired_version_lists_again_wherever_the_server_says_so() {
    let gone = events(&[("ERROR", serde_json::from_str(&status(410)).expect("JSON"))]);
    let answers = [
        (422, status(422)),
        (200, list(&["a"], 5, "")),
        // In the stream, and before it begins.
        (200, gone),
        (200, list(&["b"], 8, "")),
        (410, status(410)),
        (200, list(&["c"], 9, "")),
    ];
    let (words, _) = hear(&answers, 10).await;
    let expected = [
        "begins", "+a", "whole", "follows", "begins", "+b", "whole", "begins", "+c", "whole",
    ];
    assert_eq!(words, expected);
}

#[tokio::test]
async fn what_the_server_refuses_is_told_and_tried_again() {
    let answers = [(403, status(403)), (503, status(503)), (422, status(422))];
    let (words, asked) = hear(&answers, 3).await;
    assert!(
        words[0].starts_with("trouble: the server answers 403"),
        "{words:?}"
    );
    assert!(
        words[1].starts_with("trouble: the server answers 503"),
        "{words:?}"
    );
    assert_eq!(words[2], "begins");
    assert!(asked.len() >= 3);
}

#[tokio::test]
async fn a_store_set_back_is_listed_again_after_a_silence() {
    let answers = [
        (422, status(422)),
        (200, list(&["a"], 50, "")),
        (200, SILENT.to_owned()),
        // Its newest version, asked for with one object.
        (200, list(&["b"], 50, "")),
        (200, SILENT.to_owned()),
        (200, list(&["b"], 7, "")),
        (200, list(&["b"], 7, "")),
    ];
    let (words, asked) = hear(&answers, 8).await;
    let expected = [
        "begins", "+a", "whole", "follows", "follows", "begins", "+b", "whole",
    ];
    assert_eq!(words, expected);
    assert!(asked[2].contains("resourceVersion=50"), "{asked:?}");
    assert!(asked[3].contains("limit=1"), "{asked:?}");
    assert!(asked[4].contains("resourceVersion=50"), "{asked:?}");
}

/// What a server of Kubernetes 1.36 says where its etcd is older than 3.4.25.
#[tokio::test]
async fn pages_are_asked_for_where_a_stream_begins_and_cannot_be_given() {
    let error = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a watch stream was requested by the client but the required storage \
                    feature RequestWatchProgress is disabled",
        "reason": "InternalError", "code": 500});
    let answers = [
        (200, events(&[("ERROR", error)])),
        (200, list(&["a"], 5, "")),
        (200, events(&[("ADDED", node("b", 6))])),
    ];
    let (words, asked) = hear(&answers, 6).await;
    let expected = ["begins", "begins", "+a", "whole", "follows", "+b"];
    assert_eq!(words, expected);
    assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(asked[1].contains("limit="), "{asked:?}");
}
