//! What asks a command to end: Ctrl-C, SIGTERM, a terminal that is closed.

use std::io::{self, BufRead as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::terminal::say_text;

/// The signals that ask a command to end.
pub struct InterruptSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// Which of them came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptRequest {
    /// Ctrl-C: every program on the terminal gets it.
    Interrupt,
    /// SIGTERM, or the terminal is gone.
    End,
}

impl InterruptSignals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> InterruptRequest {
        tokio::select! {
            _ = self.interrupt.recv() => InterruptRequest::Interrupt,
            _ = self.terminate.recv() => InterruptRequest::End,
            _ = self.hang_up.recv() => InterruptRequest::End,
        }
    }
}

/// Waits until somebody asks the command to end; never where signals cannot be had.
pub async fn interrupted() {
    match InterruptSignals::new() {
        Ok(mut signals) => {
            signals.next().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Asks a question on the terminal. No answer where the command is asked to end instead.
pub async fn answer_to(question: &str) -> Option<String> {
    say_text(question);
    let (to, answer) = oneshot::channel();
    // A thread of its own: the runtime would wait for one of its own before the process may end.
    std::thread::spawn(move || {
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line).is_ok() {
            to.send(line).ok();
        }
    });
    tokio::select! {
        line = answer => line.ok().map(|line| line.trim().to_owned()),
        () = interrupted() => {
            say!("");
            None
        }
    }
}
