// SPDX-License-Identifier: MPL-2.0
//! `rcededuppay` with streams of real encoders.

use gst::prelude::*;
use gst_check::Harness;
use gstcamvault::chunk::{Codec, Joiner};
use gstcamvault::client::recorder::StreamChunk;
use gstcamvault::client::transport;
use gstcamvault::elements::support::{carrier, media};
use gstcamvault::identity::Identity;
use gstcamvault::manifest::{Framing, UnitInfo};
use gstcamvault::rce::Bytes32;
use std::sync::{Arc, Mutex, Once};

fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstcamvault::plugin_register_static().unwrap();
    });
}

/// Runs a source to its end; its buffers and caps.
fn encode(source: &str) -> (gst::Caps, Vec<gst::Buffer>) {
    init();
    let pipeline = gst::parse::launch(&format!("{source} ! fakesink name=end sync=false")).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let pad = pipeline.by_name("end").unwrap().static_pad("sink").unwrap();
    let buffers = Arc::new(Mutex::new(Vec::new()));
    let seen = buffers.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        seen.lock()
            .unwrap()
            .push(info.buffer().unwrap().copy_deep().unwrap());
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &types);
    assert_eq!(
        end.map(|m| m.type_()),
        Some(gst::MessageType::Eos),
        "{source}"
    );
    let caps = pad.current_caps().unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    let buffers = std::mem::take(&mut *buffers.lock().unwrap());
    (caps, buffers)
}

const H264: &str = "videotestsrc num-buffers=60 ! video/x-raw,format=I420,width=320,height=240 \
    ! x264enc threads=1 key-int-max=12 bframes=2 speed-preset=ultrafast ! h264parse";

/// What came out of a payloader.
struct Output {
    chunks: Vec<StreamChunk>,
    buffers: Vec<gst::Buffer>,
}

fn harness(properties: &str, caps: &gst::Caps) -> Harness {
    init();
    let mut harness = Harness::new_parse(&format!("rcededuppay name=pay {properties}"));
    harness.set_live(false);
    harness.set_src_caps(caps.clone());
    harness
}

fn drain(harness: &mut Harness) -> Output {
    let mut out = Output {
        chunks: Vec::new(),
        buffers: Vec::new(),
    };
    while let Some(buffer) = harness.try_pull() {
        out.chunks.extend(carrier::take(buffer.clone()));
        out.buffers.push(buffer);
    }
    out
}

fn pay(properties: &str, caps: &gst::Caps, buffers: &[gst::Buffer]) -> Output {
    let mut harness = harness(properties, caps);
    for buffer in buffers {
        harness.push(buffer.clone()).unwrap();
    }
    assert!(harness.push_event(gst::event::Eos::new()));
    drain(&mut harness)
}

fn bytes(buffer: &gst::Buffer) -> Vec<u8> {
    buffer.map_readable().unwrap().to_vec()
}

/// Puts the access units together again.
fn join(codec: Codec, chunks: &[StreamChunk]) -> Vec<(UnitInfo, Vec<u8>)> {
    let content: Vec<u8> = chunks.iter().flat_map(|c| c.content.clone()).collect();
    let mut at = 0;
    let mut units = Vec::new();
    for chunk in chunks {
        let mut joiner = Joiner::new(&codec, &chunk.envelope);
        for unit in &chunk.units {
            let end = at + unit.content_len as usize;
            units.push((*unit, joiner.next(&content[at..end]).unwrap()));
            at = end;
        }
        assert!(joiner.is_done());
    }
    assert_eq!(at, content.len());
    units
}

