//! The layer as a pair of doors.

use std::net::SocketAddr;

use zab_proto::{ConnId, Input, Instant};

use super::Layer;
use crate::{Doors, Port};

/// Doors behind which connections may be encrypted. Without a layer they are the inner ones.
#[derive(Debug)]
pub struct SecureDoors<'a, D> {
    pub(crate) layer: Option<&'a mut Layer>,
    pub(crate) inner: D,
}

impl<D: Doors> SecureDoors<'_, D> {
    /// Offers again what was decrypted and not used.
    pub(crate) fn resume(&mut self, conn: ConnId) {
        if let Some(layer) = &mut self.layer {
            layer.resume(conn, &mut self.inner);
        }
    }

    /// Ends what takes too long.
    pub(crate) fn on_time(&mut self) {
        if let Some(layer) = &mut self.layer {
            layer.on_time(&mut self.inner);
        }
    }

    /// A connection that the layer wants closed: tells the core, unless it knows. Whether the sockets are
    /// to be told, too.
    pub(crate) fn close(&mut self, conn: ConnId) -> bool {
        self.layer.as_mut().is_some_and(|layer| layer.close(conn, &mut self.inner))
    }
}

impl<D: Doors> Doors for SecureDoors<'_, D> {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn accept(&mut self, port: Port, remote: SocketAddr) -> Option<ConnId> {
        // A socket for both families shows the older one's addresses in the newer one's form.
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        match &mut self.layer {
            Some(layer) => layer.accept(port, remote, &mut self.inner),
            None => self.inner.accept(port, remote),
        }
    }

    fn identified(&mut self, conn: ConnId, subject: &str) {
        self.inner.identified(conn, subject);
    }

    fn opened(&mut self, conn: ConnId, remote: Option<SocketAddr>) {
        match &mut self.layer {
            Some(layer) => layer.opened(conn, remote, &mut self.inner),
            None => self.inner.opened(conn, remote),
        }
    }

    fn input(&mut self, input: Input) {
        if let (Some(layer), Input::Closed { conn }) = (&mut self.layer, &input) {
            layer.forget(*conn);
        }
        self.inner.input(input);
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        match &mut self.layer {
            Some(layer) => layer.receive(conn, bytes, &mut self.inner),
            None => self.inner.receive(conn, bytes),
        }
    }

    fn transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        match &mut self.layer {
            Some(layer) => layer.transmit(conn, buf, &mut self.inner),
            None => self.inner.transmit(conn, buf),
        }
    }
}
