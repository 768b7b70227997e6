//! The suite of all runtimes on smol tasks.

zab_harness::runtime_suite!(runtime_smol::Runtime);
