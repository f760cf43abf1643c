//! What is valid and will disappoint: selectors that match no known object,
//! rules that a deny shadows. Needs all policies and objects at once.
//!
//! Pure: for `policy validate` and for whoever else holds rules and objects.

mod known;
mod shadow;
#[cfg(test)]
mod tests;
mod unmatched;

use super::PolicyOptions;
use super::language::{FieldError, Policy};
use super::objects::Object;
use crate::events::ResourceKey;

/// A warning about one policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    pub resource: ResourceKey,
    pub warning: FieldError,
}

/// What to tell about these policies, in their order.
#[must_use]
pub fn advise(
    policies: &[(&ResourceKey, &Policy)],
    objects: &[(&ResourceKey, &Object)],
    options: &PolicyOptions,
) -> Vec<Advice> {
    let mut advice = unmatched::find(policies, objects, options);
    advice.extend(shadow::find(policies, options));
    advice
}

/// The path of the rule that an item stands in: `spec`, `specs[1]`.
fn rule_path(item_path: &str) -> &str {
    item_path.split_once('.').map_or("", |(rule, _)| rule)
}
