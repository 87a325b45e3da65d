// SPDX-License-Identifier: MPL-2.0
//! `camvault`: the program, one file per subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but something stored is missing or
//! damaged.

mod scrub;
mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Stores camera feeds encrypted, deduplicated and provably forgettable.
#[derive(Parser)]
#[command(name = "camvault", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server.
    Serve(serve::Args),
    /// Check everything that a server stores, and mend what can be mended.
    Scrub(scrub::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Scrub(args) => scrub::run(args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("camvault: {error}");
        ExitCode::FAILURE
    })
}
