//! What `--help` and the man page say after the flags. A paragraph is one line, which is wrapped to the
//! width of the terminal.

pub(crate) const AFTER: &str = r#"Examples:
  How large is the cache of a program, and is it whole?
      cachectl --cache-dir /var/cache/shaders stat
      cachectl --cache-dir /var/cache/shaders verify

  Make room while the program runs:
      cachectl --cache-dir /var/cache/shaders trim --max-bytes 10G

  Upload what a server could not take during an outage:
      cachectl --cache-dir /var/cache/shaders push https://cache.example.com/artifacts --token-file token

  Ship a cache as one file:
      cachectl --cache-dir /var/cache/shaders bundle -o shaders.bundle

Settings:
  A flag comes before the environment variable that is named beside it, and the variable before the default. BYTES is a number, with K, M, G or T for powers of 1024.

Files:
  The folder of --cache-dir is that of a disk tier: for a cache_server the folder artifacts in its own. Programs may use it meanwhile.

  The files of --secret-file and --token-file hold a secret or a token and nothing else. A line break at the end is not part of it.

TLS:
  A remote is named by its URL: https:// for one with TLS. Its certificate is checked against the authorities that the system trusts. On Linux the variable SSL_CERT_FILE names a file of other authorities to trust instead.

Signals:
  SIGINT ends the program. It leaves no partial entry. After an interruption of bundle, unbundle or push, the same command goes on.

Exit codes:
  0   All is well.
  1   Something is damaged or missing, or could not be uploaded.
  2   The program could not do what it was asked for: an argument is bad, the folder is not that of a disk tier, or the remote of push cannot be used: it is no cache, or the URL, the token or the certificate is wrong.
  3   Nothing is known to be wrong, and the settings do not allow to judge some entries: see --secret-file and --max-artifact. They may be good entries of others, and stay."#;
