// SPDX-License-Identifier: MPL-2.0
//! Clips in and out of ffmpeg, as I420 through pipes.

use crate::Result;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// A video in memory.
#[derive(Clone)]
pub struct Clip {
    pub name: String,
    pub width: usize,
    pub height: usize,
    pub fps: f64,
    /// Seconds from keyframe to keyframe.
    pub group: f64,
    /// I420 without padding.
    pub frames: Vec<Vec<u8>>,
}

/// Two seconds, as cameras have it.
const GROUP: f64 = 2.0;

impl Clip {
    /// Bytes of a frame's luma, which comes first.
    pub fn luma_len(&self) -> usize {
        self.width * self.height
    }

    /// Frames of so many seconds, at least one.
    pub fn frames_in(&self, seconds: f64) -> usize {
        ((seconds * self.fps).round() as usize).max(1)
    }

    /// Frames from keyframe to keyframe; a new layout begins with each.
    pub fn gop(&self) -> usize {
        self.frames_in(self.group)
    }

    fn frame_len(width: usize, height: usize) -> usize {
        width * height + 2 * width.div_ceil(2) * height.div_ceil(2)
    }

    /// The first `seconds` of a file.
    pub fn load(path: &Path, seconds: f64) -> Result<Self> {
        let file = path.to_str().ok_or("a file name that is not UTF-8")?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let clip = Self::decode(&name, &["-t", &seconds.to_string(), "-i", file], file);
        clip.map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// `seconds` of a source of ffmpeg's `lavfi`.
    pub fn generated(name: &str, source: &str, seconds: f64) -> Result<Self> {
        let input = ["-f", "lavfi", "-t", &seconds.to_string(), "-i", source];
        let probed = format!("lavfi:{source}");
        Self::decode(name, &input, &probed)
    }

    fn decode(name: &str, input: &[&str], probed: &str) -> Result<Self> {
        let (width, height, fps) = probe(probed)?;
        let output = ["-an", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"];
        let data = run(&[&["-noautorotate"], input, &output].concat(), &[])?;
        let frames = split(&data, width, height);
        if frames.is_empty() {
            return Err("no pictures".into());
        }
        Ok(Self {
            name: name.to_owned(),
            width,
            height,
            fps,
            group: GROUP,
            frames,
        })
    }

    /// Encodes and decodes. Also says how many bytes the stream has, without any container.
    pub fn transcode(&self, frames: &[Vec<u8>], how: &Coding, folder: &Path) -> Result<Coded> {
        let [width, height] = how.size.unwrap_or([self.width, self.height]);
        let file = tempfile::Builder::new()
            .suffix(how.codec.format())
            .tempfile_in(folder)?;
        let path = file
            .path()
            .to_str()
            .ok_or("a folder name that is not UTF-8")?;
        let size = format!("{}x{}", self.width, self.height);
        let (fps, gop) = (self.fps.to_string(), self.gop().to_string());
        let mut encode = vec![
            "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size, "-r", &fps, "-i", "-",
        ];
        if let Some(filter) = &how.filter {
            encode.extend(["-vf", filter]);
        }
        // One thread: both encoders then give the same bytes every time.
        encode.extend(["-threads", "1", "-g", &gop, "-keyint_min", &gop]);
        encode.extend(["-pix_fmt", "yuv420p", "-c:v"]);
        encode.extend(match how.codec {
            Codec::H264 => &["libx264", "-preset", "veryfast", "-sc_threshold", "0"][..],
            Codec::H265 => &[
                "libx265",
                "-preset",
                "superfast",
                "-x265-params",
                "log-level=error:pools=none:frame-threads=1:scenecut=0",
            ],
        });
        let (value, buffer);
        match how.rate {
            Rate::Crf(crf) => {
                value = crf.to_string();
                encode.extend(["-crf", &value]);
            }
            Rate::Kbit(rate) => {
                value = format!("{rate}k");
                buffer = format!("{}k", 2 * rate);
                encode.extend(["-b:v", &value, "-maxrate", &value, "-bufsize", &buffer]);
            }
        }
        encode.extend(["-f", &how.codec.format()[1..], "-y", path]);
        run(&encode, frames)?;
        let bytes = std::fs::metadata(path)?.len();
        let decode = [
            "-f",
            &how.codec.format()[1..],
            "-r",
            &fps,
            "-i",
            path,
            "-fps_mode",
            "passthrough",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "yuv420p",
            "-",
        ];
        let decoded = split(&run(&decode, &[])?, width, height);
        if decoded.len() != frames.len() {
            let (now, before) = (decoded.len(), frames.len());
            return Err(format!("{before} frames went in and {now} came out").into());
        }
        Ok(Coded {
            clip: Self {
                name: self.name.clone(),
                width,
                height,
                fps: self.fps,
                group: self.group,
                frames: decoded,
            },
            bytes,
        })
    }
}

/// How a clip is encoded.
#[derive(Clone)]
pub struct Coding {
    pub codec: Codec,
    pub rate: Rate,
    /// A filter of ffmpeg before the encoder.
    pub filter: Option<String>,
    /// The size behind the filter, where that changes it.
    pub size: Option<[usize; 2]>,
}

impl Coding {
    pub fn crf(codec: Codec, crf: u32) -> Self {
        Self {
            codec,
            rate: Rate::Crf(crf),
            filter: None,
            size: None,
        }
    }

    /// The CRF, if it is one that decides.
    pub fn crf_value(&self) -> u32 {
        match self.rate {
            Rate::Crf(crf) => crf,
            Rate::Kbit(_) => 0,
        }
    }

    pub fn kbit(codec: Codec, rate: u32) -> Self {
        Self {
            rate: Rate::Kbit(rate),
            ..Self::crf(codec, 0)
        }
    }

    pub fn filtered(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    pub fn sized(mut self, size: [usize; 2]) -> Self {
        self.size = Some(size);
        self
    }
}

/// x264 veryfast or x265 superfast.
#[derive(Clone, Copy, PartialEq)]
pub enum Codec {
    H264,
    H265,
}

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
        }
    }

