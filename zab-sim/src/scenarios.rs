//! The scenarios, by name; their texts are in `scenarios/`.

use crate::script::Scenario;

macro_rules! scenarios {
    ($($name:literal)*) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: $name,
            text: include_str!(concat!("../scenarios/", $name, ".txt")),
        }),*];
    };
}

scenarios! {
    "B-01"
    "B-02"
    "B-03"
    "B-04"
    "B-05"
    "B-06"
    "B-07"
    "B-08"
    "B-09"
    "B-10a"
    "B-10b"
    "B-11"
    "B-12"
    "B-13"
    "B-14"
    "B-15"
    "B-16"
    "B-17"
    "B-18"
    "B-19"
    "B-20"
    "B-21"
    "B-23"
    "B-24"
    "B-25"
    "B-26"
    "B-27"
    "B-28"
    "B-29"
    "B-30"
    "B-31"
    "B-35b"
    "B-40"
    "B-41"
    "B-42"
    "B-43"
    "B-44"
    "B-45a"
    "B-46"
    "B-46-observers"
    "B-47"
    "B-48"
    "B-49"
    "B-52"
    "B-53"
    "B-56"
    "B-57-denied"
    "B-57-granted"
    "B-57-replaced"
    "B-58"
    "H1"
    "H2"
    "H3"
    "H4"
    "H5"
    "H6"
    "H7"
    "altinity-1639"
    "birth-interrupted"
    "clickhouse-chunk"
    "damaged-epoch"
    "etcd-aba"
    "etcd-applied"
    "foreign-directory"
    "members-follower-unheard"
    "members-successor-unheard"
    "omnipaxos-chained"
    "omnipaxos-constrained"
    "partial-partition"
    "promise-elsewhere"
    "stranger-introduction"
    "sync-after-commits"
    "tail-at-uptodate"
}

/// The scenario of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::verify;

    #[test]
    fn all_scenarios_hold_and_bite() {
        let broken: Vec<_> = ALL
            .iter()
            .filter_map(|scenario| Some((scenario.name, verify(scenario).err()?)))
            .collect();
        assert!(broken.is_empty(), "{broken:#?}");
    }
}
