//! Logins that a directory decides, over TLS and without: a real slapd.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::raw::Raw;
use crate::support::tls::Authority;
use crate::support::{Ends, PASSWORD, Pooler, USER, cluster, eventually, free_port, run, unprivileged};

const SLAPD: &str = "/usr/sbin/slapd";
const SCHEMA: &str = "/etc/ldap/schema/core.schema";

/// A directory with one user, whose name and password are those of all tests.
struct Directory {
    port: u16,
    tls_port: u16,
    process: Child,
}

impl Directory {
    /// `None` if OpenLDAP is not installed. In its folder `dir` then lie `ca.crt` and `wrong.crt`.
    fn start(dir: &Path) -> Option<Self> {
        let has_client = Command::new("ldapadd")
            .arg("-VV")
            .stderr(Stdio::null())
            .spawn()
            .is_ok_and(|mut child| child.ended().code().is_some());
        if !Path::new(SLAPD).exists() || !Path::new(SCHEMA).exists() || !has_client {
            println!("skipped: slapd, its schemas or ldapadd are not installed (Debian: slapd, ldap-utils)");
            return None;
        }
        let authority = Authority::new("Authority of the directory");
        authority.issue("directory", &["localhost"]).write(dir, "slapd");
        std::fs::write(dir.join("ca.crt"), authority.pem()).unwrap();
        std::fs::write(dir.join("wrong.crt"), Authority::new("Authority of the directory").pem()).unwrap();
        assert!(unprivileged("mkdir").arg(dir.join("data")).spawn().unwrap().ended().success());
        let folder = dir.display();
        let conf = format!(
            "include {SCHEMA}\npidfile {folder}/slapd.pid\nTLSCertificateFile {folder}/slapd.crt\n\
             TLSCertificateKeyFile {folder}/slapd.key\naccess to * by anonymous auth by * read\ndatabase ldif\n\
             directory {folder}/data\nsuffix \"dc=example,dc=org\"\nrootdn \"cn=root,dc=example,dc=org\"\nrootpw secret\n"
        );
        std::fs::write(dir.join("slapd.conf"), conf).unwrap();
        let (port, tls_port) = (free_port(), free_port());
        let urls = format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}");
        let process = unprivileged(SLAPD)
            .args(["-d", "0", "-h", &urls, "-f"])
            .arg(dir.join("slapd.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let directory = Self { port, tls_port, process };
        for port in [port, tls_port] {
            eventually("slapd listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        let people = format!(
            "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n\
             dn: cn={USER},dc=example,dc=org\nobjectClass: person\ncn: {USER}\nsn: {USER}\nuserPassword: {PASSWORD}\n"
        );
        std::fs::write(dir.join("people"), people).unwrap();
        let added = Command::new("ldapadd")
            .args([
                "-x",
                "-D",
                "cn=root,dc=example,dc=org",
                "-w",
                "secret",
                "-H",
                &format!("ldap://127.0.0.1:{port}"),
                "-f",
            ])
            .arg(dir.join("people"))
            .ended();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        Some(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A pooler that asks a directory, under libldap's configuration in the environment.
fn pooler(options: &str, environment: &[(&str, &str)]) -> Pooler {
    let (port, dir) = (free_port(), Pooler::new_dir());
    // It gets the user's password from the user alone.
    std::fs::write(dir.join("userlist.txt"), "").unwrap();
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    let settings = format!("auth_type = ldap\nauth_ldap_options = {options}");
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases, &settings)).unwrap();
    Pooler::launch_with(port, dir, environment)
}

/// Who the server says the client is; `None` if it does not come that far.
fn log_in(pooler: &Pooler, password: &str) -> Option<String> {
    run(async {
        let parameters = [("user", USER), ("database", "app")];
        match Raw::log_in_with(pooler.port, 3 << 16, &parameters, password).await {
            Ok(mut raw) => Some(raw.value("SELECT current_user").await),
            Err(error) => {
                assert_eq!(error.field('C'), "28P01", "{error:?}");
                None
            }
        }
    })
}

#[test]
fn a_directory_decides() {
    let dir = Pooler::new_dir();
    let Some(directory) = Directory::start(&dir) else { return };
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, wrong) = (file("ca.crt"), file("wrong.crt"));
    std::fs::write(dir.join("ldap.conf"), format!("# whom to trust\nTLS_CACERT {ca}\n")).unwrap();
    std::fs::create_dir(dir.join("authorities")).unwrap();
    std::fs::write(dir.join("authorities/README"), "nothing to see here").unwrap();
    std::fs::copy(&ca, dir.join("authorities/1.pem")).unwrap();

    let (port, tls_port) = (directory.port, directory.tls_port);
    let direct = "ldapprefix=\"cn=\" ldapsuffix=\",dc=example,dc=org\"";
    let plain = format!("ldapserver=localhost ldapport={port} {direct}");
    let start_tls = format!("{plain} ldaptls=1");
    let ldaps = format!("ldapserver=localhost ldapport={tls_port} ldapscheme=ldaps {direct}");
    let search = "ldapbinddn=\"cn=root,dc=example,dc=org\" ldapbindpasswd=secret";
    let url = format!("ldapurl=\"ldaps://localhost:{tls_port}/dc=example,dc=org?cn?sub\" {search}");
    let by_address = start_tls.replace("localhost", "127.0.0.1");
    let conf = file("ldap.conf");
    let folder = file("authorities");
    for (options, environment) in [
        (&plain, ("LDAPTLS_CACERT", "/nowhere")),
        (&start_tls, ("LDAPTLS_CACERT", &*ca)),
        (&ldaps, ("LDAPTLS_CACERT", &*ca)),
        (&url, ("LDAPCONF", &*conf)),
        (&start_tls, ("LDAPTLS_CACERTDIR", &*folder)),
        (&by_address, ("LDAPTLS_REQCERT", "never")),
    ] {
        let pooler = pooler(options, &[environment]);
        assert_eq!(
            log_in(&pooler, PASSWORD).as_deref(),
            Some(USER),
            "{options} {environment:?}: {}",
            pooler.log()
        );
        assert_eq!(log_in(&pooler, "wrong"), None, "{options}");
        assert!(pooler.log().contains("Invalid credentials (49)"), "{}", pooler.log());
    }

    let unverified = "certificate verify failed";
    for (options, environment, logged) in [
        (&start_tls, ("LDAPTLS_CACERT", &*wrong), unverified),
        (&ldaps, ("LDAPTLS_CACERT", &*wrong), unverified),
        // The system's authorities do not know this one, and its certificate is for another name.
        (&start_tls, ("LDAPTLS_REQCERT", "demand"), "could not start LDAP TLS session"),
        (&by_address, ("LDAPTLS_CACERT", &*ca), unverified),
        (&start_tls, ("LDAPTLS_CACERT", "/nowhere"), "failed to load CA file \"/nowhere\""),
        // TLS where there is none, and the other way round.
        (&ldaps.replace(&tls_port.to_string(), &port.to_string()), ("LDAPTLS_CACERT", &*ca), "LDAP"),
        (
            &start_tls.replace(&port.to_string(), &tls_port.to_string()),
            ("LDAPTLS_CACERT", &*ca),
            "LDAP server broke off",
        ),
    ] {
        let pooler = pooler(options, &[environment]);
        assert_eq!(log_in(&pooler, PASSWORD), None, "{options} {environment:?}");
        assert!(pooler.log().contains(logged), "{options} {environment:?}: {}", pooler.log());
    }

    // What was written meanwhile counts.
    let pooler = pooler(&start_tls, &[("LDAPCONF", &*conf)]);
    assert_eq!(log_in(&pooler, PASSWORD).as_deref(), Some(USER));
    std::fs::write(dir.join("ldap.conf"), format!("TLS_CACERT {wrong}\n")).unwrap();
    assert_eq!(log_in(&pooler, PASSWORD), None);
}
