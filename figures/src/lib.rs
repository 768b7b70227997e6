//! How results are shown: Markdown tables for reading, JSON for programs, plots for the eye.

pub mod plot;
pub mod table;

pub use serde_json::{Map, Value as Json, json};
