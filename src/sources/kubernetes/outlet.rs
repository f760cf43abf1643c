//! What a feed is for: the objects of a kind, which go to the intake, or word of
//! definitions, which wakes the feeds of their kinds, or what the nodes tell of
//! themselves, which is counted.

use std::collections::BTreeMap;

use kube::Client;
use metrics::counter;
use serde_json::Value;
use tokio::sync::mpsc;

use super::feed::{Calls, Failure};
use super::heard::{Heard, What};
use super::kinds::Watched;
use super::locate::{DEFINITIONS, Found, Place, locate};
use super::needs::Scope;
use super::report::NODES;
use super::tally::{Word, lines};
use super::trim::trim;
use crate::catalogue::{SOURCE_ERRORS, SOURCE_EVENTS, SOURCE_RESYNCS};

/// Where a feed leads.
pub(super) enum Outlet {
    Kind {
        watched: &'static Watched,
        /// The name of this node.
        node: String,
        heard: mpsc::Sender<Heard>,
    },
    /// Calls by name of the definition.
    Definitions(BTreeMap<String, Calls>),
    /// What the nodes tell of themselves.
    Reports(mpsc::Sender<Word>),
}

impl Outlet {
    /// The kind in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Kind { watched, .. } => watched.kind.as_str(),
            Self::Definitions(_) => "CustomResourceDefinition",
            Self::Reports(_) => "PalisadeNode",
        }
    }

    pub(super) async fn locate(&self, client: &Client) -> Result<Found, Failure> {
        match self {
            Self::Kind { watched, .. } => locate(client, watched).await,
            Self::Definitions(_) | Self::Reports(_) => Ok(Found::Here(Place {
                version: "v1",
                uid: String::new(),
            })),
        }
    }

    pub(super) fn path(&self, place: &Place, scope: Scope) -> String {
        match self {
            Self::Kind { watched, .. } => watched.path_of(place.version, scope),
            Self::Definitions(_) => DEFINITIONS.to_owned(),
            Self::Reports(_) => NODES.to_owned(),
        }
    }

    pub(super) fn field_selector(&self, scope: Scope) -> Option<String> {
        match self {
            Self::Kind { watched, node, .. } => watched.field_selector(scope, node),
            Self::Definitions(_) | Self::Reports(_) => None,
        }
    }

    pub(super) fn label_selector(&self, scope: Scope) -> Option<String> {
        match self {
            Self::Kind { watched, .. } => watched.label_selector(scope),
            Self::Definitions(_) | Self::Reports(_) => None,
        }
    }

    pub(super) fn metadata_only(&self) -> bool {
        match self {
            Self::Kind { watched, .. } => watched.metadata_only,
            Self::Definitions(_) => true,
            Self::Reports(_) => false,
        }
    }

    pub(super) async fn tell(&self, what: What) -> Result<(), Failure> {
        let sent = match self {
            Self::Kind { watched, heard, .. } => {
                let kind = watched.kind;
                heard.send(Heard { kind, what }).await.is_ok()
            }
            Self::Reports(words) => match what {
                What::Begins => return send(words, Word::Begins).await,
                What::Whole(_) => return send(words, Word::Whole).await,
                _ => true,
            },
            Self::Definitions(_) => true,
        };
        if sent { Ok(()) } else { Err(Failure::Closed) }
    }

    /// An object of a list, or a version of one.
    pub(super) async fn object(&self, object: Value) -> Result<(), Failure> {
        self.count("object");
        match self {
            Self::Kind { watched, .. } => match trim(watched.kind, object) {
                Some(trimmed) => self.tell(What::Object(trimmed)).await,
                None => Ok(()),
            },
            Self::Definitions(calls) => {
                wake(calls, &object);
                Ok(())
            }
            Self::Reports(words) => match lines(&object) {
                Some((node, lines)) => send(words, Word::Put(node, lines)).await,
                None => Ok(()),
            },
        }
    }

    /// An object that is gone.
    pub(super) async fn gone(&self, object: Value) -> Result<(), Failure> {
        self.count("gone");
        match self {
            Self::Kind { watched, .. } => match trim(watched.kind, object) {
                Some(trimmed) => self.tell(What::Gone(trimmed)).await,
                None => Ok(()),
            },
            Self::Definitions(calls) => {
                wake(calls, &object);
                Ok(())
            }
            Self::Reports(words) => match lines(&object) {
                Some((node, _)) => send(words, Word::Gone(node)).await,
                None => Ok(()),
            },
        }
    }

    fn count(&self, event: &'static str) {
        counter!(SOURCE_EVENTS, "source" => "kubernetes", "kind" => self.label(), "event" => event)
            .increment(1);
    }

    /// Everything is listed again.
    pub(super) fn resync(&self, reason: &'static str) {
        tracing::info!(kind = self.label(), reason, "listed again");
        counter!(SOURCE_RESYNCS, "source" => "kubernetes", "kind" => self.label(), "reason" => reason)
            .increment(1);
    }

    /// Tells of a failure. None: nobody listens any more.
    pub(super) async fn failed(&self, failure: &Failure) -> Option<()> {
        counter!(SOURCE_ERRORS, "source" => "kubernetes", "kind" => self.label()).increment(1);
        tracing::debug!(kind = self.label(), "{failure}");
        let told = self.tell(What::Trouble(failure.to_string())).await;
        told.ok()
    }
}

async fn send(words: &mpsc::Sender<Word>, word: Word) -> Result<(), Failure> {
    let sent = words.send(word).await;
    sent.map_err(|_closed| Failure::Closed)
}

fn wake(calls: &BTreeMap<String, Calls>, definition: &Value) {
    let name = definition["metadata"]["name"].as_str();
    if let Some(calls) = name.and_then(|name| calls.get(name)) {
        calls.located.notify_one();
    }
}
