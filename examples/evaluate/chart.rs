// SPDX-License-Identifier: MPL-2.0
//! Line charts as SVG.

use std::fmt::Write;

/// A chart of lines over values that stand side by side at equal distances.
pub struct Chart {
    pub title: String,
    pub x: String,
    pub y: String,
    pub values: Vec<String>,
    pub lines: Vec<(String, Vec<Option<f64>>)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;

/// Okabe and Ito's colours, which the colour-blind can tell apart.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

impl Chart {
    pub fn svg(&self) -> String {
        let values = self.lines.iter().flat_map(|(_, line)| line);
        let most = values
            .flatten()
            .fold(0.0f64, |most, &value| most.max(value));
        let step = step(most);
        let top = (most / step).ceil().max(1.0) * step;
        let right = WIDTH - RIGHT;
        let bottom = HEIGHT - BOTTOM;
        let gap = (right - LEFT) / (self.values.len().max(2) - 1) as f64;
        let x = |i: usize| LEFT + i as f64 * gap;
        let y = |value: f64| bottom - value / top * (bottom - TOP);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(&mut out, LEFT, 20.0, "font-weight=\"bold\"", &self.title);
        let middle = (LEFT + right) / 2.0;
        let centred = "text-anchor=\"middle\"";
        text(&mut out, middle, HEIGHT - 8.0, centred, &self.x);
        let turned = format!("{centred} transform=\"rotate(-90 14 {})\"", HEIGHT / 2.0);
        text(&mut out, 14.0, HEIGHT / 2.0, &turned, &self.y);
        for i in 0..=(top / step).round() as usize {
            let value = i as f64 * step;
            line(&mut out, [LEFT, y(value), right, y(value)], "#ddd");
            let label = format!("{}", (value * 100.0).round() / 100.0);
            let end = "text-anchor=\"end\"";
            text(&mut out, LEFT - 6.0, y(value) + 4.0, end, &label);
        }
        for (i, value) in self.values.iter().enumerate() {
            line(&mut out, [x(i), bottom, x(i), bottom + 4.0], "#888");
            text(&mut out, x(i), bottom + 18.0, centred, value);
        }
        for (i, (name, values)) in self.lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let points = values.iter().enumerate();
            let points: Vec<_> = points
                .filter_map(|(i, value)| value.map(|value| (x(i), y(value))))
                .collect();
            let joined: Vec<_> = points
                .iter()
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            // Lines of one colour over another must stay visible.
            let dash = ["", " stroke-dasharray=\"6 3\""][i / 3 % 2];
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                joined.join(" ")
            );
            for (x, y) in points {
                let _ = writeln!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let at = TOP + 8.0 + 20.0 * i as f64;
            let _ = writeln!(
                out,
                "<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
                right + 14.0,
                at - 6.0
            );
            text(&mut out, right + 34.0, at, "", name);
        }
        out + "</svg>\n"
    }
}

/// Between lines of the grid: 1, 2 or 5 times a power of ten, four to eight lines.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(0.01);
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(power)
}

fn text(out: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>"
    );
}

fn line(out: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}
