//! What a running member says of itself.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use zab_proto::Zxid;

/// The zxid that a server has applied last, by `srvr`; `None` if it answers that it does not serve.
///
/// # Errors
/// If it cannot be asked, or does not let itself be asked.
pub(crate) fn applied(address: &str) -> io::Result<Option<Zxid>> {
    let answer = ask(address, "srvr")?;
    if answer.contains("not currently serving requests") {
        return Ok(None);
    }
    let zxid = answer.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
    let zxid = zxid.and_then(|hex| i64::from_str_radix(hex.trim(), 16).ok());
    match zxid {
        Some(zxid) => Ok(Some(Zxid::from_raw(zxid))),
        None => Err(io::Error::other(format!("srvr is answered by {:?}", answer.trim()))),
    }
}

/// The answer to a four-letter word, of at most so many bytes.
fn ask(address: &str, word: &str) -> io::Result<String> {
    let addresses = address.to_socket_addrs()?;
    let mut result = Err(io::Error::other("the name stands for no address"));
    for address in addresses {
        result = TcpStream::connect_timeout(&address, PATIENCE);
        if result.is_ok() {
            break;
        }
    }
    let mut stream = result?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_LEN_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_LEN_MAX: u64 = 64 << 10;
