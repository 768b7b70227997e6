//! What is said about the number of voters.

use super::file::FileKeys;

pub(super) fn warn(voters: usize, standalone: bool) {
    if standalone {
        if voters == 1 {
            log::error!("Invalid configuration, only one server specified (ignoring)");
        }
        return;
    }
    if voters <= 2 {
        log::warn!("No server failure will be tolerated. You need at least 3 servers.");
    } else if voters.is_multiple_of(2) {
        log::warn!("Non-optimal configuration, consider an odd number of servers.");
    }
}

/// Only an ensemble of two voters asks an oracle (`QuorumOracleMaj`), which gives up safety for it.
pub(super) fn warn_of_oracle(keys: &FileKeys, voters: usize, standalone: bool) {
    if keys.text("oraclePath").is_none() {
        return;
    }
    let at = keys.at("oraclePath");
    if keys.ensemble.is_hierarchical() {
        log::warn!(
            "{at} has no effect beside group.N and weight.N, by which quorums are made here. ZooKeeper's \
             servers ignore groups where it is set"
        );
    } else if voters == 2 && !standalone {
        log::warn!(
            "{at}: of these two voters one serves without the other while its file says 1. What it commits \
             alone is lost if the other one leads next without it. If both files say 1 while neither \
             server hears the other, both serve, and what one of them commits is lost"
        );
    } else if keys.is_on("reconfigEnabled") && !standalone {
        log::warn!(
            "{at} has no effect with {voters} voters: an oracle is asked when a reconfig has left two. What \
             one of two commits alone is lost if the other one leads next without it"
        );
    } else {
        log::warn!(
            "{at} has no effect: an oracle is asked by an ensemble of two voters alone, also by ZooKeeper"
        );
    }
}
