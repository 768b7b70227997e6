//! How a silent server is noticed in a fraction of a second: what members agree on, when silence is
//! suspicious, and how a server knows that the silence was its own.
//!
//! A learner asks for a heartbeat after the bytes of FOLLOWERINFO that ZooKeeper reads, and a leader
//! that has heartbeats grants one in LEADERINFO ([`Tag::HEARTBEAT`](crate::wire::extension::Tag)). Who
//! was granted none is sent PINGs every half tick, as ZooKeeper does.
//!
//! The files of this directory know neither role: [`gaps`] remembers how long the other side has been
//! silent at worst, [`limit`] says how long is too long, [`watchdog`] finds out that this process did not
//! run. `learner/suspicion.rs` and `leader/beats.rs` are the two halves that use them.

mod gaps;
mod limit;
mod memory;
mod watchdog;

use core::time::Duration;

pub(crate) use self::gaps::Gaps;
pub(crate) use self::limit::Limit;
pub(crate) use self::memory::Suspicions;
pub(crate) use self::watchdog::Watchdog;

/// What happened with heartbeats since this process began; for monitors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HeartbeatStatus {
    /// The pause between heartbeats that this server was granted (learner) or grants (leader). `None`:
    /// there are none, as the other side is Apache's or they are switched off.
    pub interval: Option<Duration>,
    /// Silence after which the other side is suspected at present. `None` as above, and while heartbeats
    /// have not been kept for long enough.
    pub limit: Option<Duration>,
    /// Heartbeats that this server sent as a leader.
    pub sent: u64,
    /// Heartbeats that this server answered as a learner.
    pub answered: u64,
    /// How often this server suspected its leader.
    pub suspicions: u64,
    /// Of these, how often that leader was replaced.
    pub suspicions_true: u64,
    /// Of these, how often this server followed the same leader again in the same epoch.
    pub suspicions_false: u64,
    /// How often this process did not run when it should have: a timer fired late.
    pub pauses: u64,
    /// The longest of these pauses.
    pub longest_pause: Duration,
}

/// The value of a field with a number of milliseconds: what was wanted or granted. Nothing and zero
/// mean that there are no heartbeats.
pub(crate) fn decode(value: Option<&[u8]>) -> Option<Duration> {
    let millis = u16::from_be_bytes(*value?.first_chunk()?);
    (millis > 0).then(|| Duration::from_millis(millis.into()))
}

/// The field for `every`, which is rounded up to milliseconds.
pub(crate) fn encode(every: Duration) -> [u8; 2] {
    let millis = every.as_micros().div_ceil(1000);
    u16::try_from(millis).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_there_and_back() {
        let ms = Duration::from_millis;
        for every in [ms(1), ms(50), ms(65_535)] {
            assert_eq!(decode(Some(&encode(every))), Some(every));
        }
        assert_eq!(encode(Duration::from_micros(1)), [0, 1]);
        assert_eq!(decode(Some(&encode(ms(131_070)))), Some(ms(65_535)), "twice the longest");
        for nothing in [None, Some(&b""[..]), Some(b"\x01"), Some(b"\0\0")] {
            assert_eq!(decode(nothing), None);
        }
        // A later version may say more.
        assert_eq!(decode(Some(b"\0\x32more")), Some(ms(50)));
    }
}
