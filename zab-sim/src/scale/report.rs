//! Results as tables, plots and numbers for programs.

use figures::plot::{Bar, Bars, Plot, short};
use figures::table::{Percentiles, markdown};
use figures::{Json, json};

use super::{Place, Samples, Timing, What, Work};

/// Results as Markdown, a line for each ensemble.
pub(super) fn rows<const N: usize>(
    head: [&str; N],
    works: &[Work],
    results: &[Samples],
    row: impl Fn(&Work, &Samples) -> Vec<String>,
) -> String {
    let mut rows = vec![strings(head)];
    rows.extend(zip(works, results).map(|(work, samples)| row(work, samples)));
    markdown(&rows)
}

/// Median and 99th percentile.
pub(super) fn times(samples: &Samples, what: What) -> String {
    pair(samples.of(what))
}

/// Medians of notifications and of KB.
pub(super) fn sent(samples: &Samples, [votes, bytes]: [What; 2]) -> String {
    let middle = |what, unit: f64| short(Percentiles::new(samples.of(what).to_vec()).p50 / unit);
    format!("{} / {}", middle(votes, 1.0), middle(bytes, 1e3))
}

/// Medians of some kinds in one place as bars, with whiskers up to the 99th percentile.
pub(super) fn kinds(
    title: &str,
    works: &[Work],
    results: &[Samples],
    place: Place,
    kinds: &[(&str, What, bool)],
) -> Plot {
    let series = kinds.iter().map(|(name, what, masters)| {
        let bars = bars(works, results, *what, |work| {
            (work.case.place, work.case.timing, work.case.masters)
                == (place, Timing::Early, *masters)
        });
        ((*name).to_owned(), bars)
    });
    plot(&format!("{title}, {}", place.name()), "ms", works, series.collect())
}

/// Results as Markdown: elections in both places, then commits.
pub(super) fn tables(works: &[Work], results: &[Samples]) -> String {
    let mut text = String::new();
    for place in Place::ALL {
        text += &format!("Elections, {}:\n\n", place.name());
        text += &markdown(&elections(place, works, results));
        text += "\n";
    }
    text += "Commits, ms from the proposal to its delivery:\n\n";
    text + &markdown(&commits(works, results))
}

fn strings<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

fn elections(place: Place, works: &[Work], results: &[Samples]) -> Vec<Vec<String>> {
    let mut rows = vec![strings([
        "servers",
        "waits",
        "cold start: voters decided, ms",
        "first commit",
        "all serve",
        "votes / KB sent",
        "leader lost: voters decided, ms",
        "next serves",
        "next commit",
        "all serve",
        "votes / KB sent",
    ])];
    for (work, samples) in zip(works, results).filter(|(work, _)| work.case.place == place) {
        rows.push(vec![
            work.case.size(),
            work.case.timing.name().into(),
            times(samples, What::ColdDecided),
            times(samples, What::ColdCommit),
            times(samples, What::ColdAll),
            sent(samples, [What::ColdVotes, What::ColdBytes]),
            times(samples, What::LostDecided),
            times(samples, What::LostServes),
            times(samples, What::LostCommit),
            times(samples, What::LostAll),
            sent(samples, [What::LostVotes, What::LostBytes]),
        ]);
    }
    rows
}

fn commits(works: &[Work], results: &[Samples]) -> Vec<Vec<String>> {
    let mut head = vec!["servers".to_owned()];
    for place in Place::ALL {
        for what in ["one in flight", "on the last member", "32 in flight"] {
            head.push(format!("{}: {what}", place.name()));
        }
    }
    let mut rows = vec![head];
    let ours = || zip(works, results).filter(|(work, _)| work.case.timing == Timing::Early);
    for (work, _) in ours().filter(|(work, _)| work.case.place == Place::Lan) {
        let size = work.case.size();
        let mut row = vec![size.clone()];
        for place in Place::ALL {
            let same = ours().find(|(w, _)| w.case.place == place && w.case.size() == size);
            for what in [What::CommitOne, What::CommitOneAll, What::CommitMany] {
                row.push(same.map(|(_, samples)| pair(samples.of(what))).unwrap_or_default());
            }
        }
        rows.push(row);
    }
    rows
}