fn comes_back(source: &str, properties: &str) {
    let (caps, buffers) = encode(source);
    let out = pay(properties, &caps, &buffers);
    let codec = media::codec(Some(&caps), true);
    let units = join(codec, &out.chunks);
    let skipped = buffers.len() - units.len();
    assert_eq!(skipped, 0, "{source}");
    for (buffer, (unit, data)) in buffers.iter().zip(&units) {
        let ns = |time: Option<gst::ClockTime>| time.map(|t| t.nseconds());
        assert!(bytes(buffer) == *data, "{source}");
        assert_eq!(
            (unit.pts, unit.dts, unit.duration),
            (ns(buffer.pts()), ns(buffer.dts()), ns(buffer.duration()))
        );
        let flags = buffer.flags() - gst::BufferFlags::TAG_MEMORY;
        assert_eq!(unit.flags, flags.bits() & !0xf);
    }
    let first = &out.chunks[0];
    assert_eq!(first.caps.as_deref(), Some(caps.to_string().as_str()));
    assert!(first.time.is_some() && first.gop_start);
    assert_eq!(first.framing, Framing::Records);
    for (chunk, buffer) in out.chunks.iter().zip(&out.buffers) {
        let bytes = buffer.map_readable().unwrap();
        assert!(
            bytes.starts_with(b"camvault: this chunk stays"),
            "clear bytes stay out of the memory"
        );
        assert!(bytes.len() < 100);
        assert_eq!(
            chunk.content.len() as u64,
            buffer.offset_end() - buffer.offset()
        );
        assert_eq!(chunk.envelope_id.is_some(), chunk.envelope.len() > 1024);
    }
}

#[test]
fn h264_comes_back_bit_for_bit() {
    for form in ["avc", "byte-stream"] {
        for unit in ["structure", "gop", "au", "fixed:5000", "cdc"] {
            comes_back(
                &format!(
                    "{H264} config-interval=-1 ! video/x-h264,stream-format={form},alignment=au"
                ),
                &format!("unit={unit}"),
            );
        }
    }
}

#[test]
fn h265_comes_back_bit_for_bit() {
    for form in ["hvc1", "byte-stream"] {
        comes_back(
            &format!(
                "videotestsrc num-buffers=40 ! x265enc key-int-max=10 speed-preset=ultrafast \
                ! h265parse ! video/x-h265,stream-format={form},alignment=au"
            ),
            "",
        );
    }
}

#[test]
fn jpeg_sound_and_raw_come_back_bit_for_bit() {
    for source in [
        "videotestsrc num-buffers=20 pattern=snow ! jpegenc",
        "videotestsrc num-buffers=20 ! jpegenc ! jpegparse",
        "audiotestsrc num-buffers=60 ! avenc_aac ! aacparse",
        "audiotestsrc num-buffers=60 ! avenc_aac ! aacparse ! audio/mpeg,stream-format=adts",
        "audiotestsrc num-buffers=60 ! opusenc",
        "audiotestsrc num-buffers=60 ! audio/x-raw,rate=8000,channels=1 ! mulawenc",
        "audiotestsrc num-buffers=60",
        "videotestsrc num-buffers=8 pattern=snow",
    ] {
        comes_back(source, "");
    }
}

