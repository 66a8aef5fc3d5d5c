//! `function.toml`: no panic, and what is read survives the wire and keeps its rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge_protocol::Manifest;
use sedge_protocol::frame::{decode_body, encode};

fuzz_target!(|text: &str| {
    match Manifest::from_toml("function.toml", text) {
        Ok((manifest, _)) => {
            assert_eq!(manifest.check(), Ok(()));
            if let Ok(frame) = encode(&manifest) {
                assert_eq!(decode_body::<Manifest>(&frame[4..]).expect("our own frame"), manifest);
            }
        }
        Err(faults) => assert!(!faults.list.is_empty() && !faults.to_string().is_empty()),
    }
});
