// SPDX-License-Identifier: MPL-2.0
//! The picture of the test camera: a street with houses, cars and pedestrians.
//!
//! The background is drawn once, with a few sheets of sensor noise. A frame is a copy of one of
//! them plus what moves, drawn by rows, so that it costs little even without optimisation. Where
//! things are depends on the frame number and the seed alone; only the clock is real.

#[derive(Clone, Copy)]
struct Colour {
    y: u8,
    u: u8,
    v: u8,
}

/// BT.601 studio range.
const fn rgb(r: i32, g: i32, b: i32) -> Colour {
    Colour {
        y: (16 + (66 * r + 129 * g + 25 * b) / 256) as u8,
        u: (128 + (-38 * r - 74 * g + 112 * b) / 256) as u8,
        v: (128 + (112 * r - 94 * g - 18 * b) / 256) as u8,
    }
}

const PAINTS: [Colour; 8] = [
    rgb(176, 32, 36),
    rgb(36, 66, 140),
    rgb(220, 220, 215),
    rgb(40, 42, 46),
    rgb(150, 152, 156),
    rgb(30, 96, 66),
    rgb(206, 160, 48),
    rgb(96, 60, 110),
];
const NOISE_SHEETS: usize = 5;
const NOISE_AMPLITUDE: i32 = 2;

/// 5×7 glyphs, one byte per row, of what the time stamp needs.
const FONT: [(char, [u8; 7]); 17] = [
    ('0', [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e]),
    ('1', [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e]),
    ('2', [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f]),
    ('3', [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e]),
    ('4', [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02]),
    ('5', [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e]),
    ('6', [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e]),
    ('7', [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08]),
    ('8', [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e]),
    ('9', [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c]),
    (':', [0x00, 0x04, 0x04, 0x00, 0x04, 0x04, 0x00]),
    ('-', [0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00]),
    ('C', [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e]),
    ('A', [0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11]),
    ('M', [0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11]),
    ('U', [0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e]),
    ('T', [0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04]),
];

/// One I420 picture in GStreamer's default layout.
#[derive(Clone)]
struct Canvas {
    width: i32,
    height: i32,
    luma_stride: usize,
    chroma_stride: usize,
    u_offset: usize,
    v_offset: usize,
    data: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        let luma_stride = (width as usize).next_multiple_of(4);
        let chroma_stride = (width as usize / 2).next_multiple_of(4);
        let u_offset = luma_stride * height as usize;
        let v_offset = u_offset + chroma_stride * (height as usize / 2);
        let size = v_offset + chroma_stride * (height as usize / 2);
        Self {
            width: width as i32,
            height: height as i32,
            luma_stride,
            chroma_stride,
            u_offset,
            v_offset,
            data: vec![128; size],
        }
    }

    /// Row `y` from `x0` up to `x1`, clipped.
    fn span(&mut self, y: i32, x0: i32, x1: i32, colour: Colour) {
        let (x0, x1) = (x0.clamp(0, self.width), x1.clamp(0, self.width));
        if y < 0 || y >= self.height || x0 >= x1 {
            return;
        }
        let (y, x0, x1) = (y as usize, x0 as usize, x1 as usize);
        let row = y * self.luma_stride;
        self.data[row + x0..row + x1].fill(colour.y);
        if y.is_multiple_of(2) {
            let row = y / 2 * self.chroma_stride;
            let (x0, x1) = (x0 / 2, x1.div_ceil(2).min(self.width as usize / 2));
            self.data[self.u_offset + row + x0..self.u_offset + row + x1].fill(colour.u);
            self.data[self.v_offset + row + x0..self.v_offset + row + x1].fill(colour.v);
        }
    }

    fn rect(&mut self, x: i32, y: i32, w: i32, h: i32, colour: Colour) {
        for row in y..y + h {
            self.span(row, x, x + w, colour);
        }
    }

    fn ellipse(&mut self, cx: i32, cy: i32, rx: i32, ry: i32, colour: Colour) {
        for dy in -ry..=ry {
            let part = 1.0 - f64::from(dy * dy) / f64::from((ry * ry).max(1));
            let half = (f64::from(rx) * part.max(0.0).sqrt()) as i32;
            self.span(cy + dy, cx - half, cx + half + 1, colour);
        }
    }

    /// Upright trapezoid: `top` and `bottom` wide, centred on `cx`.
    fn trapezoid(&mut self, cx: i32, y: i32, top: i32, bottom: i32, h: i32, colour: Colour) {
        for row in 0..h {
            let half = (top + (bottom - top) * row / h.max(1)) / 2;
            self.span(y + row, cx - half, cx + half, colour);
        }
    }

    fn text(&mut self, x: i32, y: i32, scale: i32, text: &str) {
        const WHITE: Colour = rgb(245, 245, 245);
        const BLACK: Colour = rgb(0, 0, 0);
        let width = text.chars().count() as i32 * 6 * scale;
        self.rect(x - scale, y - scale, width + scale, 9 * scale, BLACK);
        for (at, c) in text.chars().enumerate() {
            let Some((_, rows)) = FONT.iter().find(|(glyph, _)| *glyph == c) else {
                continue;
            };
            for (row, bits) in (0..).zip(rows) {
                for column in 0..5 {
                    if bits & (0x10 >> column) != 0 {
                        let left = x + (at as i32 * 6 + column) * scale;
                        self.rect(left, y + row * scale, scale, scale, WHITE);
                    }
                }
            }
        }
    }
}

