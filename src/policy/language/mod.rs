//! The policy language: from objects to rules, with every error at once.
//!
//! Invariant: nothing that a rule body says is ignored. What is not known, not
//! supported yet or not enforceable on a host is an error of its resource.

mod cidr;
mod error;
#[cfg(test)]
mod held_tests;
mod item;
#[cfg(test)]
mod item_tests;
mod l7;
mod metadata;
mod names;
mod names_of_hosts;
mod namespaces;
mod peers;
#[cfg(test)]
mod peers_tests;
mod ports;
mod rule;
mod selector;
mod services;
#[cfg(test)]
mod tests;
mod types;

pub(super) use cidr::read_cidr;
pub use error::FieldError;
pub(crate) use ports::is_service_name;
pub use rule::read_policy;
pub use selector::{LabelSelector, Operator, Requirement};
pub use types::{
    CidrGroups, Entity, Item, L4Match, NamedPort, Peer, Peers, Policy, PortProtocol, Ports, Rule,
    RuleSubject, ServiceBy, ServiceReference,
};

/// What was read from one object: the value if there is no error.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading<T> {
    pub value: Option<T>,
    pub errors: Vec<FieldError>,
    pub warnings: Vec<FieldError>,
}
