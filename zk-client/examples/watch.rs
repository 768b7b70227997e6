//! Prints what happens below a node: `cargo run -p zk-client --example watch -- localhost:2181 /`

use std::time::Duration;

use zk_client::AddWatchMode;
use zk_client::blocking::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "localhost:2181".to_owned());
    let path = arguments.next().unwrap_or_else(|| "/".to_owned());
    let client = Client::connect(&servers)?;
    client.add_watch(&path, AddWatchMode::PersistentRecursive)?;
    loop {
        if let Some(event) = client.event(Duration::MAX / 4) {
            println!("{event:?}");
        }
    }
}
