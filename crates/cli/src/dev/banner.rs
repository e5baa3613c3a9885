//! What a person sees when the fleet is ready.

use super::config::DevConfig;
use super::ready::Ready;

/// Addresses, the key, and three commands to try.
pub(super) fn text(config: &DevConfig, ready: &Ready) -> String {
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
    let export = if config.arguments.ephemeral {
        format!("  export WOLFPACK_SERVER={server} WOLFPACK_API_KEY={api_key}\n")
    } else {
        String::new()
    };
    let end = if config.arguments.ephemeral && wolf_container.is_some() {
        "Ctrl-C drains, stops, and removes the wolf with its sandboxes."
    } else {
        "Ctrl-C drains and stops; sandboxes live on and are found again at the next start."
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
