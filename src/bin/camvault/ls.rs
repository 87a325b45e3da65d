// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, wait};
use gstcamvault::client::reader::{Listed, Reader};
use std::process::ExitCode;

/// List the identity's recordings and those shared with it.
#[derive(clap::Args)]
pub struct Args {
    /// The vault, http://HOST:PORT.
    url: VaultArg,
    #[command(flatten)]
    identity: IdentityArg,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let vault = args.url.reach(&args.identity)?;
    let mut list = wait(Reader::list(&vault, vault.identity()))?;
    list.sort_by(|a, b| a.name.cmp(&b.name));
    match json {
        true => println!(
            "{}",
            serde_json::Value::Array(list.iter().map(object).collect())
        ),
        false if list.is_empty() => println!("no recordings"),
        false => list.iter().for_each(|entry| println!("{}", line(entry))),
    }
    let readable = list.iter().all(|entry| entry.summary.is_ok());
    Ok(ExitCode::from(if readable {
        0
    } else {
        common::NOT_VERIFIED
    }))
}

fn object(entry: &Listed) -> serde_json::Value {
    let mut object = serde_json::json!({
        "name": entry.name,
        "id": gstcamvault::protocol::hex(&entry.id),
        "segments": entry.segments,
        "first_segment": entry.first,
        "held_by": entry.held.iter().map(|by| common::holder(*by)).collect::<Vec<_>>(),
        "shared_by": entry.owner.map(|owner| gstcamvault::protocol::hex(&owner)),
    });
    match &entry.summary {
        Ok(summary) => {
            object["start_utc"] = common::utc(summary.start_utc).into();
            object["duration_ns"] = summary.duration.into();
            object["tracks"] = summary.tracks.clone().into();
            object["bytes"] = summary.bytes.into();
            object["closed"] = summary.closed.into();
        }
        Err(error) => object["error"] = error.to_string().into(),
    }
    object
}

fn line(entry: &Listed) -> String {
    let name = entry.name.as_deref().unwrap_or("(name unreadable)");
    let shared = if entry.owner.is_some() {
        "  (shared with you)"
    } else {
        ""
    };
    let holders: Vec<_> = entry.held.iter().map(|by| common::holder(*by)).collect();
    let held = match holders.is_empty() {
        true => String::new(),
        false => format!("  (legal hold: {})", holders.join(", ")),
    };
    match &entry.summary {
        Ok(summary) => {
            let removed = match entry.first {
                0 => String::new(),
                n => format!(
                    "  (retention has removed {n} of {} segments)",
                    entry.segments
                ),
            };
            let media: Vec<&str> = summary
                .recorded()
                .map(|(_, caps)| caps.split(',').next().unwrap_or(caps))
                .collect();
            let open = if summary.closed {
                ""
            } else {
                "  (being recorded)"
            };
            format!(
                "{name}  {}  {}  {}  {}{shared}{open}{held}{removed}",
                common::utc(summary.start_utc),
                common::seconds(summary.duration),
                common::bytes(summary.bytes),
                media.join(" + ")
            )
        }
        Err(error) => format!("{name}  {error}{shared}{held}"),
    }
}
