//! punchbag
fn main() {}
