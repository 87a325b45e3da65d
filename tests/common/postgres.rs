// SPDX-License-Identifier: MPL-2.0
//! A PostgreSQL server of its own for a test: Debian's package `postgresql`, in a temporary
//! directory, on a free port of the loopback address.

#![allow(dead_code)]

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A running server; it ends when this is dropped.
pub struct PostgresServer {
    dir: tempfile::TempDir,
    port: u16,
}

/// The newest that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    let newest = found.pop();
    newest
        .expect("PostgreSQL is not installed: apt-get install postgresql")
        .1
}

/// One of its programs; never as root, which it refuses.
fn program(dir: &Path, name: &str) -> Command {
    let path = programs().join(name);
    let mut command = match std::fs::metadata("/proc/self").unwrap().uid() {
        0 => {
            let mut runuser = Command::new("runuser");
            runuser.args(["-u", "postgres", "--"]).arg(path);
            runuser
        }
        _ => Command::new(path),
    };
    command.current_dir(dir).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn succeed(mut command: Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

impl PostgresServer {
    /// Makes and starts one.
    pub fn start() -> Self {
        let server = Self::empty();
        let mut initdb = program(server.dir.path(), "initdb");
        initdb.args(["-D", "data", "-U", "camvault", "-A", "trust", "-E", "UTF8"]);
        initdb.args(["--locale=C", "--no-sync"]);
        succeed(initdb);
        server.again();
        server
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            let mut chown = Command::new("chown");
            chown.arg("postgres").arg(dir.path());
            succeed(chown);
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        Self { dir, port }
    }

    /// A second server that follows this one, which from now on waits for it before it says that
    /// something is committed.
    pub fn standby(&self) -> Self {
        let standby = Self::empty();
        let mut copy = program(standby.dir.path(), "pg_basebackup");
        copy.args([
            "-d",
            &self.url("postgres"),
            "-D",
            "data",
            "-R",
            "-X",
            "stream",
        ]);
        copy.args(["-c", "fast", "--no-sync"]);
        succeed(copy);
        standby.again();
        self.run(
            "postgres",
            "alter system set synchronous_standby_names = '*'",
        );
        self.run("postgres", "select pg_reload_conf()");
        standby
    }

    /// Makes a standby the one to write to.
    pub fn promote(&self) {
        succeed(self.control(&["promote"]));
    }

    /// Stops all its processes where they are; connections are still accepted. For good.
    pub fn freeze(&self) {
        for process in self.processes() {
            let mut kill = Command::new("kill");
            kill.args(["-STOP", &process]);
            succeed(kill);
        }
    }

    /// The first process, and its children.
    fn processes(&self) -> Vec<String> {
        let pids = std::fs::read_to_string(self.dir.path().join("data/postmaster.pid"));
        let Some(first) = pids.unwrap_or_default().lines().next().map(str::to_owned) else {
            return Vec::new();
        };
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().map(str::to_owned);
        std::iter::once(first).chain(children).collect()
    }

    fn control(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.dir.path(), "pg_ctl");
        command.args(["-D", "data", "-w"]).args(arguments);
        command
    }

    /// Starts it after [`PostgresServer::kill`].
    pub fn again(&self) {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories=/tmp -c fsync=on",
            self.port
        );
        succeed(self.control(&["-l", "log", "-o", &options, "start"]));
    }

    /// Ends it at once, without writing what is in memory.
    pub fn kill(&self) {
        succeed(self.control(&["-m", "immediate", "stop"]));
    }

    /// Runs a statement.
    pub fn run(&self, database: &str, statement: &str) {
        let mut psql = program(self.dir.path(), "psql");
        psql.arg(self.url(database))
            .args(["-q", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        succeed(psql);
    }

    /// Takes connections with TLS as well.
    pub fn use_tls(&self, certificate: &str, key: &str) {
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let file = self.dir.path().join("data").join(name);
            std::fs::write(&file, content).unwrap();
            let owner = std::fs::metadata(self.dir.path()).unwrap().uid();
            std::os::unix::fs::chown(&file, Some(owner), None).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        self.run("postgres", "alter system set ssl = on");
        self.run("postgres", "select pg_reload_conf()");
    }

    /// A new, empty database.
    pub fn database(&self, name: &str) -> String {
        self.run("postgres", &format!("create database {name}"));
        self.url(name)
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://camvault@{}/{database}", self.address())
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Frozen ones do not hear.
        let processes = self.processes();
        let _ = Command::new("kill").arg("-CONT").args(processes).status();
        let _ = self.control(&["-m", "immediate", "stop"]).status();
    }
}
