//! What a node has to fetch.

use crate::head::Manifest;

/// Gaps between ranges that are fetched with them, bytes: a range of its own costs about as much.
const GAP_BYTES_MAX: u64 = 512;

/// The chunks that a node lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Their places in [`Manifest::chunks`], ascending.
    pub chunks: Vec<u32>,
    /// Where they lie in the file, ascending: begin and length, bytes.
    pub ranges: Vec<(u64, u64)>,
}

impl Missing {
    /// How much is to be fetched, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(_, length)| length).sum()
    }
}

/// The chunks that `wanted` says of that they are missing. All of them are the whole of the file behind its head, in one range.
pub fn missing(manifest: &Manifest, wanted: impl Fn(u32) -> bool) -> Missing {
    let mut missing = Missing::default();
    for (number, chunk) in (0..).zip(&manifest.chunks).filter(|(number, _)| wanted(*number)) {
        missing.chunks.push(number);
        let end = chunk.offset + u64::from(chunk.packed);
        match missing.ranges.last_mut() {
            Some((begin, length)) if chunk.offset - (*begin + *length) <= GAP_BYTES_MAX => *length = end - *begin,
            Some(_) | None => missing.ranges.push((chunk.offset, u64::from(chunk.packed))),
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{About, Head, HeadError, SigningKey, Trust, Unproven, VerifyError, unpack, write};

    fn bundle() -> (Vec<u8>, Trust) {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
        let trust = Trust::of(&[&key]);
        let about = About { board: "gateway-x86-64".to_owned(), version: "1.2.0".parse().unwrap(), minimum: Some("1.0".parse().unwrap()) };
        let numbers = |from: u32| (from..from + 1_000_000).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
        let mut bytes = Vec::new();
        let written = write(&mut bytes, &about, (numbers(0).as_slice(), numbers(500_000).as_slice()), &[key]).unwrap();
        assert_eq!(written.bytes, bytes.len() as u64);
        assert_eq!(Head::parse(&bytes).unwrap().bytes() as u64, written.head);
        (bytes, trust)
    }

    #[test]
    fn a_bundle_brings_what_was_put_in() {
        let (bytes, trust) = bundle();
        let head = Head::parse(&bytes).unwrap();
        let manifest = head.verify(&trust).unwrap();
        assert_eq!(
            (manifest.board.as_str(), manifest.version.to_string(), manifest.file_bytes()),
            ("gateway-x86-64", "1.2.0".into(), bytes.len() as u64)
        );
        let mut root = Vec::new();
        for (at, _, chunk) in manifest.places(&manifest.root) {
            assert_eq!(at, root.len() as u64);
            let begin = usize::try_from(chunk.offset).unwrap();
            root.extend(unpack(&bytes[begin..begin + chunk.packed as usize], chunk.bytes as usize, &chunk.digest).unwrap());
        }
        assert!(root.len() == 4_000_000 && crate::digest(root.as_slice()).unwrap() == manifest.root.digest);
        assert!(manifest.chunks.len() < manifest.kernel.chunks.len() + manifest.root.chunks.len(), "what both have is there once");
        let all = missing(&manifest, |_| true);
        assert_eq!(all.ranges, [(head.bytes() as u64, (bytes.len() - head.bytes()) as u64)], "all of them are the whole");
        let none = missing(&manifest, |_| false);
        assert_eq!((none.bytes(), none.chunks.len()), (0, 0));
        let one = missing(&manifest, |number| number == 1);
        assert_eq!(one.ranges, [(manifest.chunks[1].offset, u64::from(manifest.chunks[1].packed))]);
    }

    #[test]
    fn any_flipped_bit_of_the_head_is_noticed() {
        let (bytes, trust) = bundle();
        let length = Head::parse(&bytes).unwrap().bytes();
        for at in (0..length).step_by(31).chain(length - 64..length) {
            let mut other = bytes[..length].to_vec();
            other[at] ^= 1;
            let verdict = Head::parse(&other).and_then(|head| head.verify(&trust));
            assert!(verdict.is_err(), "byte {at}");
        }
        let stranger = Trust::of(&[&SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap()]);
        let refused = Head::parse(&bytes).unwrap().verify(&stranger);
        assert!(matches!(refused, Err(HeadError::Trust(VerifyError::Unknown(_)))));
        assert!(matches!(Head::parse(&bytes).unwrap().unproven(), Ok(Unproven(_))));
        for cut in [0, 4, 12, 100, length - 1] {
            assert!(Head::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        assert_eq!(Head::parse(b"sedge-os\xff\xff\xff\xff").unwrap_err(), HeadError::TooLong(usize::try_from(u32::MAX).unwrap() + 12));
        assert_eq!(Head::parse(b"#!/bin/sh").unwrap_err(), HeadError::NotABundle);
    }
}
