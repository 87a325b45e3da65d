// SPDX-License-Identifier: MPL-2.0
//! Watermarks through pipelines.

mod common;
#[path = "common/leaks.rs"]
mod leaks;

use common::{Pipeline, camvault, init};
use gst::prelude::*;
use gst_base::prelude::BaseTransformExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WORD: &str = "0123456789abcdef0f1e2d3c4b5a6978";
const LONG: Duration = Duration::from_secs(120);

struct Keys {
    _dir: tempfile::TempDir,
    right: PathBuf,
    wrong: PathBuf,
}

fn keys() -> Keys {
    init();
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    std::fs::write(&right, [7; 32]).unwrap();
    std::fs::write(&wrong, "08".repeat(32)).unwrap();
    Keys {
        _dir: dir,
        right,
        wrong,
    }
}

/// A moving scene with some texture everywhere.
const SCENE: &str = "videotestsrc pattern=zone-plate kx2=6 ky2=4 kt=2 num-buffers=50 \
    ! video/x-raw,format=I420,width=640,height=360,framerate=25/1";

/// The last report of the only detector in a pipeline.
fn last_report(description: &str) -> gst::Structure {
    let messages = Pipeline::launch(description).run(LONG).unwrap();
    let mut reports = messages.iter().filter_map(|message| {
        let structure = message.structure()?;
        (structure.name() == "camvault-watermark").then(|| structure.to_owned())
    });
    let last = reports.next_back().expect("there is a report");
    assert!(last.get::<bool>("final").unwrap());
    last
}

fn accepted(report: &gst::Structure) -> bool {
    report.get("accepted").unwrap()
}

#[test]
fn a_mark_survives_compression_and_needs_its_key() {
    let keys = keys();
    let codec =
        "x264enc speed-preset=veryfast pass=quant quantizer=28 threads=1 ! h264parse ! avdec_h264";
    let [right, wrong] = [&keys.right, &keys.wrong].map(|key| key.display());
    let read = |key: &dyn std::fmt::Display, mark: &str| {
        last_report(&format!(
            "{SCENE} ! {mark} {codec} ! dmqimdetect register=false key-file={key} expect={WORD} ! fakesink"
        ))
    };
    let mark = format!("dmqimmark key-file={right} watermark={WORD} !");
    let report = read(&right, &mark);
    assert!(accepted(&report), "{report:?}");
    assert_eq!(report.get::<u32>("errors").unwrap(), 0);
    assert_eq!(report.get::<&str>("bits").unwrap(), WORD);
    assert!(report.get::<f64>("false-positive").unwrap() < 1e-20);
    assert!(report.get::<f64>("score").unwrap() > 20.0);
    assert!(!accepted(&read(&wrong, &mark)));
    let unmarked = read(&right, "");
    assert!(!accepted(&unmarked) && unmarked.get::<f64>("score").unwrap() < 6.0);
}

#[test]
fn every_format_carries_and_shows_a_mark() {
    let keys = keys();
    let key = keys.right.display();
    // Black and white leave blocks no room, and in so small a picture some bits no mark.
    for format in [
        "I420", "NV12", "NV21", "YV12", "Y42B", "Y444", "GRAY8", "RGB", "BGR", "RGBx", "BGRx",
        "xRGB", "xBGR", "RGBA", "BGRA", "ARGB", "ABGR",
    ] {
        let report = last_report(&format!(
            "videotestsrc pattern=zone-plate kx2=6 ky2=4 kt=2 num-buffers=8 \
             ! video/x-raw,format=I420,width=645,height=363 \
             ! videobalance contrast=0.8 ! videoconvert ! video/x-raw,format={format} \
             ! dmqimmark key-file={key} watermark={WORD} interval=0 \
             ! dmqimdetect register=false key-file={key} expect={WORD} ! fakesink"
        ));
        assert_eq!(report.get::<u32>("errors").unwrap(), 0, "{format}");
    }
}

#[test]
fn a_mirrored_and_cut_picture_is_found() {
    let keys = keys();
    let key = keys.right.display();
    let report = last_report(&format!(
        "{SCENE} ! dmqimmark key-file={key} watermark={WORD} \
         ! x264enc speed-preset=veryfast pass=quant quantizer=28 ! h264parse ! avdec_h264 \
         ! videocrop left=37 top=22 right=60 bottom=30 ! videoflip video-direction=horiz \
         ! dmqimdetect key-file={key} expect={WORD} original-width=640 original-height=360 ! fakesink"
    ));
    assert!(accepted(&report), "{report:?}");
    assert!(report.get::<bool>("mirrored").unwrap(), "{report:?}");
    let corner = ["crop-x", "crop-y"].map(|name| report.get::<f64>(name).unwrap());
    assert!(
        (corner[0] - 579.0).abs() < 1.0 && (corner[1] - 22.0).abs() < 1.0,
        "{corner:?}"
    );
}

