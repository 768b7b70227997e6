//! Outputs that are derived from no position in the history.

use super::{Peer, Role};
use crate::shared::Control;
use crate::{Channel, ConnId, Output};

impl Peer {
    /// `None` if it has become pointless.
    pub(super) fn control_output(&mut self, control: Control) -> Option<Plain> {
        Some(match control {
            Control::Connect { conn, channel, addresses } => {
                self.dialling = addresses;
                Plain::Connect(conn, channel)
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
                Plain::Other(Output::Snapshot { conn })
            }
            Control::Log { conn, after, through, any_length } => {
                Plain::Other(Output::Log { conn, after, through, any_length })
            }
            Control::Reconfigured => Plain::Other(Output::Reconfigured),
            Control::Became(status) => Plain::Other(Output::Became(status)),
            Control::Transmit(conn) => Plain::Other(Output::Transmit { conn }),
            Control::Close { conn, reason } => Plain::Other(Output::Close { conn, reason }),
            Control::Resume(conn) => Plain::Other(Output::Resume { conn }),
            Control::Synced(token) => Plain::Other(Output::Synced { token }),
            Control::Room => Plain::Other(Output::Room),
            Control::DiscardStage => Plain::Other(Output::DiscardStage),
            Control::Notice(notice, more) => Plain::Other(Output::Notice { notice, more }),
        })
    }
}

/// An output without, or with, the text of the last dial.
pub(super) enum Plain {
    Connect(ConnId, Channel),
    Other(Output<'static>),
}

impl Plain {
    pub(super) fn into_output(self, addresses: &str) -> Output<'_> {
        match self {
            Self::Connect(conn, channel) => Output::Connect { conn, channel, addresses },
            Self::Other(output) => output,
        }
    }
}
