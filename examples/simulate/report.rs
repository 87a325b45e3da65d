// SPDX-License-Identifier: MPL-2.0
//! Tables of what was measured, and what real cameras need.

use super::Outcome;
use super::simulation::partitions::Partitioned;
use super::simulation::world::{CHUNK, Figures, mean_owners};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Bytes a second of a camera: 4 Mbit/s.
const CAMERA: f64 = 500_000.0;
/// Seconds of a batch and of a segment.
const BATCH_S: f64 = 2.0;
const SEGMENT_S: f64 = 60.0;
/// Days that footage is kept, where a day is not simulated.
const KEPT_DAYS: f64 = 30.0;
/// Chunks that one transaction forgets, blobs that one sweep deletes in two.
const FORGET: f64 = 4096.0;
const SWEEP: f64 = 256.0;

/// What one camera asks of the metadata, a second, and what that costs a store.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Chunks of the camera.
    pub tags: f64,
    /// The same, by all its owners: look-ups, registrations, references, releases each.
    pub uses: f64,
    /// Transactions that write.
    pub transactions: f64,
    /// Seconds of CPU that they keep the one writer busy.
    pub writer: f64,
    /// Seconds that deleting its blobs keeps the writer busy, besides.
    pub sweep: f64,
    /// Seconds of look-ups, which need no writer.
    pub reader: f64,
    /// Bytes of metadata after [`KEPT_DAYS`].
    pub bytes: f64,
}

/// Bytes of a chunk's own rows: what is not a segment's. Without journals, which do not grow with
/// the store.
fn tag_bytes(figures: &Figures) -> f64 {
    let (disk, stats) = &figures.most;
    let all = disk.tables.saturating_sub(figures.enrolled.tables) as f64;
    (all - stats.segments as f64 * figures.segment as f64) / stats.variants.max(1) as f64
}

/// The demand of a camera at true density.
pub fn demand(dense: &Figures) -> Demand {
    let owners = mean_owners();
    let tags = CAMERA / f64::from(CHUNK);
    let of = |operation| dense.meter.of(operation).cpu_per_item();
    let each = owners * (of("commit") + of("forget"))
        + of("register, new")
        + (owners - 1.0) * of("register, join");
    let kept = KEPT_DAYS * 86400.0;
    let segment = dense.segment as f64 * owners / SEGMENT_S;
    Demand {
        tags,
        uses: tags * owners,
        transactions: owners * (1.0 / BATCH_S + 1.0 / SEGMENT_S + tags / FORGET)
            + 2.0 * tags / SWEEP,
        writer: tags * each,
        sweep: tags * (of("claim trash") + of("note deletions")),
        reader: tags * owners * of("lookup"),
        bytes: kept * (tags * tag_bytes(dense) + segment),
    }
}

fn row(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn head(out: &mut String, title: &str, cells: &[&str]) {
    let _ = writeln!(out, "\n## {title}\n");
    row(
        out,
        &cells.iter().map(ToString::to_string).collect::<Vec<_>>(),
    );
    row(out, &vec!["---".to_string(); cells.len()]);
}

/// A number with three digits that count.
fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 1e5 => format!("{number:.2e}"),
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        n if n >= 0.1 || n == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.2e}"),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{} s", short(s)),
        s if s >= 1e-3 => format!("{} ms", short(s * 1e3)),
        s => format!("{} µs", short(s * 1e6)),
    }
}

fn size(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let at = (0..6)
        .find(|at| bytes.abs() < 1000f64.powi(at + 1))
        .unwrap_or(6);
    format!("{} {}", short(bytes / 1000f64.powi(at)), units[at as usize])
}

