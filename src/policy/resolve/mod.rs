//! From a snapshot to the verdict tables of one endpoint. Pure.
//!
//! Gather the items that select the endpoint; sweep the identities into rows
//! and the ports into columns (classes of what no rule tells apart); paint each
//! row; drop rows and columns that came out equal.

mod build;
mod classes;
mod gather;
mod paint;
mod peers;
#[cfg(test)]
mod property_tests;
mod sets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Direction, DirectionPolicy, EndpointPolicy, PolicySnapshot};
use crate::events::EndpointId;
use build::{open_table, table};
use gather::gather;
pub(super) use peers::positions;

/// The endpoint whose policy is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// The host endpoint of this node: labels and rules of `nodeSelector`.
    Host(EndpointId),
}

impl Subject {
    /// Its endpoint.
    #[must_use]
    pub fn endpoint(self) -> EndpointId {
        match self {
            Self::Host(id) => id,
        }
    }
}

/// A policy that does not fit into the tables.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResolveError {
    #[error(
        "{direction}: {rows} classes of peers x {columns} classes of ports are {needed} verdicts, \
         {max} fit; merge rules or use fewer distinct peers and ports"
    )]
    Cells {
        direction: &'static str,
        rows: usize,
        columns: usize,
        needed: usize,
        max: usize,
    },
    #[error(
        "{direction}: more than {max} classes of {what}; merge rules or use fewer distinct {what}"
    )]
    Classes {
        direction: &'static str,
        what: &'static str,
        max: usize,
    },
}

/// The verdicts of `subject`. `audit`: the endpoint's own audit switch (the
/// agent's is in the snapshot).
pub fn resolve(
    snapshot: &PolicySnapshot,
    subject: Subject,
    audit: bool,
) -> Result<EndpointPolicy, ResolveError> {
    let audit = audit || snapshot.options.audit;
    let of = |direction| {
        let gathered = gather(snapshot, subject, direction);
        let table = if gathered.enforced {
            table(&gathered, &snapshot.identities, direction, audit)?
        } else {
            open_table()
        };
        Ok(Arc::new(DirectionPolicy {
            enforced: gathered.enforced,
            watched: false,
            audit,
            enforcing: gathered.enforcing,
            table,
        }))
    };
    Ok(EndpointPolicy {
        endpoint: subject.endpoint(),
        revision: snapshot.revision,
        directions: [of(Direction::Ingress)?, of(Direction::Egress)?],
        rules: snapshot.rules.clone(),
    })
}
