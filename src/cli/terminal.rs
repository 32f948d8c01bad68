//! What commands write, to either stream: the one way out, so that no message's content reaches a
//! terminal unescaped. See [`crate::messages::visible`].

use std::fmt;
use std::io::{self, BufWriter, Write};

use super::ExitStatus;
use crate::messages::visible::{EscapingWriter, escaped};

/// Writes a line to standard error, with `format!`'s arguments.
macro_rules! say {
    ($($arguments:tt)*) => {
        $crate::cli::terminal::say_line(format_args!($($arguments)*))
    };
}
/// Writes a line to standard error. Where that is closed there is nobody to say it to.
pub fn say_line(line: fmt::Arguments<'_>) {
    say_text(&format!("{line}\n"));
}

/// Writes text to standard error: whole lines, or a question that is to be answered behind it.
pub fn say_text(text: &str) {
    let mut to = io::stderr().lock();
    to.write_all(escaped(text).as_bytes())
        .and_then(|()| to.flush())
        .ok();
}

/// Writes a result to standard output. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> ExitStatus {
    let mut to = results();
    written(to.write_all(text.as_bytes()).and_then(|()| to.flush()))
}

/// Writes a text of ours that holds nothing of anybody else's, such as a script, as it is.
pub fn print_unchanged(text: &str) -> ExitStatus {
    let mut to = io::stdout().lock();
    written(to.write_all(text.as_bytes()).and_then(|()| to.flush()))
}

/// How a command ends that has written its result so.
pub fn written(result: io::Result<()>) -> ExitStatus {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say!("cannot write the result: {error}");
            ExitStatus::Failed
        }
        _ => ExitStatus::Done,
    }
}

/// Standard output, for results that are written piece by piece.
pub fn results() -> EscapingWriter<BufWriter<io::Stdout>> {
    EscapingWriter::new(BufWriter::new(io::stdout()))
}