fn zip<'a>(
    works: &'a [Work],
    results: &'a [Samples],
) -> impl Iterator<Item = (&'a Work, &'a Samples)> {
    works.iter().zip(results)
}

fn pair(values: &[f64]) -> String {
    if values.is_empty() {
        return String::new();
    }
    let p = Percentiles::new(values.to_vec());
    let number = |value: f64| match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    };
    format!("{} / {}", number(p.p50), number(p.p99))
}

/// Medians as bars, with whiskers up to the 99th percentile.
pub(super) fn plots(works: &[Work], results: &[Samples]) -> Vec<Plot> {
    let elections = [
        ("Cold start: first commit", What::ColdCommit, "ms"),
        ("Leader lost: next commit", What::LostCommit, "ms"),
        ("Leader lost: notifications sent", What::LostVotes, "notifications"),
    ];
    let mut plots: Vec<Plot> = elections
        .into_iter()
        .map(|(title, what, unit)| {
            let series = Place::ALL.into_iter().flat_map(|place| {
                Timing::ALL.map(|timing| {
                    let name = format!("{}, {} waits", place.name(), timing.name());
                    let of = |work: &Work| (work.case.place, work.case.timing) == (place, timing);
                    (name, bars(works, results, what, of))
                })
            });
            plot(title, unit, works, series.collect())
        })
        .collect();
    let commits = [(What::CommitOne, "one in flight"), (What::CommitMany, "32 in flight")];
    let series = Place::ALL.into_iter().flat_map(|place| {
        commits.map(|(what, name)| {
            let name = format!("{}, {name}", place.name());
            let of = |work: &Work| (work.case.place, work.case.timing) == (place, Timing::Early);
            (name, bars(works, results, what, of))
        })
    });
    plots.push(plot("Commit: proposal to delivery on the leader", "ms", works, series.collect()));
    plots
}

fn plot(title: &str, unit: &str, works: &[Work], series: Vec<(String, Vec<Option<Bar>>)>) -> Plot {
    let groups = sizes(works);
    let unit = format!("{unit} by voters + observers, median and 99th percentile");
    Plot::Bars(Bars { title: title.into(), unit, groups, series })
}

fn sizes(works: &[Work]) -> Vec<String> {
    let mut sizes: Vec<String> = Vec::new();
    for size in works.iter().map(|work| work.case.size()) {
        if !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    sizes
}

/// What the ensembles of each size that are meant show.
fn bars(
    works: &[Work],
    results: &[Samples],
    what: What,
    is_meant: impl Fn(&Work) -> bool,
) -> Vec<Option<Bar>> {
    let bar = |size: String| {
        let mut all = zip(works, results);
        let (_, samples) = all.find(|(work, samples)| {
            work.case.size() == size && is_meant(work) && !samples.of(what).is_empty()
        })?;
        let p = Percentiles::new(samples.of(what).to_vec());
        Some(Bar { value: p.p50, high: Some(p.p99) })
    };
    sizes(works).into_iter().map(bar).collect()
}

/// Everything, for programs.
#[must_use]
pub fn json(works: &[Work], results: &[Samples]) -> Json {
    let case = |(work, samples): (&Work, &Samples)| {
        let mut fields = json!({
            "voters": work.case.voters,
            "observers": work.case.observers,
            "place": work.case.place.name(),
            "waits": work.case.timing.name(),
            "seeds": work.seeds,
            "losses of the leader per seed": work.rounds,
            "events": samples.events,
        });
        for (what, name) in What::ALL.into_iter().filter(|(what, _)| !samples.of(*what).is_empty())
        {
            fields[name] = Percentiles::new(samples.of(what).to_vec()).json();
        }
        fields
    };
    zip(works, results).map(case).collect()
}
