//! From arguments, environment and context file to clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::sandbox::v1::container_service_client::ContainerServiceClient;
use wolfpack_proto::sandbox::v1::desktop_service_client::DesktopServiceClient;
use wolfpack_proto::sandbox::v1::doctor_service_client::DoctorServiceClient;
use wolfpack_proto::sandbox::v1::image_service_client::ImageServiceClient;
use wolfpack_proto::sandbox::v1::port_service_client::PortServiceClient;
use wolfpack_proto::sandbox::v1::sandbox_io_service_client::SandboxIoServiceClient;
use wolfpack_proto::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use wolfpack_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use wolfpack_proto::tunnel::v1::exposure_service_client::ExposureServiceClient;
use wolfpack_proto::tunnel::v1::tunnel_service_client::TunnelServiceClient;
use wolfpack_rpc::{ClientTls, RpcChannel};
use wolfpack_tunnel::Dialer;

use crate::args::ConnectionArgs;
use crate::context::{self, Context};
use crate::failure::Failure;

/// A screenshot of a large display is more than the usual 4 MiB.
const LARGE: usize = 128 << 20;

/// For what is asked of a wolf through its tunnel.
const REACHING: Duration = Duration::from_secs(60);
/// For every check of a wolf.
const CHECKING: Duration = Duration::from_secs(300);

/// Roots of a server with a public certificate, as distributions lay them.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Clients of everything behind the gateway.
#[derive(Clone)]
pub(crate) struct Api {
    channel: RpcChannel,
    server: String,
    tls: Option<ClientTls>,
    api_key: Option<SecretString>,
}

impl Api {
    /// A connection that is made with the first call.
    pub(crate) fn connect(arguments: &ConnectionArgs) -> Result<Self, Failure> {
        let context = match context::path() {
            Some(path) => Context::read(&path)?,
            None => None,
        };
        let place = Place::choose(arguments, context)?;
        let given = arguments.ca.is_some();
        let tls = match place.server.starts_with("https://") {
            true => Some(tls(place.ca.as_deref(), given)?),
            false => None,
        };
        let Place { server, api_key, .. } = place;
        let channel = channel(&server, tls.as_ref(), api_key.as_ref())?;
        Ok(Self { channel, server, tls, api_key })
    }

    /// Where the gateway is.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn sandboxes(&self) -> SandboxServiceClient<RpcChannel> {
        SandboxServiceClient::new(self.channel.clone())
    }

    /// For watches: they last until they are dropped.
    pub(crate) fn sandbox_watches(&self) -> SandboxServiceClient<RpcChannel> {
        SandboxServiceClient::new(self.channel.without_deadline())
    }

    /// For execs and logs: they last as long as the program.
    pub(crate) fn io(&self) -> SandboxIoServiceClient<RpcChannel> {
        SandboxIoServiceClient::new(self.channel.without_deadline())
            .max_decoding_message_size(LARGE)
    }

    pub(crate) fn desktop(&self) -> DesktopServiceClient<RpcChannel> {
        let channel = self.channel.with_deadline(Duration::from_secs(30));
        DesktopServiceClient::new(channel).max_decoding_message_size(LARGE)
    }

    pub(crate) fn wolves(&self) -> WolfServiceClient<RpcChannel> {
        WolfServiceClient::new(self.channel.clone())
    }

    pub(crate) fn identity(&self) -> IdentityServiceClient<RpcChannel> {
        IdentityServiceClient::new(self.channel.clone())
    }

    pub(crate) fn containers(&self) -> ContainerServiceClient<RpcChannel> {
        ContainerServiceClient::new(self.channel.with_deadline(REACHING))
    }

    pub(crate) fn images(&self) -> ImageServiceClient<RpcChannel> {
        ImageServiceClient::new(self.channel.with_deadline(REACHING))
            .max_decoding_message_size(LARGE)
    }

    /// For pushes: they last as long as the image is large.
    pub(crate) fn image_loads(&self) -> ImageServiceClient<RpcChannel> {
        ImageServiceClient::new(self.channel.without_deadline()).max_decoding_message_size(LARGE)
    }

    pub(crate) fn ports(&self) -> PortServiceClient<RpcChannel> {
        PortServiceClient::new(self.channel.clone())
    }

    pub(crate) fn doctor(&self) -> DoctorServiceClient<RpcChannel> {
        DoctorServiceClient::new(self.channel.with_deadline(CHECKING))
    }

    pub(crate) fn tunnels(&self) -> TunnelServiceClient<RpcChannel> {
        TunnelServiceClient::new(self.channel.clone())
    }

    /// For watches: they last until they are dropped.
    pub(crate) fn tunnel_watches(&self) -> TunnelServiceClient<RpcChannel> {
        TunnelServiceClient::new(self.channel.without_deadline())
    }

    pub(crate) fn exposures(&self) -> ExposureServiceClient<RpcChannel> {
        ExposureServiceClient::new(self.channel.clone())
    }

    /// Connections through tunnels.
    pub(crate) fn dialer(&self) -> Dialer {
        Dialer::new(self.channel.clone())
    }

    /// As [`Api::dialer`], by a connection to the gateway that no other call is
    /// on: the gateway takes 256 on each.
    pub(crate) fn dialer_apart(&self) -> Result<Dialer, Failure> {
        let channel = channel(&self.server, self.tls.as_ref(), self.api_key.as_ref())?;
        Ok(Dialer::new(channel))
    }

    pub(crate) fn scheduler(&self) -> SchedulerServiceClient<RpcChannel> {
        SchedulerServiceClient::new(self.channel.clone())
    }
}

