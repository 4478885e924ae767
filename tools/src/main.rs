//! The `cairn` tool.

#[allow(dead_code, unused_imports)] // wired by the verbs in the next commits
mod engine;

fn main() {}
