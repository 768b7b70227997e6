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

/// Only an ensemble of two voters ever asks an oracle (`QuorumOracleMaj`), and here not even that does.
pub(super) fn warn_of_oracle(keys: &FileKeys, voters: usize, standalone: bool) {
    if keys.text("oraclePath").is_none() {
        return;
    }
    let at = keys.at("oraclePath");
    if voters == 2 && !standalone {
        log::warn!(
            "{at} has no effect: the oracle of two-server ensembles is not asked. Neither server \
             serves without the other"
        );
    } else {
        log::warn!(
            "{at} has no effect: an oracle is asked by an ensemble of two voters alone, also by ZooKeeper"
        );
    }
}
