//! DNS names of `toFQDNs` and of DNS rules; groups of a cloud. Of rules for
//! workload endpoints only: checked for form, enforced by nobody here.

use serde_json::{Map, Value};

use crate::policy::checker::{At, Checker, Fault, field};

/// Checks one `matchName` or `matchPattern`.
pub(super) fn check_name(checker: &mut Checker, at: &At<'_>, value: &Value) {
    const NAME_MAX: usize = 255;
    let Some(object) = checker.object(at, value) else {
        return;
    };
    checker.known_fields(at, object, &["matchName", "matchPattern"]);
    let name = text(checker, at, object, "matchName");
    let pattern = text(checker, at, object, "matchPattern");
    if name.is_some() && pattern.is_some() {
        let fault = Fault::missing("matchName and matchPattern exclude each other");
        checker.error(at, fault.suggest("write two elements"));
    }
    if name.is_none() && pattern.is_none() {
        let fault = Fault::missing("neither matchName nor matchPattern: this is no name");
        checker.warn(at, fault);
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    for (key, text, star) in [("matchName", name, false), ("matchPattern", pattern, true)] {
        let Some((value, text)) = text else {
            continue;
        };
        if text.len() > NAME_MAX {
            let reason = format!("{} letters, at most {NAME_MAX}", text.len());
            checker.error(&at.key(key), Fault::new(value, reason));
        } else if !text
            .chars()
            .all(|letter| plain(letter) || (star && letter == '*'))
        {
            let allowed = if star {
                "letters, digits, '-', '_', '.' and '*'"
            } else {
                "letters, digits, '-', '_' and '.'"
            };
            let fault = Fault::new(value, format!("illegal in a DNS name; only {allowed}"));
            checker.error(&at.key(key), fault);
        }
    }
}

/// Checks one group of `fromGroups` or `toGroups`.
pub(super) fn check_group(checker: &mut Checker, at: &At<'_>, value: &Value) {
    const LISTS: [&str; 2] = ["securityGroupsIds", "securityGroupsNames"];
    let Some(object) = checker.object(at, value) else {
        return;
    };
    checker.known_fields(at, object, &["aws"]);
    let at = at.key("aws");
    let Some(aws) = field(object, "aws").and_then(|value| checker.object(&at, value)) else {
        return;
    };
    checker.known_fields(&at, aws, &["labels", LISTS[0], LISTS[1], "region"]);
    text(checker, &at, aws, "region");
    for name in LISTS {
        let at = at.key(name);
        let list = field(aws, name).and_then(|value| checker.list(&at, value));
        for (index, value) in list.into_iter().flatten().enumerate() {
            checker.string(&at.index(index), value);
        }
    }
    let at = at.key("labels");
    if let Some(labels) = field(aws, "labels").and_then(|value| checker.object(&at, value)) {
        for (key, value) in labels {
            checker.string(&at.key(key), value);
        }
    }
}

fn text<'v>(
    checker: &mut Checker,
    at: &At<'_>,
    object: &'v Map<String, Value>,
    name: &str,
) -> Option<(&'v Value, &'v str)> {
    let value = field(object, name)?;
    let text = checker.string(&at.key(name), value)?;
    (!text.is_empty()).then_some((value, text))
}
