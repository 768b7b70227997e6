//! Markdown tables, and the numbers in them.

use std::fmt::Write;

use crate::{Json, json};

/// Rows of a Markdown table, the first one its head.
#[must_use]
pub fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text += "|\n";
        if i == 0 {
            for width in &widths {
                let _ = write!(text, "|{:-<1$}", "", width + 2);
            }
            text += "|\n";
        }
    }
    text
}

/// How some numbers are distributed.
#[derive(Clone, Copy, Debug)]
pub struct Percentiles {
    /// How many there are.
    pub count: usize,
    /// Half of them are at most this.
    pub p50: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Of `values`.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |percent: usize| {
            values.get((values.len() * percent / 100).min(last)).copied().unwrap_or(f64::NAN)
        };
        Self { count: values.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }

    /// All of them.
    #[must_use]
    pub fn json(&self) -> Json {
        let Self { count, p50, p90, p99, max } = self;
        let [p50, p90, p99, max] = [p50, p90, p99, max].map(|value| rounded(*value));
        json!({ "count": count, "p50": p50, "p90": p90, "p99": p99, "max": max })
    }
}

/// A number to three places, as results are kept; null for one that is not finite.
#[must_use]
pub fn rounded(value: f64) -> Json {
    Json::from((value * 1e3).round() / 1e3)
}
