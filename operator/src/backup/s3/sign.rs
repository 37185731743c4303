//! Signatures of S3's requests:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use std::fmt::Write as _;

use jiff::Timestamp;
use ring::hmac;

use crate::resources::{hash, hex};

/// Who signs.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) region: String,
}

/// What is signed: path and query as they are sent.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) content: &'a [u8],
}

/// The headers to send: these (by lower-case name), the content's hash, the time, and the signature of it all.
pub(super) fn signed(
    key: &Key,
    request: &Request<'_>,
    headers: &[(&'static str, String)],
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let Request { method, path, query, content } = request;
    let (day, time) = (now.strftime("%Y%m%d").to_string(), now.strftime("%Y%m%dT%H%M%SZ").to_string());
    let content = hash(&[content]);
    let mut headers = headers.to_vec();
    headers.extend([("x-amz-content-sha256", content.clone()), ("x-amz-date", time.clone())]);
    headers.sort();
    let lines = headers.iter().fold(String::new(), |mut lines, (name, value)| {
        let _ = writeln!(lines, "{name}:{}", value.trim());
        lines
    });
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{content}");
    let scope = format!("{day}/{}/s3/aws4_request", key.region);
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(&[canonical.as_bytes()]));
    let signing = [day.as_str(), &key.region, "s3", "aws4_request"]
        .iter()
        .fold(format!("AWS4{}", key.secret).into_bytes(), |key, part| hmac_of(&key, part.as_bytes()));
    let signature = hex(&hmac_of(&signing, text.as_bytes()));
    let id = &key.id;
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope},SignedHeaders={names},Signature={signature}");
    headers.push(("authorization", authorization));
    headers
}

fn hmac_of(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// Percent-encoded, as it is signed, but for these characters.
pub(super) fn encoded(text: &str, but: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || but.contains(c) {
            encoded.push(c);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the key, the time and the bucket of S3's documentation.
    fn signature(
        method: &str,
        path: &str,
        query: &str,
        content: &[u8],
        more: &[(&'static str, &str)],
    ) -> String {
        let key = Key {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: "us-east-1".into(),
        };
        let mut headers = vec![("host", "examplebucket.s3.amazonaws.com".to_owned())];
        headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let now = "2013-05-24T00:00:00Z".parse().expect("a time");
        let request = Request { method, path, query, content };
        let headers = signed(&key, &request, &headers, now);
        let (_, authorization) = headers.last().expect("there are headers");
        authorization.rsplit_once("Signature=").expect("it is signed").1.to_owned()
    }

    #[test]
    fn the_examples_of_s3_s_documentation_have_their_signatures() {
        assert_eq!(
            signature("GET", "/test.txt", "", b"", &[("range", "bytes=0-9")]),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let headers =
            [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        assert_eq!(
            signature("PUT", &encoded("/test$file.text", "/"), "", b"Welcome to Amazon S3.", &headers),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature("GET", "/", "lifecycle=", b"", &[]),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature("GET", "/", "max-keys=2&prefix=J", b"", &[]),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }
}
