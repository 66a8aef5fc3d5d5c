use super::*;
use sedge_bundle::{About, Head, SigningKey, Trust, write};

/// Bytes that do not repeat.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// A bundle of the given images and its verified manifest.
fn bundle(kernel: &[u8], root: &[u8]) -> (Vec<u8>, Manifest) {
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
    let trust = Trust::of(&[&key]);
    let about = About { board: "test".to_owned(), version: "2".parse().unwrap(), minimum: None };
    let mut bytes = Vec::new();
    write(&mut bytes, &about, (kernel, root), &[key]).unwrap();
    let manifest = Head::parse(&bytes).unwrap().verify(&trust).unwrap();
    (bytes, manifest)
}

/// The chunks as the daemon sends them.
fn chunks(bundle: &[u8], manifest: &Manifest, missing: &[u32]) -> Vec<u8> {
    let unpacked = missing.iter().map(|number| {
        let chunk = &manifest.chunks[*number as usize];
        let at = usize::try_from(chunk.offset).unwrap();
        sedge_bundle::unpack(&bundle[at..at + chunk.packed as usize], chunk.bytes as usize, &chunk.digest).unwrap()
    });
    unpacked.flatten().collect()
}

fn source(path: &Path, bytes: &[u8]) -> Source {
    std::fs::write(path, bytes).unwrap();
    Source { file: File::open(path).unwrap(), bytes: bytes.len() as u64 }
}

#[test]
fn what_a_node_has_does_not_travel_and_what_was_written_is_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let (slot, old_root, old_kernel) = (directory.path().join("slot"), directory.path().join("root"), directory.path().join("kernel"));
    let before = noise(3 << 20, 1);
    let after = [&before[..1 << 20], &noise(50_000, 2), &before[1 << 20..]].concat();
    let (kernel_before, kernel) = (noise(400_000, 3), noise(400_000, 4));
    std::fs::write(&slot, vec![0; 8 << 20]).unwrap();
    let (bundle, manifest) = bundle(&kernel, &after);
    let writing = Writing::open(&slot, &manifest).unwrap();
    let sources = [source(&old_root, &before), source(&old_kernel, &kernel_before)];
    let missing = writing.gather(&sources).unwrap();
    let bytes: usize = missing.iter().map(|number| manifest.chunks[*number as usize].bytes as usize).sum();
    assert!((450_000..900_000).contains(&bytes), "{bytes}");
    assert!(writing.compare().is_err(), "chunks are missing");
    // The line breaks after half of them: what came stays.
    let half = &missing[..missing.len() / 2];
    writing.receive(half, &mut chunks(&bundle, &manifest, half).as_slice()).unwrap();
    let rest = writing.gather(&sources).unwrap();
    assert_eq!(rest, missing[half.len()..]);
    let mut cut = chunks(&bundle, &manifest, &rest);
    cut.pop();
    assert!(writing.receive(&rest, &mut cut.as_slice()).is_err());
    let rest = writing.gather(&sources).unwrap();
    assert_eq!(rest.len(), 1);
    writing.receive(&rest, &mut chunks(&bundle, &manifest, &rest).as_slice()).unwrap();
    writing.compare().unwrap();
    assert_eq!(writing.gather(&[]).unwrap(), Vec::<u32>::new());
    let mut read = Vec::new();
    writing.kernel().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == kernel && std::fs::read(&slot).unwrap()[..after.len()] == after);
}

#[test]
fn a_chunk_that_is_another_is_not_written_and_a_small_slot_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let slot = directory.path().join("slot");
    std::fs::write(&slot, vec![0; 2 << 20]).unwrap();
    let (_, manifest) = bundle(&noise(1000, 5), &noise(300_000, 6));
    let writing = Writing::open(&slot, &manifest).unwrap();
    let missing = writing.gather(&[]).unwrap();
    assert!(writing.receive(&missing, &mut noise(400_000, 9).as_slice()).unwrap_err().to_string().contains("not what the manifest says"));
    assert!(std::fs::read(&slot).unwrap().iter().all(|byte| *byte == 0));
    std::fs::write(&slot, vec![0; 1 << 20]).unwrap();
    assert!(Writing::open(&slot, &manifest).unwrap_err().to_string().contains("the slot has 1048576"));
}
