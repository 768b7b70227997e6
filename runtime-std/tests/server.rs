//! The suite of all runtimes on blocking threads.

zab_harness::runtime_suite!(runtime_std::Runtime);
