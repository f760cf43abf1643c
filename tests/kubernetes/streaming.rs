//! Lists come as streams where the server streams them, and in pages where it does
//! not: what the server does is asked by the test, what the agent asked for is taken
//! from the server's own account.
//!
//! Each server has its way: the first one here is too old for streams, and
//! `cargo xtask streaming` puts one behind it that has them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::{Cluster, policy};
use crate::extension::Extension;
use crate::harness::{HTTP, SSH, until};
use crate::outage::Traffic;
use crate::server::programs;

#[test]
fn lists_come_as_the_server_has_them() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::empty(programs);
    cluster.prepare();
    let extension = Extension::start(&cluster);
    cluster.install_definitions();
    let file = cluster.server.kubeconfig();
    cluster
        .world
        .add_arguments(&["--kubernetes", "--kubeconfig", &file]);
    cluster.world.start_agent();
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);
    let streamed = expect_lists(&cluster);
    println!("streamed: {streamed:?}");
    let Some(mut extension) = extension else {
        return;
    };
    let cilium = ["ciliumclusterwidenetworkpolicies", "ciliumnetworkpolicies"];
    assert_eq!(streamed, cilium, "the newer server streams what it serves");
    changes_count(&cluster);
    outage(&mut cluster, &mut extension);
    too_old_a_store(&mut cluster, &mut extension);
    no_streams_any_more(&mut cluster, &mut extension);
}

/// A policy patched and deleted behind a streamed list.
fn changes_count(cluster: &Cluster) {
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.wait_open(&[SSH, HTTP]);
    let spec = policy("http", "other", &[HTTP])["spec"].clone();
    cluster.patch_policy("http", &serde_json::json!({"spec": spec}));
    cluster.wait_open(&[SSH]);
    cluster.delete_policy("http");
}

/// The server is killed, changed where no agent sees it, and comes back.
fn outage(cluster: &mut Cluster, extension: &mut Extension) {
    let before = Asked::of(cluster);
    let traffic = Traffic::start(cluster);
    extension.kill();
    until("the loss is told", || {
        let line = cluster.kind("CiliumClusterwideNetworkPolicy");
        (line["in_sync"] == false).then_some(())
    });
    assert!(cluster.is_open(&[SSH]), "what was told stays in force");
    extension.change_aside(cluster, &policy("both", "web", &[SSH, HTTP]), "ssh");
    assert!(cluster.is_open(&[SSH]), "nothing is heard");
    extension.serve(cluster, &[]);
    cluster.wait_open(&[SSH, HTTP]);
    traffic.expect_steady();
    until("everything is in sync again", || {
        let all = cluster.kinds();
        all.iter().all(|kind| kind["in_sync"] == true).then_some(())
    });
    let asked = Asked::of(cluster).since(&before);
    let policies = &asked.0["ciliumclusterwidenetworkpolicies"];
    println!("after an outage: {policies:?}");
    assert!(policies.streams > 0 && policies.pages == 0, "{policies:?}");
}

/// The server begins a stream, and says in it that its store cannot serve one.
fn too_old_a_store(cluster: &mut Cluster, extension: &mut Extension) {
    let before = Asked::of(cluster);
    extension.start_over(cluster, &policy("both", "web", &[HTTP]));
    // What it hears first is a list.
    cluster.world.start_agent();
    cluster.wait_open(&[HTTP]);
    let asked = Asked::of(cluster).since(&before);
    let policies = &asked.0["ciliumclusterwidenetworkpolicies"];
    println!("with an old store: {policies:?}");
    let error = streams(cluster, &policies.path).expect_err("it cannot");
    println!("it says: {error}");
    assert!(policies.pages > 0, "{policies:?}");
}

