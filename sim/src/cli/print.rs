//! Standard output that can be piped, and errors.

use std::io::{ErrorKind, Write};

/// Writes to standard output.
pub(super) fn out(text: &str) -> std::io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

/// Writes an error for people. Texts that come rendered start with "error" themselves.
pub(super) fn error(text: &str) {
    let prefix = if text.trim_start_matches(|c: char| !c.is_alphabetic()).starts_with("error") {
        ""
    } else {
        "error: "
    };
    // Nothing can be done about a standard error that is closed.
    let _ = writeln!(anstream::stderr().lock(), "{prefix}{}", text.trim_end());
}

/// Writes a remark for people to standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{}", text.trim_end());
}

pub(super) fn is_broken_pipe(failure: &(dyn std::error::Error + 'static)) -> bool {
    failure.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