fn world(out: &mut String, [small, large]: &[Figures; 2]) {
    let world = &large.world;
    let title = format!(
        "{}: {} days, kept {}, {} segments of {} chunks a recording",
        world.name, world.days, world.retention, world.segments, world.tags
    );
    head(out, &title, &["", "a tenth", "whole", "ratio"]);
    let mut line = |name: &str, of: &dyn Fn(&Figures) -> f64, form: &dyn Fn(f64) -> String| {
        let (a, b) = (of(small), of(large));
        row(out, &[name.into(), form(a), form(b), short(b / a)]);
    };
    line("cameras", &|f| f.world.cameras as f64, &short);
    line("users enrolled", &|f| f.stats.owners as f64, &short);
    line(
        "segments committed",
        &|f| f.meter.of("commit").calls as f64,
        &short,
    );
    line(
        "chunks kept on the fullest day",
        &|f| f.most.1.variants as f64,
        &short,
    );
    line("segments then", &|f| f.most.1.segments as f64, &short);
    line(
        "chunks kept in the end",
        &|f| f.stats.variants as f64,
        &short,
    );
    line("their owners, added up", &|f| f.members as f64, &short);
    line("most owners of a chunk", &|f| f.most_members as f64, &short);
    line(
        "bytes a user",
        &|f| f.written[0] as f64 / f.stats.owners as f64,
        &size,
    );
    line("disk on the fullest day", &|f| f.most.0.all() as f64, &size);
    line("of which journals", &|f| f.most.0.journals as f64, &size);
    line("disk in the end", &|f| f.end.all() as f64, &size);
    line("bytes of a segment", &|f| f.segment as f64, &size);
    line("bytes of a chunk besides", &tag_bytes, &size);
    line(
        "written for each chunk",
        &|f| (f.written[1] - f.written[0]) as f64 / f.meter.of("register, new").items as f64,
        &size,
    );
    line("memory of the process", &|f| f.resident as f64, &size);
    line("time", &|f| f.took.as_secs_f64(), &time);
    head(
        out,
        &format!("{}: operations, one client", world.name),
        &[
            "operation",
            "calls",
            "items",
            "a call",
            "an item",
            "CPU of an item, a tenth",
            "whole",
            "ratio",
        ],
    );
    for (name, cost) in &large.meter.0 {
        let (calls, items) = (cost.calls as f64, cost.items as f64);
        let before = small.meter.of(name).cpu_per_item();
        row(
            out,
            &[
                name.to_string(),
                short(calls),
                short(items),
                time(cost.per_call()),
                time(cost.per_item()),
                time(before),
                time(cost.cpu_per_item()),
                short(cost.cpu_per_item() / before),
            ],
        );
    }
}

fn needs(out: &mut String, outcome: &Outcome) {
    let Some([_, dense]) = outcome.worlds.last() else {
        return;
    };
    let one = demand(dense);
    let single = outcome.disk.iter().filter(|p| p.partitions == 1);
    let durable = single.map(|p| p.transactions_per_s).fold(0.0, f64::max);
    head(
        out,
        "Needed, of cameras of 4 Mbit/s kept 30 days, and measured",
        &[
            "",
            "one camera",
            "1,000",
            "10^5",
            "10^8",
            "one store measured",
            "cameras of one store",
        ],
    );
    let mut line = |name: &str, need: f64, form: &dyn Fn(f64) -> String, can: Option<f64>| {
        let mut cells = vec![name.to_string()];
        cells.extend([1.0, 1e3, 1e5, 1e8].map(|n| form(n * need)));
        cells.push(can.map_or("".into(), form));
        cells.push(can.map_or("".into(), |can| short(can / need)));
        row(out, &cells);
    };
    let lookups = 1.0 / dense.meter.of("lookup").cpu_per_item();
    line("new chunks a second", one.tags, &short, None);
    line(
        "look-ups of chunks a second",
        one.uses,
        &short,
        Some(lookups),
    );
    line("the writer's time a second", one.writer, &short, Some(1.0));
    line(
        "the writer's, to delete blobs",
        one.sweep,
        &short,
        Some(1.0),
    );
    line("readers' time a second", one.reader, &short, None);
    line(
        "transactions that write a second, synced",
        one.transactions,
        &short,
        Some(durable),
    );
    line("metadata", one.bytes, &size, None);
    line("blobs", CAMERA * KEPT_DAYS * 86400.0, &size, None);
}

fn ownership(out: &mut String, outcome: &Outcome) {
    head(
        out,
        "A chunk with many owners (mean of eight that come and go)",
        &[
            "owners",
            "to come to it, each",
            "look up",
            "join",
            "commit",
            "open",
            "leave",
            "written for one",
        ],
    );
    for p in &outcome.popular {
        row(
            out,
            &[
                short(p.owners.into()),
                time(p.grow),
                time(p.lookup),
                time(p.join),
                time(p.commit),
                time(p.open),
                time(p.leave),
                size(p.written as f64),
            ],
        );
    }
    let f = outcome.formulas;
    let _ = writeln!(
        out,
        "\nA new group key and `C2` under it: {}. Path keys of an owner: {} bytes in {}; the tree has {} leaves.",
        time(f.renew),
        f.path_bytes,
        time(f.path_keys),
        short(super::owners::leaves() as f64)
    );
    head(
        out,
        "Covers, as [KL19] would store them at every change",
        &["owners", "of users", "nodes", "time"],
    );
    for c in &outcome.covers {
        row(
            out,
            &[
                short(c.owners.into()),
                short(c.of as f64),
                short(c.nodes as f64),
                time(c.seconds),
            ],
        );
    }
    head(
        out,
        "An owner of many recordings",
        &[
            "recordings",
            "one more",
            "first page",
            "its bytes",
            "all pages",
        ],
    );
    for h in &outcome.hot {
        row(
            out,
            &[
                short(h.recordings as f64),
                time(h.commit),
                time(h.list),
                size(h.bytes as f64),
                time(h.all),
            ],
        );
    }
}

