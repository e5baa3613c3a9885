//! Memory to read sockets into, used again while it is still in the cache.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::protocol::Chunk;
use crate::protocol::encode::HEADROOM;

/// Blocks a thread keeps: 512 KiB, and 2 MiB where all are of the largest chunk.
const KEPT: usize = 8;

/// Room for one whole chunk and its head: a frame that waits for a stopped reader pins
/// no more than itself.
pub(super) struct Block {
    pub(super) memory: BytesMut,
    room: usize,
}

impl Block {
    /// Whether it was made for such a chunk.
    pub(super) fn is_for(&self, chunk: Chunk) -> bool {
        self.room == HEADROOM + chunk.bytes()
    }

    /// Whether all of it is there, or its frames may have it back.
    fn is_free(&mut self) -> bool {
        self.memory.try_reclaim(self.room)
    }
}

thread_local! {
    /// The one that was put away last is at the end. Frames that were cut from a
    /// block may still be under way; then it cannot be used yet.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// An empty block with room for a chunk: the one whose frames were sent last,
/// where there is one. An allocator gives large blocks in turn, each cold, and to
/// fill cold memory takes most of the time of a large read.
pub(super) fn take(chunk: Chunk) -> Block {
    let room = HEADROOM + chunk.bytes();
    BLOCKS.with_borrow_mut(|blocks| {
        let free = blocks.iter_mut().rposition(|block| block.room == room && block.is_free());
        free.map_or_else(
            || Block { memory: BytesMut::with_capacity(room), room },
            |at| blocks.remove(at),
        )
    })
}

/// Puts a block away whose frames may still be under way.
pub(super) fn put(mut block: Block) {
    block.memory.clear();
    BLOCKS.with_borrow_mut(|blocks| {
        if blocks.len() == KEPT {
            // One that still waits for its frames, which may be those of a stopped reader.
            let waits = blocks.iter_mut().position(|block| !block.is_free());
            blocks.remove(waits.unwrap_or(0));
        }
        blocks.push(block);
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use bytes::BufMut as _;

    #[test]
    fn a_block_is_used_again_once_its_frames_are_gone() {
        let small = Chunk::default();
        let mut block = take(small);
        let memory = block.memory.as_ptr();
        block.memory.put_bytes(1, 100);
        let frame = block.memory.split().freeze();
        put(block);
        let other = take(small);
        assert_ne!(other.memory.as_ptr(), memory, "its frame is still under way");
        put(other);
        drop(frame);
        let both = [take(small), take(small)];
        assert!(both.iter().any(|block| block.memory.as_ptr() == memory));
        let fits = |block: &Block| block.memory.is_empty() && block.memory.capacity() >= block.room;
        assert!(both.iter().all(fits));
        both.into_iter().for_each(put);

        let mut large = small;
        large.passed(small.bytes(), false, Duration::ZERO, u32::MAX);
        let block = take(large);
        assert_ne!(block.memory.as_ptr(), memory, "it is too small");
        assert!(block.memory.capacity() >= large.bytes());
        put(block);
        for _ in 0..2 * KEPT {
            put(Block { memory: BytesMut::with_capacity(1), room: 1 });
        }
        BLOCKS.with_borrow(|blocks| assert_eq!(blocks.len(), KEPT));
    }
}
