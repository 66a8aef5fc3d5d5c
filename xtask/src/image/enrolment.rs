//! A certificate as firmware takes it in: a variable's new content, signed by the key of the certificate itself.
//!
//! ```text
//! time ┬ length, revision, kind, PKCS #7 ┬ list of one certificate
//!      └ signature over: name, number of the owner, attributes, time, list
//! ```
//! `sbvarsign` adds attributes of its own to the signature, and the firmware of QEMU's machines refuses them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::tools::{Tools, output};

/// Whose the certificate is, among those in a firmware: any number that stays the same.
const OWNER: &str = "5e0c7a61-2b1f-4f0e-9c58-3d1e6a7c9b42";
/// `EFI_GLOBAL_VARIABLE` and `EFI_IMAGE_SECURITY_DATABASE_GUID`, as they lie in memory.
const GLOBAL: [u8; 16] = [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
const SECURITY: [u8; 16] = [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// What a firmware keeps, from the key that changes all others to those that sign programs.
const VARIABLES: [(&str, [u8; 16]); 3] = [("PK", GLOBAL), ("KEK", GLOBAL), ("db", SECURITY)];
/// Kept, seen by boot loader and system, changed by who signs with a later time.
const ATTRIBUTES: u32 = 0x27;
/// `EFI_CERT_TYPE_PKCS7_GUID`, behind the revision and the kind of the head that it belongs to.
const PKCS7: [u8; 20] =
    [0x00, 0x02, 0xf1, 0x0e, 0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
/// What OpenSSL puts around the signature and firmware does not know: a sequence, the name of the kind, a tag.
const WRAPPING_BYTES: usize = 19;

/// The key and certificate, PEM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a Path,
    pub(super) certificate: &'a Path,
}

/// Makes `PK.auth`, `KEK.auth` and `db.auth` in `directory`, which is whole or not there.
pub(super) fn make(tools: &Tools, pair: Pair<'_>, directory: &Path) -> Result<()> {
    let partial = directory.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir(&partial).with_context(|| format!("create {}", partial.display()))?;
    let time = time(&tools.run("date", &["-u", "+%Y %m %d %H %M %S"])?)?;
    let list = list(tools, pair, directory)?;
    for (name, owner) in VARIABLES {
        let signature = sign(tools, pair, (directory, &signed(name, owner, time, &list)))?;
        let file = partial.join(format!("{name}.auth"));
        fs::write(&file, variable(time, &signature, &list)?).with_context(|| format!("write {}", file.display()))?;
    }
    fs::rename(&partial, directory).with_context(|| format!("name {}", directory.display()))
}

/// The certificate, as the only one of a list.
fn list(tools: &Tools, pair: Pair<'_>, directory: &Path) -> Result<Vec<u8>> {
    let (der, list) = (directory.with_extension("der"), directory.with_extension("esl"));
    output(tools.command("openssl").args(["x509", "-outform", "DER", "-in"]).arg(pair.certificate).arg("-out").arg(&der))?;
    output(tools.command("sbsiglist").args(["--owner", OWNER, "--type", "x509", "--output"]).args([&list, &der]))?;
    fs::read(&list).with_context(|| format!("read {}", list.display()))
}

/// A signature over `bytes`, without what is wrapped around it.
fn sign(tools: &Tools, pair: Pair<'_>, (directory, bytes): (&Path, &[u8])) -> Result<Vec<u8>> {
    let beside = |ending: &str| -> PathBuf { directory.with_extension(ending) };
    fs::write(beside("signed"), bytes).context("write what is signed")?;
    let mut openssl = tools.command("openssl");
    openssl.args(["smime", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "DER", "-in"]).arg(beside("signed"));
    openssl.arg("-signer").arg(pair.certificate).arg("-inkey").arg(pair.key).arg("-out").arg(beside("p7"));
    output(&mut openssl).context("sign a variable of a firmware")?;
    let wrapped = fs::read(beside("p7")).context("read a signature")?;
    // Both lengths have two bytes: a signature with its certificate is longer than 256 bytes and shorter than 64 KiB.
    let whole = wrapped.starts_with(&[0x30, 0x82]) && wrapped.get(WRAPPING_BYTES..).is_some_and(|rest| rest.starts_with(&[0x30, 0x82]));
    ensure!(whole, "openssl wrapped a signature in another way than it used to");
    Ok(wrapped[WRAPPING_BYTES..].to_vec())
}

/// What is signed of a variable.
fn signed(name: &str, owner: [u8; 16], time: [u8; 16], list: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    [&name[..], &owner, &ATTRIBUTES.to_le_bytes(), &time, list].concat()
}

/// A variable with its signature.
fn variable(time: [u8; 16], signature: &[u8], list: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(4 + PKCS7.len() + signature.len()).context("a signature of that length")?;
    Ok([&time[..], &length.to_le_bytes(), &PKCS7, signature, list].concat())
}

/// A time as firmware has it, from year, month, day, hour, minute and second.
fn time(text: &str) -> Result<[u8; 16]> {
    let numbers = text.split_ascii_whitespace().map(|word| word.parse::<u16>().context("a number of a date"));
    let numbers = numbers.collect::<Result<Vec<u16>>>()?;
    let [year, rest @ ..] = numbers.as_slice() else { anyhow::bail!("`{text}` is no date") };
    ensure!(rest.len() == 5, "`{text}` is no date");
    let mut time = [0; 16];
    time[..2].copy_from_slice(&year.to_le_bytes());
    for (to, number) in time[2..].iter_mut().zip(rest) {
        *to = u8::try_from(*number).with_context(|| format!("`{text}` is no date"))?;
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_order_of_firmware() {
        let expected = [0xea, 0x07, 11, 24, 1, 57, 39, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(time("2026 11 24 01 57 39\n").unwrap(), expected);
        for wrong in ["", "2026 11 24", "2026 11 24 01 57 390", "now"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_variable_is_its_time_its_signature_and_its_list() {
        let bytes = variable([7; 16], &[1, 2, 3], &[9; 5]).unwrap();
        assert_eq!(bytes.len(), 16 + 4 + 20 + 3 + 5);
        assert_eq!((&bytes[16..24], &bytes[40..43]), (&[27, 0, 0, 0, 0x00, 0x02, 0xf1, 0x0e][..], &[1, 2, 3][..]));
        let bytes = signed("db", SECURITY, [7; 16], &[9]);
        assert_eq!((&bytes[..4], bytes.len(), &bytes[20..24]), (&b"d\0b\0"[..], 4 + 16 + 4 + 16 + 1, &[0x27, 0, 0, 0][..]));
    }
}
