//! A replicated key-value map: three members in this process. See `runtime-core/examples/kv`.

#[path = "../../runtime-core/examples/kv/map.rs"]
mod map;
#[path = "../../runtime-core/examples/kv/replicas.rs"]
mod replicas;

use runtime_smol as runtime;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("zab-kv-smol-{}", std::process::id()));
    let result = replicas::run(&dir);
    std::fs::remove_dir_all(&dir)?;
    result
}
