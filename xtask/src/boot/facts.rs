//! What a guest told, and what must be true of it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::emulator::MARK;

/// The facts of one boot by their names.
#[derive(Debug, Default)]
pub(super) struct Facts(BTreeMap<String, String>);

impl Facts {
    pub(super) fn read(results: &str) -> Self {
        let mut facts = BTreeMap::new();
        for line in results.lines() {
            let Some(fact) = line
                .strip_prefix(MARK)
                .and_then(|said| said.trim_start().strip_prefix("fact "))
            else {
                continue;
            };
            let (name, value) = fact.trim().split_once(' ').unwrap_or((fact.trim(), ""));
            facts.insert(name.to_owned(), value.trim().to_owned());
        }
        Self(facts)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("(never told)", String::as_str)
    }

    /// What the agent said as JSON; null if it said none.
    fn json(&self, name: &str) -> Value {
        serde_json::from_str(self.text(name)).unwrap_or_default()
    }
}

/// One thing that must be true, and what was seen.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) is_true: bool,
    pub(super) seen: String,
}

/// Collects checks of one boot.
struct Judge<'a> {
    facts: &'a Facts,
    checks: Vec<Check>,
}

impl Judge<'_> {
    fn that(&mut self, what: &'static str, is_true: bool, seen: impl ToString) {
        self.checks.push(Check {
            what,
            is_true,
            seen: seen.to_string(),
        });
    }

    /// The fact is exactly that.
    fn is(&mut self, what: &'static str, name: &str, wanted: &str) {
        let seen = self.facts.text(name);
        self.that(what, seen == wanted, format!("{name}: {seen}"));
    }

    /// Enforcement of the direction that policies are about, and the sources.
    fn enforces_before_the_network(&mut self, sources_in_sync: bool) {
        self.is(
            "systemd holds the network back until the agent is ready",
            "state-before",
            "active",
        );
        let links = self.facts.text("links-before");
        let has_none = links.contains("lo ") && !links.contains("eth0");
        self.that("there is no device yet", has_none, links);
        let status = self.facts.json("status-before");
        let ingress = &status["enforcing"]["ingress"];
        self.that(
            "ingress is enforced before there is a network",
            ingress == "enabled",
            ingress,
        );
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        let external: Vec<&Value> = sources
            .iter()
            .filter(|source| source["name"] == "manifests" || source["name"] == "etcd")
            .collect();
        self.that(
            if sources_in_sync {
                "its sources are in sync"
            } else {
                "none of its sources has answered"
            },
            !external.is_empty()
                && external
                    .iter()
                    .all(|source| source["in_sync"] == sources_in_sync),
            Value::from_iter(external.into_iter().cloned()),
        );
    }

    /// The audit found nothing that it could not mend.
    fn verified(&mut self, what: &'static str, name: &str) {
        let status = self.facts.json(name);
        let checks = status["checks"].as_array().cloned().unwrap_or_default();
        let wrong: Vec<Value> = checks
            .iter()
            .filter(|check| check["ok"] != true)
            .cloned()
            .collect();
        self.that(
            what,
            !checks.is_empty() && wrong.is_empty(),
            Value::from(wrong),
        );
    }

    fn ended(&mut self) {
        let done = self.facts.has("done");
        self.that("the script came to its end", done, done);
        let vain = !self.facts.has("waited-in-vain");
        self.that(
            "nothing was waited for in vain",
            vain,
            self.facts.text("waited-in-vain"),
        );
    }
}

