// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, NOT_VERIFIED, print};
use gstcamvault::identity::PublicId;
use gstcamvault::protocol::{AuditCounts, Audited, B32, Verdict, hex};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Read a third party's verdict.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(Check),
}

/// Check a verdict with nothing but the third party's public identity, and print what it says.
///
/// The exit code is 3 if the verdict, or what it is compared with, does not count.
#[derive(clap::Args)]
struct Check {
    /// Verdict, as `camvault arbitrate` left it: verdict.signed.
    file: PathBuf,
    /// Who the third party is, camvault1…; from a source that you trust.
    #[arg(long, value_name = "PUBLIC")]
    ttp_id: PublicId,
    /// Contract that it should name: the signatures of owner, gateway and third party are checked too.
    #[arg(long, value_name = "FILE")]
    contract: Option<PathBuf>,
    /// File that was judged: its SHA-256 is compared.
    #[arg(long = "file", value_name = "SUSPECT")]
    suspect: Option<PathBuf>,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Check(check) => check.run(json),
    }
}

impl Check {
    fn run(&self, json: bool) -> Result<ExitCode, Failure> {
        let wrong = |what: String| Failure::new(what).with_code(NOT_VERIFIED);
        let name = self.file.display();
        let signed = common::read_document::<Verdict>(&self.file)?;
        let verdict: Verdict = signed
            .verify(&[&self.ttp_id.sign])
            .map_err(|e| wrong(format!("{name}: {e}")))?;
        let mut checked = vec!["The third party has signed it."];
        if let Some(file) = &self.contract {
            let agreed = common::read_contract(file)?;
            let leak = verdict
                .leak
                .as_ref()
                .ok_or_else(|| wrong(format!("{name}: this verdict names no contract")))?;
            let contract = &agreed.contract;
            let parties = (leak.owner, leak.cloud) == (contract.owner, contract.cloud);
            let third = *contract.ttp.sign == self.ttp_id.sign;
            if *leak.contract != agreed.id || !parties || !third {
                return Err(wrong(format!(
                    "{name}: this verdict names contract {}, which {} is not",
                    hex(&*leak.contract),
                    file.display()
                )));
            }
            checked.push("Owner, gateway and third party have signed the contract that it names.");
        }
        if let Some(file) = &self.suspect {
            let found = file_digest(file)?;
            if verdict.file.is_none_or(|digest| *digest != found) {
                return Err(wrong(format!(
                    "{name}: this verdict is of another file than {}, whose SHA-256 is {}",
                    file.display(),
                    hex(&found)
                )));
            }
            checked.push("It is of this file, as the one who brought it said.");
        }
        print(json, object(&verdict), || {
            format!("{}\n{}", text(&verdict), checked.join("\n"))
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// SHA-256 of a file.
pub fn file_digest(file: &Path) -> Result<[u8; 32], Failure> {
    let at = |e| Failure::new(format!("{}: {e}", file.display()));
    let mut from = std::fs::File::open(file).map_err(at)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match from.read(&mut piece).map_err(at)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&piece[..length]),
        }
    }
}

/// A verdict for programs.
pub fn object(verdict: &Verdict) -> Value {
    let digest = |digest: &B32| hex(&**digest);
    json!({
        "named": verdict.leak.is_some(),
        "frames_sha256": digest(&verdict.frames),
        "file_sha256": verdict.file.as_ref().map(digest),
        "judged_utc": common::utc_ms(verdict.judged_ms),
        "compared": verdict.compared, "registered": verdict.registered,
        "leak": verdict.leak.as_ref().map(|leak| json!({
            "contract": digest(&leak.contract),
            "owner": PublicId::from(&leak.owner).to_string(),
            "cloud": PublicId::from(&leak.cloud).to_string(),
            "ticket": leak.ticket,
            "issued_utc": common::utc_ms(leak.issued_ms),
            "errors": leak.errors, "ber": f64::from(leak.errors) / 128.0,
            "false_positive": leak.false_positive,
            "registration": leak.registration,
            "retrieved_utc": leak.retrieved_ms.map(common::utc_ms),
            "audited": leak.audited.map(audited),
            "audits": json!({
                "passed": leak.audits.passed, "failed": leak.audits.failed,
                "unanswered": leak.audits.unanswered, "unreported": leak.audits.unreported,
            }),
            "received_as_reported": leak.received,
            "deleted": leak.deleted.map(|(index, ms)| json!({
                "index": index, "utc": common::utc_ms(ms),
            })),
        })),
    })
}

fn audited(audited: Audited) -> &'static str {
    match audited {
        Audited::Asked => "asked",
        Audited::Passed => "passed",
        Audited::Failed => "failed",
        Audited::Unanswered => "unanswered",
    }
}

/// A verdict for people: what is said, line by line.
pub fn lines(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let mut lines = vec![("judged", common::utc_ms(verdict.judged_ms))];
    match &verdict.leak {
        None => lines.push(("finding", "no registered watermark was found".into())),
        Some(leak) => {
            let (owner, cloud) = (PublicId::from(&leak.owner), PublicId::from(&leak.cloud));
            lines.push(("finding", "a registered watermark was found".into()));
            lines.push(("contract", hex(&*leak.contract)));
            lines.push(("whose footage", owner.to_string()));
            lines.push(("who alone had this copy", cloud.to_string()));
            lines.push(("ticket", leak.ticket.to_string()));
            lines.push(("issued", common::utc_ms(leak.issued_ms)));
            lines.push(("wrong bits", format!("{} of 128", leak.errors)));
            lines.push((
                "chance that unmarked footage is taken for any registered",
                format!("at most {:.1e}", leak.false_positive),
            ));
            lines.push(("the original lies in it", leak.registration.clone()));
            // From then on an owner that lies about its marks may know the watermark.
            let retrieved = leak.retrieved_ms.map(common::utc_ms);
            let retrieved = retrieved.unwrap_or_else(|| "no".into());
            lines.push(("its owner had marks of this ticket taken out", retrieved));
            let AuditCounts {
                passed,
                failed,
                unanswered,
                unreported,
            } = leak.audits;
            let own = leak.audited.map_or("not drawn", audited);
            lines.push((
                "audits of what its owner sent",
                format!(
                    "of this ticket: {own}; of the contract: {passed} passed, {failed} failed, {unanswered} unanswered, {unreported} tickets not reported"
                ),
            ));
            let deleted = leak.deleted.map_or("no".to_owned(), |(index, ms)| {
                format!("yes, {}: receipt {index} of the log", common::utc_ms(ms))
            });
            lines.push(("had been forgotten", deleted));
        }
    }
    let compared = format!("{} of {} tickets", verdict.compared, verdict.registered);
    lines.push(("compared with", compared));
    lines.push(("SHA-256 of the frames", hex(&*verdict.frames)));
    if let Some(file) = &verdict.file {
        lines.push(("SHA-256 of the file", hex(&**file)));
    }
    lines
}

/// [`lines`] as text.
pub fn text(verdict: &Verdict) -> String {
    let line = |(what, value): (&str, String)| format!("{what}: {value}");
    let lines: Vec<String> = lines(verdict).into_iter().map(line).collect();
    lines.join("\n")
}
