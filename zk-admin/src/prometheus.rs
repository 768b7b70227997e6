//! `/metrics`: the text format of Prometheus, in the form of ZooKeeper's provider.
//!
//! Names without a prefix, counters without `_total`, every number a double, a comma after the last
//! label. Of summaries without percentiles there is no quantile, as none is measured; with percentiles
//! they are those since the start or the last `srst`.
//!
//! Source: recorded answer of ZooKeeper 3.9.4, `zabd/tests/vectors/admin`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use zk_service::look::{Distribution, Entry, Metric, MetricValue};

/// What ZooKeeper calls it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family: its kind, and its metrics.
type Family<'m> = (&'static str, Vec<&'m Metric>);

/// The text. `query` may name the families that are wanted (`name[]=`), all others are left out then.
pub(crate) fn text(metrics: &[Metric], with_process: bool, query: &str) -> String {
    let wanted = wanted(query);
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for metric in metrics {
        let kind = match metric.value {
            MetricValue::Text(_) => continue,
            MetricValue::Gauge(_) | MetricValue::Fraction(_) => "gauge",
            MetricValue::Counter(_) => "counter",
            MetricValue::Summary(_) | MetricValue::Distribution(_) => "summary",
        };
        families.entry(&metric.name).or_insert((kind, Vec::new())).1.push(metric);
    }
    let mut out = String::new();
    for (name, (kind, metrics)) in families.iter().filter(|(name, _)| is_wanted(name)) {
        head(&mut out, name, name, kind);
        for metric in metrics {
            family_member(&mut out, metric);
        }
    }
    if with_process {
        for figure in process().iter().filter(|figure| is_wanted(figure.name)) {
            head(&mut out, figure.name, figure.help, figure.kind);
            let _ = writeln!(out, "{} {:?}", figure.name, figure.value);
        }
    }
    out
}