/// The encoder is asked for a keyframe whenever another layout, key or word begins.
#[test]
fn a_change_begins_with_a_keyframe() {
    let keys = keys();
    let pipeline = Pipeline::launch(&format!(
        "videotestsrc num-buffers=60 ! video/x-raw,width=320,height=240,framerate=10/1 \
         ! dmqimmark name=mark key-file={} watermark={WORD} interval=2000000000 \
         ! x264enc key-int-max=1000 tune=zerolatency threads=1 option-string=scenecut=0 \
         ! h264parse ! fakesink name=sink",
        keys.right.display()
    ));
    let (mark, other) = (pipeline.element("mark"), keys.wrong.display().to_string());
    let frames = Arc::new(Mutex::new(0));
    mark.static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, {
            let mark = mark.clone();
            move |_, _| {
                let mut frames = frames.lock().unwrap();
                *frames += 1;
                match *frames {
                    // Frame numbers count from 1 here.
                    28 => mark.set_property("key-file", &other),
                    35 => mark.set_property("watermark", WORD.replace('0', "f")),
                    53 => mark.set_property("watermark", None::<String>),
                    _ => (),
                }
                gst::PadProbeReturn::Ok
            }
        });
    let keyframes = Arc::new(Mutex::new(Vec::new()));
    let sink = pipeline.element("sink").static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::BUFFER, {
        let keyframes = keyframes.clone();
        let mut number = 0;
        let number = Mutex::new(std::mem::take(&mut number));
        move |_, info| {
            let mut number = number.lock().unwrap();
            let buffer = info.buffer().unwrap();
            if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
                keyframes.lock().unwrap().push(*number);
            }
            *number += 1;
            gst::PadProbeReturn::Ok
        }
    });
    pipeline.run(LONG).unwrap();
    // Turns of layouts at 20 and 40; the changes above; unmarked from the 53rd frame on.
    assert_eq!(*keyframes.lock().unwrap(), [0, 20, 27, 34, 40, 52]);
}

#[test]
fn a_meta_brings_watermarks_and_does_not_go_on() {
    let keys = keys();
    let key = keys.right.display();
    let pipeline = Pipeline::launch(&format!(
        "videotestsrc pattern=zone-plate kx2=6 ky2=4 num-buffers=10 \
         ! video/x-raw,format=I420,width=640,height=360 ! identity name=before \
         ! dmqimmark name=mark key-file={key} ! dmqimdetect register=false key-file={key} expect={WORD} ! fakesink"
    ));
    let pad = pipeline.element("before").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let buffer = info.buffer_mut().unwrap().make_mut();
        let word = WORD.parse().unwrap();
        gstcamvault::elements::dmqimmark::put_watermark(buffer, word).unwrap();
        gst::PadProbeReturn::Ok
    });
    let pad = pipeline.element("mark").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let buffer = info.buffer().unwrap();
        assert!(gst::meta::CustomMeta::from_buffer(buffer, "CamvaultWatermark").is_err());
        gst::PadProbeReturn::Ok
    });
    let messages = pipeline.run(LONG).unwrap();
    let report = messages.iter().rev().filter_map(|m| m.structure());
    let report = report.filter(|s| s.name() == "camvault-watermark");
    assert_eq!(
        report.map(|r| r.get::<u32>("errors").unwrap()).next(),
        Some(0)
    );
}

#[test]
fn nothing_to_do_copies_nothing_and_wrong_settings_say_so() {
    let keys = keys();
    let key = keys.right.display();
    let mark = gst::ElementFactory::make("dmqimmark").build().unwrap();
    let transform = mark.downcast_ref::<gst_base::BaseTransform>().unwrap();
    assert!(transform.is_passthrough());
    for wrong in [
        format!("dmqimmark watermark={WORD}"),
        format!("dmqimmark key-file={key} watermark=0123"),
        format!("dmqimmark key-file={key} watermark={WORD} step=10"),
        format!("dmqimmark key-file={key} watermark={WORD} coefficients=99"),
        format!("dmqimmark key-file={key}x watermark={WORD}"),
        "dmqimdetect".to_owned(),
        format!("dmqimdetect key-file={key} expect=x"),
    ] {
        let pipeline =
            Pipeline::launch(&format!("videotestsrc num-buffers=3 ! {wrong} ! fakesink"));
        assert!(
            pipeline.0.set_state(gst::State::Playing).is_err(),
            "{wrong}"
        );
        let error = pipeline.wait(LONG).expect_err(&wrong);
        println!("{error}");
        assert!(!error.contains(WORD), "{error}");
    }
    // What goes in cannot be read back.
    for (element, property) in [("dmqimmark", "watermark"), ("dmqimdetect", "expect")] {
        let element = gst::ElementFactory::make(element).build().unwrap();
        let spec = element.find_property(property).unwrap();
        assert!(!spec.flags().contains(gst::glib::ParamFlags::READABLE));
    }
}

