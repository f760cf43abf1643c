//! `/monitor`: a stream of events, one JSON object a line.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::reply::Refusal;
use crate::api::Agent;
use crate::model::EventKind;
use crate::monitor::{Filter, Subscription};

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// Comma-separated; empty: all.
    #[serde(default)]
    kinds: String,
    from: Option<u16>,
    to: Option<u16>,
    related_to: Option<u16>,
}

pub(super) async fn monitor(
    State(agent): State<Arc<Agent>>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let mut filter = Filter {
        from: wanted.from,
        to: wanted.to,
        related_to: wanted.related_to,
        ..Filter::default()
    };
    for word in wanted.kinds.split(',').filter(|word| !word.is_empty()) {
        let kind = EventKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word);
        let kind = kind.ok_or_else(|| Refusal::bad(format!("`{word}` is not a kind of event")))?;
        filter.kinds.insert(kind);
    }
    let body = Body::from_stream(lines(agent.monitor.subscribe(filter)));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// An empty line first, so that the answer's head leaves at once.
fn lines(
    subscription: Subscription,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    futures_util::stream::unfold(
        (subscription, true),
        |(mut subscription, first)| async move {
            let line = if first {
                "\n".to_owned()
            } else {
                let event = subscription.next().await?;
                let mut line = serde_json::to_string(&event).unwrap_or_default();
                line.push('\n');
                line
            };
            Some((Ok(Bytes::from(line)), (subscription, false)))
        },
    )
}
