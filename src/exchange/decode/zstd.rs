//! Zstandard (RFC 8878): one frame or several, with checksums where there are any.

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::layer::{DecodeError, Layer, Transferred};

/// 8 MiB, the largest window that a server may use (RFC 9659).
const MAX_WINDOW_LOG: u32 = 23;
const MIN_WINDOW_LOG: u32 = 10;
/// What a decoder holds beside the window: its tables, a block to read and a block to write.
const WINDOW_OVERHEAD: usize = 640 << 10;

#[derive(Default)]
struct Zstd {
    context: Option<DCtx<'static>>,
    frame_state: FrameState,
}

#[derive(Copy, Clone, Default, Eq, PartialEq)]
enum FrameState {
    #[default]
    BeforeFirst,
    Inside,
    /// After a frame: another may follow.
    After,
}

pub(super) fn new_layer() -> Box<dyn Layer> {
    Box::<Zstd>::default()
}

impl Layer for Zstd {
    fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory: usize,
    ) -> Result<Transferred, DecodeError> {
        if self.frame_state != FrameState::Inside && input.is_empty() {
            return Ok(Transferred::default());
        }
        // The first bytes of the magic numbers of a frame and of one to be skipped (RFC 8878 §3.1).
        if self.frame_state == FrameState::After && !matches!(input[0], 0x28 | 0x50..=0x5f) {
            return Err(DecodeError::TrailingData);
        }
        let window_log = max_window_log(memory).ok_or(DecodeError::MemoryLimit)?;
        let context = match &mut self.context {
            Some(context) => context,
            vacant => vacant.insert(DCtx::try_create().ok_or(DecodeError::MemoryLimit)?),
        };
        if self.frame_state != FrameState::Inside {
            let limit = DParameter::WindowLogMax(window_log);
            context.set_parameter(limit).map_err(zstd_error)?;
            self.frame_state = FrameState::Inside;
        }
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        let left = context
            .decompress_stream(&mut output, &mut input)
            .map_err(zstd_error)?;
        if left == 0 {
            self.frame_state = FrameState::After;
        }
        Ok(Transferred {
            read: input.pos(),
            written: output.pos(),
        })
    }

    fn is_complete(&self) -> bool {
        self.frame_state == FrameState::After
    }

    fn memory(&self) -> usize {
        self.context.as_ref().map_or(0, DCtx::sizeof)
    }
}

/// The largest window for which there is room.
fn max_window_log(memory: usize) -> Option<u32> {
    let log = memory.checked_sub(WINDOW_OVERHEAD)?.checked_ilog2()?;
    (log >= MIN_WINDOW_LOG).then_some(log.min(MAX_WINDOW_LOG))
}

fn zstd_error(code: usize) -> DecodeError {
    match get_error_name(code) {
        "Frame requires too much memory for decoding" => DecodeError::MemoryLimit,
        name => DecodeError::corrupt(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(coded: &[u8], memory: usize) -> Result<Vec<u8>, DecodeError> {
        let mut layer = new_layer();
        let mut whole = Vec::new();
        let mut output = vec![0; 1 << 14];
        let mut input = coded;
        loop {
            let transferred = layer.step(input, &mut output, memory)?;
            whole.extend_from_slice(&output[..transferred.written]);
            input = &input[transferred.read..];
            if transferred == Transferred::default() {
                break;
            }
        }
        match layer.is_complete() {
            true => Ok(whole),
            false => Err(DecodeError::corrupt("incomplete")),
        }
    }

    fn frame(data: &[u8]) -> Vec<u8> {
        let mut coded = vec![0; zstd_safe::compress_bound(data.len())];
        let length = zstd_safe::compress(&mut coded[..], data, 3).unwrap();
        coded.truncate(length);
        coded
    }

    /// A frame of one block of `a`, with a window of 2 to the power of `window_log`.
    fn frame_with_window(window_log: u8) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3];
        let last_block_of_one_byte_repeated = (100u32 << 3) | 0b011;
        frame.extend_from_slice(&last_block_of_one_byte_repeated.to_le_bytes()[..3]);
        frame.push(b'a');
        frame
    }

    #[test]
    fn frames_follow_one_another_and_some_are_skipped() {
        let skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
        let coded = [
            frame(b"one "),
            skipped.clone(),
            frame(b""),
            frame(b"two"),
            skipped,
        ]
        .concat();
        assert_eq!(decode(&coded, usize::MAX).unwrap(), b"one two");
    }

    #[test]
    fn a_window_is_at_most_8_mib_and_never_more_than_there_is_room_for() {
        for (window_log, memory, is_fine) in [
            (10, usize::MAX, true),
            (23, usize::MAX, true),
            (24, usize::MAX, false),
            (30, usize::MAX, false),
            (23, 9 << 20, true),
            (23, 8 << 20, false),
            (22, 8 << 20, true),
            (10, 256 << 10, false),
        ] {
            match decode(&frame_with_window(window_log), memory) {
                Ok(data) => assert!(is_fine && data == [b'a'; 100], "{window_log} {memory}"),
                Err(zstd_error) => assert!(
                    !is_fine && matches!(zstd_error, DecodeError::MemoryLimit),
                    "{zstd_error:?}"
                ),
            }
        }
    }

    #[test]
    fn what_it_holds_beside_the_window_is_known() {
        for window_log in [10, 17, 20, 23] {
            let mut layer = new_layer();
            let frame = frame_with_window(window_log);
            let memory = (1 << window_log) + WINDOW_OVERHEAD;
            layer.step(&frame, &mut [0; 10], memory).unwrap();
            assert!(layer.memory() > 1 << window_log);
            assert!(layer.memory() <= memory, "{window_log} {}", layer.memory());
        }
    }
}
