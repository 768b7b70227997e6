//! In steady state the core does not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use zab_harness::Trio;

struct Counting;

thread_local! {
    /// Of this thread: the test runner's own reports a test that takes long.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more.
    let _ = ALLOCATIONS.try_with(|counter| counter.set(counter.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_steady_flow_of_transactions_allocates_nothing() {
    for in_flight in [1, 64, 1024] {
        let mut trio = Trio::new(100);
        let mut round = |rounds: u64| {
            for _ in 0..rounds {
                (0..in_flight).for_each(|_| trio.propose());
                trio.settle();
            }
            trio.delivered
        };
        // Until every buffer has reached its size.
        let warm = round(40_000 / in_flight);
        let before = ALLOCATIONS.get();
        let done = round(40_000 / in_flight);
        let allocations = ALLOCATIONS.get() - before;
        assert_eq!(done, warm.map(|count| 2 * count), "everything is delivered everywhere");
        assert_eq!(allocations, 0, "with {in_flight} in flight");
    }
}
