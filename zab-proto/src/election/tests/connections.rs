//! The rules of connections, one by one.
