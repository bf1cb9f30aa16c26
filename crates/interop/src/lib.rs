//! Tests of our protocol crates against other implementations of the same wire formats. All of it lives in `tests/`.
