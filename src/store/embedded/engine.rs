// SPDX-License-Identifier: MPL-2.0
//! What the embedded stores share: a database with one writer at a time.

use super::tx::{Db, Space, Tx};
use crate::store::{Error, Room};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// An open database. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// Lock order: `writer`, then `db`.
struct Inner {
    dir: PathBuf,
    spaces: &'static [Space],
    room: Room,
    writer: Mutex<()>,
    db: RwLock<Option<Db>>,
}

/// Whether a transaction may use the reserve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Adds something: only while there is room.
    Room,
    /// Makes room.
    Reserve,
}

impl Engine {
    /// Opens or creates the database in `dir`; writes that add something stop while the file
    /// system has less than `room`'s reserve free.
    pub fn open(dir: &Path, spaces: &'static [Space], room: Room) -> Result<Self, Error> {
        let db = Some(Db::open(dir, spaces)?);
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            spaces,
            room,
            writer: Mutex::new(()),
            db: RwLock::new(db),
        })))
    }

    /// Looks something up.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        blocking(move || inner.read(work)).await
    }

    /// Does one transaction; it is durable when this returns.
    pub async fn write<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        blocking(move || inner.write(needs, work)).await
    }

    /// Looks something up on this thread, which may block.
    pub fn read_now<T>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.0.read(work)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| Error::Engine(e.to_string()))?
}

impl Inner {
    fn db(&self) -> RwLockReadGuard<'_, Option<Db>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T, Error>) -> Result<T, Error> {
        if self.db().is_none() {
            self.open_again(&self.writer())?;
        }
        match &*self.db() {
            Some(db) => work(&Tx::new(db)),
            None => Err(Error::Again),
        }
    }

    fn write<T>(
        &self,
        needs: Needs,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let writer = self.writer();
        if needs == Needs::Room {
            self.room.check(0)?;
        }
        self.open_again(&writer)?;
        let written = match &*self.db() {
            None => return Err(Error::Again),
            Some(db) => {
                let mut tx = Tx::new(db);
                let value = work(&mut tx)?;
                tx.commit().map(|()| value)
            }
        };
        if written.is_err() {
            *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
            self.open_again(&writer)?;
        }
        written
    }

    /// Opens the database if it is closed, which it is only after a write has failed.
    fn open_again(&self, _writer: &MutexGuard<'_, ()>) -> Result<(), Error> {
        if self.db().is_some() {
            return Ok(());
        }
        let opened = Db::open(&self.dir, self.spaces)?;
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    }
}
