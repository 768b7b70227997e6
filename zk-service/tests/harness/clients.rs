//! What clients do, and what they have received.

use zab_proto::{Channel, Incoming, Input};

use zab_harness::client::{Connect, Connected, first_frame, request, xid};

use super::{Client, Wire, World, reply};

impl World {
    pub(crate) fn connect(&mut self, server: usize) -> Option<Client> {
        let incoming = Incoming::new(([127, 0, 0, 1], 40_000).into());
        let conn = self.nodes[server].accept(self.now, Channel::Client, &incoming)?;
        let client = Client::new(server, conn);
        self.wires.insert(client, Wire::default());
        self.run();
        Some(client)
    }

    /// Connects and shakes hands; also the session's id and password.
    pub(crate) fn open(&mut self, server: usize, timeout_ms: i32) -> (Client, i64, [u8; 16]) {
        let client = self.connect(server).expect("accepted");
        self.send(client, &Connect::new(timeout_ms).to_vec());
        let granted = self.granted(client).expect("a session");
        (client, granted.session, granted.password)
    }

    /// Connects with a session that there is; whether it was accepted.
    pub(crate) fn reopen(
        &mut self,
        server: usize,
        session: i64,
        password: [u8; 16],
    ) -> (Client, bool) {
        let client = self.connect(server).expect("accepted");
        self.send(client, &Connect::again(10_000, session, password).to_vec());
        (client, self.granted(client).is_some_and(|granted| granted.session == session))
    }

    fn granted(&mut self, client: Client) -> Option<Connected> {
        let frame = self.frame(client).expect("an answer");
        Connected::read(&frame).expect("a whole one")
    }

    pub(crate) fn send(&mut self, client: Client, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(&client) else { return };
        wire.to_server.extend_from_slice(bytes);
        self.offer(client);
        self.run();
    }

    /// Sends without letting anything happen but what the server does with the bytes at once.
    pub(crate) fn send_only(&mut self, client: Client, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(&client) else { return };
        wire.to_server.extend_from_slice(bytes);
        self.offer(client);
    }

    /// Sends a request and returns the reply: error code and body.
    pub(crate) fn call(&mut self, client: Client, op: i32, record: &[u8]) -> (i32, Vec<u8>) {
        self.send(client, &request(77, op, record));
        let frame = self.frame(client).expect("a reply");
        let (xid, _, code, body) = reply(&frame);
        assert_eq!(xid, if op == 11 { xid::PING } else { 77 });
        (code, body.to_vec())
    }

    /// The client hangs up.
    pub(crate) fn hang_up(&mut self, client: Client) {
        if let Some(wire) = self.wires.get_mut(&client) {
            wire.ended = true;
        }
        let conn = client.conn();
        self.nodes[client.server].handle_input(self.now, Input::Closed { conn });
        self.run();
    }

    /// The client stops reading, or begins again.
    pub(crate) fn set_deaf(&mut self, client: Client, deaf: bool) {
        if let Some(wire) = self.wires.get_mut(&client) {
            wire.deaf = deaf;
        }
        self.transmit(client.server, client.conn());
        self.run();
    }

    /// A client that has stopped reading reads so many bytes.
    pub(crate) fn read_some(&mut self, client: Client, len: usize) {
        let mut buf = vec![0; len];
        let n = self.nodes[client.server].poll_transmit(self.now, client.conn(), &mut buf);
        let wire = self.wires.get_mut(&client).expect("it is connected");
        wire.from_server.extend(&buf[..n]);
        self.run();
    }

    /// Bytes that the server has not consumed yet.
    pub(crate) fn unconsumed(&self, client: Client) -> usize {
        self.wires.get(&client).map_or(0, |wire| wire.to_server.len())
    }

    /// The next frame, without its length, if it is there.
    pub(crate) fn frame(&mut self, client: Client) -> Option<Vec<u8>> {
        let wire = self.wires.get_mut(&client)?;
        let frame = first_frame(wire.from_server.make_contiguous())?.to_vec();
        wire.from_server.drain(..4 + frame.len());
        Some(frame)
    }

    /// Everything received, as text.
    pub(crate) fn text(&mut self, client: Client) -> String {
        let wire = self.wires.get_mut(&client).expect("a connection");
        String::from_utf8(wire.from_server.drain(..).collect()).expect("text")
    }

    pub(crate) fn received(&self, client: Client) -> usize {
        self.wires.get(&client).map_or(0, |wire| wire.from_server.len())
    }

    pub(crate) fn has_ended(&self, client: Client) -> bool {
        self.wires.get(&client).is_none_or(|wire| wire.ended)
    }
}
