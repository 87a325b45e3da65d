// SPDX-License-Identifier: MPL-2.0
//! The program: a vault's server, and everything an owner does that is not a pipeline.

mod arbitrate;
mod common;
mod contract;
mod detect;
mod enroll;
mod forget;
mod get;
mod hold;
mod jobs;
mod keygen;
mod log;
mod ls;
mod mark;
mod media;
mod phash;
mod pictures;
mod put;
mod retention;
mod retrieve;
mod scrub;
mod serve;
mod share;
mod sheet;
mod stats;
mod verdict;
mod verify;
mod y4m;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Record cameras encrypted, deduplicated and provably forgettable.
#[derive(Parser)]
#[command(name = "camvault", version, propagate_version = true, after_help = common::EXIT_CODES)]
struct Cli {
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Keygen(keygen::Args),
    Enroll(enroll::Args),
    Serve(Box<serve::Args>),
    Ls(ls::Args),
    Put(put::Args),
    Get(get::Args),
    Verify(verify::Args),
    Forget(forget::Args),
    Share(share::Args),
    Stats(stats::Args),
    Retention(retention::Args),
    Hold(hold::Args),
    Scrub(scrub::Args),
    Jobs(jobs::Args),
    Mark(mark::Args),
    Detect(detect::Args),
    Phash(phash::Args),
    Contract(contract::Args),
    Retrieve(retrieve::Args),
    Arbitrate(arbitrate::Args),
    Verdict(verdict::Args),
}

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let done = match command {
        Command::Keygen(args) => keygen::run(&args, json),
        Command::Enroll(args) => enroll::run(&args, json),
        Command::Serve(args) => serve::run(*args),
        Command::Ls(args) => ls::run(&args, json),
        Command::Put(args) => put::run(&args, json),
        Command::Get(args) => get::run(&args, json),
        Command::Verify(args) => verify::run(&args, json),
        Command::Forget(args) => forget::run(&args, json),
        Command::Share(args) => share::run(&args, json),
        Command::Stats(args) => stats::run(&args, json),
        Command::Retention(args) => retention::run(&args, json),
        Command::Hold(args) => hold::run(&args, json),
        Command::Scrub(args) => scrub::run(&args, json),
        Command::Jobs(args) => jobs::run(&args, json),
        Command::Mark(args) => mark::run(&args, json),
        Command::Detect(args) => detect::run(&args, json),
        Command::Phash(args) => phash::run(&args, json),
        Command::Contract(args) => contract::run(&args, json),
        Command::Retrieve(args) => retrieve::run(&args, json),
        Command::Arbitrate(args) => arbitrate::run(&args, json),
        Command::Verdict(args) => verdict::run(&args, json),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}
