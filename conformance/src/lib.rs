//! Black-box conformance tests; everything is under `tests/`.