/// SplitMix64: enough to place houses and paint cars.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

enum Kind {
    Car,
    Truck,
    Pedestrian,
}

/// Something that crosses the picture again and again, from one side to the other.
struct Mover {
    kind: Kind,
    /// Pixels per second, negative to the left.
    speed: f64,
    /// Where its feet or wheels stand.
    ground: i32,
    /// Height of its body in pixels.
    size: i32,
    phase: f64,
    id: u64,
}

pub struct Scene {
    fps: f64,
    seed: u64,
    sheets: Vec<Canvas>,
    movers: Vec<Mover>,
}

impl Scene {
    /// `width` and `height` are even.
    pub fn new(width: u32, height: u32, fps: u32, seed: u64) -> Self {
        let background = background(width, height, seed);
        let sheets = (0..NOISE_SHEETS as u64)
            .map(|sheet| with_noise(&background, mix(seed ^ (sheet << 32))))
            .collect();
        Self {
            fps: f64::from(fps),
            seed,
            sheets,
            movers: movers(f64::from(width), f64::from(height), seed),
        }
    }

    /// The bytes of frame `number`, stamped with `clock`.
    pub fn frame(&self, number: u64, clock: &str) -> Vec<u8> {
        // Two frames in a row never use the same sheet.
        let sheet = (number * 2 + number / 7) as usize % self.sheets.len();
        let mut canvas = self.sheets[sheet].clone();
        let seconds = number as f64 / self.fps;
        traffic_light(&mut canvas, seconds);
        for mover in &self.movers {
            mover.draw(&mut canvas, seconds, self.seed);
        }
        let scale = (canvas.height / 240).max(1);
        canvas.text(4 * scale, 4 * scale, scale, clock);
        canvas.data
    }
}

fn background(width: u32, height: u32, seed: u64) -> Canvas {
    let mut canvas = Canvas::new(width, height);
    let (w, h) = (width as i32, height as i32);
    let horizon = h * 40 / 100;
    for y in 0..horizon {
        let t = y * 100 / horizon;
        canvas.span(y, 0, w, rgb(120 + t * 7 / 10, 165 + t / 2, 225));
    }
    for cloud in 0..5 {
        let r = mix(seed ^ (0x0c10 + cloud));
        let (x, y) = (
            (r % width as u64) as i32,
            h / 20 + (r >> 32 & 0xffff) as i32 % (h / 6),
        );
        canvas.ellipse(x, y, w / 14, h / 40, rgb(226, 232, 240));
        canvas.ellipse(x + w / 24, y + h / 60, w / 18, h / 50, rgb(236, 240, 244));
    }
    // Pavement, road, pavement.
    canvas.rect(0, horizon, w, h * 22 / 100, rgb(150, 146, 140));
    canvas.rect(0, h * 60 / 100, w, h * 30 / 100, rgb(72, 74, 78));
    canvas.rect(0, h * 59 / 100, w, (h / 90).max(1), rgb(188, 186, 180));
    canvas.rect(0, h * 90 / 100, w, h / 10 + 1, rgb(164, 158, 150));
    canvas.rect(0, h * 90 / 100, w, (h / 70).max(1), rgb(196, 192, 186));
    for dash in 0..12 {
        let x = dash * w / 12;
        canvas.rect(
            x,
            h * 745 / 1000,
            w / 24,
            (h / 100).max(1),
            rgb(224, 224, 218),
        );
    }
    houses(&mut canvas, horizon, seed);
    for tree in 0..3 {
        let x = w * (18 + tree * 34) / 100;
        canvas.rect(
            x - w / 220,
            h * 42 / 100,
            (w / 110).max(1),
            h * 17 / 100,
            rgb(84, 62, 44),
        );
        canvas.ellipse(x, h * 36 / 100, w / 26, h / 11, rgb(52, 96, 44));
        canvas.ellipse(x - w / 60, h * 34 / 100, w / 40, h / 18, rgb(68, 116, 56));
    }
    // The traffic light's post and box; its lamps are drawn with every frame.
    canvas.rect(
        w * 78 / 100,
        h * 30 / 100,
        (w / 160).max(1),
        h * 29 / 100,
        rgb(60, 62, 64),
    );
    canvas.rect(
        w * 775 / 1000,
        h * 24 / 100,
        w / 64,
        h * 9 / 100,
        rgb(28, 30, 30),
    );
    canvas
}

