//! Outputs that are derived from no position in the history.

use super::{Peer, Role};
use crate::shared::Control;
use crate::{Channel, ConnId, Output};

impl Peer {
    /// `None` if it has become pointless.
    pub(super) fn control_output(&mut self, control: Control) -> Option<OwnedOutput> {
        Some(match control {
            Control::Connect { conn, channel, addresses } => {
                self.dialling = addresses;
                OwnedOutput::Connect(conn, channel)
            }
            Control::Snapshot(conn) => {
                let history = &self.shared.history;
                let lent = match &mut self.role {
                    Role::Looking(_) => false,
                    Role::Learner(learner) => learner.lend_snapshot(history, conn),
                    Role::Leader(leader) => leader.lend_snapshot(history, conn),
                };
                if !lent {
                    return None;
                }
                self.shared.syncs.snapshots += 1;
                OwnedOutput::Other(Output::Snapshot { conn })
            }
            Control::Log { conn, after, through, any_length } => {
                OwnedOutput::Other(Output::Log { conn, after, through, any_length })
            }
            Control::Reconfigured => OwnedOutput::Other(Output::Reconfigured),
            Control::Became(status) => OwnedOutput::Other(Output::Became(status)),
            Control::Transmit(conn) => OwnedOutput::Other(Output::Transmit { conn }),
            Control::Close { conn, reason } => OwnedOutput::Other(Output::Close { conn, reason }),
            Control::Resume(conn) => OwnedOutput::Other(Output::Resume { conn }),
            Control::Synced(token) => OwnedOutput::Other(Output::Synced { token }),
            Control::Room => OwnedOutput::Other(Output::Room),
            Control::AskOracle => OwnedOutput::Other(Output::AskOracle),
            Control::DiscardStage => OwnedOutput::Other(Output::DiscardStage),
            Control::Notice(notice, more) => OwnedOutput::Other(Output::Notice { notice, more }),
        })
    }
}

/// An output without, or with, the text of the last dial.
pub(super) enum OwnedOutput {
    Connect(ConnId, Channel),
    Other(Output<'static>),
}

impl OwnedOutput {
    pub(super) fn into_output(self, addresses: &str) -> Output<'_> {
        match self {
            Self::Connect(conn, channel) => Output::Connect { conn, channel, addresses },
            Self::Other(output) => output,
        }
    }
}
