//! The table of probes: what was expected, what was seen, who decided.

use std::io::IsTerminal as _;

use super::network::{Family, Place};
use super::probe::{Kind, Seen};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub from: Place,
    pub to: Place,
    pub family: Family,
    pub kind: Kind,
    /// Over a connection that was opened before the policy.
    pub old_connection: bool,
    pub expected: Seen,
    pub seen: Seen,
    /// Whether policy was in force when it was sent.
    pub with_policy: bool,
    /// Who decided, as the agent's monitor said.
    pub policy: Option<String>,
}

impl Row {
    /// What was expected was seen, and what policy decided has its name.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.seen == self.expected && (!self.is_decided() || self.policy.is_some())
    }

    /// Whether policy decided: it enforces ingress of the host, for new flows.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.with_policy && self.to == Place::Host && !self.old_connection
    }

    fn cells(&self) -> [String; 7] {
        let to = self.to.address(self.family);
        let mut protocol = self.kind.protocol(to).to_owned();
        if self.old_connection {
            protocol.push_str(" (open since before)");
        }
        [
            self.from.name().to_owned(),
            format!("{} {to}", self.to.name()),
            protocol,
            self.kind
                .port()
                .map_or_else(|| "-".into(), |port| port.to_string()),
            self.expected.to_string(),
            self.seen.to_string(),
            self.policy.clone().unwrap_or_else(|| "-".into()),
        ]
    }
}

const HEADER: [&str; 7] = [
    "FROM",
    "TO",
    "PROTOCOL",
    "PORT",
    "EXPECTED",
    "SEEN",
    "DECIDED BY",
];
const SEEN_COLUMN: usize = 5;

/// Prints the rows under a title.
pub fn print(title: &str, rows: &[Row]) {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let cells: Vec<_> = rows.iter().map(Row::cells).collect();
    let mut widths = HEADER.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    println!("\n{title}\n");
    print_line(&HEADER.map(String::from), &widths, None);
    for (row, cells) in rows.iter().zip(&cells) {
        let paint = match (colour, row.holds(), &row.seen) {
            (false, ..) => None,
            // Reverse red: an expectation failed.
            (true, false, _) => Some("\x1b[7;31m"),
            (true, true, Seen::Passed) => Some("\x1b[32m"),
            (true, true, Seen::Dropped | Seen::Failed(_)) => Some("\x1b[33m"),
        };
        print_line(cells, &widths, paint);
    }
}

fn print_line(cells: &[String; 7], widths: &[usize; 7], paint: Option<&str>) {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padded = format!("{cell:width$}");
        match paint {
            Some(paint) if column == SEEN_COLUMN => {
                line.push_str(&format!("{paint}{padded}\x1b[0m   "));
            }
            Some(_) | None => line.push_str(&format!("{padded}   ")),
        }
    }
    println!("{}", line.trim_end());
}