fn houses(canvas: &mut Canvas, horizon: i32, seed: u64) {
    const WALLS: [Colour; 5] = [
        rgb(188, 120, 92),
        rgb(206, 194, 166),
        rgb(162, 168, 176),
        rgb(204, 170, 120),
        rgb(140, 92, 78),
    ];
    let (w, h) = (canvas.width, canvas.height);
    let ground = horizon + h * 12 / 100;
    let mut x = -w / 40;
    let mut number = 0u64;
    while x < w {
        let r = mix(seed ^ (0x40e5 + number));
        let wide = w * (11 + (r % 7) as i32) / 100;
        let tall = h * (24 + (r >> 8 & 0xff) as i32 % 18) / 100;
        let top = ground - tall;
        canvas.rect(x, top, wide, tall, WALLS[(r >> 16) as usize % WALLS.len()]);
        canvas.trapezoid(
            x + wide / 2,
            top - h / 16,
            wide / 3,
            wide,
            h / 16,
            rgb(104, 56, 48),
        );
        let (columns, rows) = (3, (tall * 5 / h).max(1) + 1);
        for column in 0..columns {
            for row in 0..rows {
                let lit = mix(r ^ ((column * 16 + row) as u64)).is_multiple_of(4);
                let pane = if lit {
                    rgb(236, 214, 140)
                } else {
                    rgb(64, 78, 96)
                };
                let left = x + wide * (1 + 3 * column) / 10;
                let upper = top + tall * (1 + 2 * row) / (2 * rows + 2);
                canvas.rect(
                    left,
                    upper,
                    wide / 6,
                    tall / (2 * rows + 2),
                    rgb(228, 226, 220),
                );
                canvas.rect(
                    left + 1,
                    upper + 1,
                    wide / 6 - 2,
                    tall / (2 * rows + 2) - 2,
                    pane,
                );
            }
        }
        canvas.rect(
            x + wide * 7 / 10,
            ground - h / 12,
            wide / 7,
            h / 12,
            rgb(72, 50, 38),
        );
        x += wide + w * (r >> 40 & 3) as i32 / 100;
        number += 1;
    }
}

fn with_noise(background: &Canvas, seed: u64) -> Canvas {
    let mut canvas = background.clone();
    let luma = canvas.u_offset;
    let mut state = seed;
    for eight in canvas.data[..luma].chunks_mut(8) {
        state = mix(state);
        for (pixel, random) in eight.iter_mut().zip(state.to_le_bytes()) {
            let noise = i32::from(random) % (2 * NOISE_AMPLITUDE + 1) - NOISE_AMPLITUDE;
            *pixel = (i32::from(*pixel) + noise).clamp(16, 235) as u8;
        }
    }
    canvas
}

fn movers(w: f64, h: f64, seed: u64) -> Vec<Mover> {
    let plan = [
        // kind, picture widths per second, ground, size (both in picture heights)
        (Kind::Pedestrian, 0.035, 0.575, 0.085),
        (Kind::Pedestrian, -0.028, 0.585, 0.090),
        (Kind::Pedestrian, 0.041, 0.590, 0.080),
        (Kind::Car, -0.19, 0.695, 0.075),
        (Kind::Truck, -0.11, 0.700, 0.130),
        (Kind::Car, -0.16, 0.705, 0.080),
        (Kind::Car, 0.17, 0.845, 0.105),
        (Kind::Car, 0.24, 0.865, 0.110),
        (Kind::Pedestrian, -0.050, 0.965, 0.160),
        (Kind::Pedestrian, 0.060, 0.985, 0.170),
    ];
    (0u64..)
        .zip(plan)
        .map(|(number, (kind, speed, ground, size))| {
            let id = mix(seed ^ (0x30fe + number));
            Mover {
                kind,
                speed: speed * w * (0.85 + (id % 31) as f64 / 100.0),
                ground: (ground * h) as i32,
                size: (size * h) as i32,
                phase: (id >> 8) as f64 / (u64::MAX >> 8) as f64,
                id,
            }
        })
        .collect()
}

impl Mover {
    fn draw(&self, canvas: &mut Canvas, seconds: f64, seed: u64) {
        // It leaves the picture for a while before it comes again, as something else.
        let margin = f64::from(self.size * 4);
        let way = f64::from(canvas.width) * 1.4 + 2.0 * margin;
        let gone = self.phase * way + self.speed.abs() * seconds;
        let lap = (gone / way) as u64;
        let along = gone % way - margin;
        let x = if self.speed < 0.0 {
            f64::from(canvas.width) - along
        } else {
            along
        } as i32;
        let look = mix(self.id ^ seed ^ lap);
        let paint = PAINTS[(look % PAINTS.len() as u64) as usize];
        match self.kind {
            Kind::Car => self.car(canvas, x, paint),
            Kind::Truck => self.truck(canvas, x, paint),
            Kind::Pedestrian => self.pedestrian(canvas, x, seconds, look, paint),
        }
    }