fn channel(
    server: &str,
    tls: Option<&ClientTls>,
    api_key: Option<&SecretString>,
) -> Result<RpcChannel, Failure> {
    RpcChannel::to_gateway(server, tls, api_key.cloned())
        .map_err(|error| Failure::usage(error.to_string()))
}

/// `given` says that the user named the file, and not the context.
fn tls(ca: Option<&Path>, given: bool) -> Result<ClientTls, Failure> {
    let path = match ca {
        Some(path) => path,
        None => SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
            Failure::usage(
                "there are no CA certificates to check the server against; give --ca FILE",
            )
        })?,
    };
    let by = if given { "--ca (or WOLFPACK_CA) " } else { "" };
    let broken = |error: String| Failure::Local(format!("{by}{}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
    ClientTls::roots_only(&pem).map_err(|error| broken(error.to_string()))
}

/// Where to go and as whom.
struct Place {
    server: String,
    api_key: Option<SecretString>,
    ca: Option<PathBuf>,
}

impl Place {
    /// What is given wins over the context. The context's key and CA belong to
    /// its server: another server never gets to see that key.
    fn choose(arguments: &ConnectionArgs, context: Option<Context>) -> Result<Self, Failure> {
        let given = arguments.server.clone().filter(|server| !server.is_empty());
        let context =
            context.filter(|context| given.as_ref().is_none_or(|given| *given == context.server));
        let Some(server) = given.or_else(|| context.as_ref().map(|context| context.server.clone()))
        else {
            return Err(Failure::usage(
                "no server is known; run `wolfpack dev` on this machine, or give --server or WOLFPACK_SERVER",
            ));
        };
        let (key, ca) = context.map(|context| (context.api_key, context.ca)).unzip();
        Ok(Self {
            server,
            api_key: arguments.api_key.clone().or_else(|| key.flatten()),
            ca: arguments.ca.clone().or_else(|| ca.flatten()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn context() -> Context {
        Context {
            server: "https://localhost:8443".into(),
            api_key: Some("wp_context".into()),
            ca: Some("/ca.pem".into()),
        }
    }

    fn key(place: &Place) -> Option<&str> {
        place.api_key.as_ref().map(ExposeSecret::expose_secret)
    }

    #[test]
    fn the_context_serves_its_own_server_only() {
        let place = Place::choose(&ConnectionArgs::default(), Some(context())).ok().unwrap();
        assert_eq!(
            (place.server.as_str(), key(&place)),
            ("https://localhost:8443", Some("wp_context"))
        );
        assert_eq!(place.ca, Some("/ca.pem".into()));

        let elsewhere =
            ConnectionArgs { server: Some("https://other".into()), ..ConnectionArgs::default() };
        let place = Place::choose(&elsewhere, Some(context())).ok().unwrap();
        assert_eq!(
            (place.server.as_str(), key(&place), place.ca.clone()),
            ("https://other", None, None)
        );

        let given = ConnectionArgs {
            api_key: Some("wp_given".to_owned().into()),
            ..ConnectionArgs::default()
        };
        assert_eq!(key(&Place::choose(&given, Some(context())).ok().unwrap()), Some("wp_given"));
        assert!(Place::choose(&ConnectionArgs::default(), None).is_err());
    }
}
