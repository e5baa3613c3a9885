//! A server outside of the wolf, on this machine's address in the wolf's
//! network: HTTPS with a git repository, something large to fetch, and
//! somewhere to send to.

use std::path::Path;

use tokio::process::Command;
use wolfpack_testkit::process::{Process, eventually};

use super::{succeeded, within};

/// Bytes of `/big`, and of what the tests send.
pub(super) const BIG: usize = 10 * 1024 * 1024;

const SERVER: &str = r#"
import hashlib, http.server, os, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        left, digest = int(self.headers["content-length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 65536))
            if not piece: return
            left -= len(piece); digest.update(piece)
        body = digest.hexdigest().encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
address, folder = sys.argv[1], sys.argv[2]
os.chdir(folder + "/www")
server = http.server.ThreadingHTTPServer((address, 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
open(folder + "/port.new", "w").write(str(server.server_address[1]))
os.rename(folder + "/port.new", folder + "/port")
server.serve_forever()
"#;

/// The server; it ends with the test.
pub(super) struct Outside {
    /// `https://address:port`.
    pub(super) url: String,
    /// Its certificate, PEM.
    pub(super) certificate: String,
    _process: Process,
}

impl Outside {
    pub(super) async fn start(folder: &Path, address: &str) -> Self {
        std::fs::create_dir_all(folder.join("www")).unwrap();
        let made = rcgen::generate_simple_self_signed(vec![address.to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.join("www/big"), vec![b'w'; BIG]).unwrap();
        repository(&folder.join("www")).await;
        let mut command = Command::new("python3");
        command.args(["-c", SERVER, address]).arg(folder);
        let process = Process::start("outside", folder, &mut command);
        let port = eventually(
            "the outside server listens",
            std::time::Duration::from_secs(20),
            async || Ok(std::fs::read_to_string(folder.join("port"))?),
        )
        .await;
        Self {
            url: format!("https://{address}:{port}"),
            certificate: made.cert.pem(),
            _process: process,
        }
    }
}

/// A repository that plain HTTP can serve.
async fn repository(folder: &Path) {
    let line = "git init -q work && cd work && git config user.email t@example.org \
                && git config user.name t && echo hello > greeting && git add greeting \
                && git commit -qm first && cd .. && git clone -q --bare work repo.git \
                && git -C repo.git update-server-info && rm -rf work";
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder);
    succeeded(line, &within(30, &mut command).await);
}