#[test]
fn files_without_caps_are_bytes_cut_by_content() {
    init();
    let data: Vec<u8> = (0..3u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut harness = Harness::new_parse("rcededuppay target-chunk-bytes=65536");
    harness.push_event(gst::event::StreamStart::new("file"));
    let segment = gst::FormattedSegment::<gst::format::Bytes>::new();
    harness.push_event(gst::event::Segment::new(&segment));
    for part in data.chunks(4096) {
        harness
            .push(gst::Buffer::from_slice(part.to_vec()))
            .unwrap();
    }
    harness.push_event(gst::event::Eos::new());
    let out = drain(&mut harness);
    let back: Vec<u8> = out.chunks.iter().flat_map(|c| c.content.clone()).collect();
    assert!(back == data);
    assert!(out.chunks.len() > 8);
    for chunk in &out.chunks {
        assert_eq!(chunk.framing, Framing::Bytes);
        assert!(chunk.envelope.is_empty() && chunk.running.is_none());
        assert_eq!(chunk.units.len(), 1);
    }
    assert_eq!(out.chunks[0].caps.as_deref(), Some(media::BYTES));
}

fn tags(chunks: &[StreamChunk]) -> Vec<Bytes32> {
    chunks.iter().map(|chunk| *chunk.id.tag()).collect()
}

/// An SEI message of user data, which another recorder does not have.
fn with_sei(buffer: &gst::Buffer) -> gst::Buffer {
    let mut sei = vec![0, 0, 0, 1, 6, 5, 20];
    sei.extend_from_slice(b"0123456789abcdefABCD");
    sei.push(0x80);
    sei.extend(bytes(buffer));
    let mut copy = gst::Buffer::from_mut_slice(sei);
    buffer
        .copy_into(copy.make_mut(), gst::BUFFER_COPY_METADATA, ..)
        .unwrap();
    copy
}

#[test]
fn recorders_that_join_at_different_times_have_the_same_chunks() {
    let form = |interval, form| {
        let rest = "alignment=au";
        encode(&format!(
            "{H264} config-interval={interval} ! video/x-h264,stream-format={form},{rest}"
        ))
    };
    let (caps, all) = form(0, "avc");
    let first = tags(&pay("", &caps, &all).chunks);
    let check = |name: &str, caps: &gst::Caps, buffers: &[gst::Buffer], skip: usize| {
        let later = pay("", caps, &buffers[skip..]).chunks;
        let keyframes = 5 - skip.div_ceil(12);
        let starts = later.iter().filter(|chunk| chunk.gop_start).count();
        assert_eq!(starts, keyframes, "{name}");
        assert!(first.ends_with(&tags(&later)), "{name}");
    };
    check("avc", &caps, &all, 17);
    let (caps, buffers) = form(-1, "byte-stream");
    check(
        "byte-stream with SPS and PPS in every group",
        &caps,
        &buffers,
        5,
    );
    let marked: Vec<_> = buffers.iter().map(with_sei).collect();
    check("SEI of this recorder", &caps, &marked, 30);
}

#[test]
fn a_domain_secret_separates_domains() {
    let (caps, buffers) = encode(H264);
    let dir = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("domain-secret-file={}", path.display())
    };
    let ours = secret("a", &"07".repeat(32));
    let a = pay(&ours, &caps, &buffers).chunks;
    let b = pay(&secret("b", &"08".repeat(32)), &caps, &buffers).chunks;
    assert!(a.iter().all(|chunk| chunk.in_domain));
    assert_eq!(tags(&a), tags(&pay(&ours, &caps, &buffers).chunks));
    assert!(tags(&a).iter().all(|tag| !tags(&b).contains(tag)));
    assert!(
        tags(&pay("", &caps, &buffers).chunks)
            .iter()
            .all(|tag| !tags(&a).contains(tag))
    );
}

/// Marks the buffer in the middle of the second group of pictures.
fn with_loss(mut buffers: Vec<gst::Buffer>) -> Vec<gst::Buffer> {
    buffers[18].make_mut().set_flags(gst::BufferFlags::DISCONT);
    buffers
}

fn damage(properties: &str) -> (Vec<StreamChunk>, Vec<gst::Structure>, gst::Structure) {
    let (caps, buffers) = encode(H264);
    let mut harness = harness(properties, &caps);
    let bus = gst::Bus::new();
    let pay = harness.find_element("rcededuppay").unwrap();
    pay.set_bus(Some(&bus));
    for buffer in with_loss(buffers) {
        harness.push(buffer).unwrap();
    }
    harness.push_event(gst::event::Eos::new());
    let messages = bus
        .iter()
        .filter_map(|message| message.structure().map(ToOwned::to_owned))
        .filter(|structure| structure.name() == "camvault-damage")
        .collect();
    let stats = pay.property::<gst::Structure>("stats");
    (drain(&mut harness).chunks, messages, stats)
}

#[test]
fn losses_are_marked_and_announced() {
    let (chunks, messages, stats) = damage("damaged=keep");
    assert!(chunks.iter().any(|chunk| chunk.suspect));
    assert!(chunks.iter().filter(|chunk| chunk.gop_start).count() == 5);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].get::<&str>("action"), Ok("kept"));
    assert!(messages[0].get::<gst::ClockTime>("running-time").is_ok());
    assert_eq!(stats.get::<u64>("damaged-gops"), Ok(1));
    assert_eq!(stats.get::<u64>("units"), Ok(60));
}

