//! What `--help` and the man page say after the flags. A paragraph is one line, which is wrapped to the
//! width of the terminal.

pub(crate) const AFTER: &str = r#"Examples:
  A cache for a team, with one token for the developers' machines and one for the builds:
      echo "read-only  dev $(openssl rand -hex 20)"  > tokens
      echo "read-write ci  $(openssl rand -hex 20)" >> tokens
      cache_server --cache-dir /var/cache/team --tokens tokens \
          --listen 0.0.0.0:8420 --tls-cert cert.pem --tls-key key.pem

  The same from a file, as a service has it:
      cache_server --config /etc/cache_server.toml

Settings:
  Each flag has an environment variable, which is named beside it, and a key in the file of --config. The command line comes before the environment, the environment before the file, and the file before the default.

  Values have the same units everywhere. BYTES is a number, with K, M, G or T for powers of 1024. SECONDS may have a fraction. The variable of a flag that takes no value is true or false.

Files:
  The file of --config is TOML. A key is the name of a flag with _ for -, and an unknown key is an error. A relative path starts at the working directory. Text, and BYTES with a unit, stand in quotes:
      cache_dir = "/var/cache/team"
      listen = "0.0.0.0:8420"
      tokens = "/etc/cache_server/tokens"
      max_bytes = "50G"
      drain = 10.5
      no_access_log = true

  The file of --tokens has one token on a line: a role, a name for the access log and the token itself, which has at least 16 characters. A role is read-only or read-write. Empty lines and lines that start with # are ignored.

  In the folder of --cache-dir the server keeps the folders artifacts, ccache, sccache and uploads, and creates them.

Environment:
  CACHE_SERVER_TOKENS
      Tokens in the form of the file of --tokens. They hold beside those of that file.

  The server warns of a variable that begins with CACHE_SERVER_ and is not one of its own, and ignores it.

TLS:
  With --tls-cert and --tls-key the server speaks https only, with HTTP/1.1 and HTTP/2. It closes a connection that speaks plain HTTP. At the start and at each SIGHUP it warns of a certificate that has expired or is not valid yet. ccache speaks https only with its storage helper. Without one it needs a server without a certificate, or a proxy on its machine.

  Without them it speaks plain HTTP. Put a proxy such as nginx in front of it for https, and let the proxy pass on the Authorization header.

Signals:
  SIGTERM, SIGINT
      The server takes no more connections, finishes the requests under way within --drain, and ends. A second signal ends it at once.

  SIGHUP
      The server reads the files of --tls-cert, --tls-key and --tokens again. If one of them is bad, the old ones stay in use, and a line on the standard error says why. Replace a file by renaming a new one over it: one that is half written may be read. Connections go on. All other settings, and the files of --secret-file, are read only at the start.

Exit codes:
  0   The server was told to stop, and all requests ended.
  1   The server could not use a file, folder or address. A later start may succeed.
  2   The server could not start: a setting or the content of a file is bad.
  3   The server was told to stop, and some requests were cut off."#;
