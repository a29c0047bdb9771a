//! An HTTP/2 server that writes individual frames (RFC 9113, section 4.1).
#![allow(dead_code, unreachable_pub, missing_docs)]

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// `:status: 200` (RFC 7541, appendix A).
pub const STATUS_200: &[u8] = &[0x88];

pub struct Http2Peer<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Http2Peer<S> {
    /// Reads the client's connection preface and sends an empty SETTINGS frame.
    pub async fn handshake(socket: S) -> Self {
        let mut frames = Self(socket);
        let mut preface = [0; 24];
        frames.0.read_exact(&mut preface).await.expect("a preface");
        frames.write_frame(SETTINGS, 0, 0, &[]).await;
        frames
    }

    pub async fn write_frame(&mut self, frame_type: u8, flags: u8, stream_id: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([frame_type, flags]);
        frame.extend(stream_id.to_be_bytes());
        frame.extend(payload);
        // An error means that the client has closed. The next read reports it.
        let _ = self.0.write_all(&frame).await;
    }

    /// Reads frames up to the first of `frame_type` and returns its stream ID, or `None` at the
    /// end of input.
    pub async fn read_until(&mut self, frame_type: u8) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            if head[3] == frame_type {
                return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            }
        }
    }

    /// Sends a complete response without a body.
    pub async fn respond(&mut self, stream_id: u32) {
        self.write_frame(HEADERS, END_STREAM | END_HEADERS, stream_id, STATUS_200)
            .await;
    }

    /// Sends a GOAWAY frame that accepts no stream after `last_stream_id`.
    pub async fn send_goaway(&mut self, last_stream_id: u32) {
        self.send_goaway_with_code(last_stream_id, 0).await;
    }

    pub async fn send_goaway_with_code(&mut self, last_stream_id: u32, error_code: u32) {
        let payload = [last_stream_id, error_code].map(u32::to_be_bytes).concat();
        self.write_frame(GOAWAY, 0, 0, &payload).await;
    }

    /// Reads until the client closes the connection.
    pub async fn drain(&mut self) {
        while self.read_until(u8::MAX).await.is_some() {}
    }
}
