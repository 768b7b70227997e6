//! How results are shown: Markdown tables for reading, JSON for programs, plots for the eye.

pub mod json;
pub mod plot;
pub mod table;
