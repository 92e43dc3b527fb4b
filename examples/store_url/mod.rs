//! What people get wrong in the URL of an object store, in the words of the command line.

use anyhow::{Result, bail, ensure};
use url::Url;

const EXPECTED: &str = "expected s3://BUCKET[/PREFIX], gs://BUCKET[/PREFIX], az://CONTAINER[/PREFIX] or file:///FOLDER";

/// Fails where a URL cannot be that of a store, or holds credentials, which nothing would use. The
/// error repeats nothing of it, since it may hold a secret. Everything else is left to the store.
pub(crate) fn check(text: &str) -> Result<()> {
    ensure!(!text.is_empty(), "the URL is empty: {EXPECTED}");
    let Ok(url) = Url::parse(text) else {
        // A slash in a secret ends the host, and what is before it is no port.
        ensure!(!text.contains('@'), no_credentials());
        bail!("the URL is not valid: {EXPECTED}");
    };
    let names_bucket = matches!(url.scheme(), "s3" | "s3a" | "gs" | "az" | "adl" | "azure");
    // Azure has the container before the @ of the account.
    let may_have_user = matches!(url.scheme(), "abfs" | "abfss");
    let has_user = !url.username().is_empty() && !may_have_user;
    let has_port = names_bucket && url.port().is_some();
    ensure!(
        !has_user && !has_port && url.password().is_none(),
        no_credentials()
    );
    let has_bucket = url.host_str().is_some_and(|host| !host.is_empty());
    ensure!(
        has_bucket || !names_bucket,
        "the URL names no bucket: {EXPECTED}"
    );
    Ok(())
}

fn no_credentials() -> String {
    format!(
        "the URL holds credentials or a port: {EXPECTED}. Credentials and endpoints come from \
         environment variables such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT"
    )
}
