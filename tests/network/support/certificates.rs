//! Certificates of an authority that nobody else knows, made by openssl.

use std::path::Path;
use std::process::Command;

use crate::support::real_server::installed;

/// An authority, and a certificate each for a server and a client. `None` where there is no
/// openssl.
pub(crate) fn certificates(folder: &Path) -> Option<()> {
    let openssl = installed("openssl")?;
    let run = |arguments: &str| {
        let output = Command::new(&openssl)
            .args(arguments.split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {text}");
    };
    const KEYS: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&format!(
        "req -x509 {KEYS} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"
    ));
    for (name, extension) in [
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("client", "extendedKeyUsage=clientAuth"),
    ] {
        std::fs::write(folder.join("extensions"), extension).unwrap();
        run(&format!(
            "req {KEYS} -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile extensions -out {name}.pem"
        ));
    }
    Some(())
}
