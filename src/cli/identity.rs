//! `palisade identity` and `palisade ip`.

use super::CliError;
use super::args::{IdentityCommand, IpCommand};
use super::output::{Output, Table};
use crate::api::client::Client;
use crate::model::{Identity, IpEntry};

pub(super) fn identities(
    client: &Client,
    out: Output,
    command: &IdentityCommand,
) -> Result<(), CliError> {
    match command {
        IdentityCommand::List => {
            let list: Vec<Identity> = client.get("/identities")?;
            out.print(&list, |list| identity_table(list))
        }
        IdentityCommand::Get { id } => {
            let identity: Identity = client.get(&format!("/identities/{id}"))?;
            out.print(&identity, |identity| {
                identity_table(std::slice::from_ref(identity))
            })
        }
    }
}

pub(super) fn addresses(client: &Client, out: Output, command: &IpCommand) -> Result<(), CliError> {
    match command {
        IpCommand::List => {
            let list: Vec<IpEntry> = client.get("/ips")?;
            out.print(&list, |list| ip_table(list))
        }
        IpCommand::Get { ip } => {
            if ip.parse::<ipnet::IpNet>().is_err() && ip.parse::<std::net::IpAddr>().is_err() {
                return Err(CliError::Usage(format!(
                    "`{ip}` is neither an address nor a prefix"
                )));
            }
            let entry: IpEntry = client.get(&format!("/ips/lookup?ip={ip}"))?;
            out.print(&entry, |entry| ip_table(std::slice::from_ref(entry)))
        }
    }
}

pub(super) fn identity_table(identities: &[Identity]) -> String {
    let mut table = Table::new(&[&["ID", "LABELS"]]);
    for identity in identities {
        let mut labels = identity.labels.iter();
        let first = labels.next().map_or("no labels", String::as_str);
        table.row([identity.id.to_string(), first.to_owned()]);
        for label in labels {
            table.row(["", label]);
        }
    }
    table.render()
}

fn ip_table(entries: &[IpEntry]) -> String {
    let mut table = Table::new(&[&["IP", "IDENTITY", "SOURCE"]]);
    for entry in entries {
        let labels = entry.labels.join(",");
        let identity = format!("{} {labels}", entry.identity);
        table.row([entry.ip.clone(), identity, entry.source.clone()]);
    }
    table.render()
}
