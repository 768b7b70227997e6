//! What stands between the sockets and the core: encryption, logins.

use std::net::SocketAddr;

use zab_proto::{ConnId, Input, Instant};

use crate::{NetHandler, Port};

/// A layer, which may change what passes in either direction and hold it back.
pub(crate) trait Between {
    /// A connection has come; `None` refuses it.
    fn accept(
        &mut self,
        port: Port,
        remote: SocketAddr,
        inner: &mut impl NetHandler,
    ) -> Option<ConnId>;

    /// A dial has succeeded.
    fn opened(&mut self, conn: ConnId, remote: Option<SocketAddr>, inner: &mut impl NetHandler);

    /// The other side has closed, or a dial has failed. The core is told after this.
    fn closed(&mut self, conn: ConnId, inner: &mut impl NetHandler);

    /// Takes what came from a socket; returns how many bytes it has used.
    fn receive(&mut self, conn: ConnId, bytes: &[u8], inner: &mut impl NetHandler) -> usize;

    /// Fills `buf` for a socket; 0: nothing to send.
    fn transmit(&mut self, conn: ConnId, buf: &mut [u8], inner: &mut impl NetHandler) -> usize;

    /// Ends what takes too long.
    fn on_time(&mut self, inner: &mut impl NetHandler);

    /// A connection that the layer wants closed: tells the core, unless it knows. Returns whether the
    /// outer layers and the sockets must be told, too.
    fn close(&mut self, conn: ConnId, inner: &mut impl NetHandler) -> bool;
}

/// A handler with a layer before it, if there is one; without it, the inner handler.
#[derive(Debug)]
pub(crate) struct Layered<'a, L, D> {
    pub(crate) layer: Option<&'a mut L>,
    pub(crate) inner: D,
}

impl<L: Between, D: NetHandler> Layered<'_, L, D> {
    pub(crate) fn on_time(&mut self) {
        if let Some(layer) = &mut self.layer {
            layer.on_time(&mut self.inner);
        }
    }

    pub(crate) fn close(&mut self, conn: ConnId) -> bool {
        self.layer.as_mut().is_some_and(|layer| layer.close(conn, &mut self.inner))
    }
}

impl<L: Between, D: NetHandler> NetHandler for Layered<'_, L, D> {
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

    fn secured(&mut self, conn: ConnId, subject: Option<&str>) {
        self.inner.secured(conn, subject);
    }

    fn opened(&mut self, conn: ConnId, remote: Option<SocketAddr>) {
        match &mut self.layer {
            Some(layer) => layer.opened(conn, remote, &mut self.inner),
            None => self.inner.opened(conn, remote),
        }
    }

    fn input(&mut self, input: Input) {
        if let (Some(layer), Input::Closed { conn }) = (&mut self.layer, &input) {
            layer.closed(*conn, &mut self.inner);
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
