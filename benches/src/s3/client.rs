//! A client of S3 over one kept connection: the operations that are measured, each answer held to what it has to be.

use std::net::SocketAddr;

use crate::Result;
use crate::load::{Connection, Head};
use crate::s3::body::Bodies;
use crate::s3::sign::{Signer, encode};

/// Bytes made and sent at a time.
const PIECE_LEN: usize = 256 << 10;

/// A connection, and whose requests go over it.
pub(crate) struct Client {
    connection: Connection,
    signer: Signer,
    host: String,
    scratch: Vec<u8>,
    compared: Vec<u8>,
}

/// What a page of a listing had.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    pub(crate) keys: usize,
    pub(crate) prefixes: usize,
    pub(crate) next: Option<String>,
}

/// Where an object's bytes come from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) bodies: &'a Bodies,
    pub(crate) object: u64,
    /// Which of its bytes.
    pub(crate) at: u64,
    pub(crate) len: u64,
}

impl Client {
    pub(crate) fn open(address: SocketAddr, signer: &Signer) -> Result<Self> {
        Ok(Self {
            connection: Connection::open(address)?,
            signer: signer.clone(),
            host: address.to_string(),
            scratch: vec![0; PIECE_LEN],
            compared: Vec::new(),
        })
    }

    pub(crate) fn create_bucket(&mut self, bucket: &str) -> Result<()> {
        self.ask("PUT", &format!("/{bucket}"), "", b"").map(drop)
    }

    /// Returns the ETag.
    pub(crate) fn put(&mut self, bucket: &str, key: &str, source: Source<'_>) -> Result<String> {
        self.upload(&format!("/{bucket}/{key}"), "", source)
    }

    /// Puts what lies in memory.
    pub(crate) fn put_bytes(&mut self, bucket: &str, key: &str, bytes: &[u8]) -> Result<()> {
        self.put_described(bucket, key, &[], bytes)
    }

    /// Puts what lies in memory, with headers as [`Signer::head`] takes them.
    pub(crate) fn put_described(
        &mut self,
        bucket: &str,
        key: &str,
        headers: &[(&str, &str)],
        bytes: &[u8],
    ) -> Result<()> {
        let path = format!("/{bucket}/{key}");
        self.ask_with("PUT", &path, "", headers, bytes).map(drop)
    }

    pub(crate) fn get(&mut self, bucket: &str, key: &str, source: Source<'_>) -> Result<()> {
        let path = format!("/{bucket}/{key}");
        let head = self.signer.head("GET", &self.host, &path, "", &[], 0)?;
        self.connection.send(head.as_bytes())?;
        let head = self.connection.head()?;
        if head.status != 200 || head.len != Some(source.len) {
            return Err(self.refused("GET", &path, &head));
        }
        let (mut at, compared) = (source.at, &mut self.compared);
        self.connection.body(&head, &mut |bytes| {
            source.bodies.check(source.object, at, bytes, compared)?;
            at += bytes.len() as u64;
            Ok(())
        })?;
        Ok(())
    }

    pub(crate) fn get_bytes(&mut self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        self.ask("GET", &format!("/{bucket}/{key}"), "", b"")
    }

    pub(crate) fn head(&mut self, bucket: &str, key: &str, len: u64) -> Result<()> {
        let path = format!("/{bucket}/{key}");
        let head = self.signer.head("HEAD", &self.host, &path, "", &[], 0)?;
        self.connection.send(head.as_bytes())?;
        let head = self.connection.head()?;
        match head.status == 200 && head.len == Some(len) {
            true => Ok(()),
            false => Err(format!("HEAD {path}: {} with {:?} bytes", head.status, head.len).into()),
        }
    }

    pub(crate) fn delete(&mut self, bucket: &str, key: &str) -> Result<()> {
        self.ask("DELETE", &format!("/{bucket}/{key}"), "", b"").map(drop)
    }

    /// A page of at most a thousand entries.
    pub(crate) fn list(&mut self, bucket: &str, prefix: &str, delimiter: &str, next: Option<&str>) -> Result<Listed> {
        let mut query = String::new();
        if let Some(next) = next {
            query += &format!("continuation-token={}&", encode(next));
        }
        query += &format!("delimiter={}&list-type=2&prefix={}", encode(delimiter), encode(prefix));
        let answer = String::from_utf8(self.ask("GET", &format!("/{bucket}"), &query, b"")?)?;
        Ok(Listed {
            keys: answer.matches("<Key>").count(),
            prefixes: answer.matches("<CommonPrefixes>").count(),
            next: element(&answer, "NextContinuationToken"),
        })
    }