    fn car(&self, canvas: &mut Canvas, x: i32, paint: Colour) {
        let (s, y) = (self.size, self.ground);
        canvas.ellipse(x, y, s * 14 / 10, s / 9, rgb(46, 47, 50));
        canvas.trapezoid(x, y - s, s * 12 / 10, s * 18 / 10, s / 2, paint);
        canvas.trapezoid(
            x,
            y - s * 9 / 10,
            s,
            s * 15 / 10,
            s * 4 / 10,
            rgb(86, 108, 128),
        );
        canvas.rect(x - s / 20, y - s, (s / 10).max(1), s / 2, paint);
        canvas.rect(
            x - s * 13 / 10,
            y - s * 6 / 10,
            s * 26 / 10,
            s * 45 / 100,
            paint,
        );
        self.wheels(canvas, x, s * 8 / 10, s / 4);
        let front = if self.speed < 0.0 { -1 } else { 1 };
        let lamp = x + front * s * 125 / 100 - s / 12;
        canvas.rect(lamp, y - s / 2, s / 6, s / 8, rgb(250, 240, 190));
    }

    fn truck(&self, canvas: &mut Canvas, x: i32, paint: Colour) {
        let (s, y) = (self.size, self.ground);
        let front = if self.speed < 0.0 { -1 } else { 1 };
        canvas.ellipse(x, y, s * 15 / 10, s / 12, rgb(46, 47, 50));
        canvas.rect(
            x - s * 9 / 10 - front * s / 4,
            y - s,
            s * 18 / 10,
            s * 8 / 10,
            paint,
        );
        let cab = x + front * s * 95 / 100;
        canvas.rect(
            cab - s * 3 / 10,
            y - s * 8 / 10,
            s * 6 / 10,
            s * 6 / 10,
            rgb(210, 208, 200),
        );
        let glass = cab + front * s / 8 - s / 8;
        canvas.rect(glass, y - s * 7 / 10, s / 4, s / 4, rgb(70, 92, 112));
        self.wheels(canvas, x, s * 7 / 10, s / 6);
    }

    fn wheels(&self, canvas: &mut Canvas, x: i32, apart: i32, radius: i32) {
        for cx in [x - apart, x + apart] {
            canvas.ellipse(
                cx,
                self.ground - radius / 2,
                radius,
                radius,
                rgb(22, 22, 24),
            );
            canvas.ellipse(
                cx,
                self.ground - radius / 2,
                radius / 2,
                radius / 2,
                rgb(150, 150, 152),
            );
        }
    }

    fn pedestrian(&self, canvas: &mut Canvas, x: i32, seconds: f64, look: u64, coat: Colour) {
        let (s, y) = (self.size, self.ground);
        let swing = (seconds * 7.0 + self.phase * 6.0).sin() * f64::from(s) / 7.0;
        let trousers = PAINTS[(look >> 8) as usize % PAINTS.len()];
        for leg in [swing as i32, -swing as i32] {
            for row in 0..s * 45 / 100 {
                let foot = x + leg * row / (s * 45 / 100).max(1);
                let thick = (s / 16).max(1);
                canvas.span(y - s * 45 / 100 + row, foot - thick, foot + thick, trousers);
            }
        }
        canvas.trapezoid(x, y - s * 82 / 100, s / 6, s * 26 / 100, s * 42 / 100, coat);
        canvas.ellipse(x, y - s * 91 / 100, s / 14, s / 11, rgb(206, 164, 134));
        if look >> 20 & 1 == 1 {
            // A bag in the trailing hand.
            let side = if self.speed < 0.0 { 1 } else { -1 };
            canvas.rect(
                x + side * s / 7 - s / 14,
                y - s / 2,
                s / 7,
                s / 6,
                rgb(90, 62, 40),
            );
        }
    }
}

fn traffic_light(canvas: &mut Canvas, seconds: f64) {
    let (w, h) = (canvas.width, canvas.height);
    let (lamp, colour) = match seconds as u64 % 20 {
        0..9 => (2, rgb(60, 220, 90)),
        9..11 => (1, rgb(250, 190, 40)),
        _ => (0, rgb(240, 50, 40)),
    };
    let y = h * (255 + 30 * lamp) / 1000;
    canvas.ellipse(w * 783 / 1000, y, (w / 200).max(1), (h / 90).max(1), colour);
}