    fn format(self) -> &'static str {
        match self {
            Self::H264 => ".h264",
            Self::H265 => ".hevc",
        }
    }
}

#[derive(Clone, Copy)]
pub enum Rate {
    Crf(u32),
    Kbit(u32),
}

/// What came back from a codec.
pub struct Coded {
    pub clip: Clip,
    pub bytes: u64,
}

fn split(data: &[u8], width: usize, height: usize) -> Vec<Vec<u8>> {
    let frames = data.chunks_exact(Clip::frame_len(width, height));
    frames.map(<[u8]>::to_vec).collect()
}

fn probe(input: &str) -> Result<(usize, usize, f64)> {
    let wanted = "stream=width,height,avg_frame_rate";
    let (format, input) = match input.strip_prefix("lavfi:") {
        Some(source) => (&["-f", "lavfi"][..], source),
        None => (&[][..], input),
    };
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0"])
        .args(["-show_entries", wanted, "-of", "csv=p=0"])
        .args(format)
        .arg(input)
        .output()
        .map_err(|error| format!("ffprobe: {error}; it comes with ffmpeg"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut fields = text.trim().split(',');
    let mut field = || fields.next().ok_or("ffprobe finds no video in it");
    let (width, height) = (field()?.parse()?, field()?.parse()?);
    let fps = match field()?.split_once('/') {
        Some((a, b)) => a.parse::<f64>()? / b.parse::<f64>()?,
        None => f64::NAN,
    };
    // Pictures and streams without a rate.
    let fps = if fps.is_finite() && fps > 0.0 {
        fps
    } else {
        25.0
    };
    Ok((width, height, fps))
}

/// Runs ffmpeg with `input` on its standard input and returns its standard output.
pub fn run(arguments: &[&str], input: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("ffmpeg: {error}"))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) = pipes else {
        return Err("ffmpeg has no pipes".into());
    };
    let (mut output, mut messages) = (Vec::new(), String::new());
    std::thread::scope(|scope| {
        // ffmpeg may stop reading before the end: what it says then counts, not the broken pipe.
        scope.spawn(move || input.iter().try_for_each(|part| stdin.write_all(part)));
        let messages = &mut messages;
        scope.spawn(move || stderr.read_to_string(messages));
        stdout.read_to_end(&mut output)
    })?;
    match child.wait()?.success() {
        true => Ok(output),
        false => Err(format!("ffmpeg {}: {}", arguments.join(" "), messages.trim()).into()),
    }
}
