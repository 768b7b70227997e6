//! A load against servers that run already, for profiling them.
//!
//! `load writes|reads|mixed|creates CONNECTIONS IN_FLIGHT REQUESTS ADDRESS …`

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use benches::client::Wire;
use benches::load::{self, Load, Mix};

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "load writes|reads|mixed|creates CONNECTIONS IN_FLIGHT REQUESTS ADDRESS …";
    let args: Vec<String> = env::args().skip(1).collect();
    let [mix, connections, in_flight, requests, servers @ ..] = &args[..] else {
        return Err(usage.into());
    };
    let mix = match mix.as_str() {
        "writes" => Mix::Writes,
        "reads" => Mix::Reads,
        "mixed" => Mix::Mixed,
        "creates" => Mix::Creates,
        _ => return Err(usage.into()),
    };
    let servers: Vec<SocketAddr> =
        servers.iter().map(|addr| addr.parse()).collect::<Result<_, _>>()?;
    let load = Load {
        wire: Wire::ZooKeeper,
        mix,
        connections: connections.parse()?,
        in_flight: in_flight.parse()?,
        data_len: 100,
        requests: requests.parse()?,
        limit: Duration::from_secs(60),
    };
    let outcome = load::run(&servers, load)?;
    println!(
        "{:.0}/s, {} done, {} errors, {:.0} bytes per answer",
        outcome.rate(),
        outcome.done,
        outcome.errors,
        outcome.bytes as f64 / outcome.done as f64
    );
    if let [.., max] = outcome.latencies_us[..] {
        let len = outcome.latencies_us.len();
        let per_mille = |share: usize| outcome.latencies_us[len * share / 1000];
        println!(
            "latency in µs: median {}, 99 % {}, 99.9 % {}, longest {max}",
            per_mille(500),
            per_mille(990),
            per_mille(999)
        );
    }
    Ok(())
}
