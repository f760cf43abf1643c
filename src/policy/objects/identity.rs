//! CiliumIdentity: a number and its labels.

use serde_json::{Map, Value};

use super::common::{label, strings};
use crate::events::ResourceKey;
use crate::identity::LabelSet;
use crate::policy::checker::{At, Checker, Fault};

/// Numbers that a cluster (with its number in bits 16 to 23) gives out.
const NUMBERS: std::ops::RangeInclusive<u32> = 256..=0xff_ffff;

/// A CiliumIdentity; its name is the number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdentityObject {
    /// `security-labels`
    pub labels: LabelSet,
}

pub(super) fn read(
    checker: &mut Checker,
    key: &ResourceKey,
    object: &Map<String, Value>,
) -> IdentityObject {
    let number = key.name.parse::<u32>();
    if !number.is_ok_and(|number| NUMBERS.contains(&number)) {
        let value = Value::String(key.name.clone());
        let reason = "the name of a CiliumIdentity is its number";
        let fault = Fault::new(&value, reason).suggest(format!(
            "a number from {} to {}",
            NUMBERS.start(),
            NUMBERS.end()
        ));
        checker.error(&At::ROOT.key("metadata").key("name"), fault);
    }
    let labels = strings(checker, &At::ROOT, object, "security-labels");
    if labels.is_empty() {
        let reason = "no security-labels: an identity is what its labels say";
        checker.error(&At::ROOT, Fault::missing(reason));
    }
    IdentityObject {
        labels: labels
            .iter()
            .map(|(key, value)| label(key, value))
            .collect(),
    }
}
