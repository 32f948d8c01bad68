//! Where requests come from: a file, standard input or flags, read line by line, and twice, since
//! everything is checked before anything is sent.
//!
//! What a line must be is `prepare`'s business. No line is ever held whole beyond what a request may be.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use crate::messages::request::BODY_MAX;

/// What cannot be read twice is kept in memory up to here, in bytes: about a million requests.
const STDIN_BUFFER_MAX: u64 = 256 * 1024 * 1024;

/// Requests, one a line.
#[derive(Debug)]
pub enum RequestInput {
    File(File),
    Kept(Vec<u8>),
}

/// Why there is no input.
#[derive(Debug, thiserror::Error)]
pub enum BadInput {
    #[error("cannot read {0}: {1}")]
    Unreadable(String, io::Error),
    #[error(
        "{0} is larger than 256 MiB, which is the most that is kept in memory: save it and name the file"
    )]
    TooLarge(String),
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub struct InputLine {
    /// From 1, blank lines counted.
    pub number: u64,
    /// At most one byte more than a request may have; then the rest of the line is left out.
    pub text: Vec<u8>,
}

impl RequestInput {
    /// The file at a path; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self, BadInput> {
        if path.as_os_str() == "-" {
            return Self::buffer_stdin("standard input", io::stdin().lock());
        }
        let name = path.display().to_string();
        let file = File::open(path)
            .and_then(|file| Ok((file.metadata()?.is_file(), file)))
            .map_err(|error| BadInput::Unreadable(name.clone(), error))?;
        match file {
            (true, file) => Ok(Self::File(file)),
            // A pipe can be read only once.
            (false, pipe) => Self::buffer_stdin(&name, pipe),
        }
    }

    fn buffer_stdin(name: &str, from: impl Read) -> Result<Self, BadInput> {
        let mut kept = Vec::new();
        from.take(STDIN_BUFFER_MAX + 1)
            .read_to_end(&mut kept)
            .map_err(|error| BadInput::Unreadable(name.to_owned(), error))?;
        if kept.len() as u64 > STDIN_BUFFER_MAX {
            return Err(BadInput::TooLarge(name.to_owned()));
        }
        Ok(Self::Kept(kept))
    }

    /// The lines, from the first on, however often.
    pub fn lines(&mut self) -> io::Result<InputLines<Box<dyn BufRead + '_>>> {
        let from: Box<dyn BufRead> = match self {
            Self::File(file) => {
                file.seek(SeekFrom::Start(0))?;
                Box::new(BufReader::new(file))
            }
            Self::Kept(kept) => Box::new(Cursor::new(kept)),
        };
        Ok(InputLines { from, number: 0 })
    }
}

/// The lines that are not blank.
#[derive(Debug)]
pub struct InputLines<R> {
    from: R,
    number: u64,
}

impl<R: BufRead> Iterator for InputLines<R> {
    type Item = io::Result<InputLine>;

    fn next(&mut self) -> Option<io::Result<InputLine>> {
        loop {
            match self.read() {
                Ok(None) => return None,
                Ok(Some(text)) if text.trim_ascii().is_empty() => {}
                Ok(Some(text)) => {
                    return Some(Ok(InputLine {
                        number: self.number,
                        text,
                    }));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<R: BufRead> InputLines<R> {
    /// The next line, blank or not, without its end.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let most = BODY_MAX as u64 + 2;
        if self.from.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else {
            self.from.skip_until(b'\n')?;
            line.truncate(BODY_MAX + 1);
        }
        self.number += 1;
        if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(line))
    }
}

/// Some editors begin a file with it; JSON has no place for it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lines(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let lines = InputLines {
            from: text,
            number: 0,
        };
        let line = |line: io::Result<InputLine>| line.map(|line| (line.number, line.text)).unwrap();
        lines.map(line).collect()
    }

    #[test]
    fn blank_lines_are_counted_and_left_out() {
        let told = lines(b"\xef\xbb\xbfa\r\n\n  \nb");
        assert_eq!(told, [(1, b"a\r".to_vec()), (4, b"b".to_vec())]);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n\n"), []);
    }

    #[test]
    fn a_line_without_end_is_not_held() {
        let mut text = vec![b'x'; 3 * BODY_MAX];
        text.extend(b"\nb\n");
        let told = lines(&text);
        assert_eq!(told[0].1.len(), BODY_MAX + 1);
        assert_eq!(told[1], (2, b"b".to_vec()));
    }

    #[test]
    fn a_line_just_long_enough_is_whole() {
        for end in ["", "\n"] {
            let text = "x".repeat(BODY_MAX) + end;
            assert_eq!(lines(text.as_bytes()), [(1, vec![b'x'; BODY_MAX])]);
        }
        let text = "x".repeat(BODY_MAX + 1) + "\ny";
        assert_eq!(lines(text.as_bytes()).len(), 2);
    }

    #[test]
    fn a_file_can_be_read_again() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\nb\n").unwrap();
        let mut input = RequestInput::open(file.path()).unwrap();
        for _ in 0..2 {
            assert_eq!(input.lines().unwrap().count(), 2);
        }
        let missing = RequestInput::open(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/at/all"));
    }
}
