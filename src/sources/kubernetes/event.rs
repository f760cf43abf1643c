//! Events about refused versions of policies, and the server's form of a time.
//!
//! The name of an Event follows from the policy and the reasons, so all nodes
//! together make one.

use kube::Client;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::feed::{Failure, answered};
use super::kinds::WATCHED;
use crate::clock::{Clock, SystemClock};
use crate::policy::Refusal;

/// Who writes, for the server.
pub(super) const MANAGER: &str = "palisade";
/// Longest message of an Event that servers take.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// An Event about a refused version.
pub(super) struct Event<'r> {
    refusal: &'r Refusal,
    pub(super) name: String,
    namespace: &'r str,
    /// Path of the collection of the refused object.
    objects: String,
    message: String,
}

impl<'r> Event<'r> {
    /// None for kinds whose objects others make by the thousand.
    pub(super) fn of(refusal: &'r Refusal) -> Option<Self> {
        let key = &refusal.key;
        let watched = WATCHED.iter().find(|watched| watched.kind == key.kind)?;
        if !key.kind.is_policy() {
            return None;
        }
        let message = message(refusal);
        let digest = Sha256::digest(format!("{key}\n{message}").as_bytes());
        let digest: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let objects = watched.path_in(watched.versions[0], key.namespace.as_deref());
        let short: String = key.name.chars().take(200).collect();
        Some(Self {
            refusal,
            name: format!("{short}.{digest}"),
            namespace: key.namespace.as_deref().unwrap_or("default"),
            objects,
            message,
        })
    }

    /// Makes it, unless another node did.
    pub(super) async fn tell(&self, client: &Client) -> Result<(), Failure> {
        let events = Request::new(format!("/api/v1/namespaces/{}/events", self.namespace));
        let get = GetParams::default();
        let there = answered(client.request::<Value>(events.get(&self.name, &get)?)).await;
        match there {
            Ok(_) => return Ok(()),
            Err(failure) if failure.code() == Some(404) => {}
            Err(failure) => return Err(failure),
        }
        let key = &self.refusal.key;
        let object = Request::new(&self.objects).get(&key.name, &get)?;
        let object: Value = answered(client.request(object)).await?;
        let event = self.event(&object);
        let body = serde_json::to_vec(&event).map_err(|error| Failure::Other(error.to_string()))?;
        let create = events.create(&PostParams::default(), body)?;
        match answered(client.request::<Value>(create)).await {
            Err(failure) if failure.code() != Some(409) => Err(failure),
            _ => Ok(()),
        }
    }

    fn event(&self, object: &Value) -> Value {
        let key = &self.refusal.key;
        let now = timestamp(SystemClock::default().wall_ms());
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "type": "Warning", "reason": "PolicyRefused", "message": self.message,
            "involvedObject": {
                "apiVersion": "cilium.io/v2", "kind": key.kind.as_str(), "name": key.name,
                "namespace": key.namespace, "uid": object["metadata"]["uid"],
                "resourceVersion": object["metadata"]["resourceVersion"]},
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER, "reportingInstance": MANAGER,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        })
    }
}

pub(super) fn message(refusal: &Refusal) -> String {
    let stays = if refusal.in_force {
        "refused, the last valid version stays in force"
    } else {
        "refused, nothing of it is in force"
    };
    let reasons: Vec<String> = refusal.errors.iter().map(ToString::to_string).collect();
    let mut text = format!("{stays}: {}", reasons.join("; "));
    let mut end = MESSAGE_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Seconds of RFC 3339, from milliseconds since 1970.
pub(super) fn timestamp(wall_ms: u64) -> String {
    let seconds = wall_ms / 1_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days of eras of 400 years, which begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399_000), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_735_689_599_999), "2024-12-31T23:59:59Z");
    }
}