/// The first boot: sources are there, then everything happens to the agent.
pub(super) fn of_first_boot(facts: &Facts) -> Vec<Check> {
    let mut judge = Judge {
        facts,
        checks: Vec::new(),
    };
    judge.enforces_before_the_network(true);
    judge.is("Type=notify", "unit-type", "notify");
    let said = facts.text("unit-status");
    judge.that(
        "systemd shows what the agent says of itself",
        said.contains("is in the kernel"),
        said,
    );
    judge.is(
        "a port that no policy allows is closed",
        "open-first",
        "8022",
    );
    judge.is(
        "an import opens what it allows",
        "open-imported",
        "8022 8023",
    );
    judge.verified(
        "inside the unit the agent mounts a lost bpffs again",
        "verify-unmounted",
    );
    judge.is("... where all see it", "bpffs-again", "1");
    judge.verified("the audit agrees", "verify");
    judge.is(
        "in the unit the agent has nothing to warn of",
        "warnings",
        "",
    );
    for (what, name) in [
        ("after the bpffs was lost", "open-verified"),
        ("while the agent is killed", "open-killed"),
        ("after systemd has started it again", "open-restarted"),
        ("after systemctl restart", "open-restart"),
        ("while the agent hangs", "open-hanging"),
        ("while the unit is stopped", "open-stopped"),
        ("after it is started", "open-started"),
    ] {
        judge.is(what, name, "8022 8023");
    }
    judge.is("SIGKILL: systemd starts the agent again", "restarts", "1");
    let adopted = &facts.json("status-killed")["kernel"]["adopted"];
    judge.that("... which adopts what enforces", *adopted == true, adopted);
    judge.is("a live agent satisfies the watchdog", "restarts-alive", "0");
    judge.is("a hung one does not", "restarts-watchdog", "1");
    let log = facts.text("log-watchdog");
    judge.that("... and systemd says so", log.contains("Watchdog"), log);
    judge.is("stopping is orderly", "stopped", "inactive success");
    let acknowledged = facts.has("acknowledged");
    judge.that(
        "the last import is acknowledged",
        acknowledged,
        acknowledged,
    );
    judge.ended();
    judge.checks
}

/// The second boot: all there is stands in the state directory.
pub(super) fn of_second_boot(first: &Facts, facts: &Facts) -> Vec<Check> {
    let mut judge = Judge {
        facts,
        checks: Vec::new(),
    };
    let boots = [first.text("boot-id"), facts.text("boot-id")];
    judge.that("it is another boot", boots[0] != boots[1], boots[1]);
    judge.enforces_before_the_network(false);
    let adopted = &facts.json("status-before")["kernel"]["adopted"];
    judge.that("the kernel held nothing", *adopted == false, adopted);
    let times: Vec<u64> = facts
        .text("order")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    judge.that(
        "systemd reaches network-pre.target behind the unit",
        matches!(times[..], [unit, network] if 0 < unit && unit <= network),
        facts.text("order"),
    );
    judge.is(
        "what was acknowledged is enforced, to the last import before the power failed",
        "open-cold",
        "8022 8023 8024",
    );
    judge.verified("the audit agrees", "verify");
    judge.is("stopped, it enforces on", "open-stopped", "8022 8023 8024");
    judge.is(
        "detached, all is open",
        "open-detached",
        "8022 8023 8024 8080",
    );
    judge.is("... and nothing is left", "left", "");
    judge.ended();
    judge.checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_lines_of_our_scripts_and_nothing_else() {
        let said = "palisade-guest: fact open-cold 8022 8023\r\nopen-cold 8080\r\n\
                    palisade-guest: fact left  \r\npalisade-guest: something else\r\n";
        let facts = Facts::read(said);
        assert_eq!(facts.text("open-cold"), "8022 8023");
        assert!(facts.has("left") && facts.text("left").is_empty());
        assert_eq!(facts.0.len(), 2);
    }

    #[test]
    fn a_guest_that_told_nothing_has_failed() {
        let nothing = Facts::default();
        let wrong = |checks: Vec<Check>| checks.iter().filter(|check| !check.is_true).count();
        let all = of_first_boot(&nothing).len();
        // That it waited for nothing in vain is true of it.
        assert_eq!(wrong(of_first_boot(&nothing)), all - 1);
        assert!(wrong(of_second_boot(&nothing, &nothing)) > 8);
    }
}
