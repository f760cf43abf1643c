//! Where a kind is served, asked of the server itself.
//!
//! A 404 for a collection says little: a server that is starting gives it for
//! definitions that it has not read yet. What counts is whether the definition
//! itself is there, which is a read of the server's store.

use kube::Client;
use kube::api::GetParams;
use kube::core::Request;
use serde_json::Value;

use super::feed::{Failure, answered};
use super::kinds::Watched;

pub(super) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Where a kind is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) version: &'static str,
    /// Of the definition: another one under the same name is another place.
    pub(super) uid: String,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Here(Place),
    /// Nowhere, for this reason.
    Nowhere(&'static str),
}

/// Asks where a kind is served.
pub(super) async fn locate(client: &Client, watched: &Watched) -> Result<Found, Failure> {
    if watched.is_custom {
        return definition(client, watched).await;
    }
    if watched.group.is_empty() {
        let version = watched.versions[0];
        let uid = String::new();
        return Ok(Found::Here(Place { version, uid }));
    }
    let request = Request::new("/apis").get(watched.group, &GetParams::default());
    let group: Value = match answered(client.request(request?)).await {
        Err(failure) if failure.code() == Some(404) => {
            return Ok(Found::Nowhere("the server does not know the kind"));
        }
        group => group?,
    };
    let served = |version: &str| {
        let versions = group["versions"].as_array().into_iter().flatten();
        versions.into_iter().any(|it| it["version"] == version)
    };
    choose(watched, served, String::new())
}

async fn definition(client: &Client, watched: &Watched) -> Result<Found, Failure> {
    let request = Request::new(DEFINITIONS).get(&watched.definition(), &GetParams::default());
    let definition: Value = match answered(client.request(request?)).await {
        Err(failure) if failure.code() == Some(404) => {
            return Ok(Found::Nowhere("its definition is not installed"));
        }
        definition => definition?,
    };
    let conditions = definition["status"]["conditions"].as_array();
    let is_established = conditions
        .into_iter()
        .flatten()
        .any(|it| it["type"] == "Established" && it["status"] == "True");
    if !is_established {
        return Err(Failure::Other(
            "its definition is not established yet".to_owned(),
        ));
    }
    let served = |version: &str| {
        let versions = definition["spec"]["versions"].as_array();
        let mut versions = versions.into_iter().flatten();
        versions.any(|it| it["name"] == version && it["served"] == true)
    };
    let uid = definition["metadata"]["uid"].as_str().unwrap_or_default();
    choose(watched, served, uid.to_owned())
}

fn choose(watched: &Watched, served: impl Fn(&str) -> bool, uid: String) -> Result<Found, Failure> {
    let version = watched.versions.iter().find(|version| served(version));
    match version {
        Some(version) => Ok(Found::Here(Place { version, uid })),
        None => Err(Failure::Other(format!(
            "the server serves no version of it that is read here ({})",
            watched.versions.join(", ")
        ))),
    }
}
