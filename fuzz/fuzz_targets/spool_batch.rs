// SPDX-License-Identifier: MPL-2.0
//! Any content of a spool file is read without harm, and what was read is written so that it reads
//! back.
#![no_main]

use gstcamvault::client::fuzzing::spool_batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(written) = spool_batch(data) {
        assert_eq!(spool_batch(&written), Some(written));
    }
});
