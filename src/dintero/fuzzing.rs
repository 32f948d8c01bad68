//! What the fuzz targets (`fuzz/`) reach of this room, under the feature `fuzzing` only: thin ways
//! to functions that nobody else may call. It is no part of the program.

use jiff::Timestamp;
use reqwest::header::HeaderValue;

use super::answer::to_change_username;
use super::encoding::BodyError;
use super::http::HttpReply;
use super::path::ApiPaths;
use crate::core::model::api_response::ApiResponse;
use crate::core::model::request::{AccountId, Username};

/// What an HTTP reply comes to; without a body, the body was too long.
#[must_use]
pub fn answer(
    status: u16,
    retry_after: Option<&[u8]>,
    body: Option<Vec<u8>>,
    now: Timestamp,
) -> ApiResponse {
    let reply = HttpReply {
        status,
        // What is no header value is stopped by the HTTP client.
        retry_after: retry_after.and_then(|bytes| HeaderValue::from_bytes(bytes).ok()),
        body: body.map_or(Err(BodyError::TooLong), |body| Ok(body.into())),
    };
    to_change_username(Ok(reply), now)
}

/// The URLs of `change_username`, `None` for a name that no path can carry, and of Get Token; or
/// why the base URL cannot be built on.
pub fn urls(
    base_url: &str,
    account: &AccountId,
    username: &Username,
) -> Result<(Option<String>, String), String> {
    let paths = ApiPaths::new(base_url).map_err(|error| error.to_string())?;
    let change = paths.change_username(account, username).ok();
    let token = paths.token(account);
    Ok((change.map(String::from), token.into()))
}
