//! `palisade policy`.

use std::path::{Path, PathBuf};

use hyper::Method;

use super::args::PolicyCommand;
use super::output::{Output, Table};
use super::{CliError, diff, explain, validate};
use crate::api::client::Client;
use crate::limits::{API_BODY_BYTES_MAX, MANIFEST_FILE_BYTES_MAX};
use crate::model::{ChangeReply, PolicyDump, Selector, WaitReply};
use crate::sources::manifests::read_capped;

pub(super) fn run(socket: &Path, out: Output, command: &PolicyCommand) -> Result<(), CliError> {
    let client = || Client::new(socket);
    match command {
        PolicyCommand::Validate { paths, node } => {
            validate::run(out, paths, node.policy_options()?)
        }
        PolicyCommand::Explain(options) => explain::run(socket, out, options),
        PolicyCommand::Diff {
            before,
            after,
            node,
        } => diff::run(socket, out, (before, after), node),
        PolicyCommand::Get { revision, name } => get(&client()?, out, *revision, name.as_deref()),
        PolicyCommand::Import { paths } => import(&client()?, out, paths),
        PolicyCommand::Delete { key } => {
            let path = format!("/policy/resources/{}", escaped(key));
            let reply: ChangeReply = client()?.send(Method::DELETE, &path, &())?;
            changed(out, &reply)
        }
        PolicyCommand::Wait { revision, timeout } => {
            let path = format!("/policy/wait?revision={revision}&timeout_s={timeout}");
            let reply: WaitReply = client()?.get(&path)?;
            out.print(&reply, |reply| {
                format!("Revision {} is enforced", reply.revision)
            })
        }
        PolicyCommand::Selectors => {
            let selectors: Vec<Selector> = client()?.get("/policy/selectors")?;
            out.print(&selectors, |list| selector_table(list))
        }
    }
}

fn get(
    client: &Client,
    out: Output,
    revision: Option<u64>,
    name: Option<&str>,
) -> Result<(), CliError> {
    let path = match revision {
        Some(revision) => format!("/policy?revision={revision}"),
        None => "/policy".to_owned(),
    };
    let mut dump: PolicyDump = client.get(&path)?;
    if let Some(name) = name {
        dump.policies
            .retain(|policy| policy.key == name || policy.key.rsplit('/').next() == Some(name));
        if dump.policies.is_empty() {
            let at =
                revision.map_or_else(String::new, |revision| format!(" at revision {revision}"));
            return Err(CliError::Failed(format!(
                "no policy `{name}`{at}; `palisade policy get` without a name lists them"
            )));
        }
    }
    out.print(&dump, dump_text)
}

/// As Cilium: the rules as JSON, then the revision; each with its place.
pub(super) fn dump_text(dump: &PolicyDump) -> String {
    let mut text = String::new();
    for policy in &dump.policies {
        let selects = if policy.selects {
            "selects this node"
        } else {
            "does not select this node"
        };
        let place = match policy.file.as_str() {
            "" => policy.source.clone(),
            file => format!("{file}:{} ({})", policy.line, policy.source),
        };
        text.push_str(&format!("# {} from {place}, {selects}\n", policy.key));
        for version in &policy.refused {
            text.push_str(&format!("# a version from {} is refused\n", version.source));
            for reason in &version.reasons {
                text.push_str(&format!("#   {reason}\n"));
            }
        }
        let body = serde_yaml_ng::to_string(&policy.body).unwrap_or_default();
        text.push_str(&body);
    }
    text.push_str(&format!("Revision: {}\n", dump.revision));
    if let Some(checksum) = &dump.verdicts_sha256 {
        text.push_str(&format!("Verdicts: sha256 {checksum}\n"));
    }
    if let Some(checksum) = &dump.state_sha256 {
        text.push_str(&format!("State: sha256 {checksum}\n"));
    }
    text
}

/// Every file goes as one request: its name and its text.
fn import(client: &Client, out: Output, paths: &[PathBuf]) -> Result<(), CliError> {
    let mut files = Vec::new();
    for path in validate::files_of(paths)? {
        let name = path.display().to_string();
        let bytes = read_capped(&path, MANIFEST_FILE_BYTES_MAX)
            .map_err(|error| CliError::Failed(format!("{name}: {error}")))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| CliError::Failed(format!("{name}: not UTF-8 text")))?;
        files.push((name, text));
    }
    let size = serde_json::to_vec(&files).map_or(0, |body| body.len());
    if size > API_BODY_BYTES_MAX {
        return Err(CliError::Failed(format!(
            "these files make a request of {size} bytes, at most {API_BODY_BYTES_MAX} are taken; \
             import fewer at once"
        )));
    }
    let reply: ChangeReply = client.send(Method::PUT, "/policy/resources", &files)?;
    changed(out, &reply)
}

fn changed(out: Output, reply: &ChangeReply) -> Result<(), CliError> {
    out.print(reply, |reply| {
        let mut text = String::new();
        for line in &reply.changes {
            text.push_str(&format!("{line}\n"));
        }
        text.push_str(&format!("Revision: {}\n", reply.revision));
        text
    })?;
    if reply.errors.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(reply.errors.join("\npalisade: ")))
}

fn selector_table(selectors: &[Selector]) -> String {
    let mut table = Table::new(&[&["SELECTOR", "USERS", "IDENTITIES"]]);
    for selector in selectors {
        let mut identities = selector.identities.iter().map(ToString::to_string);
        let first = identities.next().unwrap_or_default();
        table.row([
            selector.selector.clone(),
            selector.users.len().to_string(),
            first,
        ]);
        for identity in identities {
            table.row(["", "", &identity]);
        }
    }
    table.render()
}

/// Percent-encodes what may not stand in a path segment; slashes stay.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
