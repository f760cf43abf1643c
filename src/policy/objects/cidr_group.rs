//! CiliumCIDRGroup: a named list of prefixes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::common::{labels, list, part, settle};
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::language::read_cidr;

/// A CiliumCIDRGroup.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CidrGroupObject {
    pub labels: BTreeMap<String, String>,
    /// `spec.externalCIDRs`, masked, sorted, without duplicates.
    pub cidrs: Vec<IpNet>,
}

pub(super) fn read(checker: &mut Checker, object: &Map<String, Value>) -> CidrGroupObject {
    let labels = labels(checker, object);
    let at = At::ROOT.key("spec");
    let spec = part(checker, &At::ROOT, object, "spec");
    // A misspelt list would leave what a deny rule names open.
    if spec.is_none_or(|spec| field(spec, "externalCIDRs").is_none()) {
        let fault = Fault::missing("spec.externalCIDRs: missing; write [] for an empty group");
        checker.error(&At::ROOT, fault);
    }
    let mut cidrs = Vec::new();
    if let Some(spec) = spec {
        checker.familiar_fields(&at, spec, &["externalCIDRs"]);
        let entries = list(checker, &at, spec, "externalCIDRs");
        let at = at.key("externalCIDRs");
        for (index, value) in entries.iter().enumerate() {
            cidrs.extend(read_cidr(checker, &at.index(index), value));
        }
    }
    CidrGroupObject {
        labels,
        cidrs: settle(cidrs),
    }
}
