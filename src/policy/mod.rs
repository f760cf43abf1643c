//! From the policy language to verdict tables.

mod table;

pub use table::{
    Direction, DirectionPolicy, EndpointPolicy, RuleCatalogue, RuleNumber, RuleRef, Section,
    VerdictTable,
};