/// `camvault mark` and `camvault detect`, as typed.
#[test]
fn files_are_marked_and_read() {
    let keys = keys();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (key, wrong) = (
        keys.right.display().to_string(),
        keys.wrong.display().to_string(),
    );
    let scene = "-f lavfi -i mandelbrot=size=640x360:rate=10 -t 3 -pix_fmt yuv420p";
    common::ffmpeg(scene, std::path::Path::new(&at("plain.mp4")));
    let mark = |file: &str, out: &str, more: &[&str]| {
        let (file, out, pictures) = (at(file), at(out), at("pictures"));
        let fixed = [
            "mark",
            &file,
            "--out",
            &out,
            "--key-file",
            &key,
            "--pictures",
            &pictures,
        ];
        let (code, said) = camvault(&[&fixed, more].concat());
        assert_eq!(code, 0, "{said}");
        assert!(said["psnr_first_frame"].as_f64().unwrap() > 44.0);
    };
    let detect = |file: &str, key: &str, more: &[&str]| {
        let (file, pictures) = (at(file), at("pictures"));
        let fixed = ["detect", &file, "--key-file", key, "--pictures", &pictures];
        camvault(&[&fixed[..], more, &["--search-time", "2"]].concat())
    };
    mark("plain.mp4", "marked.mp4", &["--number", "77"]);
    for picture in ["original.png", "marked.png", "difference.png"] {
        assert!(dir.path().join("pictures").join(picture).exists());
    }
    let (code, said) = detect("marked.mp4", &key, &["--number"]);
    assert_eq!(
        (code, &said["number"], &said["number_distance"]),
        (0, &77.into(), &0.into())
    );
    assert!(dir.path().join("pictures/confidence.svg").exists());
    assert_eq!(detect("marked.mp4", &wrong, &[]).0, 3);
    let expect = ["--expect", WORD, "--marks", "1000000"];
    let (code, said) = detect("marked.mp4", &key, &expect);
    assert_eq!((code, &said["accepted"]), (3, &false.into()));
    mark(
        "pictures/original.png",
        "picture.jpg",
        &["--watermark", WORD],
    );
    let (code, said) = detect("picture.jpg", &key, &expect);
    assert_eq!((code, &said["accepted"]), (0, &true.into()), "{said}");
    // Nothing half-written, and what is wrong in words.
    let missing = at("missing.mp4");
    let (code, said) = camvault(&[
        "mark",
        &missing,
        "--out",
        &at("new.mp4"),
        "--key-file",
        &key,
        "--watermark",
        WORD,
    ]);
    assert!(
        code == 1 && said["error"].as_str().unwrap().contains("missing.mp4"),
        "{said}"
    );
    assert!(!dir.path().join("new.mp4").exists() && !dir.path().join("new.mp4.part").exists());
}

#[test]
fn nothing_is_alive_at_the_end() {
    leaks::nothing_is_alive_after("nothing_is_alive_at_the_end", || {
        let keys = keys();
        let key = keys.right.display();
        for _ in 0..3 {
            // Unmarked: a search begins, and is given up.
            let description = format!(
                "videotestsrc pattern=snow num-buffers=12 ! video/x-raw,width=320,height=240 \
                 ! dmqimmark key-file={key} watermark={WORD} interval=100000000 \
                 ! dmqimdetect key-file={} report-interval=100000000 search-time=100000000 ! fakesink",
                keys.wrong.display()
            );
            Pipeline::launch(&description).run(LONG).unwrap();
        }
    });
}

/// The paper's settings need no key: whoever knows the method reads them.
#[test]
fn the_papers_preset() {
    init();
    let report = last_report(&format!(
        "{SCENE} ! videobalance contrast=0.4 ! dmqimmark preset=paper step=40 dither=10 watermark={WORD} \
         ! dmqimdetect register=false preset=paper step=40 dither=10 expect={WORD} ! fakesink"
    ));
    assert_eq!(report.get::<u32>("errors").unwrap(), 0);
}

#[test]
fn a_code_names_an_identity() {
    use gstcamvault::watermark::{Code, Key};
    let keys = keys();
    let key = keys.right.display();
    let word = Code::Bch29.register(123_456_789, Key::from_bytes([7; 32]).pad());
    let report = last_report(&format!(
        "{SCENE} ! dmqimmark key-file={key} watermark={} \
         ! dmqimdetect register=false key-file={key} code=bch29 ! fakesink",
        word.unwrap()
    ));
    assert_eq!(report.get::<u32>("identity").unwrap(), 123_456_789);
    assert_eq!(report.get::<u32>("distance").unwrap(), 0);
}
