//! Real servers on loopback for the tests of several crates; nothing here is linked into a product.
