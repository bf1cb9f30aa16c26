//! punchbag
