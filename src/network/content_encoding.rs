//! Transformations of a body that nobody asked for.

/// The first transformation that a `Content-Encoding` names; `None` where the body is as it was
/// stored. A name that is not known is not repeated: a server may echo secrets.
pub(crate) fn content_encoding(header: &str) -> Option<&'static str> {
    let names = header
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase());
    names.filter_map(|name| known(&name)).next()
}

fn known(name: &str) -> Option<&'static str> {
    Some(match name {
        // The last is how a body was sent to S3. Some stores keep the name, and not the form.
        "" | "identity" | "aws-chunked" => return None,
        "gzip" | "x-gzip" => "gzip",
        "deflate" => "deflate",
        "br" => "br",
        "zstd" => "zstd",
        "compress" | "x-compress" => "compress",
        _ => "unknown",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_transforms_the_body_is_named() {
        for (header, expected) in [
            ("", None),
            ("identity", None),
            ("aws-chunked", None),
            ("gzip", Some("gzip")),
            ("X-GZIP", Some("gzip")),
            ("identity, br", Some("br")),
            ("aws-chunked,zstd", Some("zstd")),
            ("hunter2", Some("unknown")),
        ] {
            assert_eq!(content_encoding(header), expected, "{header}");
        }
    }
}
