//! Policies: what is in force, and why a flow passes or not.

use serde::{Deserialize, Serialize};

use crate::endpoint::HOST_ENDPOINT;
use crate::events::ResourceKey;
use crate::policy;
use crate::queues::fingerprint;

/// A rule item by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleName {
    /// `Kind/name`; `failsafe` for an entry of `--failsafe`.
    pub resource: String,
    /// `ingress`, `ingressDeny`, `egress`, `egressDeny`, `failsafe`.
    pub section: String,
    /// Zero-based position in the section.
    pub index: usize,
}

/// An identity with its labels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdentityRef {
    pub id: u32,
    pub labels: Vec<String>,
}

/// The deciding rule, and where it was read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DecidingRule {
    #[serde(flatten)]
    pub name: RuleName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The one-based line of the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// A rule that did not decide, and what stood in its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhyNot {
    #[serde(flatten)]
    pub name: RuleName,
    /// `ports`, `peers`, `subject`, or `precedence` where it matches.
    pub term: String,
    pub reason: String,
}

/// What would happen to the first packet of a flow (a contract).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// `allowed`, `denied` or `audited`.
    pub verdict: String,
    pub reason: String,
    pub rule: Option<DecidingRule>,
    /// `log.value` of the deciding rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    pub identity: IdentityRef,
    /// Whether the direction is enforced.
    pub enforced: bool,
    pub revision: u64,
    /// With `--why-not`: the rules that did not decide, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<WhyNot>,
}

impl Explanation {
    /// As it goes over the wire.
    #[must_use]
    pub fn new(explanation: policy::Explanation, why_not: Vec<policy::WhyNot>) -> Self {
        Self {
            verdict: explanation.verdict.as_str().to_owned(),
            reason: explanation.reason,
            rule: explanation.rule.map(|rule| DecidingRule {
                name: RuleName {
                    resource: rule.resource,
                    section: rule.section.as_str().to_owned(),
                    index: rule.index,
                },
                file: rule.file,
                line: rule.line,
            }),
            log: explanation.log,
            identity: IdentityRef {
                id: explanation.identity.id.0,
                labels: explanation.identity.labels,
            },
            enforced: explanation.enforced,
            revision: explanation.revision.0,
            why_not: why_not.into_iter().map(WhyNot::from).collect(),
        }
    }
}

impl From<policy::WhyNot> for WhyNot {
    fn from(miss: policy::WhyNot) -> Self {
        Self {
            name: RuleName {
                resource: miss.resource,
                section: miss.section.as_str().to_owned(),
                index: miss.index,
            },
            term: miss.term.to_owned(),
            reason: miss.reason,
        }
    }
}

impl From<&policy::RuleRef> for RuleName {
    fn from(rule: &policy::RuleRef) -> Self {
        let resource = rule.resource.as_ref();
        Self {
            resource: resource.map_or_else(|| "failsafe".to_owned(), ToString::to_string),
            section: rule.section.as_str().to_owned(),
            index: rule.index,
        }
    }
}

/// A resource in the repository.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyResource {
    /// `Kind/name`.
    pub key: String,
    /// `manifests`, `api`...
    pub source: String,
    pub file: String,
    pub line: usize,
    /// Whether it selects the host endpoint.
    pub selects: bool,
    pub body: serde_json::Value,
    /// Newer versions, and those of other sources, that are not in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedVersion>,
}

/// A version of a resource that is not in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefusedVersion {
    pub source: String,
    pub reasons: Vec<String>,
}

/// The repository at one revision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyDump {
    pub revision: u64,
    pub policies: Vec<PolicyResource>,
    /// SHA-256 of the host endpoint's verdict tables, without the audit switches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts_sha256: Option<String>,
    /// SHA-256 of all that they follow from: policies, objects, identities,
    /// addresses, rule numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_sha256: Option<String>,
}

impl PolicyDump {
    /// What is in force in a snapshot.
    fn of(snapshot: &policy::PolicySnapshot) -> Self {
        let resource = |stored: &std::sync::Arc<policy::StoredPolicy>| PolicyResource {
            key: stored.resource.key.to_string(),
            source: stored.resource.source.as_str().to_owned(),
            file: stored.resource.origin.file.clone(),
            line: stored.resource.origin.line,
            selects: stored.selects_host,
            body: stored.resource.body.value(),
            refused: refused(snapshot, &stored.resource.key),
        };
        Self {
            revision: snapshot.revision.0,
            policies: snapshot.policies.values().map(resource).collect(),
            verdicts_sha256: None,
            state_sha256: None,
        }
    }

    /// What is in force in a snapshot, with the checksums; that of the verdicts
    /// is None where the tables do not fit.
    #[must_use]
    pub fn with_checksums(snapshot: &policy::PolicySnapshot) -> Self {
        let host = policy::Subject::Host(HOST_ENDPOINT);
        let verdicts = policy::resolve(snapshot, host, false);
        Self {
            verdicts_sha256: verdicts.ok().map(|verdicts| fingerprint(&verdicts)),
            state_sha256: Some(policy::fingerprint(snapshot)),
            ..Self::of(snapshot)
        }
    }
}

fn refused(snapshot: &policy::PolicySnapshot, key: &ResourceKey) -> Vec<RefusedVersion> {
    let of_key = snapshot.refused.iter().filter(|it| it.key == *key);
    let versions = of_key.map(|refusal| RefusedVersion {
        source: refusal.source.as_str().to_owned(),
        reasons: refusal.errors.iter().map(ToString::to_string).collect(),
    });
    versions.collect()
}

/// A peer selector in use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Selector {
    pub selector: String,
    /// The policies that use it.
    pub users: Vec<String>,
    pub identities: Vec<u32>,
}

/// What became of an import or a deletion.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeReply {
    pub revision: u64,
    /// One line for each resource.
    pub changes: Vec<String>,
    /// Why resources were refused.
    pub errors: Vec<String>,
}

/// The revision that every endpoint enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitReply {
    pub revision: u64,
}
