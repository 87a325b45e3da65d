// SPDX-License-Identifier: MPL-2.0
//! The charts of a report.

use crate::chart::Chart;
use crate::method::Method;
use crate::report::{Report, xs};
use crate::rows::{Row, Sum, Window};

const BER: &str = "wrong bits, %";

/// File names and charts.
pub fn all(report: &Report) -> Vec<(&'static str, Chart)> {
    let simple = |experiment, series, window, title: &str, x: &str| {
        let values = xs(&report.rows, experiment);
        let line = |method| {
            let value = |&at: &f64| {
                let here = |row: &&Row| {
                    (row.experiment, row.method) == (experiment, method)
                        && (row.series.as_str(), row.window, row.x) == (series, window, at)
                };
                Sum::of(report.rows.iter().filter(here)).percent()
            };
            (
                Method::name(method).to_owned(),
                values.iter().map(value).collect(),
            )
        };
        Chart {
            title: title.to_owned(),
            x: x.to_owned(),
            y: BER.to_owned(),
            lines: Method::ALL.map(line).into(),
            values: values.iter().map(f64::to_string).collect(),
        }
    };
    let second = Window::Seconds(1.0);
    let both = |experiment, title: &str, x: &str| {
        let mut chart = simple(experiment, "H.264", second, title, x);
        let other = simple(experiment, "H.265", second, title, x);
        for (name, _) in &mut chart.lines {
            name.push_str(", H.264");
        }
        let other = other.lines.into_iter();
        chart
            .lines
            .extend(other.map(|(name, line)| (name + ", H.265", line)));
        chart
    };
    vec![
        (
            "jpeg.svg",
            simple("jpeg", "", Window::Frame, "JPEG, one picture", "quality"),
        ),
        (
            "blur.svg",
            simple(
                "blur",
                "7x7",
                Window::Frame,
                "Gaussian filter 7x7, one picture",
                "sigma, pixels",
            ),
        ),
        (
            "noise.svg",
            simple(
                "noise",
                "",
                Window::Frame,
                "White noise, one picture",
                "sigma",
            ),
        ),
        ("crf.svg", both("crf", "Video codecs, read from 1 s", "CRF")),
        (
            "bitrate.svg",
            both("bitrate", "Bit rates, read from 1 s", "kbit/s"),
        ),
        ("time.svg", time(report)),
    ]
}

/// Wrong bits against the time that is read.
fn time(report: &Report) -> Chart {
    let windows = [
        Window::Frame,
        Window::Seconds(1.0),
        Window::Seconds(2.0),
        Window::Seconds(5.0),
        Window::Clip,
    ];
    let mut lines = Vec::new();
    for (codec, crf) in [("H.264", 38.0), ("H.265", 33.0)] {
        for method in Method::ALL {
            let value = |window: &Window| {
                let here = |row: &&Row| {
                    (row.experiment, row.series.as_str()) == ("crf", codec)
                        && (row.method, row.x, row.window) == (method, crf, *window)
                };
                Sum::of(report.rows.iter().filter(here)).percent()
            };
            let name = format!("{}, {codec} {crf}", method.name());
            lines.push((name, windows.iter().map(value).collect()));
        }
    }
    Chart {
        title: "Time read, after H.264 CRF 38 and H.265 CRF 33".to_owned(),
        x: "read".to_owned(),
        y: BER.to_owned(),
        values: windows.iter().map(Window::to_string).collect(),
        lines,
    }
}
