//! Decodes the `br` coding (RFC 7932).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brotli_decompressor::{
    Allocator, BrotliDecoderErrorCode, BrotliDecompressStream, BrotliResult, BrotliState,
    SliceWrapper, SliceWrapperMut,
};

use super::layer::{DecodeError, DecoderLayer, TransferredBytes};

struct BrotliLayer {
    decoder_state: BrotliState<QuotaAllocator, QuotaAllocator, QuotaAllocator>,
    memory_quota: Arc<MemoryQuota>,
    has_stream_ended: bool,
}

pub(super) fn new_layer() -> Box<dyn DecoderLayer> {
    let quota = Arc::new(MemoryQuota::default());
    quota
        .max_allocated_bytes
        .store(usize::MAX, Ordering::Relaxed);
    let allocator = || QuotaAllocator(Arc::clone(&quota));
    Box::new(BrotliLayer {
        // Strict mode rejects windows above 16 MiB, the maximum of RFC 7932.
        decoder_state: BrotliState::new_strict(allocator(), allocator(), allocator()),
        memory_quota: quota,
        has_stream_ended: false,
    })
}

impl DecoderLayer for BrotliLayer {
    fn decode_step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<TransferredBytes, DecodeError> {
        if self.has_stream_ended {
            return match input {
                [] => Ok(TransferredBytes::default()),
                _ => Err(DecodeError::TrailingData),
            };
        }
        let heap_limit = memory_limit
            .checked_sub(size_of::<Self>())
            .ok_or(DecodeError::MemoryLimitExceeded)?;
        self.memory_quota
            .max_allocated_bytes
            .store(heap_limit, Ordering::Relaxed);
        let (mut input_left, mut read) = (input.len(), 0);
        let (mut output_left, mut written) = (output.len(), 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut read,
            input,
            &mut output_left,
            &mut written,
            output,
            &mut 0,
            &mut self.decoder_state,
        );
        match result {
            BrotliResult::ResultSuccess => self.has_stream_ended = true,
            BrotliResult::ResultFailure => {
                return Err(decode_error_of_code(self.decoder_state.error_code));
            }
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(TransferredBytes {
            read_byte_count: read,
            written_byte_count: written,
        })
    }

    fn is_input_complete(&self) -> bool {
        self.has_stream_ended
    }

    fn memory_usage(&self) -> usize {
        size_of::<Self>() + self.memory_quota.allocated_bytes.load(Ordering::Relaxed)
    }
}

fn decode_error_of_code(code: BrotliDecoderErrorCode) -> DecodeError {
    use BrotliDecoderErrorCode as Code;
    match code {
        Code::BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MODES
        | Code::BROTLI_DECODER_ERROR_ALLOC_TREE_GROUPS
        | Code::BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MAP
        | Code::BROTLI_DECODER_ERROR_ALLOC_RING_BUFFER_1
        | Code::BROTLI_DECODER_ERROR_ALLOC_RING_BUFFER_2
        | Code::BROTLI_DECODER_ERROR_ALLOC_BLOCK_TYPE_TREES => DecodeError::MemoryLimitExceeded,
        code => DecodeError::corrupt_input(format!("{code:?}")),
    }
}

/// The number of bytes that a decoder has allocated, and the limit of this number.
#[derive(Default)]
struct MemoryQuota {
    allocated_bytes: AtomicUsize,
    max_allocated_bytes: AtomicUsize,
}

/// An allocator that respects a [`MemoryQuota`]. An allocation beyond the limit returns an empty
/// buffer, which the decoder treats as an allocation failure.
struct QuotaAllocator(Arc<MemoryQuota>);

impl<T: Clone + Default> Allocator<T> for QuotaAllocator {
    type AllocatedMemory = QuotaBuffer<T>;

    fn alloc_cell(&mut self, length: usize) -> QuotaBuffer<T> {
        let bytes = length.saturating_mul(size_of::<T>());
        let allocated = self.0.allocated_bytes.load(Ordering::Relaxed);
        if allocated.saturating_add(bytes) > self.0.max_allocated_bytes.load(Ordering::Relaxed) {
            return QuotaBuffer::default();
        }
        self.0
            .allocated_bytes
            .store(allocated + bytes, Ordering::Relaxed);
        QuotaBuffer {
            memory: vec![T::default(); length].into(),
            memory_quota: Some(Arc::clone(&self.0)),
        }
    }

    fn free_cell(&mut self, _buffer: QuotaBuffer<T>) {}
}

/// A buffer whose size counts against a [`MemoryQuota`] until the buffer is dropped.
struct QuotaBuffer<T> {
    memory: Box<[T]>,
    memory_quota: Option<Arc<MemoryQuota>>,
}

impl<T> Drop for QuotaBuffer<T> {
    fn drop(&mut self) {
        if let Some(quota) = &self.memory_quota {
            quota
                .allocated_bytes
                .fetch_sub(size_of_val(&*self.memory), Ordering::Relaxed);
        }
    }
}

impl<T> Default for QuotaBuffer<T> {
    fn default() -> Self {
        Self {
            memory: Box::default(),
            memory_quota: None,
        }
    }
}

impl<T> SliceWrapper<T> for QuotaBuffer<T> {
    fn slice(&self) -> &[T] {
        &self.memory
    }
}

impl<T> SliceWrapperMut<T> for QuotaBuffer<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        &mut self.memory
    }
}
