//! Certificates for `127.0.0.1`, made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

use super::real_server::installed;

/// What `openssl ca` needs. It is the only command that sets both ends of the validity.
const CONFIGURATION: &str = "[ca]
default_ca = here
[here]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[server]
basicConstraints = CA:FALSE
";

/// A certificate, its key, and the authority that nobody else knows.
pub(crate) struct Certificate {
    pub(crate) authority: Vec<u8>,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    folder: TempDir,
}

impl Certificate {
    /// `None` where there is no openssl.
    pub(crate) fn new() -> Option<Self> {
        let program = installed("openssl")?;
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| openssl(&program, folder.path(), arguments);
        const KEYS: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        openssl(&format!(
            "req -x509 {KEYS} -keyout ca.key -out ca.pem -subj /CN=authority"
        ));
        openssl(&format!(
            "req -x509 {KEYS} -keyout key.pem -out cert.pem -subj /CN=server -CA ca.pem \
             -CAkey ca.key -addext subjectAltName=IP:127.0.0.1 \
             -addext basicConstraints=critical,CA:FALSE"
        ));
        Some(Self {
            authority: std::fs::read(folder.path().join("ca.pem")).unwrap(),
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            folder,
        })
    }

    /// Makes another one for the key, that holds from one time to the other, as in 200131235959Z. It
    /// is signed by its own key.
    pub(crate) fn valid(&self, from: &str, until: &str) {
        let folder = self.folder.path();
        std::fs::write(folder.join("ca.cnf"), CONFIGURATION).unwrap();
        std::fs::write(folder.join("index.txt"), "").unwrap();
        let program = installed("openssl").unwrap();
        let openssl = |arguments: &str| openssl(&program, folder, arguments);
        openssl("req -new -key key.pem -out request.pem -subj /CN=server");
        openssl(&format!(
            "ca -batch -selfsign -notext -config ca.cnf -keyfile key.pem -in request.pem -out cert.pem \
             -startdate {from} -enddate {until}"
        ));
    }

    /// The arguments that make a server use it.
    pub(crate) fn arguments(&self) -> [&str; 4] {
        let [certificate, key] = [&self.certificate, &self.key].map(|path| path.to_str().unwrap());
        ["--tls-cert", certificate, "--tls-key", key]
    }

    /// Its key, which takes a password to read.
    pub(crate) fn key_with_password(&self) -> PathBuf {
        let program = installed("openssl").unwrap();
        let arguments = "pkcs8 -topk8 -in key.pem -out locked.pem -passout pass:hunter2";
        openssl(&program, self.folder.path(), arguments);
        self.folder.path().join("locked.pem")
    }

    /// Puts this certificate where a server has another one.
    pub(crate) fn replace(&self, other: &Self) {
        std::fs::copy(&self.certificate, &other.certificate).unwrap();
        std::fs::copy(&self.key, &other.key).unwrap();
    }
}

fn openssl(program: &Path, folder: &Path, arguments: &str) {
    let mut command = Command::new(program);
    let arguments = arguments.split_whitespace();
    let output = command.args(arguments).current_dir(folder).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
