//! The endpoint's state machine: a pure function.
//!
//! A new endpoint begins as `waiting-for-identity`, a restored one as
//! `restoring`. An empty cell is refused: it is logged and changes nothing.
//!
//! | from \ trigger | identity missing | assigned | invalid | regeneration requested | build started | succeeded | failed | restore started | disconnect requested | finished |
//! |---|---|---|---|---|---|---|---|---|---|---|
//! | waiting-for-identity (WI) | | ready | invalid | | | | | | disconnecting | |
//! | ready | WI | | | WR | | | | restoring | disconnecting | |
//! | waiting-to-regenerate (WR) | | | | WR | regenerating | WR | WR | restoring | disconnecting | |
//! | regenerating | WI | | | WR | | ready | WR | restoring | disconnecting | |
//! | restoring | | | | restoring | regenerating | restoring | restoring | restoring | disconnecting | |
//! | disconnecting | | | | | | | | | | disconnected |
//! | disconnected | | | | | | | | | | |
//! | invalid | | | | | | | | | | |
//!
//! A request during a build leads to `waiting-to-regenerate`; the end of that
//! build then leaves the state alone, since another build is due.

use crate::events::{EndpointState, EndpointTrigger};

/// A transition that the table does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("skipped invalid state transition: {trigger:?} in {from:?}")]
pub struct Refused {
    pub from: EndpointState,
    pub trigger: EndpointTrigger,
}

/// The next state.
pub fn step(from: EndpointState, trigger: EndpointTrigger) -> Result<EndpointState, Refused> {
    use EndpointState as S;
    use EndpointTrigger as T;
    let next = match from {
        S::WaitingForIdentity => match trigger {
            T::IdentityAssigned => Some(S::Ready),
            T::IdentityInvalid => Some(S::Invalid),
            T::DisconnectRequested => Some(S::Disconnecting),
            T::IdentityMissing
            | T::RegenerationRequested
            | T::BuildStarted
            | T::BuildSucceeded
            | T::BuildFailed
            | T::RestoreStarted
            | T::DisconnectFinished => None,
        },
        S::Ready | S::WaitingToRegenerate | S::Regenerating | S::Restoring => alive(from, trigger),
        S::Disconnecting => match trigger {
            T::DisconnectFinished => Some(S::Disconnected),
            T::IdentityMissing
            | T::IdentityAssigned
            | T::IdentityInvalid
            | T::RegenerationRequested
            | T::BuildStarted
            | T::BuildSucceeded
            | T::BuildFailed
            | T::RestoreStarted
            | T::DisconnectRequested => None,
        },
        S::Disconnected | S::Invalid => None,
    };
    next.ok_or(Refused { from, trigger })
}

/// The four states in which an endpoint has an identity and is built.
fn alive(from: EndpointState, trigger: EndpointTrigger) -> Option<EndpointState> {
    use EndpointState as S;
    use EndpointTrigger as T;
    match trigger {
        T::RestoreStarted => Some(S::Restoring),
        T::DisconnectRequested => Some(S::Disconnecting),
        T::IdentityMissing => {
            matches!(from, S::Ready | S::Regenerating).then_some(S::WaitingForIdentity)
        }
        T::RegenerationRequested if from == S::Restoring => Some(S::Restoring),
        T::RegenerationRequested => Some(S::WaitingToRegenerate),
        T::BuildStarted => {
            matches!(from, S::WaitingToRegenerate | S::Restoring).then_some(S::Regenerating)
        }
        T::BuildSucceeded if from == S::Regenerating => Some(S::Ready),
        T::BuildFailed if from == S::Regenerating => Some(S::WaitingToRegenerate),
        T::BuildSucceeded | T::BuildFailed => (from != S::Ready).then_some(from),
        T::IdentityAssigned | T::IdentityInvalid | T::DisconnectFinished => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIGGERS: [EndpointTrigger; 10] = [
        EndpointTrigger::IdentityMissing,
        EndpointTrigger::IdentityAssigned,
        EndpointTrigger::IdentityInvalid,
        EndpointTrigger::RegenerationRequested,
        EndpointTrigger::BuildStarted,
        EndpointTrigger::BuildSucceeded,
        EndpointTrigger::BuildFailed,
        EndpointTrigger::RestoreStarted,
        EndpointTrigger::DisconnectRequested,
        EndpointTrigger::DisconnectFinished,
    ];

    fn state(word: &str) -> EndpointState {
        match word {
            "WI" | "waiting-for-identity (WI)" => EndpointState::WaitingForIdentity,
            "ready" => EndpointState::Ready,
            "WR" | "waiting-to-regenerate (WR)" => EndpointState::WaitingToRegenerate,
            "regenerating" => EndpointState::Regenerating,
            "restoring" => EndpointState::Restoring,
            "disconnecting" => EndpointState::Disconnecting,
            "disconnected" => EndpointState::Disconnected,
            "invalid" => EndpointState::Invalid,
            other => panic!("no such state: {other}"),
        }
    }

    /// The table in the module's docs is the expectation.
    #[test]
    fn every_pair_is_as_the_table_says() {
        let rows: Vec<Vec<&str>> = include_str!("state.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows.len(), 9, "a head and eight states");
        for row in &rows[1..] {
            let from = state(row[0]);
            for (place, trigger) in TRIGGERS.into_iter().enumerate() {
                let expected = match row[place + 1] {
                    "" => Err(Refused { from, trigger }),
                    word => Ok(state(word)),
                };
                assert_eq!(step(from, trigger), expected, "{from:?}, {trigger:?}");
            }
        }
    }
}
