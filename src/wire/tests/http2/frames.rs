//! A server that writes frames byte by byte (RFC 9113 §4.1), for sequences that h2 cannot
//! send.

use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// `:status: 200` (RFC 7541 appendix A).
pub(super) const STATUS_200: &[u8] = &[0x88];

pub(super) struct Frames {
    stream: TcpStream,
}

impl Frames {
    /// Reads the client's preface and sends the server's.
    pub(super) async fn handshake(stream: TcpStream) -> Self {
        let mut frames = Self { stream };
        let mut preface = [0; 24];
        frames.stream.read_exact(&mut preface).await.unwrap();
        frames.write(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Writes a frame. Returns false if the connection is closed.
    pub(super) async fn write(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> bool {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await.is_ok()
    }

    /// Reads frames until one of this kind has arrived. Returns its stream ID, or 0 if the
    /// connection ended.
    pub(super) async fn read_until(&mut self, kind: u8) -> u32 {
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).await.is_err() {
                return 0;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if self.stream.read_exact(&mut payload).await.is_err() {
                return 0;
            }
            if head[3] == kind {
                return u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            }
        }
    }

    pub(super) async fn go_away(&mut self, last: u32, reason: Reason) {
        self.go_away_with_debug_data(last, reason, "").await;
    }

    pub(super) async fn go_away_with_debug_data(
        &mut self,
        last: u32,
        reason: Reason,
        debug_data: &str,
    ) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(u32::from(reason).to_be_bytes());
        payload.extend(debug_data.as_bytes());
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    /// Sends a complete response without a body.
    pub(super) async fn respond(&mut self, id: u32) {
        self.write(HEADERS, END_STREAM | END_HEADERS, id, STATUS_200)
            .await;
    }

    /// Sends the head of a response.
    pub(super) async fn respond_head(&mut self, id: u32) {
        self.write(HEADERS, END_HEADERS, id, STATUS_200).await;
    }

    /// Reads until the client closes the connection.
    pub(super) async fn drain(&mut self) {
        while self.read_until(u8::MAX).await != 0 {}
    }

    /// Closes the server's direction of the connection.
    pub(super) async fn shutdown(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}
