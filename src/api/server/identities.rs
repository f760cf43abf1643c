//! `/identities` and `/ips`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::reply::{Refusal, Reply};
use crate::api::Agent;
use crate::identity::{IdentityNumber, IpcacheEntry, Reserved};
pub(super) use crate::model::labels_of as labels;
use crate::model::{Identity, IpEntry};
use crate::policy::PolicySnapshot;

pub(super) async fn list(State(agent): State<Arc<Agent>>) -> Json<Vec<Identity>> {
    Json(Identity::all(&agent.pipeline.repository()))
}

pub(super) async fn get(State(agent): State<Arc<Agent>>, Path(id): Path<u32>) -> Reply<Identity> {
    let snapshot = agent.pipeline.repository();
    let number = IdentityNumber(id);
    if snapshot.identities.get(number).is_none() {
        return Err(Refusal::not_found(format!(
            "no identity {id}; `palisade identity list` shows them"
        )));
    }
    Ok(Json(Identity {
        id,
        labels: labels(&snapshot, number),
    }))
}

pub(super) async fn ips(State(agent): State<Arc<Agent>>) -> Json<Vec<IpEntry>> {
    let snapshot = agent.pipeline.repository();
    let v4 = snapshot
        .ipcache4
        .iter()
        .map(|(net, entry)| (IpNet::V4(*net), *entry));
    let v6 = snapshot
        .ipcache6
        .iter()
        .map(|(net, entry)| (IpNet::V6(*net), *entry));
    Json(
        v4.chain(v6)
            .map(|(net, entry)| ip_entry(&snapshot, net, entry))
            .collect(),
    )
}

fn ip_entry(snapshot: &PolicySnapshot, net: IpNet, entry: IpcacheEntry) -> IpEntry {
    IpEntry {
        ip: net.to_string(),
        identity: entry.identity.0,
        labels: labels(snapshot, entry.identity),
        source: snapshot.ipcache_source(net).as_str().to_owned(),
    }
}

#[derive(Deserialize)]
pub(super) struct Lookup {
    ip: String,
}

/// The longest prefix that holds the address, or exactly the prefix asked for.
pub(super) async fn lookup(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<Lookup>,
) -> Reply<IpEntry> {
    let asked = query
        .ip
        .parse::<IpNet>()
        .or_else(|_| query.ip.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| Refusal::bad(format!("`{}` is neither an address nor a prefix", query.ip)))?
        .trunc();
    let snapshot = agent.pipeline.repository();
    let found = match asked {
        IpNet::V4(net) => (0..=net.prefix_len()).rev().find_map(|len| {
            let wider = Ipv4Net::new(net.addr(), len).ok()?.trunc();
            let entry = snapshot.ipcache4.get(&wider)?;
            Some((IpNet::V4(wider), *entry))
        }),
        IpNet::V6(net) => (0..=net.prefix_len()).rev().find_map(|len| {
            let wider = Ipv6Net::new(net.addr(), len).ok()?.trunc();
            let entry = snapshot.ipcache6.get(&wider)?;
            Some((IpNet::V6(wider), *entry))
        }),
    };
    match found {
        Some((net, entry)) => Ok(Json(ip_entry(&snapshot, net, entry))),
        None => Ok(Json(IpEntry {
            ip: asked.to_string(),
            identity: Reserved::World.number().0,
            labels: labels(&snapshot, Reserved::World.number()),
            source: "default".to_owned(),
        })),
    }
}