fn sides(out: &mut String, title: &str, all: &[Partitioned]) {
    head(
        out,
        title,
        &[
            "stores",
            "clients",
            "chunks/s",
            "transactions/s",
            "stores that a segment's commit touches",
        ],
    );
    for p in all {
        row(
            out,
            &[
                p.partitions.to_string(),
                p.clients.to_string(),
                short(p.chunks_per_s),
                short(p.transactions_per_s),
                short(p.touched),
            ],
        );
    }
}

/// All tables.
pub fn markdown(outcome: &Outcome) -> String {
    let mut out = String::new();
    outcome.worlds.iter().for_each(|pair| world(&mut out, pair));
    needs(&mut out, outcome);
    ownership(&mut out, outcome);
    sides(
        &mut out,
        "Stores side by side, by tag, in memory",
        &outcome.memory,
    );
    sides(&mut out, "The same on the disk", &outcome.disk);
    let [one, eight] = outcome.syncs.map(short);
    let _ = writeln!(
        out,
        "\nThe smallest transactions on the disk: {one} a second of one client, {eight} of eight together."
    );
    out
}

/// All figures, for programs.
pub fn json(outcome: &Outcome) -> Value {
    let side = |p: &Partitioned| {
        json!({ "stores": p.partitions, "clients": p.clients, "chunks_per_s": p.chunks_per_s,
            "transactions_per_s": p.transactions_per_s, "touched": p.touched })
    };
    let figures = |f: &Figures| {
        let costs = f.meter.0.iter().map(|(name, c)| {
            let cost = json!({ "calls": c.calls, "items": c.items, "seconds": c.time.as_secs_f64(),
                "cpu": c.cpu.as_secs_f64() });
            (name.to_string(), cost)
        });
        json!({ "name": f.world.name, "cameras": f.world.cameras, "users": f.world.users,
            "days": f.world.days, "retention": f.world.retention, "tags": f.world.tags,
            "segments": f.world.segments, "seconds": f.took.as_secs_f64(),
            "variants": f.stats.variants, "members": f.members, "most_members": f.most_members,
            "most_variants": f.most.1.variants, "most_segments": f.most.1.segments,
            "most_tables": f.most.0.tables, "most_journals": f.most.0.journals,
            "enrolled_bytes": f.enrolled.all(), "end_bytes": f.end.all(),
            "segment_bytes": f.segment, "written": f.written, "resident": f.resident,
            "operations": costs.collect::<serde_json::Map<_, _>>() })
    };
    let popular = outcome.popular.iter().map(|p| {
        json!({ "owners": p.owners, "grow": p.grow, "lookup": p.lookup, "join": p.join,
            "commit": p.commit, "open": p.open, "leave": p.leave, "written": p.written })
    });
    let covers = outcome
        .covers
        .iter()
        .map(|c| json!({ "owners": c.owners, "of": c.of, "nodes": c.nodes, "seconds": c.seconds }));
    let hot = outcome.hot.iter().map(|h| {
        json!({ "recordings": h.recordings, "list": h.list, "bytes": h.bytes, "all": h.all, "commit": h.commit })
    });
    json!({
        "worlds": outcome.worlds.iter().flatten().map(figures).collect::<Vec<_>>(),
        "popular": popular.collect::<Vec<_>>(),
        "covers": covers.collect::<Vec<_>>(),
        "hot": hot.collect::<Vec<_>>(),
        "renew": outcome.formulas.renew,
        "path_keys": outcome.formulas.path_keys,
        "memory": outcome.memory.iter().map(side).collect::<Vec<_>>(),
        "syncs": outcome.syncs,
        "disk": outcome.disk.iter().map(side).collect::<Vec<_>>(),
    })
}
