//! Bodies that come compressed although none was asked for: some servers and proxies do it all the
//! same, and an answer that cannot be read leaves open whether a rename took effect.
//!
//! gzip and deflate are taken, bounded in what they unfold to; any other encoding is not.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use reqwest::header::HeaderValue;

use crate::core::model::api_response::TransportError;

/// The longest body that is read, in bytes; a user takes well under one KiB.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// Why a body was not read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLong,
    /// Encoded in a way that is not known here, or not as its header says.
    Encoded,
    Lost(TransportError),
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The body as it was before its encoding, which its header names.
pub(super) fn decoded(body: Bytes, encoding: Option<&HeaderValue>) -> Result<Bytes, BodyError> {
    let body = unfolded(body, encoding)?;
    // Some writers put a byte order mark before their JSON.
    let mark = if body.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
    Ok(body.slice(mark..))
}

fn unfolded(body: Bytes, encoding: Option<&HeaderValue>) -> Result<Bytes, BodyError> {
    let Some(encoding) = encoding else {
        return Ok(body);
    };
    let encoding = encoding.to_str().map_err(|_| BodyError::Encoded)?;
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body),
        // An empty body is often sent with the header, and not encoded.
        _ if body.is_empty() => Ok(body),
        "gzip" | "x-gzip" => unfold(MultiGzDecoder::new(&*body)),
        // With zlib's wrapping, as RFC 9110 has it, or without, as some servers do.
        "deflate" => match unfold(ZlibDecoder::new(&*body)) {
            Err(BodyError::Encoded) => unfold(DeflateDecoder::new(&*body)),
            unfolded => unfolded,
        },
        _ => Err(BodyError::Encoded),
    }
}

/// Reads no further than one byte beyond what is taken: a few bytes may unfold to gigabytes.
fn unfold(decoder: impl std::io::Read) -> Result<Bytes, BodyError> {
    let mut body = Vec::new();
    let read = decoder.take(BODY_MAX as u64 + 1).read_to_end(&mut body);
    if body.len() > BODY_MAX {
        return Err(BodyError::TooLong);
    }
    match read {
        Ok(_) => Ok(body.into()),
        Err(_) => Err(BodyError::Encoded),
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const USER: &[u8] = br#"{"username":"a"}"#;

    fn read(mut encoder: impl std::io::Read) -> Bytes {
        let mut bytes = Vec::new();
        encoder.read_to_end(&mut bytes).unwrap();
        bytes.into()
    }

    fn gzip(body: &[u8]) -> Bytes {
        read(GzEncoder::new(body, Compression::best()))
    }

    fn decoded_as(body: Bytes, encoding: &'static str) -> Result<Bytes, BodyError> {
        decoded(body, Some(&HeaderValue::from_static(encoding)))
    }

    #[test]
    fn gzip_and_deflate_are_taken_and_what_is_not_encoded_is_as_it_is() {
        let zlib = read(ZlibEncoder::new(USER, Compression::fast()));
        let raw = read(DeflateEncoder::new(USER, Compression::fast()));
        let twice: Bytes = [gzip(&USER[..5]), gzip(&USER[5..])].concat().into();
        for (body, encoding) in [
            (gzip(USER), "gzip"),
            (gzip(USER), " GZip "),
            (gzip(USER), "x-gzip"),
            (twice, "gzip"),
            (zlib, "deflate"),
            (raw, "deflate"),
            (Bytes::from_static(USER), "identity"),
            (Bytes::from_static(USER), ""),
        ] {
            assert_eq!(decoded_as(body, encoding).unwrap(), USER, "{encoding}");
        }
        assert_eq!(decoded(Bytes::from_static(USER), None).unwrap(), USER);
        assert_eq!(decoded_as(Bytes::new(), "gzip").unwrap(), Bytes::new());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_body() {
        let marked = [BYTE_ORDER_MARK, USER].concat();
        assert_eq!(decoded_as(gzip(&marked), "gzip").unwrap(), USER);
        assert_eq!(decoded(marked.into(), None).unwrap(), USER);
    }

    #[test]
    fn what_cannot_be_decoded_is_told_as_such() {
        let cut = gzip(USER);
        for (body, encoding) in [
            (Bytes::from_static(USER), "gzip"),
            (cut.slice(..cut.len() - 9), "gzip"),
            (Bytes::from_static(b"\xff\xff"), "deflate"),
            (Bytes::from_static(USER), "br"),
            (Bytes::from_static(USER), "zstd"),
            (gzip(&gzip(USER)), "gzip, gzip"),
        ] {
            let read = decoded_as(body, encoding);
            assert_eq!(read, Err(BodyError::Encoded), "{encoding}");
        }
        let not_text = HeaderValue::from_bytes(b"\xff").unwrap();
        let read = decoded(Bytes::from_static(USER), Some(&not_text));
        assert_eq!(read, Err(BodyError::Encoded));
    }

    #[test]
    fn a_body_that_unfolds_to_more_than_is_taken_is_not_unfolded() {
        // Sixty-four megabytes in some sixty kilobytes.
        let bomb = gzip(&vec![b' '; 64 * 1024 * 1024]);
        assert!(bomb.len() < BODY_MAX * 2, "{}", bomb.len());
        assert_eq!(decoded_as(bomb, "gzip"), Err(BodyError::TooLong));
        let whole = gzip(&vec![b' '; BODY_MAX]);
        assert_eq!(decoded_as(whole, "gzip").unwrap().len(), BODY_MAX);
    }
}
