//! Asks RabbitMQ's management API what AMQP does not say: which policies apply.
//!
//! HTTP/1 by `hyper`, on a connection of its own that is as well protected as the one to the broker.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::io::{AsyncRead, AsyncWrite};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use url::Url;

use crate::broker::error::BrokerError;
use crate::broker::transport::connection;
use crate::config::AmqpSection;

/// A management API that answers does so in milliseconds, a busy one in seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is some hundred bytes, since it is asked for by its columns.
const LARGEST: usize = 1024 * 1024;
/// Read at a time.
const CHUNK: usize = 8 * 1024;
/// What may stay in a part of a path as it is.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Why the management API does not say it.
#[derive(Debug, thiserror::Error)]
pub enum ManagementTrouble {
    #[error(
        "--management-url is not of the kind http://HOST:15672 (https:// as well; user and password \
         before the host, percent-encoded, if they are not those of amqp.url)"
    )]
    Url,
    #[error("cannot reach RabbitMQ's management API at {at}: {why}")]
    Unreachable { at: String, why: String },
    #[error(
        "RabbitMQ's management API at {at} refuses this user: it needs the right password and the tag \
         management (`rabbitmqctl set_user_tags USER management`)"
    )]
    Refused { at: String },
    #[error(
        "what answers at {at} is no management API of RabbitMQ: {why}; is the plugin \
         rabbitmq_management enabled?"
    )]
    Strange { at: String, why: String },
    #[error(
        "RabbitMQ does not say yet which policies apply to queue {queue}: its statistics may be some \
         seconds behind, or off; try again"
    )]
    NotKnownYet { queue: String },
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A connection to the API.
pub(in crate::broker) struct ManagementApi {
    /// Host and port.
    at: String,
    path: String,
    authorization: HeaderValue,
    vhost: String,
    sender: SendRequest<Body>,
}

/// An object of the API, or why there is none.
pub(in crate::broker) enum ManagementRequest<T> {
    Found(T),
    Missing,
    /// This user may not read it.
    Hidden,
}

impl ManagementApi {
    pub(in crate::broker) async fn connect(
        amqp: &AmqpSection,
        url: &SecretString,
    ) -> Result<Self, ManagementTrouble> {
        let (user, password, vhost) = connection::login(amqp).await?;
        let address =
            ManagementAddress::parse(url.expose_secret()).ok_or(ManagementTrouble::Url)?;
        let at = format!("{}:{}", address.host, address.port);
        let (user, password) = address.login.unwrap_or((user, password));
        let unreachable = |why: &dyn std::fmt::Display| ManagementTrouble::Unreachable {
            at: at.clone(),
            why: why.to_string(),
        };
        let place = (address.host.as_str(), address.port);
        let opening = async {
            let stream = connection::stream_to(amqp, place, address.is_tls).await?;
            http1::handshake(HyperStream(stream))
                .await
                .map_err(io::Error::other)
        };
        let (sender, connection) = tokio::time::timeout(TIMEOUT, opening)
            .await
            .map_err(|_| unreachable(&"no answer in time"))?
            .map_err(|why| unreachable(&why))?;
        // Its error is also the request's; it ends with the sender.
        tokio::spawn(connection);
        let login = format!("{user}:{}", password.expose_secret());
        let mut authorization =
            HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(login)))
                .expect("base64 is ASCII");
        authorization.set_sensitive(true);
        Ok(Self {
            at,
            path: address.path,
            authorization,
            vhost,
            sender,
        })
    }

    /// `/api/KIND/VHOST/NAME`, or `/api/KIND`.
    pub(in crate::broker) async fn get<T: DeserializeOwned>(
        &mut self,
        kind: &str,
        name: Option<&str>,
        query: &str,
    ) -> Result<ManagementRequest<T>, ManagementTrouble> {
        let place = name.map_or_else(String::new, |name| {
            format!("/{}/{}", encoded(&self.vhost), encoded(name))
        });
        let path = format!("{}/api/{kind}{place}{query}", self.path);
        let (status, body) = tokio::time::timeout(TIMEOUT, self.fetch(&path))
            .await
            .map_err(|_| self.unreachable(&"no answer in time"))?
            .map_err(|why| self.unreachable(&why))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map(ManagementRequest::Found)
                .map_err(|why| self.strange(&why)),
            StatusCode::NOT_FOUND => Ok(ManagementRequest::Missing),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(ManagementRequest::Hidden),
            status => Err(self.strange(&status)),
        }
    }

    async fn fetch(&mut self, path: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let request = Request::get(path)
            .header(HOST, &self.at)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Body::empty())?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), LARGEST).await?;
        Ok((status, body.to_vec()))
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> ManagementTrouble {
        ManagementTrouble::Unreachable {
            at: self.at.clone(),
            why: why.to_string(),
        }
    }

    fn strange(&self, why: &dyn std::fmt::Display) -> ManagementTrouble {
        ManagementTrouble::Strange {
            at: self.at.clone(),
            why: why.to_string(),
        }
    }

    pub(in crate::broker) fn refused(&self) -> ManagementTrouble {
        ManagementTrouble::Refused {
            at: self.at.clone(),
        }
    }

    pub(in crate::broker) fn is_missing(&self) -> ManagementTrouble {
        self.strange(&"it has no /api/overview")
    }
}

fn encoded(part: &str) -> String {
    utf8_percent_encode(part, IN_PATH).to_string()
}

/// Where the API is.
struct ManagementAddress {
    host: String,
    port: u16,
    is_tls: bool,
    /// Where it begins, without a trailing slash.
    path: String,
    login: Option<(String, SecretString)>,
}

impl ManagementAddress {
    /// `None` is all that is said of what cannot be read: it may have a password in it.
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let (is_tls, usual) = match url.scheme() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        if url.query().is_some() || url.fragment().is_some() {
            return None;
        }
        let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((
                decoded(user)?,
                decoded(password.unwrap_or_default())?.into(),
            )),
        };
        let host = url.host_str()?;
        Some(Self {
            // An IPv6 address has brackets in a URL only.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(usual),
            is_tls,
            path: url.path().trim_end_matches('/').to_owned(),
            login,
        })
    }
}

/// A stream of lapin's as hyper takes it.
struct HyperStream<S>(S);

impl<S: AsyncRead + Unpin> Read for HyperStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [0; CHUNK];
        let length = chunk.len().min(into.remaining());
        let stream = Pin::new(&mut self.get_mut().0);
        stream.poll_read(cx, &mut chunk[..length]).map_ok(|count| {
            into.put_slice(&chunk[..count]);
        })
    }
}

impl<S: AsyncWrite + Unpin> Write for HyperStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_management_url_is_read_with_its_login() {
        let address = ManagementAddress::parse("https://u%40x:p%2f@[::1]:15671/rabbit/").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 15671));
        assert_eq!((address.is_tls, address.path.as_str()), (true, "/rabbit"));
        let (user, password) = address.login.unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("u@x", "p/"));
        let plain = ManagementAddress::parse("http://mq:15672").unwrap();
        assert!(plain.login.is_none() && !plain.is_tls && plain.path.is_empty());
    }

    #[test]
    fn what_is_no_management_url_is_not_quoted() {
        for text in [
            "",
            "mq:15672",
            "amqp://u:hush@mq",
            "http://u:hu/sh@mq",
            "http://mq?x=1",
        ] {
            assert!(ManagementAddress::parse(text).is_none(), "{text}");
        }
    }
}
