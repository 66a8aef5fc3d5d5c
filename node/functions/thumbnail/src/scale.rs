//! A picture becomes a smaller one of the same format.

use image::{ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// The longer side, if nobody says otherwise, pixels.
pub(crate) const SIDE_DEFAULT: u32 = 160;
/// The least and the most that may be asked for.
pub(crate) const SIDES: std::ops::RangeInclusive<u32> = 16..=1024;
/// Pixels that are decoded at most: three bytes each stay far below the function's memory.
const PIXELS_MAX: u64 = 40_000_000;
/// What the decoder may take beside the pixels.
const DECODER_BYTES_MAX: u64 = 112 * 1024 * 1024;

/// Why a picture was not made small.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Neither PNG nor JPEG.
    Format,
    /// More pixels than are decoded.
    TooLarge { width: u32, height: u32 },
    /// Not what it says it is.
    Broken(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Format => write!(f, "neither PNG nor JPEG"),
            Self::TooLarge { width, height } => write!(f, "{width} × {height} pixels, at most {PIXELS_MAX} in all"),
            Self::Broken(what) => write!(f, "broken: {what}"),
        }
    }
}

/// The small picture and its media type; one that is small enough is only encoded anew.
pub(crate) fn scale(data: &[u8], side: u32) -> Result<(Vec<u8>, &'static str), Fault> {
    let broken = |cause: image::ImageError| Fault::Broken(cause.to_string());
    let format = image::guess_format(data).map_err(|_| Fault::Format)?;
    let media_type = match format {
        ImageFormat::Png => "image/png",
        ImageFormat::Jpeg => "image/jpeg",
        _ => return Err(Fault::Format),
    };
    let (width, height) = ImageReader::with_format(Cursor::new(data), format).into_dimensions().map_err(broken)?;
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(Fault::TooLarge { width, height });
    }
    let mut reader = ImageReader::with_format(Cursor::new(data), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let picture = reader.decode().map_err(broken)?;
    let small = if width.max(height) > side { picture.thumbnail(side, side) } else { picture };
    let mut out = Cursor::new(Vec::new());
    small.write_to(&mut out, format).map_err(broken)?;
    Ok((out.into_inner(), media_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

    fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 0])).write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    #[test]
    fn the_longer_side_fits_and_the_format_stays() {
        for (format, expected) in [(ImageFormat::Png, "image/png"), (ImageFormat::Jpeg, "image/jpeg")] {
            let (small, media_type) = scale(&picture(400, 100, format), 80).unwrap();
            let small = image::load_from_memory_with_format(&small, format).unwrap();
            assert_eq!((small.width(), small.height(), media_type), (80, 20, expected));
        }
        let (same, _) = scale(&picture(40, 30, ImageFormat::Png), 80).unwrap();
        assert_eq!(image::load_from_memory(&same).unwrap().width(), 40);
    }

    #[test]
    fn what_is_no_picture_or_too_large_is_refused() {
        assert_eq!(scale(b"GIF89a", 80), Err(Fault::Format));
        let mut png = picture(16, 16, ImageFormat::Png);
        assert!(matches!(scale(&png[..40], 80), Err(Fault::Broken(_))));
        // Width and height of the header, with a checksum that fits.
        png[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
        let checksum = crc(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(scale(&png, 80), Err(Fault::TooLarge { width: 65535, height: 65535 }));
    }

    fn crc(bytes: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
    }
}