/// The values of `name[]` in a query, in which brackets may be escaped.
fn wanted(query: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let of_name = pairs
        .filter(|(key, _)| ["name[]", "name%5b%5d"].contains(&key.to_ascii_lowercase().as_str()));
    of_name.map(|(_, value)| value.to_owned()).collect()
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn family_member(out: &mut String, metric: &Metric) {
    let name = &metric.name;
    let key = metric.key.as_ref().map(|key| format!("key=\"{}\",", escaped(key)));
    let key = key.unwrap_or_default();
    let labels = |more: &str| match (key.as_str(), more) {
        ("", "") => String::new(),
        (key, more) => format!("{{{key}{more}}}"),
    };
    let mut line = |suffix: &str, more: &str, value: String| {
        let _ = writeln!(out, "{name}{suffix}{} {value}", labels(more));
    };
    let (summary, quantiles) = match &metric.value {
        MetricValue::Text(_) => return,
        MetricValue::Gauge(value) => return line("", "", format!("{value}.0")),
        MetricValue::Fraction(value) => {
            return line("", "", Entry::Fraction((*value).into()).to_string());
        }
        MetricValue::Counter(value) => return line("", "", format!("{value}.0")),
        MetricValue::Summary(summary) => (summary, None),
        MetricValue::Distribution(all) => (&all.summary, Some(all)),
    };
    if let Some(Distribution { p50, p90, p99, .. }) = quantiles {
        for (quantile, value) in [("0.5", p50), ("0.9", p90), ("0.99", p99)] {
            let label = format!("quantile=\"{quantile}\",");
            let value = if summary.count == 0 { "NaN".into() } else { format!("{value}.0") };
            line("", &label, value);
        }
    }
    line("_count", "", format!("{}.0", summary.count));
    line("_sum", "", format!("{}.0", summary.sum));
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A figure of the process.
struct Figure {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    value: f64,
}

/// What Prometheus' client libraries tell of a process on Linux, as far as it can be read.
fn process() -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut put = |name, help, kind, value: Option<f64>| {
        figures.extend(value.map(|value| Figure { name, help, kind, value }));
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name of the program, which may have blanks, and is in brackets.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|n| n.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied();
    let seconds = |ticks: f64| ticks / TICKS_PER_SECOND;
    put(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        "counter",
        field(14).zip(field(15)).map(|(user, system)| seconds(user + system)),
    );
    put(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        "gauge",
        field(22).zip(boot_time()).map(|(ticks, boot)| boot + seconds(ticks)),
    );
    let open = fs::read_dir("/proc/self/fd").ok().map(|all| all.count());
    put(
        "process_open_fds",
        "Number of open file descriptors.",
        "gauge",
        open.and_then(|n| u32::try_from(n).ok()).map(f64::from),
    );
    put(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        "gauge",
        of_file("/proc/self/limits", "Max open files"),
    );
    put(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        "gauge",
        of_file("/proc/self/status", "VmSize:").map(|kilobytes| kilobytes * 1024.0),
    );
    put(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        "gauge",
        resident_bytes(),
    );
    figures
}

/// `USER_HZ`, which is 100 on every architecture this builds for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of this process that is resident, in bytes.
pub(crate) fn resident_bytes() -> Option<f64> {
    of_file("/proc/self/status", "VmRSS:").map(|kilobytes| kilobytes * 1024.0)
}

fn boot_time() -> Option<f64> {
    of_file("/proc/stat", "btime")
}

/// The first number after a word at the beginning of a line.
fn of_file(path: &str, word: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use zk_service::Summary;

    use super::*;

    fn metric(name: &'static str, key: Option<&str>, value: MetricValue) -> Metric {
        Metric { name: name.into(), key: key.map(Into::into), value }
    }

    #[test]
    fn the_form_is_zookeepers() {
        let summary = Summary { count: 2, sum: 9, min: 1, max: 8 };
        let all = Distribution { summary, p50: 1, p90: 8, p95: 8, p99: 8, p999: 8 };
        let metrics = [
            metric("version", None, MetricValue::Text("3.9".into())),
            metric("uptime", None, MetricValue::Gauge(12)),
            metric("avg_latency", None, MetricValue::Fraction(23_088)),
            metric("quota", Some("a\"b"), MetricValue::Gauge(1)),
            metric("other", None, MetricValue::Counter(0)),
            metric("quota", Some("c"), MetricValue::Gauge(2)),
            metric("fsynctime", None, MetricValue::Summary(summary)),
            metric("readlatency", None, MetricValue::Distribution(all)),
        ];
        let expected = "# HELP avg_latency avg_latency\n# TYPE avg_latency gauge\navg_latency 2.3088\n\
                        # HELP fsynctime fsynctime\n# TYPE fsynctime summary\nfsynctime_count 2.0\n\
                        fsynctime_sum 9.0\n\
                        # HELP other other\n# TYPE other counter\nother 0.0\n\
                        # HELP quota quota\n# TYPE quota gauge\nquota{key=\"a\\\"b\",} 1.0\n\
                        quota{key=\"c\",} 2.0\n\
                        # HELP readlatency readlatency\n# TYPE readlatency summary\n\
                        readlatency{quantile=\"0.5\",} 1.0\nreadlatency{quantile=\"0.9\",} 8.0\n\
                        readlatency{quantile=\"0.99\",} 8.0\nreadlatency_count 2.0\n\
                        readlatency_sum 9.0\n\
                        # HELP uptime uptime\n# TYPE uptime gauge\nuptime 12.0\n";
        assert_eq!(text(&metrics, false, ""), expected);
        let one = "# HELP uptime uptime\n# TYPE uptime gauge\nuptime 12.0\n";
        assert_eq!(text(&metrics, true, "name[]=uptime"), one);
        assert_eq!(text(&metrics, true, "name%5B%5D=uptime&x=1"), one);
    }

    #[test]
    fn the_process_is_measured() {
        let figures = process();
        assert_eq!(figures.len(), 6);
        assert!(figures.iter().all(|figure| figure.value > 0.0 || figure.kind == "counter"));
        let started = figures[1].value;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.expect("after 1970").as_secs_f64() - started;
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
