//! The entries of the catalogue of failures (`docs/catalogue.md`) that are about sessions, the tree and
//! its snapshots, and requests: each schedule as it was, carried out on the service.
#![expect(clippy::unwrap_used, reason = "a test has no other way to fail")]

mod elsewhere;
#[path = "../harness/mod.rs"]
mod harness;
mod requests;
mod schedule;
mod sessions;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use harness::World;
use zk_service::ServiceOptions;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| options.tick_time = Duration::from_secs(2))
}

/// All servers have the same tree and sessions, and nobody's digest differs from its leader's.
fn assert_equal_trees(world: &World) {
    for node in &world.nodes {
        let (first, other) = (world.service(0).database(), node.app().database());
        assert_eq!(other.last_zxid(), first.last_zxid());
        assert_eq!(support::dump(other), support::dump(first));
        assert_eq!(other.sessions, first.sessions);
        assert_eq!(node.app().digest_mismatches(), 0);
    }
}
