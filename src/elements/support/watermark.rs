// SPDX-License-Identifier: MPL-2.0
//! Properties that whoever marks and whoever reads must set alike.

use super::{files, lock};
use crate::watermark::{Dither, Key, Settings, SettingsError};
use gst::glib;
use gst::prelude::*;
use std::path::PathBuf;
use std::sync::Mutex;

/// Where the settings that the others start from come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstDmqimPreset")]
pub enum Preset {
    /// This project's.
    #[default]
    #[enum_value(
        name = "Camvault: few strong marks, keyed places and dithers",
        nick = "camvault"
    )]
    Camvault,
    /// For single pictures.
    #[enum_value(
        name = "Picture: more and weaker marks, for single pictures that JPEG or a filter will change",
        nick = "picture"
    )]
    Picture,
    /// The paper's.
    #[enum_value(
        name = "Paper: every low coefficient of every block, public dither; whoever knows the method can read and remove it",
        nick = "paper"
    )]
    Paper,
}

impl Preset {
    fn settings(self) -> Settings {
        match self {
            Self::Camvault => Settings::default(),
            Self::Picture => Settings::picture(),
            Self::Paper => Settings::paper(),
        }
    }
}

const DEFAULT_STEP: u32 = 0;
const DEFAULT_DITHER: f64 = -2.0;
const DEFAULT_PER_BLOCK: u32 = 0;
const DEFAULT_REDUNDANCY: f64 = 0.0;
const DEFAULT_LAYOUTS: u32 = 0;

#[derive(Clone, Debug)]
struct Chosen {
    preset: Preset,
    step: u32,
    dither: f64,
    coefficients: Option<String>,
    per_block: u32,
    redundancy: f64,
    layouts: u32,
    key_file: Option<PathBuf>,
    /// What was in the key file when the property was set: reading it later would keep the
    /// streaming thread waiting.
    key: Option<Result<Key, gst::ErrorMessage>>,
    /// Grows with every change.
    version: u64,
}

impl Default for Chosen {
    fn default() -> Self {
        Self {
            preset: Preset::default(),
            step: DEFAULT_STEP,
            dither: DEFAULT_DITHER,
            coefficients: None,
            per_block: DEFAULT_PER_BLOCK,
            redundancy: DEFAULT_REDUNDANCY,
            layouts: DEFAULT_LAYOUTS,
            key_file: None,
            key: None,
            version: 1,
        }
    }
}

/// The properties, as they are set at the moment.
#[derive(Default)]
pub struct Properties(Mutex<Chosen>);

impl Properties {
    /// What to add to an element's properties.
    pub fn specs() -> Vec<glib::ParamSpec> {
        vec![
            glib::ParamSpecString::builder("key-file")
                .nick("Key file")
                .blurb("File with the key of places, dithers and pad: 32 bytes, raw, in hexadecimal or in base64, or an identity file, from which one is derived; read when the property is set")
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder_with_default("preset", Preset::default())
                .nick("Preset")
                .blurb("What step, dither, coefficients, redundancy and layouts are where they are not set")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("step")
                .nick("Step")
                .blurb("Quantiser step in units of luma coefficients, a multiple of 4 (0 = the preset's: 100, picture: 76)")
                .maximum(1000)
                .default_value(DEFAULT_STEP)
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("dither")
                .nick("Dither")
                .blurb("Dither of bit 1 in units of luma coefficients, the same for all marks and not secret (-1 = each mark its own, from the key; -2 = the preset's: -1, paper: 25)")
                .minimum(-2.0)
                .maximum(1000.0)
                .default_value(DEFAULT_DITHER)
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("coefficients")
                .nick("Coefficients")
                .blurb("Coefficients that can carry a bit, as vertical and horizontal frequency: '01 10 11 02 20' (none = the preset's)")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("per-block")
                .nick("Per block")
                .blurb("Coefficients of a marked block that carry a bit each: with several in one block an encoder needs fewer bytes, with one in each places are harder to find (0 = the preset's: 4, picture: 1)")
                .maximum(64)
                .default_value(DEFAULT_PER_BLOCK)
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("redundancy")
                .nick("Redundancy")
                .blurb("Marks per block of 8x8 pixels (0 = the preset's: 0.12, in pictures below 4500 blocks 0.1875; picture: 0.3125; paper: 20)")
                .maximum(64.0)
                .default_value(DEFAULT_REDUNDANCY)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("layouts")
                .nick("Layouts")
                .blurb("Layouts of marks that take turns (0 = the preset's: 4, picture and paper: 1)")
                .maximum(64)
                .default_value(DEFAULT_LAYOUTS)
                .mutable_playing()
                .build(),
        ]
    }