    pub(crate) fn begin_upload(&mut self, bucket: &str, key: &str) -> Result<String> {
        let answer = self.ask("POST", &format!("/{bucket}/{key}"), "uploads=", b"")?;
        let id = element(&String::from_utf8(answer)?, "UploadId");
        Ok(id.ok_or("an upload without an id")?)
    }

    /// Returns the ETag.
    pub(crate) fn put_part(
        &mut self,
        bucket: &str,
        key: &str,
        id: &str,
        part: u64,
        source: Source<'_>,
    ) -> Result<String> {
        let query = format!("partNumber={part}&uploadId={}", encode(id));
        self.upload(&format!("/{bucket}/{key}"), &query, source)
    }

    /// - `etags`: those of parts 1 to the last.
    pub(crate) fn complete(&mut self, bucket: &str, key: &str, id: &str, etags: &[String]) -> Result<()> {
        let mut document = "<CompleteMultipartUpload>".to_owned();
        for (at, etag) in etags.iter().enumerate() {
            document += &format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", at + 1);
        }
        document += "</CompleteMultipartUpload>";
        let query = format!("uploadId={}", encode(id));
        let answer = self.ask("POST", &format!("/{bucket}/{key}"), &query, document.as_bytes())?;
        match String::from_utf8_lossy(&answer).contains("<CompleteMultipartUploadResult") {
            true => Ok(()),
            false => Err(format!("completing: {}", String::from_utf8_lossy(&answer)).into()),
        }
    }

    fn upload(&mut self, path: &str, query: &str, source: Source<'_>) -> Result<String> {
        let mut head = self
            .signer
            .head("PUT", &self.host, path, query, &[], source.len)?
            .into_bytes();
        let mut done = 0;
        // What is short goes out together with its head.
        if source.len <= self.scratch.len() as u64 {
            let body = &mut self.scratch[..source.len as usize];
            source.bodies.fill(source.object, source.at, body);
            head.extend_from_slice(body);
            done = source.len;
        }
        self.connection.send(&head)?;
        while done < source.len {
            let len = (source.len - done).min(self.scratch.len() as u64) as usize;
            let piece = &mut self.scratch[..len];
            source.bodies.fill(source.object, source.at + done, piece);
            self.connection.send(piece)?;
            done += len as u64;
        }
        let head = self.connection.head()?;
        if head.status != 200 {
            return Err(self.refused("PUT", path, &head));
        }
        self.connection.body(&head, &mut |_| Ok(()))?;
        Ok(head.etag.ok_or("an answer to a PUT without ETag")?)
    }

    /// A request whose answer is short.
    fn ask(&mut self, method: &str, path: &str, query: &str, body: &[u8]) -> Result<Vec<u8>> {
        self.ask_with(method, path, query, &[], body)
    }

    fn ask_with(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Vec<u8>> {
        let head = self
            .signer
            .head(method, &self.host, path, query, headers, body.len() as u64)?;
        self.connection.send(&[head.as_bytes(), body].concat())?;
        let head = self.connection.head()?;
        if !(200..300).contains(&head.status) {
            return Err(self.refused(method, path, &head));
        }
        let mut answer = Vec::new();
        self.connection.body(&head, &mut |bytes| {
            answer.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(answer)
    }

    fn refused(&mut self, method: &str, path: &str, head: &Head) -> Box<dyn std::error::Error> {
        let mut text = Vec::new();
        // Of an answer that is cut off, what there is.
        let _ = self.connection.body(head, &mut |bytes| {
            text.extend_from_slice(&bytes[..bytes.len().min(500)]);
            Ok(())
        });
        let text = String::from_utf8_lossy(&text);
        format!("{method} {path}: {} {text}", head.status).into()
    }
}

/// The text of an element of a document, if it is there.
fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    Some(
        text.replace("&#34;", "\"")
            .replace("&quot;", "\"")
            .replace("&amp;", "&"),
    )
}
