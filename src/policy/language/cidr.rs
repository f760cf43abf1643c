//! Prefixes as Cilium reads them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::policy::checker::{At, Checker, Fault};

/// Reads one prefix; host bits are masked, a bare address is a whole-length
/// prefix with a warning.
pub(in crate::policy) fn read_cidr(
    checker: &mut Checker,
    at: &At<'_>,
    value: &Value,
) -> Option<IpNet> {
    let text = checker.string(at, value)?;
    if text.is_empty() {
        checker.error(at, Fault::new(value, "an empty prefix").suggest(EXAMPLE));
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let prefix = IpNet::from(address);
        checker.warn(
            at,
            Fault::new(value, "a bare address")
                .suggest(format!("write {prefix}; newer Cilium refuses it")),
        );
        return Some(prefix);
    }
    match parse_prefix(text) {
        Ok(prefix) => {
            if prefix != prefix.trunc() {
                let masked = format!("the host bits are ignored: this is {}", prefix.trunc());
                checker.warn(at, Fault::new(value, masked));
            }
            Some(prefix.trunc())
        }
        Err(reason) => {
            checker.error(at, Fault::new(value, reason).suggest(EXAMPLE));
            None
        }
    }
}

const EXAMPLE: &str = "a valid one is \"10.0.0.0/8\" or \"2001:db8::/32\"";

fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let (address, length) = text
        .split_once('/')
        .ok_or("not an address and not a prefix")?;
    let address: IpAddr = address
        .parse()
        .map_err(|_| "not a prefix: the part before \"/\" is not an IP address")?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (length.len() > 1 && length.starts_with('0')) {
        return Err("not a prefix: the part after \"/\" is not a number".to_owned());
    }
    let max = if address.is_ipv4() { 32 } else { 128 };
    length
        .parse()
        .ok()
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or_else(|| format!("the prefix length must be at most {max}"))
}

/// Checks one `except` against its `cidr`.
pub(super) fn check_except(
    checker: &mut Checker,
    at: &At<'_>,
    value: &Value,
    cidr: IpNet,
    except: IpNet,
) {
    let same_family = cidr.addr().is_ipv4() == except.addr().is_ipv4();
    let reason = if !same_family {
        format!("of another address family than cidr {cidr}")
    } else if except.prefix_len() < cidr.prefix_len() {
        format!("shorter than cidr {cidr}")
    } else if !cidr.contains(&except) {
        format!("not within cidr {cidr}")
    } else {
        return;
    };
    checker.error(
        at,
        Fault::new(value, reason).suggest("each except must lie within its cidr"),
    );
}