    /// Sets a property; false if it is not one of these.
    pub fn set(&self, name: &str, value: &glib::Value) -> bool {
        // GObject has checked the types.
        let mut chosen = lock(&self.0);
        match name {
            "key-file" => {
                let file = value.get::<Option<PathBuf>>().ok().flatten();
                let file = file.filter(|file| !file.as_os_str().is_empty());
                chosen.key = file
                    .as_deref()
                    .map(|file| files::watermark_key(file).map_err(Into::into));
                chosen.key_file = file;
            }
            "preset" => chosen.preset = value.get().unwrap_or_default(),
            "step" => chosen.step = value.get().unwrap_or(DEFAULT_STEP),
            "dither" => chosen.dither = value.get().unwrap_or(DEFAULT_DITHER),
            "coefficients" => chosen.coefficients = value.get().ok().flatten(),
            "per-block" => chosen.per_block = value.get().unwrap_or(DEFAULT_PER_BLOCK),
            "redundancy" => chosen.redundancy = value.get().unwrap_or(DEFAULT_REDUNDANCY),
            "layouts" => chosen.layouts = value.get().unwrap_or(DEFAULT_LAYOUTS),
            _ => return false,
        }
        chosen.version += 1;
        true
    }

    /// A property's value; `None` if it is not one of these.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        let chosen = lock(&self.0);
        Some(match name {
            "key-file" => chosen
                .key_file
                .as_ref()
                .map(|file| file.display().to_string())
                .to_value(),
            "preset" => chosen.preset.to_value(),
            "step" => chosen.step.to_value(),
            "dither" => chosen.dither.to_value(),
            "coefficients" => chosen.coefficients.to_value(),
            "per-block" => chosen.per_block.to_value(),
            "redundancy" => chosen.redundancy.to_value(),
            "layouts" => chosen.layouts.to_value(),
            _ => return None,
        })
    }

    /// Another number after every change.
    pub fn version(&self) -> u64 {
        lock(&self.0).version
    }

    /// The settings, and the key if a key file is set; the error is for the bus.
    pub fn resolve(&self) -> Result<(Settings, Option<Key>), gst::ErrorMessage> {
        let chosen = lock(&self.0).clone();
        let key = chosen.key.transpose()?;
        let mut settings = chosen.preset.settings();
        let check = || {
            if chosen.step != DEFAULT_STEP {
                settings.step = chosen.step;
            }
            if chosen.dither != DEFAULT_DITHER {
                settings.dither = match chosen.dither < 0.0 {
                    true => Dither::Keyed,
                    false => Dither::Fixed(chosen.dither),
                };
            }
            if let Some(text) = &chosen.coefficients {
                settings.set_classes(Settings::parse_classes(text)?);
            }
            if chosen.per_block != DEFAULT_PER_BLOCK {
                settings.per_block = Some(chosen.per_block as usize);
            }
            if chosen.redundancy > 0.0 {
                settings.density = Some(chosen.redundancy);
            }
            if chosen.layouts != DEFAULT_LAYOUTS {
                settings.layouts = chosen.layouts;
            }
            settings.check()?;
            Ok(settings)
        };
        let settings = check()
            .map_err(|e: SettingsError| gst::error_msg!(gst::LibraryError::Settings, ("{e}")))?;
        // The paper's needs none: places and dithers are public.
        let public = chosen.preset == Preset::Paper && settings.dither != Dither::Keyed;
        let key = key.or_else(|| public.then(|| Key::from_bytes([0; 32])));
        Ok((settings, key))
    }
}
