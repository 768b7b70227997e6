//! In steady state the core does not allocate.

#[path = "common/trio.rs"]
mod trio;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_steady_flow_of_transactions_allocates_nothing() {
    for in_flight in [1, 64, 1024] {
        let mut trio = trio::Trio::new(100);
        let mut round = |rounds: u64| {
            for _ in 0..rounds {
                (0..in_flight).for_each(|_| trio.propose());
                trio.settle();
            }
            trio.delivered
        };
        // Until every buffer has reached its size.
        let warm = round(40_000 / in_flight);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let done = round(40_000 / in_flight);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(done, warm.map(|count| 2 * count), "everything is delivered everywhere");
        assert_eq!(allocations, 0, "with {in_flight} in flight");
    }
}
