//! The simulator's command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};

use zab_sim::counter::Counter;
use zab_sim::coverage::{
    Coverage, MASTERS_MUST_REACH, MEMBERS_MUST_REACH, MUST_REACH, SERVICE_MUST_REACH, STEPS,
};
use zab_sim::minimise::minimise;
use zab_sim::plan::draw;
use zab_sim::replica::Replica;
use zab_sim::run::keep_panics;
use zab_sim::script::{Scenario, verify};
use zab_sim::zk::Zk;
use zab_sim::{Mutation, Options, Outcome, profile, run, scale, scenarios};

/// What is put into the simulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Subject {
    /// A counter: the core alone.
    Counter,
    /// The ZooKeeper service and its clients.
    Zk,
}

impl Subject {
    fn run(self, options: &Options, lines: usize) -> Outcome {
        match self {
            Self::Counter => run::<Replica<Counter>>(options, lines),
            Self::Zk => run::<Zk>(options, lines),
        }
    }

    fn must_reach(self) -> &'static [&'static str] {
        match self {
            Self::Counter => MUST_REACH,
            Self::Zk => SERVICE_MUST_REACH,
        }
    }

    fn minimise(self, options: &Options, outcome: Outcome, tries: u32) -> Options {
        match self {
            Self::Counter => minimise::<Replica<Counter>>(options, outcome, tries).0,
            Self::Zk => minimise::<Zk>(options, outcome, tries).0,
        }
    }
}

/// Runs ensembles through bad luck and checks that they stay right.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Run this seed and show its trace.
    #[arg(long)]
    seed: Option<u64>,
    /// Run these seeds, for instance `0..1000`.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<(u64, u64)>,
    /// What is simulated.
    #[arg(long, value_enum, default_value_t = Subject::Counter)]
    subject: Subject,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// With `--seeds`: print a hash of each trace, in the order of the seeds, and nothing else.
    #[arg(long)]
    trace_hash: bool,
    /// Lines of the trace to show.
    #[arg(long, default_value_t = 80)]
    lines: usize,
    /// Put this fault into the code; see `--list`.
    #[arg(long)]
    mutation: Option<String>,
    /// Do not make failing runs smaller.
    #[arg(long)]
    no_minimise: bool,
    /// Go on after a failure, to count them.
    #[arg(long)]
    keep_going: bool,
    /// Bias all runs to the phases of this profile or scenario; `plain`: none. See `--list`.
    #[arg(long)]
    profile: Option<String>,
    /// Play this scenario (or `all`, or the script in a file `*.txt`) and show its trace.
    #[arg(long)]
    scenario: Option<String>,
    /// List scenarios and mutations.
    #[arg(long)]
    list: bool,
    /// Find every mutation by random search and print a table of what it took.
    #[arg(long)]
    mutations: bool,
    /// Measure elections and commits of ensembles of many sizes in virtual time; with
    /// `--profile members`: changes of their members; with `--profile masters`: observers.
    #[arg(long)]
    scale: bool,
    /// With `--scale`: only small ensembles, to see that it works.
    #[arg(long)]
    quick: bool,
    /// With `--scale`: only these sizes, for instance `3,101,5+1000`.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<String>,
    /// With `--scale`: also write the tables, as Markdown and JSON, and a plot into this directory.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("expected A..B")?;
    let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    Ok((number(from)?, number(to)?))
}

fn main() -> ExitCode {
    let args = Args::parse();
    keep_panics();
    let mutation = match args.mutation.as_deref().map(Mutation::named) {
        Some(None) => {
            eprintln!("no such mutation; see --list");
            return ExitCode::FAILURE;
        }
        other => other.flatten(),
    };
    if args.list {
        for scenario in scenarios::ALL {
            println!("scenario {}: {}", scenario.name, scenario.title());
        }
        for profile in profile::ALL.iter().chain(profile::APART) {
            println!("profile {}: {}", profile.name, profile.about.join(" "));
        }
        let mutations = Mutation::ALL.iter().chain(Mutation::MEMBERS).chain(Mutation::MASTERS);
        mutations.for_each(|mutation| println!("mutation {mutation:?}"));
        Mutation::SERVICE.iter().for_each(|m| println!("mutation {m:?}, with --subject zk"));
        return ExitCode::SUCCESS;
    }
    let known = |name: &str| name == "plain" || profile::named(name).is_some();
    if args.profile.as_deref().is_some_and(|name| !known(name)) {
        eprintln!("no such profile; see --list");
        return ExitCode::FAILURE;
    }
    if let Some(name) = &args.scenario {
        return play(&args, name, mutation);
    }
    if args.mutations {
        return mutation_table(&args);
    }
    if args.scale {
        return match args.profile.as_deref() {
            Some("members") => scale_table(&args, &scale::CHANGES),
            Some("masters") => scale_table(&args, &scale::MASTERS),
            _ => scale_table(&args, &scale::ELECTIONS),
        };
    }
    if let Some((from, to)) = args.seeds {
        return sweep(&args, from, to, mutation);
    }
    single(&args, args.seed.unwrap_or(0), mutation)
}

