// SPDX-License-Identifier: MPL-2.0
//! Ways for the fuzz targets (`fuzz/`) into what is not public; only built for them.

pub use super::reader::plan_all as plan;
pub use super::spool::rewrite as spool_batch;
