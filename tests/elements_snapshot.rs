// SPDX-License-Identifier: MPL-2.0
//! Elements, pads and properties are what `tests/data/elements.txt` says, so that no change of
//! them goes unseen. `CAMVAULT_UPDATE=1 cargo test --test elements_snapshot` writes it anew.

use gst::glib;
use gst::prelude::*;
use std::fmt::Write as _;

fn element(factory: &gst::ElementFactory) -> String {
    let mut out = format!(
        "{}: {}\n",
        factory.name(),
        factory.metadata("klass").unwrap()
    );
    for template in factory.static_pad_templates() {
        let (direction, presence) = (template.direction(), template.presence());
        writeln!(
            out,
            "  pad {} {direction:?} {presence:?} {}",
            template.name_template(),
            template.caps()
        )
        .unwrap();
    }
    let element = factory.create().build().unwrap();
    let mut properties: Vec<_> = element
        .list_properties()
        .into_iter()
        .filter(|spec| spec.owner_type() == element.type_())
        .collect();
    properties.sort_by_key(|spec| spec.name().to_owned());
    for spec in properties {
        let flags = spec.flags();
        let mut how = Vec::new();
        for (flag, word) in [
            (glib::ParamFlags::READABLE, "read"),
            (glib::ParamFlags::WRITABLE, "write"),
            (gst::PARAM_FLAG_MUTABLE_READY, "until ready"),
            (gst::PARAM_FLAG_MUTABLE_PLAYING, "always"),
        ] {
            if flags.contains(flag) {
                how.push(word);
            }
        }
        // The text of an absent structure is not defined.
        let default = match spec.value_type() == gst::Structure::static_type() {
            true => "none".into(),
            false => format!("{:?}", spec.default_value()),
        };
        writeln!(
            out,
            "  property {} {} = {default} ({})",
            spec.name(),
            spec.value_type(),
            how.join(", ")
        )
        .unwrap();
        assert!(
            spec.blurb().is_some_and(|blurb| blurb.len() > 20),
            "{}",
            spec.name()
        );
    }
    out
}

#[test]
fn elements_are_what_they_were() {
    gst::init().unwrap();
    gstcamvault::plugin_register_static().unwrap();
    let mut features: Vec<_> = gst::Registry::get()
        .features_by_plugin("camvault")
        .into_iter()
        .collect();
    features.sort_by_key(|feature| feature.name());
    let found: String = features
        .into_iter()
        .filter_map(|feature| feature.downcast::<gst::ElementFactory>().ok())
        .map(|factory| element(&factory))
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/elements.txt");
    if std::env::var_os("CAMVAULT_UPDATE").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(path).unwrap_or_default());
}