fn play(args: &Args, name: &str, mutation: Option<Mutation>) -> ExitCode {
    if name == "all" {
        let mut code = ExitCode::SUCCESS;
        for scenario in scenarios::ALL {
            match verify(scenario) {
                Ok(()) => println!("{}: ok", scenario.name),
                Err(failure) => {
                    println!("{}: {}: {}", scenario.name, failure.invariant, failure.text);
                    code = ExitCode::FAILURE;
                }
            }
        }
        return code;
    }
    let from_file = name.ends_with(".txt").then(|| std::fs::read_to_string(name));
    let scenario = match from_file {
        Some(Ok(text)) => Some(Scenario { name: "script", text: text.leak() }),
        Some(Err(_)) => None,
        None => scenarios::named(name).copied(),
    };
    let Some(scenario) = scenario else {
        eprintln!("no such scenario; see --list");
        return ExitCode::FAILURE;
    };
    let outcome = scenario.play(mutation, args.lines);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    match outcome.failure {
        None => {
            println!("{}: ok after {} events", scenario.name, outcome.events);
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("{}: {}: {}", scenario.name, failure.invariant, failure.text);
            ExitCode::FAILURE
        }
    }
}

fn options_of(args: &Args, seed: u64, mutation: Option<Mutation>) -> Options {
    let profile = args.profile.as_deref().map(profile::named);
    let options = match profile {
        None => Options::swarm(seed),
        Some(None) => Options::plain(seed),
        Some(Some(profile)) => profile.options(seed),
    };
    Options { mutation, ..options }
}

fn single(args: &Args, seed: u64, mutation: Option<Mutation>) -> ExitCode {
    let options = options_of(args, seed, mutation);
    let outcome = args.subject.run(&options, args.lines);
    if outcome.failure.is_some() {
        report(args, &options, outcome);
        return ExitCode::FAILURE;
    }
    outcome.trace.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {seed}: {} events, {:.3} s of virtual time, fingerprint {:016x}",
        outcome.events,
        seconds(outcome.virtual_time),
        outcome.fingerprint
    );
    print!("{}", outcome.coverage);
    ExitCode::SUCCESS
}

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Shows a failing run, made as small as possible.
fn report(args: &Args, options: &Options, outcome: Outcome) {
    let seed = options.seed;
    let describe = |outcome: &Outcome| {
        let failure = outcome.failure.as_ref().expect("only failing runs are reported");
        format!("{} after {} events: {}", failure.invariant, outcome.events, failure.text)
    };
    println!("seed {seed}: {}", describe(&outcome));
    let tries = if args.no_minimise { 0 } else { 300 };
    let smaller = args.subject.minimise(options, outcome, tries);
    let again = args.subject.run(&smaller, args.lines);
    println!("--- smallest variant: {smaller:?}");
    for (index, planned) in draw(&smaller).iter().enumerate() {
        if !smaller.without.contains(&index) {
            println!("--- fault {index}: {planned:?}");
        }
    }
    again.trace.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {}", describe(&again));
}

