//! What a person sees when the fleet is ready.

use super::ready::Ready;

/// Addresses, the key, and three commands to try; what is said of the end is
/// that of an ephemeral fleet or of one that is started again.
pub(super) fn text(ephemeral: bool, ready: &Ready) -> String {
    let Ready {
        server,
        server_tls,
        agents,
        api_key,
        wolf,
        wolf_runs,
        wolf_container,
        data,
        ca,
        ..
    } = ready;
    let data = data.display();
    let ca = ca.display();
    // Without a context of its own the command line needs to be told where and who.
    let export = match ephemeral {
        true => format!("  export WOLFPACK_SERVER={server} WOLFPACK_API_KEY={api_key}\n"),
        false => String::new(),
    };
    let end = match (ephemeral, wolf_container.is_some()) {
        (false, _) => {
            "Ctrl-C drains and stops; sandboxes live on and are found again at the next start."
        }
        (true, true) => {
            "Ctrl-C drains, stops, and removes the wolf with its sandboxes: nothing of them comes back.\n\
             The folder of the state stays, for you to remove."
        }
        (true, false) => {
            "Ctrl-C drains and stops. Sandboxes are left running in the engine, and nothing reaches them\n\
             until a start on the same state: delete them first. The folder of the state stays, for you\n\
             to remove."
        }
    };
    let address = server.trim_start_matches("http://");
    format!(
        "
Wolfpack is ready.

  gateway   {server}  (this machine only, no TLS)
            {server_tls}  (TLS by {ca})
  agents    {agents}
  wolf      {wolf}
            {wolf_runs}
  state     {data}
  key       {api_key}

Try, in another terminal:

{export}  wolfpack sandbox create --desktop --name first
  wolfpack sandbox exec -it first -- bash
  grpcurl -plaintext -H 'authorization: Bearer {api_key}' {address} wolfpack.sandbox.v1.SandboxService/ListSandboxes

{end}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ephemeral: bool, container: bool) -> String {
        let ready = Ready {
            server: "http://127.0.0.1:1".into(),
            server_tls: "https://localhost:2".into(),
            agents: "127.0.0.1:3".into(),
            api_key: "wp_dev_x".into(),
            ca: "/data/ca.crt".into(),
            wolf: "wolves/a".into(),
            wolf_runs: "somewhere".into(),
            wolf_container: container.then(|| "c".into()),
            network: "n".into(),
            data: "/data".into(),
        };
        text(ephemeral, &ready)
    }

    #[test]
    fn what_lives_on_is_told_as_it_is() {
        for container in [false, true] {
            let stays = told(false, container);
            assert!(stays.contains("found again at the next start"), "{stays}");
            assert!(!stays.contains("export "), "the context says it: {stays}");
            let passes = told(true, container);
            assert!(!passes.contains("found again"), "{passes}");
            assert!(passes.contains("The folder of the state stays"), "{passes}");
            assert!(passes.contains("export WOLFPACK_SERVER="), "{passes}");
            assert_eq!(passes.contains("removes the wolf with its sandboxes"), container);
            assert_eq!(passes.contains("left running in the engine"), !container);
        }
    }
}
