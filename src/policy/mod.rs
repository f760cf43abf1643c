//! From the policy language to verdict tables.
//!
//! Pure and deterministic: no I/O, no time, no randomness. In reading order:
//! documents (bytes to objects), language (objects to rules), repository (rules
//! and nodes to snapshots), resolve (snapshot to verdict table), oracle,
//! explain and diff (the plain reading of the same rules).

pub mod advice;
mod checker;
pub mod diff;
pub mod documents;
mod explain;
mod fingerprint;
pub mod language;
mod nearest;
pub mod objects;
mod options;
pub mod oracle;
mod path;
mod protocol;
mod repository;
mod resolve;
pub(crate) mod row;
mod selections;
mod snapshot;
mod table;

pub use explain::{
    ExplainedIdentity, ExplainedRule, Explanation, Packet, Query, Verdict, WhyNot, explain, why_not,
};
pub use fingerprint::fingerprint;
pub use options::{EnforcementMode, FailsafeEntry, PolicyOptions};
pub use protocol::{protocol_name, protocol_number};
pub use repository::{
    Affected, Applied, Change, Refusal, Repository, RepositoryImportError, RepositoryRecord,
    RuleNumbersRecord, StoredObject, StoredPolicy,
};
pub use resolve::{ResolveError, Resolver, Subject, Work, resolve};
pub use row::{KEYS, Row};
pub use selections::{Selections, Selector, SelectorId, SelectorIds, Signature};
pub use snapshot::{PolicySnapshot, SelectorEntry};
pub use table::{
    Direction, DirectionPolicy, EndpointPolicy, RuleCatalogue, RuleEntry, RuleNumber, RuleRef,
    Section, VerdictTable,
};