/// What the threads of a sweep share.
#[derive(Debug, Default)]
struct Sum {
    events: u64,
    virtual_time: u64,
    runs: u64,
    coverage: Coverage,
    failures: Vec<(u64, &'static str, String)>,
    /// Seeds and the hashes of their traces.
    hashes: Vec<(u64, u64)>,
}

fn sweep(args: &Args, from: u64, to: u64, mutation: Option<Mutation>) -> ExitCode {
    let started = Instant::now();
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        break;
                    }
                    let outcome = args.subject.run(&options_of(args, seed, mutation), 0);
                    let mut sum = sum.lock().expect("no thread panics with the lock");
                    add(&mut sum, seed, outcome, started);
                    if !(args.keep_going || args.trace_hash || sum.failures.is_empty()) {
                        next.store(to, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no thread panicked");
    let elapsed = started.elapsed();
    if args.trace_hash {
        return print_hashes(sum);
    }
    print!("{}", sum.coverage);
    println!(
        "{} runs, {} events, {:.0} s of virtual time, {:.1} s, {:.0} events/s",
        sum.runs,
        sum.events,
        seconds(sum.virtual_time),
        elapsed.as_secs_f64(),
        rate(sum.events, elapsed.as_secs_f64())
    );
    let (must_reach, complete) = match args.profile.as_deref() {
        None => (args.subject.must_reach(), true),
        Some("members" | "turnover") => (MEMBERS_MUST_REACH, true),
        Some("masters") => (MASTERS_MUST_REACH, true),
        Some(_) => (args.subject.must_reach(), false),
    };
    let mut missing = sum.coverage.missing(must_reach);
    if matches!(args.profile.as_deref(), Some("members" | "turnover")) {
        // Nobody is named to lead before the change is committed: there is nothing to reach then.
        let steps = STEPS.as_flattened().iter().copied().filter(|step| !step.is_empty());
        missing.extend(sum.coverage.missing(&steps.collect::<Vec<_>>()));
    }
    if !missing.is_empty() && complete && mutation.is_none() {
        println!("never reached: {}", missing.join(", "));
        if sum.runs >= ENOUGH_RUNS && sum.failures.is_empty() {
            return ExitCode::FAILURE;
        }
    }
    if let Some((seed, _, _)) = sum.failures.iter().min() {
        if !args.keep_going {
            let options = options_of(args, *seed, mutation);
            let outcome = args.subject.run(&options, 0);
            report(args, &options, outcome);
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Two builds with the same hashes do the same, to the last byte that a server sends.
fn print_hashes(mut sum: Sum) -> ExitCode {
    sum.hashes.sort_unstable();
    for (seed, hash) in &sum.hashes {
        println!("{seed} {hash:016x}");
    }
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// So many runs reach everything, or something has become unreachable.
const ENOUGH_RUNS: u64 = 2000;

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
fn rate(events: u64, seconds: f64) -> f64 {
    events as f64 / seconds
}

fn add(sum: &mut Sum, seed: u64, outcome: Outcome, started: Instant) {
    sum.runs += 1;
    sum.events += outcome.events;
    sum.virtual_time += outcome.virtual_time;
    sum.coverage.add(&outcome.coverage);
    sum.hashes.push((seed, outcome.fingerprint));
    if let Some(failure) = outcome.failure {
        let line = failure.text.lines().next().unwrap_or_default();
        eprintln!("seed {seed}: {}: {line}", failure.invariant);
        sum.failures.push((seed, failure.invariant, failure.text));
    }
    if sum.runs.is_multiple_of(1000) {
        let speed = rate(sum.events, started.elapsed().as_secs_f64());
        eprintln!("{} runs, {} failures, {speed:.0} events/s", sum.runs, sum.failures.len());
    }
}

/// Searches each mutation by its first failing seed.
fn mutation_table(args: &Args) -> ExitCode {
    println!("| fault put in | found by | after seeds | after events |");
    println!("|---|---|---:|---:|");
    let mut all_found = true;
    let core = Mutation::ALL.iter().map(|mutation| (mutation, Subject::Counter));
    let service = Mutation::SERVICE.iter().map(|mutation| (mutation, Subject::Zk));
    let members = Mutation::MEMBERS.iter().chain(Mutation::MASTERS);
    let members = members.map(|mutation| (mutation, Subject::Counter));
    for (mutation, subject) in core.chain(service).chain(members) {
        let mut events = 0;
        let apart = Mutation::MEMBERS.contains(mutation).then(|| profile::named("members"));
        let apart = apart
            .or_else(|| Mutation::MASTERS.contains(mutation).then(|| profile::named("masters")));
        let found = (0..20_000).find_map(|seed| {
            let options = match apart.flatten() {
                Some(profile) => Options { mutation: Some(*mutation), ..profile.options(seed) },
                None => options_of(args, seed, Some(*mutation)),
            };
            let outcome = subject.run(&options, 0);
            events += outcome.events;
            outcome.failure.map(|failure| (seed, failure.invariant))
        });
        if let Some((seed, invariant)) = found {
            println!("| {mutation:?} | {invariant} | {} | {events} |", seed + 1);
        } else {
            println!("| {mutation:?} | not found | 20000 | {events} |");
            all_found = false;
        }
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scale_table(args: &Args, bench: &scale::Bench) -> ExitCode {
    let wanted = |work: &scale::Work| {
        args.sizes.is_empty() || args.sizes.contains(&work.case.size().replace(' ', ""))
    };
    let works: Vec<_> = (bench.works)(args.quick).into_iter().filter(wanted).collect();
    if works.is_empty() {
        let quick = if args.quick { " with --quick" } else { "" };
        eprintln!("none of these sizes is measured{quick}: {}", args.sizes.join(","));
        return ExitCode::FAILURE;
    }
    let started = Instant::now();
    let told = |case: &scale::Case, events: u64| {
        eprintln!("{:6.1} s: {case:?}, {events} events", started.elapsed().as_secs_f64());
    };
    let jobs = usize::try_from(args.jobs).unwrap_or(1);
    let results = match scale::run(bench, &works, jobs, told) {
        Ok(results) => results,
        Err(failure) => {
            println!("{}: {}", failure.invariant, failure.text);
            return ExitCode::FAILURE;
        }
    };
    let tables = (bench.tables)(&works, &results);
    print!("{tables}");
    let write = |out: &Path| {
        std::fs::create_dir_all(out)?;
        let file = |kind: &str| out.join(format!("{}.{kind}", bench.name));
        std::fs::write(file("md"), &tables)?;
        std::fs::write(file("json"), format!("{}\n", scale::json(&works, &results)))?;
        std::fs::write(file("svg"), figures::plot::svg(&(bench.plots)(&works, &results)))
    };
    match args.out.as_deref().map_or(Ok(()), write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the results: {error}");
            ExitCode::FAILURE
        }
    }
}
