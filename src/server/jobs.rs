// SPDX-License-Identifier: MPL-2.0
//! Work that all servers over the same stores share, step by step.
//!
//! What a job has done and who does it stands in the metadata store ([`Job`]). A server takes a
//! job for the time of a lease, does a bounded step, and writes where the next one begins together
//! with a new lease, if nobody has changed the job since. So a server that was killed is followed
//! by another, from its last step, and one that slept through its lease cannot write over what
//! its successor did. **The lease only saves work.** A step may be done by two servers at once, or
//! twice: every step has to be harmless then (see [`upkeep`](super::upkeep)).

use crate::protocol::Job;
use crate::store::{Error, Metadata, hex, now_ms};
use async_trait::async_trait;
use minicbor::bytes::ByteVec;
use std::sync::Arc;
use std::time::Duration;

/// What a job does.
#[async_trait]
pub trait Task: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Where a new run begins, if one is due after the last one.
    fn begin(&self, last: &Job, now: u64) -> Option<ByteVec>;

    /// Does a bounded part of the work from `job.cursor` on, and moves that; none at the end.
    async fn step(&self, job: &mut Job) -> Result<(), Error>;
}

/// How one server takes part.
#[derive(Clone)]
pub struct Jobs {
    store: Arc<dyn Metadata>,
    /// Names this server.
    holder: String,
    lease: Duration,
}

impl Jobs {
    /// A server that nobody else is.
    pub fn new(store: Arc<dyn Metadata>, lease: Duration) -> Result<Self, Error> {
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(|_| Error::Random)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = format!("{} {} {}", host.trim(), std::process::id(), hex(&random));
        Ok(Self {
            store,
            holder,
            lease,
        })
    }

    /// A job as it stands.
    pub async fn find(&self, name: &str) -> Result<Job, Error> {
        let kept = self.store.jobs().await?;
        let found = kept.into_iter().find(|job| job.name == name);
        Ok(found.unwrap_or_else(|| Job {
            name: name.to_owned(),
            ..Job::default()
        }))
    }

    /// Begins a run, for whichever server takes it; if one is under way, that is the answer.
    pub async fn start(&self, name: &str, cursor: ByteVec) -> Result<Job, Error> {
        loop {
            let last = self.find(name).await?;
            if last.cursor.is_some() {
                return Ok(last);
            }
            let job = new_run(&last, cursor.clone(), now_ms());
            if self.store.save_job(job.clone()).await? {
                return Ok(job);
            }
        }
    }

    /// Does a job, if there is something to do and no other server does it, until it is finished,
    /// it fails, or another server has it.
    pub async fn run(&self, task: &dyn Task) -> Result<(), Error> {
        let now = now_ms();
        let mut job = self.find(task.name()).await?;
        if job.cursor.is_none() {
            match task.begin(&job, now) {
                Some(cursor) => job = new_run(&job, cursor, now),
                None => return Ok(()),
            }
        }
        let elsewhere = job.holder.as_ref().is_some_and(|h| *h != self.holder);
        if (elsewhere && job.lease_ms > now) || !self.keep(&mut job).await? {
            return Ok(());
        }
        while job.cursor.is_some() {
            let mut next = job.clone();
            let stepped = {
                let mut step = task.step(&mut next);
                loop {
                    tokio::select! {
                        stepped = &mut step => break stepped,
                        () = tokio::time::sleep(self.lease / 3) => {
                            if !self.keep(&mut job).await? {
                                return Ok(());
                            }
                        }
                    }
                }
            };
            if stepped.is_ok() {
                next.version = job.version;
                next.error = None;
                job = next;
            }
            let kept = match &stepped {
                Ok(()) if job.cursor.is_some() => self.keep(&mut job).await?,
                ended => {
                    job.error = ended.as_ref().err().map(ToString::to_string);
                    job.finished_ms = job.cursor.is_none().then(now_ms);
                    (job.holder, job.lease_ms) = (None, 0);
                    self.store.save_job(job.clone()).await?
                }
            };
            stepped?;
            if !kept {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keeps a job as it is now, for another lease; `false` if it is another server's.
    async fn keep(&self, job: &mut Job) -> Result<bool, Error> {
        job.holder = Some(self.holder.clone());
        job.lease_ms = now_ms().saturating_add(self.lease.as_millis() as u64);
        let kept = self.store.save_job(job.clone()).await?;
        job.version += 1;
        Ok(kept)
    }
}

fn new_run(last: &Job, cursor: ByteVec, now: u64) -> Job {
    Job {
        name: last.name.clone(),
        version: last.version,
        cursor: Some(cursor),
        started_ms: now,
        ..Job::default()
    }
}
