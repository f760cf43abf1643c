//! What an agent said of itself, held against what its journal says of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{World, exe, until};

/// The newest revision of a running agent, as it lives in its memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Live {
    revision: u64,
    verdicts: String,
    state: String,
}

impl Live {
    /// Asked as soon as the agent answers.
    pub(crate) fn of(world: &mut World) -> Self {
        let dump = until("the agent answers", || {
            let exited = world.agent().exited().expect("a child");
            assert!(exited.is_none(), "the agent ended by itself: {exited:?}");
            world.agent().json(&["policy", "get"]).ok()
        });
        Self::read(&dump)
    }

    fn read(dump: &Value) -> Self {
        let text = |field: &str| {
            let found = dump[field].as_str().map(str::to_owned);
            found.unwrap_or_else(|| panic!("no {field} in {dump}"))
        };
        Self {
            revision: dump["revision"].as_u64().expect("a revision"),
            verdicts: text("verdicts_sha256"),
            state: text("state_sha256"),
        }
    }

    /// The same revision from a store that no agent holds.
    pub(crate) fn replayed(&self, store: &Path) -> Result<(), String> {
        let mut command = Command::new(exe());
        command.args(["replay", "-o", "json", "--to"]);
        command.arg(self.revision.to_string());
        let output = command.arg("--state-dir").arg(store).output();
        let output = output.expect("the binary starts");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("revision {}: {said}", self.revision));
        }
        let dump = serde_json::from_slice(&output.stdout).expect("JSON");
        let replayed = Self::read(&dump);
        if replayed != *self {
            return Err(format!("{replayed:?}, and the agent said {self:?}"));
        }
        Ok(())
    }
}

/// The store as a killed agent left it, in a place of its own.
pub(crate) fn copy_store(world: &World, to: &Path) {
    drop(fs::remove_dir_all(to));
    copy(&world.sandbox.path("state"), to);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let place = to.join(entry.file_name());
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            copy(&entry.path(), &place);
        } else if kind.is_file() {
            fs::copy(entry.path(), &place).expect("a copy");
        }
    }
}
