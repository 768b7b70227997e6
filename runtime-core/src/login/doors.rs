//! The layer as a pair of doors.

use std::net::SocketAddr;

use zab_proto::{ConnId, Input, Instant};

use super::LoginLayer;
use crate::{Doors, Port};

/// Doors behind which members may have to log in first. Without a layer they are the inner ones.
#[derive(Debug)]
pub struct LoginDoors<'a, D> {
    pub(crate) layer: Option<&'a mut LoginLayer>,
    pub(crate) inner: D,
}

impl<D: Doors> LoginDoors<'_, D> {
    /// Ends what takes too long.
    pub(crate) fn on_time(&mut self) {
        if let Some(layer) = &mut self.layer {
            layer.on_time(&mut self.inner);
        }
    }

    /// A connection that the layer wants closed: tells the core, unless it knows.
    pub(crate) fn close(&mut self, conn: ConnId) -> bool {
        self.layer.as_mut().is_some_and(|layer| layer.close(conn, &mut self.inner))
    }
}

impl<D: Doors> Doors for LoginDoors<'_, D> {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn accept(&mut self, port: Port, remote: SocketAddr) -> Option<ConnId> {
        let conn = self.inner.accept(port, remote)?;
        if let Some(layer) = &mut self.layer {
            layer.accepted(conn, port, remote);
        }
        Some(conn)
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
