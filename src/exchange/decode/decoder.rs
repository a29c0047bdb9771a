//! The chain of layers.

use std::ops::Range;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Method, StatusCode, Version};

use super::super::body::too_large;
use super::super::transport::Incoming;
use super::codings::{self, Coding};
use super::layer::{Fault, Layer};
use crate::{Error, ErrorKind};

/// The most that goes in or out of a layer in one step.
const STEP: usize = 16 << 10;

/// Decodes one body.
pub(in crate::exchange) struct Decoder {
    /// As the data take their way: what was applied last comes first.
    stages: Vec<Stage>,
    /// What was fed and not read yet.
    input: Bytes,
    /// How much was fed.
    fed: u64,
    cap: u64,
    /// The end of the body is the end of the connection: one that is lost looks the same.
    may_be_cut: bool,
}

struct Stage {
    name: &'static str,
    layer: Box<dyn Layer>,
    buffer: Box<[u8]>,
    /// The part of `buffer` that was written and not read yet.
    ready: Range<usize>,
    written: u64,
}

/// What came of a step.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Advance {
    /// There is [`output`](Decoder::output).
    Wrote,
    /// There is more to be done.
    Busy,
    /// All that was fed has been read.
    Hungry,
}

impl Decoder {
    /// What undoes the codings of this response; none if it has no coding, no body, or a coding that is not built in.
    /// With a decoder the head loses what only describes the coded body: `Content-Encoding` and `Content-Length`.
    ///
    /// # Errors
    ///
    /// If there are too many codings.
    pub(in crate::exchange) fn of(
        method: &Method,
        head: &mut Parts,
        incoming: &Incoming,
        cap: u64,
    ) -> Result<Option<Box<Self>>, Error> {
        if !head.headers.contains_key(CONTENT_ENCODING)
            || *method == Method::HEAD
            || incoming.exact_length() == Some(0)
            || !has_whole_body(head.status)
        {
            return Ok(None);
        }
        let codings = codings::of(&head.headers)?;
        if codings.is_empty() {
            return Ok(None);
        }
        let mut decoder = Self::new(&codings, cap);
        decoder.may_be_cut = ends_with_connection(head, incoming);
        head.headers.remove(CONTENT_ENCODING);
        head.headers.remove(CONTENT_LENGTH);
        Ok(Some(Box::new(decoder)))
    }

    /// `codings` are in the order in which they were applied.
    pub(super) fn new(codings: &[&'static Coding], cap: u64) -> Self {
        Self {
            stages: codings
                .iter()
                .rev()
                .map(|coding| Stage::new(coding))
                .collect(),
            input: Bytes::new(),
            fed: 0,
            cap,
            may_be_cut: false,
        }
    }

    /// The most that a body within the cap may be in any of its coded forms. Coding makes some data larger, but not by
    /// much; without a bound there would be no end to data that decode to nothing.
    pub(super) fn most_coded(&self) -> u64 {
        let more = (self.cap / 32).saturating_add(64 << 10);
        self.cap.saturating_add(more)
    }

    /// Gives it more to read. It must be hungry.
    pub(super) fn feed(&mut self, chunk: Bytes) -> Result<(), Error> {
        debug_assert!(self.input.is_empty());
        self.fed = self.fed.saturating_add(chunk.len() as u64);
        self.input = chunk;
        match self.fed > self.most_coded() {
            true => Err(too_large(self.cap)),
            false => Ok(()),
        }
    }

    /// Moves what can be moved, through each layer once. What the last step wrote is gone after this.
    ///
    /// The layers may hold `memory` bytes together.
    pub(super) fn advance(&mut self, memory: u64) -> Result<Advance, Error> {
        let last = self.stages.len() - 1;
        self.stages[last].ready = 0..0;
        let mut moved = false;
        // From the end to the beginning, so that a buffer is emptied before it is filled.
        for place in (0..=last).rev() {
            if self.stages[place].ready.is_empty() {
                moved |= self.step(place, memory)?;
            }
        }
        let most_coded = self.most_coded();
        let between = &self.stages[..last];
        if between.iter().any(|stage| stage.written > most_coded) {
            return Err(too_large(self.cap));
        }
        if !self.stages[last].ready.is_empty() {
            Ok(Advance::Wrote)
        } else if moved {
            Ok(Advance::Busy)
        } else if self.input.is_empty() {
            Ok(Advance::Hungry)
        } else {
            Err(self.stages[0].failed(Fault::corrupt("its decoder does not go on"), self.cap))
        }
    }

    fn step(&mut self, place: usize, memory: u64) -> Result<bool, Error> {
        let held_by_others = self.memory() - self.stages[place].layer.memory() as u64;
        let memory = usize::try_from(memory.saturating_sub(held_by_others)).unwrap_or(usize::MAX);
        let (before, rest) = self.stages.split_at_mut(place);
        let stage = &mut rest[0];
        let source = match before.last() {
            Some(before) => &before.buffer[before.ready.clone()],
            None => &self.input[..self.input.len().min(STEP)],
        };
        let moved = stage
            .layer
            .step(source, &mut stage.buffer, memory)
            .map_err(|fault| stage.failed(fault, self.cap))?;
        stage.ready = 0..moved.written;
        stage.written += moved.written as u64;
        match before.last_mut() {
            Some(before) => before.ready.start += moved.read,
            None => self.input.advance(moved.read),
        }
        Ok(moved.read + moved.written > 0)
    }

    /// What the last step wrote.
    pub(super) fn output(&self) -> &[u8] {
        self.stages
            .last()
            .map_or(&[], |last| &last.buffer[last.ready.clone()])
    }

    /// What the layers hold, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let layers = self.stages.iter().map(|stage| stage.layer.memory() as u64);
        layers.sum()
    }

    /// The body has ended. It must be hungry.
    pub(super) fn finish(&self) -> Result<(), Error> {
        let unfinished = self.stages.iter().find(|stage| !stage.layer.is_complete());
        match unfinished {
            // Nothing at all is an empty body, however it is said to be coded.
            Some(stage) if self.fed > 0 => {
                let kind = match self.may_be_cut {
                    true => ErrorKind::Truncated,
                    false => ErrorKind::Encoding,
                };
                let reason = format!("the {} data end too early", stage.name);
                Err(Error::of(kind).because(reason))
            }
            _ => Ok(()),
        }
    }
}

impl Stage {
    fn new(coding: &Coding) -> Self {
        Self {
            name: coding.name,
            layer: (coding.layer)(),
            buffer: vec![0; STEP].into(),
            ready: 0..0,
            written: 0,
        }
    }

    fn failed(&self, fault: Fault, cap: u64) -> Error {
        let name = self.name;
        match fault {
            Fault::Corrupt(source) => Error::new(ErrorKind::Encoding, source)
                .because(format!("the {name} data are corrupt")),
            Fault::Trailing => Error::of(ErrorKind::Encoding)
                .because(format!("there is more after the end of the {name} data")),
            Fault::Memory => Error::of(ErrorKind::BodyTooLarge).because(format!(
                "to decode {name} takes more memory than a cap of {cap} bytes leaves"
            )),
        }
    }
}

/// Whether nothing but the end of the connection ends this body (RFC 9112 §6.3).
fn ends_with_connection(head: &Parts, incoming: &Incoming) -> bool {
    matches!(incoming, Incoming::Wire(_))
        && head.version <= Version::HTTP_11
        && !head.headers.contains_key(CONTENT_LENGTH)
        && !head.headers.contains_key(TRANSFER_ENCODING)
}

/// A part of a coded body cannot be decoded on its own.
fn has_whole_body(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
    )
}
