// SPDX-License-Identifier: MPL-2.0
//! Copying all metadata, or a registry, into an empty store, of whichever engine.

use super::{Engine, Needs, Snapshot, Space, Tables, Tx, behind, following};
use crate::store::Error;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Pairs in one transaction. Some are whole manifests.
const BATCH: usize = 256;

/// What is copied together.
#[derive(Debug)]
pub struct Whole {
    /// Where: without what servers keep for each other.
    spaces: &'static [Space],
    /// Where the place of an unfinished copy stands, in [`Space::Servers`].
    place: &'static [u8],
    name: &'static str,
}

impl Whole {
    /// Of a metadata store.
    pub const METADATA: Self = Self {
        spaces: Space::METADATA,
        place: b"copy",
        name: "vault",
    };
    /// Of a third party's.
    pub const REGISTRY: Self = Self {
        spaces: Space::REGISTRY,
        place: b"copy registry",
        name: "registry",
    };

    fn copied(&self) -> impl Iterator<Item = (u32, Space)> + use<> {
        let spaces = self.spaces.iter().copied();
        (0..).zip(spaces.filter(|space| *space != Space::Servers))
    }

    fn place(&self, tx: &Tx<'_>) -> Result<Option<Place>, Error> {
        tx.get(Space::Servers, self.place)
    }

    /// Where to go on; `None` if the store holds something that no copy has left unfinished.
    fn begin(&self, tx: &mut Tx<'_>) -> Result<Option<Place>, Error> {
        let begun = self.place(tx)?;
        if begun.is_some() {
            return Ok(begun);
        }
        for (_, space) in self.copied() {
            if !tx.walk(space, &[], &behind(&[]), 1)?.is_empty() {
                return Ok(None);
            }
        }
        let place = Place {
            space: 0,
            next: Vec::new().into(),
        };
        tx.put(Space::Servers, self.place.to_vec(), &place);
        Ok(Some(place))
    }
}

/// How far a copy came: the spaces before are whole, this one up to a key.
#[derive(Clone, Debug, Encode, Decode)]
struct Place {
    #[n(0)]
    space: u32,
    #[n(1)]
    next: ByteVec,
}

/// Fails if a copy into this store has begun and is not finished: it must not be served.
pub async fn check_whole<E: Engine>(engine: &E, whole: &'static Whole) -> Result<(), Error> {
    match engine.read(|tx| whole.place(tx)).await? {
        None => Ok(()),
        Some(_) => Err(Error::Engine(
            "a migration into it is not finished: run `camvault migrate` again".into(),
        )),
    }
}

/// Copies everything that `from` holds, which nobody may serve meanwhile, into `to`, which holds
/// nothing, what an interrupted copy has left, or the same already; then compares both. `told` hears
/// how many rows there are by now.
pub async fn fill<E: Engine, F: Engine>(
    from: &E,
    to: &F,
    whole: &'static Whole,
    told: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Error> {
    let begun = to.write(Needs::Room, |tx| whole.begin(tx)).await?;
    let mut source = from.snapshot().await?;
    let totals = source.totals();
    let mut rows = 0;
    for (number, space) in whole.copied() {
        let mut next = match &begun {
            Some(begun) if number == begun.space => begun.next.to_vec(),
            Some(begun) if number > begun.space => Vec::new(),
            _ => continue,
        };
        loop {
            let page = source.page(space, &next, &behind(&[]), BATCH).await?;
            let Some((last, _)) = page.last() else { break };
            next = following(last);
            rows += page.len() as u64;
            let place = Place {
                space: number,
                next: next.clone().into(),
            };
            let put = move |tx: &mut Tx<'_>| {
                for (key, value) in &page {
                    tx.put_bytes(space, key.clone(), value.clone());
                }
                tx.put(Space::Servers, whole.place.to_vec(), &place);
                Ok(())
            };
            to.write(Needs::Room, put).await?;
            told(rows);
        }
    }
    let mut filled = to.snapshot().await?;
    for (_, space) in whole.copied() {
        if digest(&mut source, space).await? != digest(&mut filled, space).await? {
            let (name, space) = (whole.name, space.name());
            return Err(Error::Engine(match begun {
                None => format!("it holds a {name} already: migrate into an empty one"),
                Some(_) => format!(
                    "what was copied of the {space} is not what there is: was the {name} served \
                     meanwhile? Empty the database and begin again"
                ),
            }));
        }
    }
    drop(filled);
    // Once, however often it is done: the place goes with it.
    let finish = move |tx: &mut Tx<'_>| {
        if whole.place(tx)?.is_some() {
            tx.remove(Space::Servers, whole.place.to_vec());
            tx.count(|t| *t = totals);
        }
        Ok(())
    };
    to.write(Needs::Room, finish).await
}

impl<E: Engine> Tables<E> {
    /// Fails if a copy into this store has begun and is not finished: it must not be served.
    pub async fn check_whole(&self) -> Result<(), Error> {
        check_whole(&self.engine, &Whole::METADATA).await
    }

    /// See [`fill`].
    pub async fn fill<F: Engine>(
        &self,
        from: &Tables<F>,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        fill(&from.engine, &self.engine, &Whole::METADATA, told).await
    }
}

/// Of all that a space holds.
async fn digest(snapshot: &mut impl Snapshot, space: Space) -> Result<blake3::Hash, Error> {
    let mut hasher = blake3::Hasher::new();
    let mut next = Vec::new();
    loop {
        let page = snapshot.page(space, &next, &behind(&[]), BATCH).await?;
        let Some((last, _)) = page.last() else {
            return Ok(hasher.finalize());
        };
        next = following(last);
        for part in page.iter().flat_map(|(key, value)| [key, value]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ownership::Tree;
    use crate::store::{Embedded, Metadata as _, Room, conformance};
    use std::sync::Mutex;
    use tokio::sync::oneshot;

    fn open(dir: &tempfile::TempDir) -> Embedded {
        let tree = Tree::new(conformance::MASTER);
        Embedded::open(dir.path(), tree, Room::new(dir.path(), 0)).unwrap()
    }

    #[tokio::test]
    async fn an_interrupted_copy_goes_on_and_is_not_served_before() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [from, to] = dirs.each_ref().map(open);
        conformance::metadata(&from).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let stop = Mutex::new(Some(stop));
        let first_page = |_| drop(stop.lock().unwrap().take());
        tokio::select! {
            biased;
            _ = stopped => (),
            _ = to.fill(&from, &first_page) => panic!("more than a page is there"),
        }
        let unfinished = to.check_whole().await.unwrap_err().to_string();
        assert!(unfinished.contains("not finished"), "{unfinished}");
        to.fill(&from, &|_| ()).await.unwrap();
        to.check_whole().await.unwrap();
        assert_eq!(to.stats().await.unwrap(), from.stats().await.unwrap());
        assert_eq!(to.audit(0).await.unwrap().mended, 0);
        // The same again is no harm; something else is left alone.
        to.fill(&from, &|_| ()).await.unwrap();
        to.enroll([99; 32], [98; 32]).await.unwrap();
        let again = to.fill(&from, &|_| ()).await.unwrap_err().to_string();
        assert!(again.contains("holds a vault already"), "{again}");
    }
}
