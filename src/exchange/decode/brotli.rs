//! Brotli (RFC 7932).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brotli_decompressor::{
    Allocator, BrotliDecoderErrorCode, BrotliDecompressStream, BrotliResult, BrotliState,
    SliceWrapper, SliceWrapperMut,
};

use super::layer::{Fault, Layer, Moved};

struct Brotli {
    state: BrotliState<Bounded, Bounded, Bounded>,
    ledger: Arc<Ledger>,
    ended: bool,
}

pub(super) fn layer() -> Box<dyn Layer> {
    let ledger = Arc::new(Ledger::default());
    ledger.limit.store(usize::MAX, Ordering::Relaxed);
    let bounded = || Bounded(Arc::clone(&ledger));
    Box::new(Brotli {
        // Strict: windows larger than the 16 MiB of the standard are refused.
        state: BrotliState::new_strict(bounded(), bounded(), bounded()),
        ledger,
        ended: false,
    })
}

impl Layer for Brotli {
    fn step(&mut self, input: &[u8], output: &mut [u8], memory: usize) -> Result<Moved, Fault> {
        if self.ended {
            return match input {
                [] => Ok(Moved::default()),
                _ => Err(Fault::Trailing),
            };
        }
        let own = size_of::<Self>();
        let limit = memory.checked_sub(own).ok_or(Fault::Memory)?;
        self.ledger.limit.store(limit, Ordering::Relaxed);
        let (mut to_read, mut read) = (input.len(), 0);
        let (mut to_write, mut written) = (output.len(), 0);
        let result = BrotliDecompressStream(
            &mut to_read,
            &mut read,
            input,
            &mut to_write,
            &mut written,
            output,
            &mut 0,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultSuccess => self.ended = true,
            BrotliResult::ResultFailure => return Err(fault(self.state.error_code)),
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(Moved { read, written })
    }

    fn is_complete(&self) -> bool {
        self.ended
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + self.ledger.held.load(Ordering::Relaxed)
    }
}

fn fault(code: BrotliDecoderErrorCode) -> Fault {
    use BrotliDecoderErrorCode as Code;
    match code {
        Code::BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MODES
        | Code::BROTLI_DECODER_ERROR_ALLOC_TREE_GROUPS
        | Code::BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MAP
        | Code::BROTLI_DECODER_ERROR_ALLOC_RING_BUFFER_1
        | Code::BROTLI_DECODER_ERROR_ALLOC_RING_BUFFER_2
        | Code::BROTLI_DECODER_ERROR_ALLOC_BLOCK_TYPE_TREES => Fault::Memory,
        code => Fault::corrupt(format!("{code:?}")),
    }
}

/// What the decoder holds, in bytes, and may hold.
#[derive(Default)]
struct Ledger {
    held: AtomicUsize,
    limit: AtomicUsize,
}

/// Gives memory up to the ledger's limit, and beyond it an empty cell, by which the decoder knows.
struct Bounded(Arc<Ledger>);

impl<T: Clone + Default> Allocator<T> for Bounded {
    type AllocatedMemory = Cell<T>;

    fn alloc_cell(&mut self, length: usize) -> Cell<T> {
        let bytes = length.saturating_mul(size_of::<T>());
        let held = self.0.held.load(Ordering::Relaxed);
        if held.saturating_add(bytes) > self.0.limit.load(Ordering::Relaxed) {
            return Cell::default();
        }
        self.0.held.store(held + bytes, Ordering::Relaxed);
        Cell {
            memory: vec![T::default(); length].into(),
            ledger: Some(Arc::clone(&self.0)),
        }
    }

    fn free_cell(&mut self, _cell: Cell<T>) {}
}

struct Cell<T> {
    memory: Box<[T]>,
    ledger: Option<Arc<Ledger>>,
}

impl<T> Drop for Cell<T> {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            ledger
                .held
                .fetch_sub(size_of_val(&*self.memory), Ordering::Relaxed);
        }
    }
}

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self {
            memory: Box::default(),
            ledger: None,
        }
    }
}

impl<T> SliceWrapper<T> for Cell<T> {
    fn slice(&self) -> &[T] {
        &self.memory
    }
}

impl<T> SliceWrapperMut<T> for Cell<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        &mut self.memory
    }
}