#[test]
fn damaged_groups_can_be_refused() {
    let (chunks, messages, stats) = damage("damaged=drop");
    assert!(chunks.iter().all(|chunk| !chunk.suspect));
    assert!(chunks.iter().filter(|chunk| chunk.gop_start).count() == 4);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].get::<&str>("action"), Ok("dropped"));
    assert_eq!(stats.get::<u64>("dropped-units"), Ok(12));
}

#[test]
fn sealed_chunks_open_for_the_identity_alone() {
    let (caps, buffers) = encode(H264);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("id");
    let identity = Identity::generate().unwrap();
    identity.save_new(&path).unwrap();
    let clear = pay("", &caps, &buffers).chunks;
    let sealed = pay(
        &format!("seal=true identity={}", path.display()),
        &caps,
        &buffers,
    );
    assert!(sealed.chunks.is_empty());
    assert_eq!(sealed.buffers.len(), clear.len());
    for (seq, (buffer, was)) in sealed.buffers.iter().zip(&clear).enumerate() {
        let data = bytes(buffer);
        let piece = &was.content[was.content.len() / 2..][..16];
        assert!(!data.windows(16).any(|window| window == piece));
        let (place, chunk) = transport::open(&identity.transport_key(), &data).unwrap();
        assert_eq!(place.seq, seq as u64);
        assert_eq!(chunk.id.tag(), was.id.tag());
        assert!(chunk.content == was.content && chunk.envelope == was.envelope);
        assert_eq!(
            (chunk.units, chunk.caps),
            (was.units.clone(), was.caps.clone())
        );
        assert_eq!((chunk.time, chunk.running), (was.time, was.running));
        let other = Identity::generate().unwrap().transport_key();
        assert!(transport::open(&other, &data).is_err());
    }
}

