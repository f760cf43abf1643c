//! All endpoints of this node. Today exactly the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::endpoint::Endpoint;
use crate::events::{EndpointId, Revision};
use crate::policy::Affected;

/// Number of the host endpoint.
pub const HOST_ENDPOINT: EndpointId = EndpointId(1);

/// The endpoints, by id.
#[derive(Debug, Default)]
pub struct EndpointManager {
    endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
}

impl EndpointManager {
    /// Manages these.
    pub fn new(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        Self {
            endpoints: endpoints
                .into_iter()
                .map(|endpoint| (endpoint.id(), endpoint))
                .collect(),
        }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Those that must regenerate, and the others.
    #[must_use]
    pub fn split(&self, affected: Affected) -> (Vec<EndpointId>, Vec<EndpointId>) {
        self.iter()
            .map(|endpoint| endpoint.subject())
            .map(|subject| (subject.endpoint(), affected.contains(&subject)))
            .fold(
                (Vec::new(), Vec::new()),
                |(mut yes, mut no), (id, selected)| {
                    if selected { &mut yes } else { &mut no }.push(id);
                    (yes, no)
                },
            )
    }

    /// The revision that every endpoint enforces; 0 before the first commit.
    #[must_use]
    pub fn realized(&self) -> Revision {
        self.iter()
            .map(|endpoint| endpoint.revisions().realized)
            .min()
            .unwrap_or_default()
    }
}