/// The same server without streams: it refuses, and gives pages.
fn no_streams_any_more(cluster: &mut Cluster, extension: &mut Extension) {
    let before = Asked::of(cluster);
    extension.kill();
    extension.change_aside(cluster, &policy("ssh", "web", &[SSH]), "both");
    extension.serve(cluster, &["--feature-gates=WatchList=false"]);
    cluster.wait_open(&[SSH]);
    let asked = Asked::of(cluster).since(&before);
    let policies = &asked.0["ciliumclusterwidenetworkpolicies"];
    println!("without streams: {policies:?}");
    assert_eq!(policies.refusals, [422], "{policies:?}");
    assert!(policies.pages > 0, "{policies:?}");
}

/// What the agent asked for of each collection that it hears was as the server has
/// it; the streamed ones.
fn expect_lists(cluster: &Cluster) -> Vec<String> {
    let asked = Asked::of(cluster);
    let mut streamed = Vec::new();
    for (resource, lists) in &asked.0 {
        let streams = streams(cluster, &lists.path);
        println!("{resource}: {lists:?}");
        if streams.is_ok() {
            assert_eq!((lists.pages, lists.refusals.len()), (0, 0), "{resource}");
            assert_eq!(lists.streams, 1, "{resource}: once to its end");
            streamed.push(resource.clone());
        } else {
            assert_eq!((lists.streams, lists.refusals.len()), (0, 1), "{resource}");
            assert!(lists.pages > 0, "{resource}");
        }
    }
    assert!(asked.0.len() > 3, "{:?}", asked.0.keys());
    streamed
}

/// What the server does when it is asked for a list as a stream; what it says
/// against it.
fn streams(cluster: &Cluster, path: &str) -> Result<(), String> {
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                 &allowWatchBookmarks=true&timeoutSeconds=1";
    let text = cluster
        .server
        .ask("GET", &format!("{path}?{query}"), None)?;
    let ends = text.contains("k8s.io/initial-events-end");
    if ends { Ok(()) } else { Err(text) }
}

/// How an agent asked for a collection.
#[derive(Clone, Default, Debug)]
struct Lists {
    path: String,
    /// Lists that were streamed.
    streams: usize,
    /// Answers to those that were refused.
    refusals: Vec<u64>,
    pages: usize,
}

/// By resource.
#[derive(Debug)]
struct Asked(BTreeMap<String, Lists>);

impl Asked {
    fn of(cluster: &Cluster) -> Self {
        let mut asked: BTreeMap<String, Lists> = BTreeMap::new();
        for request in cluster.server.asked() {
            let object = &request["objectRef"];
            let resource = object["resource"].as_str().unwrap_or_default();
            // What nodes tell is for the one agent that counts, when it does.
            let is_heard = matches!(request["verb"].as_str(), Some("list" | "watch"))
                && object["name"].is_null()
                && resource != "palisadenodes";
            if !is_heard {
                continue;
            }
            let uri = request["requestURI"].as_str().unwrap_or_default();
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let lists = asked.entry(resource.to_owned()).or_default();
            path.clone_into(&mut lists.path);
            lists.note(&request, query);
        }
        Self(asked)
    }

    fn since(mut self, before: &Self) -> Self {
        for (resource, lists) in &before.0 {
            let now = self.0.entry(resource.clone()).or_default();
            now.streams -= lists.streams;
            now.pages -= lists.pages;
            now.refusals.drain(..lists.refusals.len());
        }
        self
    }
}

impl Lists {
    fn note(&mut self, request: &Value, query: &str) {
        let code = request["responseStatus"]["code"].as_u64();
        let is_stream = query.contains("sendInitialEvents=true");
        match (request["stage"].as_str(), request["verb"].as_str(), code) {
            (Some("ResponseStarted"), Some("watch"), Some(200)) if is_stream => self.streams += 1,
            (Some("ResponseComplete"), Some("watch"), Some(code))
                // 429: ask again, the definition is new.
                if is_stream && (400..500).contains(&code) && code != 429 =>
            {
                self.refusals.push(code);
            }
            (Some("ResponseComplete"), Some("list"), Some(200)) => self.pages += 1,
            _ => {}
        }
    }
}
