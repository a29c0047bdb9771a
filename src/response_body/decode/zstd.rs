//! Decodes the `zstd` coding (RFC 8878): one or more frames. Checksums are verified where present.

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::layer::{DecodeError, DecoderLayer, TransferredBytes};

/// The base-2 logarithm of 8 MiB, the largest window that a server may use (RFC 9659).
const MAX_WINDOW_LOG2: u32 = 23;
const MIN_WINDOW_LOG2: u32 = 10;
/// The maximum decoder memory besides the window, in bytes: tables, an input block and an output
/// block.
const MEMORY_BYTES_BESIDES_WINDOW: usize = 640 << 10;

#[derive(Default)]
struct ZstdLayer {
    zstd_context: Option<DCtx<'static>>,
    frame_position: FramePosition,
}

#[derive(Copy, Clone, Default, Eq, PartialEq)]
enum FramePosition {
    #[default]
    BeforeFirstFrame,
    InsideFrame,
    /// A frame has ended. Only another frame may follow.
    FrameEnded,
}

pub(super) fn new_layer() -> Box<dyn DecoderLayer> {
    Box::<ZstdLayer>::default()
}

impl DecoderLayer for ZstdLayer {
    fn decode_step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<TransferredBytes, DecodeError> {
        if self.frame_position != FramePosition::InsideFrame && input.is_empty() {
            return Ok(TransferredBytes::default());
        }
        if self.frame_position == FramePosition::FrameEnded && !is_first_byte_of_frame(input[0]) {
            return Err(DecodeError::TrailingData);
        }
        let window_log = max_window_log2(memory_limit).ok_or(DecodeError::MemoryLimitExceeded)?;
        let context = match &mut self.zstd_context {
            Some(context) => context,
            vacant => vacant.insert(DCtx::try_create().ok_or(DecodeError::MemoryLimitExceeded)?),
        };
        if self.frame_position != FramePosition::InsideFrame {
            let limit = DParameter::WindowLogMax(window_log);
            context.set_parameter(limit).map_err(decode_error_of_code)?;
            self.frame_position = FramePosition::InsideFrame;
        }
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        // `decompress_stream` returns zero at the end of a frame.
        let hint = context
            .decompress_stream(&mut output, &mut input)
            .map_err(decode_error_of_code)?;
        if hint == 0 {
            self.frame_position = FramePosition::FrameEnded;
        }
        Ok(TransferredBytes {
            read_byte_count: input.pos(),
            written_byte_count: output.pos(),
        })
    }

    fn is_input_complete(&self) -> bool {
        self.frame_position == FramePosition::FrameEnded
    }

    fn memory_usage(&self) -> usize {
        self.zstd_context.as_ref().map_or(0, DCtx::sizeof)
    }
}

/// Whether a byte can be the first byte of a frame or of a skippable frame (RFC 8878 §3.1).
fn is_first_byte_of_frame(byte: u8) -> bool {
    matches!(byte, 0x28 | 0x50..=0x5f)
}

/// The base-2 logarithm of the largest window that fits into `memory_limit`. `None` if even the
/// smallest window does not fit.
fn max_window_log2(memory_limit: usize) -> Option<u32> {
    let log = memory_limit
        .checked_sub(MEMORY_BYTES_BESIDES_WINDOW)?
        .checked_ilog2()?;
    (log >= MIN_WINDOW_LOG2).then_some(log.min(MAX_WINDOW_LOG2))
}

fn decode_error_of_code(code: usize) -> DecodeError {
    match get_error_name(code) {
        "Frame requires too much memory for decoding" => DecodeError::MemoryLimitExceeded,
        name => DecodeError::corrupt_input(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoded: &[u8], memory_limit: usize) -> Result<Vec<u8>, DecodeError> {
        let mut layer = new_layer();
        let mut decoded = Vec::new();
        let mut output = vec![0; 1 << 14];
        let mut input = encoded;
        loop {
            let transferred = layer.decode_step(input, &mut output, memory_limit)?;
            decoded.extend_from_slice(&output[..transferred.written_byte_count]);
            input = &input[transferred.read_byte_count..];
            if transferred == TransferredBytes::default() {
                break;
            }
        }
        if layer.is_input_complete() {
            Ok(decoded)
        } else {
            Err(DecodeError::corrupt_input("incomplete"))
        }
    }

    fn frame(data: &[u8]) -> Vec<u8> {
        let mut encoded = vec![0; zstd_safe::compress_bound(data.len())];
        let length = zstd_safe::compress(&mut encoded[..], data, 3).unwrap();
        encoded.truncate(length);
        encoded
    }

    /// A frame with a window of `1 << window_log` bytes that decodes to 100 bytes `a`.
    fn frame_with_window(window_log: u8) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3];
        let last_run_length_block = (100u32 << 3) | 0b011;
        frame.extend_from_slice(&last_run_length_block.to_le_bytes()[..3]);
        frame.push(b'a');
        frame
    }

    #[test]
    fn several_frames_are_concatenated_and_skippable_frames_are_skipped() {
        let skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
        let encoded = [
            frame(b"one "),
            skippable.clone(),
            frame(b""),
            frame(b"two"),
            skippable,
        ]
        .concat();
        assert_eq!(decode(&encoded, usize::MAX).unwrap(), b"one two");
    }

    #[test]
    fn window_is_limited_to_8_mib_and_to_the_memory_limit() {
        for (window_log, memory_limit, is_accepted) in [
            (10, usize::MAX, true),
            (23, usize::MAX, true),
            (24, usize::MAX, false),
            (30, usize::MAX, false),
            (23, 9 << 20, true),
            (23, 8 << 20, false),
            (22, 8 << 20, true),
            (10, 256 << 10, false),
        ] {
            match decode(&frame_with_window(window_log), memory_limit) {
                Ok(data) => assert!(
                    is_accepted && data == [b'a'; 100],
                    "{window_log} {memory_limit}"
                ),
                Err(error) => assert!(
                    !is_accepted && matches!(error, DecodeError::MemoryLimitExceeded),
                    "{error:?}"
                ),
            }
        }
    }

    #[test]
    fn memory_besides_the_window_stays_within_the_overhead() {
        for window_log in [10, 17, 20, 23] {
            let mut layer = new_layer();
            let frame = frame_with_window(window_log);
            let memory_limit = (1 << window_log) + MEMORY_BYTES_BESIDES_WINDOW;
            layer
                .decode_step(&frame, &mut [0; 10], memory_limit)
                .unwrap();
            assert!(layer.memory_usage() > 1 << window_log);
            assert!(
                layer.memory_usage() <= memory_limit,
                "{window_log} {}",
                layer.memory_usage()
            );
        }
    }
}
