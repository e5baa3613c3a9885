//! Memory to read sockets into, used again while it is still in the cache.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::protocol::CHUNK;
use crate::protocol::encode::HEADROOM;

/// A block holds one whole chunk: one that waits for a stopped reader pins no more
/// than itself.
const BLOCK: usize = HEADROOM + CHUNK;
/// Blocks a thread keeps: 512 KiB.
const KEPT: usize = 8;

thread_local! {
    /// The one that was put away last is at the end. Frames that were cut from a
    /// block may still be under way; then it cannot be used yet.
    static BLOCKS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty block with room for a chunk: the one whose frames were sent last,
/// where there is one. An allocator gives large blocks in turn, each cold, and to
/// fill cold memory takes most of the time of a large read.
pub(super) fn take() -> BytesMut {
    BLOCKS.with_borrow_mut(|blocks| {
        let free = blocks.iter_mut().rposition(|block| block.try_reclaim(BLOCK));
        free.map_or_else(|| BytesMut::with_capacity(BLOCK), |at| blocks.remove(at))
    })
}

/// Puts a block away whose frames may still be under way.
pub(super) fn put(mut block: BytesMut) {
    block.clear();
    BLOCKS.with_borrow_mut(|blocks| {
        if blocks.len() == KEPT {
            // One that still waits for its frames, which may be those of a stopped reader.
            let waits = blocks.iter_mut().position(|block| !block.try_reclaim(BLOCK));
            blocks.remove(waits.unwrap_or(0));
        }
        blocks.push(block);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut as _;

    #[test]
    fn a_block_is_used_again_once_its_frames_are_gone() {
        let mut block = take();
        let memory = block.as_ptr();
        block.put_bytes(1, 100);
        let frame = block.split().freeze();
        put(block);
        let other = take();
        assert_ne!(other.as_ptr(), memory, "its frame is still under way");
        put(other);
        drop(frame);
        let both = [take(), take()];
        assert!(both.iter().any(|block| block.as_ptr() == memory));
        assert!(both.iter().all(|block| block.is_empty() && block.capacity() >= BLOCK));
        for _ in 0..2 * KEPT {
            put(BytesMut::with_capacity(BLOCK));
        }
        BLOCKS.with_borrow(|blocks| assert_eq!(blocks.len(), KEPT));
    }
}
