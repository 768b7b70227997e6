//! A program without `std` that links the core.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

struct None;

// SAFETY: it gives no memory at all.
unsafe impl GlobalAlloc for None {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: None = None;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Keeps the core in the program.
#[unsafe(no_mangle)]
pub extern "C" fn deadline(peer: &zab_proto::Peer) -> u64 {
    peer.poll_timeout().map_or(0, zab_proto::Instant::as_nanos)
}
