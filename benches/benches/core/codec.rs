//! The codecs alone.

use std::hint::black_box;
use std::time::Instant;

use benches::report;
use zab_proto::wire::Parsed;
use zab_proto::wire::notification::{self, Notification};
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{Epoch, Sid, Zxid};

/// Times of encoding and decoding, as a table.
pub(crate) fn table(samples: usize) -> String {
    let mut rows =
        vec![["codec, ns per message", "bytes", "encode", "decode"].map(String::from).to_vec()];
    let config = b"server.1=h1:2888:3888:participant\nserver.2=h2:2888:3888:participant\n\
        server.3=h3:2888:3888:participant\nversion=0";
    let notification = Notification {
        state: 0,
        leader: Sid(3),
        zxid: Zxid::new(Epoch(5), 77),
        election_epoch: 9,
        peer_epoch: Epoch(5),
        version: notification::VERSION,
        config: Some(config),
    };
    let mut buf = vec![0; 4096];
    let len = notification.emit_frame(&mut buf);
    let bytes = buf.clone();
    let encode = nanos(samples, || black_box(&notification).emit_frame(black_box(&mut buf)));
    let decode = nanos(samples, || match notification::parse_frame(black_box(&bytes)) {
        Parsed::Complete { value, .. } => Notification::parse(value).is_ok(),
        Parsed::Incomplete | Parsed::Malformed(_) => false,
    });
    rows.push(row("Notification, configuration of three", len, encode, decode));
    let txn = [7; 132];
    for (name, data) in [
        ("QuorumPacket: PROPOSAL of 100 B and header", Some(&txn[..])),
        ("QuorumPacket: COMMIT", None),
    ] {
        let kind = if data.is_some() { PacketType::PROPOSAL } else { PacketType::COMMIT };
        let packet = Packet::new(kind, Zxid::new(Epoch(5), 77), data);
        let len = packet.emit(&mut buf);
        let bytes = buf.clone();
        let encode = nanos(samples, || black_box(&packet).emit(black_box(&mut buf)));
        let decode = nanos(samples, || Packet::parse(black_box(&bytes), 1 << 20));
        rows.push(row(name, len, encode, decode));
    }
    report::markdown(&rows)
}

fn row(name: &str, len: usize, encode: f64, decode: f64) -> Vec<String> {
    vec![name.into(), len.to_string(), format!("{encode:.1}"), format!("{decode:.1}")]
}

/// The median time of a call.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn nanos<T>(samples: usize, mut call: impl FnMut() -> T) -> f64 {
    const CALLS: u32 = 100_000;
    let mut sample = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    sample();
    report::spread((0..samples).map(|_| sample()).collect()).1
}
