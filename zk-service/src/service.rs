//! The service as an application: its state, and the doors that the core calls.

mod admin;
