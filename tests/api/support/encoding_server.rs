//! Encoded bodies, and a server on 127.0.0.1 that sends them.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

pub const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

pub fn encode(coding: &str, data: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::new(6);
    match coding {
        "gzip" | "x-gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoded = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut encoded, 4096, 5, 22);
            encoder.write_all(data).unwrap();
            drop(encoder);
            encoded
        }
        "zstd" => {
            let mut encoded = vec![0; zstd_safe::compress_bound(data.len())];
            let length = zstd_safe::compress(&mut encoded[..], data, 3).unwrap();
            encoded.truncate(length);
            encoded
        }
        other => panic!("no encoder for {other}"),
    }
}

/// Encodes `data` with each of the comma-separated `codings`, in that order.
pub fn encode_all(codings: &str, data: &[u8]) -> Vec<u8> {
    codings
        .split(',')
        .fold(data.to_vec(), |data, coding| encode(coding.trim(), &data))
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunks(usize),
    UntilClose,
}

#[derive(Clone)]
pub struct EncodedResponse {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Arc<[u8]>,
    pub framing: Framing,
}

impl EncodedResponse {
    pub fn coded(codings: &str, body: impl Into<Arc<[u8]>>, framing: Framing) -> Self {
        Self {
            status: 200,
            headers: vec![("content-encoding", codings.to_owned())],
            body: body.into(),
            framing,
        }
    }

    fn write(&self, has_no_body: bool, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Any\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match self.framing {
            Framing::Length => format!("content-length: {}\r\n\r\n", self.body.len()),
            Framing::Chunks(_) => "transfer-encoding: chunked\r\n\r\n".to_owned(),
            Framing::UntilClose => "connection: close\r\n\r\n".to_owned(),
        };
        stream.write_all(head.as_bytes())?;
        if has_no_body {
            return Ok(());
        }
        let Framing::Chunks(size) = self.framing else {
            return stream.write_all(&self.body);
        };
        for chunk in self.body.chunks(size) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")
    }
}

/// Starts a server on its own thread. `respond` maps the head of a request to a response.
pub fn serve(respond: impl Fn(&str) -> EncodedResponse + Send + Sync + 'static) -> SocketAddr {
    super::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let respond = Arc::new(respond);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let respond = Arc::clone(&respond);
            std::thread::spawn(move || serve_connection(stream, &*respond));
        }
    });
    address
}

/// Serves requests until the client closes the connection.
fn serve_connection(mut stream: TcpStream, respond: &dyn Fn(&str) -> EncodedResponse) {
    let Ok(reader) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(reader);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(1..) => {}
                _ => return,
            }
        }
        let response = respond(&head);
        let has_no_body = head.starts_with("HEAD ") || matches!(response.status, 204 | 304);
        let written = response.write(has_no_body, &mut stream);
        if written.is_err() || response.framing == Framing::UntilClose {
            return;
        }
    }
}
