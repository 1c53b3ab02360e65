//! Numbers: one set of counters, read by SHOW, the log and Prometheus alike.

pub mod averages;
pub mod exposition;
pub mod stats;
