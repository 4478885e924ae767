//! The `cairnd` server.

fn main() {}
