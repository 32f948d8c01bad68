//! `completions`: prints a shell's completion script.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, ExitStatus, terminal};

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> ExitStatus {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "rename-worker",
        &mut script,
    );
    terminal::print_unchanged(&String::from_utf8_lossy(&script))
}
