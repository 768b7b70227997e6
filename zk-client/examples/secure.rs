//! Connects as `zkCli.sh -client-configuration FILE` would: with TLS and a login, by ZooKeeper's own properties.
//! `cargo run --example secure --features properties -- localhost:2281 client.properties`

use std::path::Path;

use zk_client::Options;
use zk_client::blocking::Client;
use zk_client::properties::ClientProperties;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().ok_or("which servers?")?;
    let mut properties = ClientProperties::default();
    if let Some(file) = arguments.next() {
        properties.read_file(Path::new(&file))?;
    }
    for warning in properties.warnings() {
        eprintln!("{warning}");
    }
    let mut options = Options::parse(&servers)?;
    let dial = properties.apply(&mut options)?;
    let client = Client::start(options, dial)?;
    match client.children("/", false) {
        Ok(names) => println!("{names:?}"),
        Err(error) => eprintln!("{error}: {}", client.failure().unwrap_or_default()),
    }
    client.close();
    Ok(())
}
