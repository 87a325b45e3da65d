// SPDX-License-Identifier: MPL-2.0
//! `camvault serve` of this build as a process, which can be killed and started again.
#![allow(dead_code)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Program {
    pub child: Child,
    pub url: String,
    data: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Program {
    /// On a free port of 127.0.0.1.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::listen("127.0.0.1:0", data, arguments)
    }

    pub fn listen(address: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::listen_with(address, data, arguments, &[])
    }

    /// … with variables in its environment.
    pub fn listen_with(
        address: &str,
        data: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_camvault"))
            .args(["serve", "--listen", address, "--data"])
            .arg(data)
            .args(["--grace", "1", "--collect-every", "1"])
            .args(arguments)
            .env_remove("CAMVAULT_CA_FILE")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect(&line);
        Self {
            url: url.to_owned(),
            child,
            data: data.to_owned(),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            variables: variables
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// Starts one that has to refuse to run: what it says.
    pub fn refused(data: &Path, arguments: &[&str]) -> String {
        let output = Command::new("timeout")
            .args(["60", env!("CARGO_BIN_EXE_camvault"), "serve"])
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        said
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    }

    pub fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// With the same data at the same address, after it ended.
    pub fn again(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let variables: Vec<(&str, &str)> = self
            .variables
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        *self = Self::listen_with(self.authority(), &self.data, &arguments, &variables);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
