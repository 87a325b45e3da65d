// SPDX-License-Identifier: MPL-2.0
//! Absolute time of buffers.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds from the NTP epoch (1900) to the Unix epoch.
const NTP_TO_UNIX_NS: i64 = 2_208_988_800 * 1_000_000_000;

/// Unix time, ns, that the sender gave the buffer (RTCP sender reports).
pub fn of_sender(buffer: &gst::BufferRef) -> Option<i64> {
    buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find_map(|meta| {
            let time = i64::try_from(meta.timestamp().nseconds()).ok()?;
            match meta.reference().structure(0)?.name().as_str() {
                "timestamp/x-ntp" => time.checked_sub(NTP_TO_UNIX_NS),
                "timestamp/x-unix" => Some(time),
                _ => None,
            }
        })
}

/// Unix time, ns, of `running` in a live pipeline whose running time is `now`.
pub fn of_machine(running: u64, now: gst::ClockTime) -> Option<i64> {
    let utc = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let utc = i64::try_from(utc.as_nanos()).ok()?;
    let age = i128::from(now.nseconds()) - i128::from(running);
    utc.checked_sub(i64::try_from(age).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_times_are_read() {
        gst::init().unwrap();
        for (name, ns, expected) in [
            ("timestamp/x-unix", 5, Some(5)),
            (
                "timestamp/x-ntp",
                2_208_988_801_000_000_000,
                Some(1_000_000_000),
            ),
            ("timestamp/x-other", 5, None),
        ] {
            let mut buffer = gst::Buffer::new();
            gst::ReferenceTimestampMeta::add(
                buffer.make_mut(),
                &gst::Caps::new_empty_simple(name),
                gst::ClockTime::from_nseconds(ns),
                gst::ClockTime::NONE,
            );
            assert_eq!(of_sender(&buffer), expected, "{name}");
        }
    }
}
