//! Lines that are neither progress nor an error: results on standard output, remarks on standard error.

use crate::task;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Prints whole lines. When the reader has gone (`| head`), the rest is dropped silently; every other error,
/// such as a full disk behind a redirection, is the caller's to report.
#[derive(Debug)]
pub struct Printer<W> {
    output: W,
    broken: bool,
}

impl Printer<io::Stdout> {
    /// Returns the printer of results.
    pub fn stdout() -> Self {
        Self::over(io::stdout())
    }
}

impl Printer<io::Stderr> {
    /// Returns the printer of remarks, for use while no progress is shown.
    pub fn stderr() -> Self {
        Self::over(io::stderr())
    }
}

impl<W: Write> Printer<W> {
    /// Returns a printer over any output.
    pub fn over(output: W) -> Self {
        Self { output, broken: false }
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Whatever writing meets, save for a reader that has gone.
    pub fn line(&mut self, line: impl Display) -> io::Result<()> {
        self.raw(format!("{line}\n").as_bytes())
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.broken {
            return Ok(());
        }
        match write_all(&mut self.output, bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.broken = true;
                Ok(())
            }
            result => result,
        }
    }

    /// Whether the reader has gone.
    pub fn broken(&self) -> bool {
        self.broken
    }
}

/// How long a terminal that takes nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints lines to standard error, as [`say`] does.
pub async fn remark<T: Display>(lines: impl IntoIterator<Item = T>) {
    let text: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    if !text.is_empty() {
        say(text).await;
    }
}

/// Prints text to standard error, waiting no longer than five seconds for a terminal that takes nothing. A reader that
/// has gone is not told.
pub(super) async fn say(text: String) {
    let Ok(output) = io::stderr().as_fd().try_clone_to_owned() else { return };
    let writing = task::spawn_blocking(move || {
        let _nobody_to_tell = write_all(&mut File::from(output), text.as_bytes());
    });
    let _gave_up = tokio::time::timeout(PATIENCE, writing.join()).await;
}

/// Writes everything, also to an output that someone else has made non-blocking (a descriptor shared with another
/// process has one set of flags).
pub(super) fn write_all(output: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fake output that fails in one way.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_end() {
        let mut printed = Vec::new();
        Printer::over(&mut printed).line("sha256:0").unwrap();
        assert_eq!(printed, b"sha256:0\n");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut printer = Printer::over(writer);
        printer.line("into the void").unwrap();
        assert!(printer.broken());
        printer.line("again").unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let error = Printer::over(Failing(ErrorKind::StorageFull)).line("x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}
