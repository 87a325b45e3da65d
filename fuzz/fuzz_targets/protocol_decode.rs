// SPDX-License-Identifier: MPL-2.0
//! Any body is read without harm, and what was read is written so that it reads back.
#![no_main]

use gstcamvault::ownership::PathKeys;
use gstcamvault::protocol::*;
use libfuzzer_sys::fuzz_target;

macro_rules! messages {
    ($kind:expr, $body:expr, $($message:ty),*) => {{
        let kinds = [$(message::<$message>),*];
        kinds[usize::from($kind) % kinds.len()]($body)
    }};
}

fn message<T>(body: &[u8])
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    if let Ok(message) = decode::<T>(body) {
        let written = encode(&message);
        let again: T = decode(&written).expect("what was written reads back");
        assert_eq!(encode(&again), written);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, body)) = data.split_first() else {
        return;
    };
    messages!(
        kind,
        body,
        VaultInfo,
        Enroll,
        Enrolled,
        Lookup,
        Found,
        Register,
        Registered,
        Commit,
        Committed,
        Recordings,
        Recording,
        SegmentBody,
        Open,
        Opened,
        GetBlobs,
        Receipts,
        Share,
        SharedKey,
        Stats,
        ScrubReport,
        Problem,
        Signed,
        TtpInfo,
        PartyRegistration,
        ContractBody,
        Contract,
        TicketRequest,
        Grants,
        TicketHead,
        TicketSecret,
        Features,
        RetrievalRequest,
        Masks,
        CloudMasks,
        DeletionRequest,
        Deletion,
        DeletionLog,
        Suspect,
        Judged,
        Verdict
    );
    if let Some(list) = BlobList::decode(body) {
        assert_eq!(BlobList::decode(list.encode().as_bytes()), Some(list));
    }
    let mut frames = bytes::Bytes::copy_from_slice(body);
    let mut written = Vec::new();
    while let Some(blob) = read_blob_frame(&mut frames) {
        written.extend(write_blob_frame(blob.as_ref().map(|b| b.len() as u32)));
        written.extend(blob.unwrap_or_default());
    }
    assert_eq!([&written, &frames[..]].concat(), body);
    PathKeys::from_bytes(u32::from(kind), body);
});
