//! A core for tests of the layers around it.

use std::collections::HashMap;
use std::net::SocketAddr;

use zab_proto::{Channel, ConnId, Input, Instant};

use crate::{NetHandler, Port};

/// A core that uses up to so many bytes, and has something to say.
#[derive(Debug, Default)]
pub(crate) struct Core {
    pub(crate) now: Instant,
    pub(crate) uses: usize,
    pub(crate) next: u32,
    pub(crate) heard: HashMap<ConnId, Vec<u8>>,
    pub(crate) says: Vec<u8>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) subjects: Vec<(ConnId, String)>,
}

impl NetHandler for Core {
    fn now(&self) -> Instant {
        self.now
    }

    fn accept(&mut self, port: Port, _: SocketAddr) -> Option<ConnId> {
        self.next += 1;
        Some(match port.channel {
            Channel::Client => ConnId::client(self.next, 0),
            _ => ConnId::core(self.next, 0),
        })
    }

    fn secured(&mut self, conn: ConnId, subject: Option<&str>) {
        assert!(!self.heard.contains_key(&conn), "before any bytes");
        self.subjects.extend(subject.map(|subject| (conn, subject.to_owned())));
    }

    fn opened(&mut self, conn: ConnId, _: Option<SocketAddr>) {
        self.inputs.push(Input::Opened { conn });
    }

    fn input(&mut self, input: Input) {
        self.inputs.push(input);
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.uses);
        self.uses -= n;
        self.heard.entry(conn).or_default().extend_from_slice(&bytes[..n]);
        n
    }

    fn transmit(&mut self, _: ConnId, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.says.len());
        buf[..n].copy_from_slice(&self.says[..n]);
        self.says.drain(..n);
        n
    }
}