#[test]
fn wrong_settings_are_said_before_data() {
    init();
    for (properties, words) in [
        ("unit=frames", "unknown unit"),
        ("unit=fixed:0", "unknown unit"),
        ("domain-secret-file=/none", "/none"),
        ("seal=true identity=/none", "/none"),
    ] {
        let pay = gst::parse::launch(&format!("rcededuppay {properties}")).unwrap();
        let bus = gst::Bus::new();
        pay.set_bus(Some(&bus));
        assert!(pay.set_state(gst::State::Ready).is_err());
        let error = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = error.view() else {
            panic!("no error");
        };
        let text = error.error().to_string();
        assert!(text.contains(words), "{text}");
        pay.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn only_whole_access_units_are_taken() {
    init();
    for (caps, taken) in [
        (
            "video/x-h264,stream-format=byte-stream,alignment=nal",
            false,
        ),
        ("video/x-h264,stream-format=byte-stream,alignment=au", true),
        ("image/jpeg,parsed=false", false),
        ("application/x-other", true),
    ] {
        let mut harness = harness("", &caps.parse().unwrap());
        let flow = harness.push(gst::Buffer::from_slice([0; 4]));
        let expected = match taken {
            true => Ok(gst::FlowSuccess::Ok),
            false => Err(gst::FlowError::NotNegotiated),
        };
        assert_eq!(flow, expected, "{caps}");
    }
}

#[test]
fn a_change_of_caps_or_times_ends_the_chunk() {
    init();
    let caps = |width: i32| {
        gst::Caps::builder("video/x-raw")
            .field("format", "GRAY8")
            .field("width", width)
            .build()
    };
    let mut harness = harness("", &caps(16));
    let frame = |n: u64| {
        let mut buffer = gst::Buffer::from_slice(vec![n as u8; 256]);
        buffer.make_mut().set_pts(n * gst::ClockTime::SECOND);
        buffer.make_mut().set_duration(gst::ClockTime::SECOND);
        buffer
    };
    harness.push(frame(0)).unwrap();
    harness.push_event(gst::event::Caps::new(&caps(32)));
    harness.push(frame(1)).unwrap();
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(gst::ClockTime::SECOND);
    segment.set_base(5 * gst::ClockTime::SECOND);
    harness.push_event(gst::event::Segment::new(&segment));
    harness.push(frame(2)).unwrap();
    harness.push_event(gst::event::Eos::new());
    let chunks = drain(&mut harness).chunks;
    let second = gst::ClockTime::SECOND.nseconds();
    let running: Vec<_> = chunks.iter().map(|c| c.running.unwrap()).collect();
    assert_eq!(
        running,
        [(0, second), (second, 2 * second), (6 * second, 7 * second)]
    );
    assert!(chunks[1].caps.as_deref().unwrap().contains("width=(int)32"));
    assert_eq!(chunks[2].time.unwrap().base, 5 * second);
}

#[test]
fn sender_time_is_kept() {
    let (caps, mut buffers) = encode(H264);
    let reference = gst::Caps::new_empty_simple("timestamp/x-unix");
    for (n, buffer) in buffers.iter_mut().enumerate() {
        let time = gst::ClockTime::from_seconds(1_000_000 + n as u64);
        gst::ReferenceTimestampMeta::add(buffer.make_mut(), &reference, time, None);
    }
    let chunks = pay("", &caps, &buffers).chunks;
    let first = chunks[0].clock.unwrap();
    assert_eq!(first, (chunks[0].running.unwrap().0, 1_000_000_000_000_000));
    assert!(chunks.iter().all(|chunk| chunk.clock.is_some()));
    let (caps, buffers) = encode(H264);
    assert!(
        pay("", &caps, &buffers)
            .chunks
            .iter()
            .all(|c| c.clock.is_none()),
        "not live"
    );
}

#[test]
fn a_flush_begins_anew() {
    let (caps, buffers) = encode(H264);
    let mut harness = harness("", &caps);
    for buffer in &buffers[..20] {
        harness.push(buffer.clone()).unwrap();
    }
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    drain(&mut harness);
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<
        gst::ClockTime,
    >::new()));
    for buffer in &buffers[20..] {
        harness.push(buffer.clone()).unwrap();
    }
    harness.push_event(gst::event::Eos::new());
    let chunks = drain(&mut harness).chunks;
    assert!(chunks[0].gop_start && chunks[0].caps.is_some());
    assert_eq!(chunks.iter().map(|c| c.units.len()).sum::<usize>(), 36);
}

#[test]
fn chunks_behind_a_tee_are_the_same() {
    let (caps, buffers) = encode(H264);
    let out = pay("", &caps, &buffers);
    for (buffer, was) in out.buffers.into_iter().zip(out.chunks) {
        let other = buffer.clone();
        assert!(carrier::take(buffer).unwrap().content == was.content);
        assert!(carrier::take(other).unwrap().content == was.content);
    }
}

#[test]
fn long_access_units_go_over_several_chunks() {
    let source = "videotestsrc num-buffers=4 pattern=snow ! video/x-raw,width=640,height=480";
    comes_back(source, "max-chunk-bytes=100000");
    comes_back(H264, "max-chunk-bytes=1024");
}

#[test]
fn sealed_streams_keep_their_descriptions_inside() {
    let (caps, buffers) = encode(H264);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("id");
    Identity::generate().unwrap().save_new(&path).unwrap();
    let mut harness = harness(&format!("seal=true identity={}", path.display()), &caps);
    let mut tags = gst::TagList::new();
    tags.make_mut()
        .add::<gst::tags::Title>(&"front door", gst::TagMergeMode::Append);
    harness.push_event(gst::event::Tag::new(tags));
    harness.push(buffers[0].clone()).unwrap();
    while let Some(event) = harness.try_pull_event() {
        assert_ne!(event.type_(), gst::EventType::Tag);
        if let gst::EventView::Caps(caps) = event.view() {
            let text = caps.caps().to_string();
            assert!(
                text.contains("video/x-h264") && !text.contains("codec_data"),
                "{text}"
            );
        }
    }
}
