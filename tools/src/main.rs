//! The `cairn` tool.

#[allow(dead_code)] // wired by the verbs in the next commits
mod engine;

fn main() {}
