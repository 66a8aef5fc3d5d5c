//! `sedged.toml` on the boot partition: what an operator says about the node of an image. What stands in it is the daemon's matter.

/// Its name there.
pub const NODE_FILE: &str = "sedged.toml";
/// Longest file that is taken, bytes.
pub const NODE_FILE_BYTES_MAX: u64 = 64 * 1024;
/// The settings that it is laid over, as every image of this version has them.
pub const IMAGE_SETTINGS: &str = include_str!("../../image/tree/etc/sedge/sedged.toml");

/// The text of such a file.
///
/// # Errors
/// What is wrong with it as a whole.
pub fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() as u64 > NODE_FILE_BYTES_MAX {
        return Err(format!("it has more than {NODE_FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text: save it as such".to_owned())?;
    // Editors of other systems put a mark before the first character.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_of_a_size_that_people_write_is_taken() {
        assert_eq!(text("\u{feff}a = 1".into()).as_deref(), Ok("a = 1"));
        let largest = usize::try_from(NODE_FILE_BYTES_MAX).unwrap();
        assert_eq!(text(vec![b' '; largest]).map(|text| text.len()), Ok(largest));
        assert!(text(vec![b' '; largest + 1]).unwrap_err().contains("65536 bytes"));
        assert!(text(vec![0xff, 0xfe]).unwrap_err().contains("UTF-8"));
    }
}
