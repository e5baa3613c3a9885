//! A collector of OpenTelemetry spans: what a fleet under test exports to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// One finished span.
#[derive(Debug, Clone)]
pub struct Span {
    /// The service that made it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its trace, hex.
    pub trace: String,
    /// Its own id, hex.
    pub id: String,
    /// Its parent's id, hex; empty for a root.
    pub parent: String,
}

/// A collector on a loopback port, and on one of the engine's own bridge where
/// containers reach it; dropping it closes both.
#[derive(Debug)]
pub struct SpanCollector {
    address: SocketAddr,
    bridge: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    tasks: Vec<AbortHandle>,
}

impl SpanCollector {
    /// Starts an empty collector.
    ///
    /// # Panics
    /// When no port can be bound, or the engine has no bridge.
    pub async fn start() -> Self {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let mut addresses = Vec::new();
        let mut tasks = Vec::new();
        for ip in [Ipv4Addr::LOCALHOST, bridge_address().await] {
            let listener = tokio::net::TcpListener::bind((ip, 0)).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let service = TraceServiceServer::new(Collector { spans: spans.clone() });
            let task = tokio::spawn(async move {
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
            });
            tasks.push(task.abort_handle());
        }
        Self { address: addresses[0], bridge: addresses[1], spans, tasks }
    }

    /// The endpoint to export to.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoint for what runs in a container.
    #[must_use]
    pub fn endpoint_for_containers(&self) -> String {
        format!("http://{}", self.bridge)
    }

    /// All spans that have come so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }

    /// Spans by trace.
    #[must_use]
    pub fn traces(&self) -> BTreeMap<String, Vec<Span>> {
        let mut traces: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for span in self.spans() {
            traces.entry(span.trace.clone()).or_default().push(span);
        }
        traces
    }

    /// The services that have a span in a trace.
    #[must_use]
    pub fn services_of(&self, trace: &str) -> BTreeSet<String> {
        self.spans()
            .into_iter()
            .filter(|span| span.trace == trace)
            .map(|span| span.service)
            .collect()
    }
}

impl Drop for SpanCollector {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock();
        for resource in request.into_inner().resource_spans {
            let service = resource
                .resource
                .iter()
                .flat_map(|resource| &resource.attributes)
                .find(|attribute| attribute.key == "service.name")
                .and_then(|attribute| attribute.value.as_ref()?.value.as_ref())
                .map_or_else(String::new, |value| match value {
                    Value::StringValue(name) => name.clone(),
                    other => format!("{other:?}"),
                });
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The address that this host has on the engine's default bridge: the gateway,
/// which the engine does not say before it is used, or else the first of its
/// subnet, which it takes.
async fn bridge_address() -> Ipv4Addr {
    let format = "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}";
    let inspect = ["network", "inspect", "bridge", "--format", format];
    let output = tokio::process::Command::new("docker").args(inspect).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let (subnet, gateway) = text.trim().split_once(' ').unwrap_or_else(|| (text.trim(), ""));
    gateway.parse().unwrap_or_else(|_| {
        let base: Ipv4Addr =
            subnet.split('/').next().unwrap().parse().expect("the bridge's subnet");
        Ipv4Addr::from(u32::from(base) + 1)
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
