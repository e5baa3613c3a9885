//! One trace over two services: spans are named by method and hang together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tonic::Request;
use tracing::instrument::WithSubscriber as _;
use wolfpack_proto::registry::v1::WatchWolvesRequest;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_rpc::ListenConfig;
use wolfpack_runtime::{Context, Telemetry, TelemetryConfig};

use crate::world::{ANY, Wolves, World, eventually, get, secret};

/// Keeps spans of several services.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn context(name: &str, kept: &Kept) -> Context {
    let config = TelemetryConfig { filter: "off".into(), ..TelemetryConfig::default() };
    Context::with(Telemetry::with_span_exporter(name, &config, kept.clone()).unwrap())
}

#[tokio::test]
async fn every_hop_is_in_the_callers_trace() {
    let kept = Kept::default();
    let far =
        World::of(context("registry", &kept), &ListenConfig::plain(ANY), |_| {}, Wolves::default())
            .await;
    let wolves = Wolves {
        next: Some(far.channel().with_bearer(secret("wp_developer"))),
        ..Wolves::default()
    };
    let near =
        World::of(context("gateway", &kept), &ListenConfig::plain(ANY), |_| {}, wolves).await;

    let caller = context("cli", &kept);
    let mut request = Request::new(get("wolves/relay"));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let call = async {
        let root = tracing::info_span!("command");
        wolfpack_runtime::trace_context::set_parent(&root, &traceparent);
        let client = near.channel().with_bearer(secret("wp_developer"));
        request.metadata_mut().insert("x-request-id", "traced".parse().unwrap());
        tracing::Instrument::instrument(WolfServiceClient::new(client).get_wolf(request), root)
            .await
    };
    call.with_subscriber(caller.telemetry.dispatch()).await.unwrap();
    // Ours: the command. Then client and server, twice.
    eventually(|| kept.0.lock().unwrap().len(), |count| *count >= 5).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let spans = kept.0.lock().unwrap().clone();
    let described: Vec<_> =
        spans.iter().map(|s| (s.name.to_string(), format!("{:?}", s.span_kind))).collect();
    assert_eq!(spans.len(), 5, "{described:?}");
    assert!(
        spans.iter().all(|span| span.span_context.trace_id().to_string() == trace),
        "{described:?}"
    );
    let method = "wolfpack.registry.v1.WolfService/GetWolf";
    let of =
        |kind: &str| described.iter().filter(|(name, is)| name == method && is == kind).count();
    assert_eq!((of("Client"), of("Server")), (2, 2), "{described:?}");
    // Each server span hangs under the client span that caused it.
    for server in spans.iter().filter(|span| format!("{:?}", span.span_kind) == "Server") {
        let parent = spans.iter().find(|span| span.span_context.span_id() == server.parent_span_id);
        assert_eq!(parent.map(|span| format!("{:?}", span.span_kind)).as_deref(), Some("Client"));
    }
    near.stop().await;
    far.stop().await;
}

/// A connection outlives the first call on it: that call's span must not wait
/// for the connection's end to be told.
#[tokio::test]
async fn a_call_that_lasts_keeps_back_no_span_around_it() {
    let kept = Kept::default();
    let world =
        World::of(context("registry", &kept), &ListenConfig::plain(ANY), |_| {}, Wolves::default())
            .await;
    let caller = context("cli", &kept);
    let channel = world.channel().with_bearer(secret("wp_developer")).without_deadline();
    let opening = async {
        let root = tracing::info_span!("command");
        let mut client = WolfServiceClient::new(channel);
        let watching = client.watch_wolves(WatchWolvesRequest::default());
        tracing::Instrument::instrument(watching, root).await
    };
    let lasts = opening.with_subscriber(caller.telemetry.dispatch()).await.unwrap();
    let find = |is: fn(&SpanData) -> bool| kept.0.lock().unwrap().iter().find(|s| is(s)).cloned();
    let is_command = |span: &SpanData| span.name == "command";
    eventually(|| find(is_command), Option::is_some).await;
    drop(lasts);
    let is_client = |span: &SpanData| format!("{:?}", span.span_kind) == "Client";
    eventually(|| find(is_client), Option::is_some).await;
    let (command, client) = (find(is_command).unwrap(), find(is_client).unwrap());
    assert_eq!(client.parent_span_id, command.span_context.span_id());
    assert_eq!(client.span_context.trace_id(), command.span_context.trace_id());
    world.stop().await;
}
