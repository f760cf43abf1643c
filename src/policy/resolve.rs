//! From a snapshot to the verdict tables of one endpoint. Pure.

use std::sync::Arc;

use palisade_abi::table::{Cell, action, column};

use super::{Direction, DirectionPolicy, EndpointPolicy, PolicySnapshot, VerdictTable};
use crate::events::EndpointId;

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
    #[error("{needed} identities, {max} fit; use fewer CIDR prefixes")]
    Identities { needed: usize, max: usize },
}

/// The verdicts of `subject`. `audit`: the endpoint's own audit switch (the
/// agent's is in the snapshot).
pub fn resolve(
    snapshot: &PolicySnapshot,
    subject: Subject,
    audit: bool,
) -> Result<EndpointPolicy, ResolveError> {
    let audit = audit || snapshot.options.audit;
    let open = |_: Direction| {
        Arc::new(DirectionPolicy {
            enforced: false,
            audit,
            enforcing: Vec::new(),
            table: VerdictTable {
                rows: vec![0],
                columns: [
                    vec![0; 65_536],
                    vec![0; 65_536],
                    vec![0; 65_536],
                    vec![0; column::OTHER_KEYS],
                ],
                column_count: 1,
                cells: vec![Cell::new(action::ALLOW, false, 0)],
            },
        })
    };
    Ok(EndpointPolicy {
        endpoint: subject.endpoint(),
        revision: snapshot.revision,
        directions: Direction::BOTH.map(open),
        rules: Arc::clone(&snapshot.rules),
    })
}
