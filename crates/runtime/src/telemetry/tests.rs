use std::sync::Mutex;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Export};
use tracing::instrument::WithSubscriber as _;

use super::*;

/// Keeps spans and the name of the service that exported them.
#[derive(Debug, Clone, Default)]
struct Kept {
    service: String,
    spans: Arc<Mutex<Vec<(String, String)>>>,
}

impl Export for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.into_iter().map(|span| (self.service.clone(), span.name.into_owned()));
        self.spans.lock().unwrap().extend(spans);
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        let key = opentelemetry::Key::from_static_str("service.name");
        self.service = resource.get(&key).map(|name| name.to_string()).unwrap_or_default();
    }
}

async fn work(name: &'static str) {
    let span = tracing::info_span!("work", name);
    let _entered = span.enter();
}

#[tokio::test]
async fn two_services_of_one_process_keep_their_names() {
    let kept = Kept::default();
    let config = TelemetryConfig::default();
    let one = Telemetry::with_span_exporter("one", &config, kept.clone()).unwrap();
    let two = Telemetry::with_span_exporter("two", &config, kept.clone()).unwrap();
    let (dispatch_one, dispatch_two) = (one.dispatch(), two.dispatch());
    let first = tokio::spawn(work("a").with_subscriber(dispatch_one));
    let second = tokio::spawn(work("b").with_subscriber(dispatch_two));
    first.await.unwrap();
    second.await.unwrap();
    let mut spans = kept.spans.lock().unwrap().clone();
    spans.sort();
    assert_eq!(spans, [("one".into(), "work".into()), ("two".into(), "work".into())]);

    one.meter().u64_counter("calls").build().add(3, &[]);
    two.meter().u64_counter("calls").build().add(5, &[]);
    assert!(one.prometheus().contains("calls_total 3"), "{}", one.prometheus());
    assert!(one.prometheus().contains("service_name=\"one\""), "{}", one.prometheus());
    assert!(two.prometheus().contains("calls_total 5"), "{}", two.prometheus());
}

#[tokio::test]
async fn nothing_is_sampled_at_ratio_zero_but_a_sampled_parent_goes_on() {
    let kept = Kept::default();
    let config = TelemetryConfig { trace_sample_ratio: 0.0, ..TelemetryConfig::default() };
    let telemetry = Telemetry::with_span_exporter("svc", &config, kept.clone()).unwrap();
    tracing::dispatcher::with_default(&telemetry.dispatch(), || {
        drop(tracing::info_span!("root"));
        let span = tracing::info_span!("child");
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        crate::trace_context::set_parent(&span, parent);
    });
    assert_eq!(kept.spans.lock().unwrap().clone(), [("svc".to_owned(), "child".to_owned())]);
}

#[test]
fn an_endpoint_outside_the_runtime_is_an_error_not_a_panic() {
    let config = TelemetryConfig {
        otlp_endpoint: Some("http://127.0.0.1:1".into()),
        ..TelemetryConfig::default()
    };
    assert!(matches!(Telemetry::new("svc", &config), Err(TelemetryError::NoRuntime)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_does_not_hold_the_exit() {
    let config = TelemetryConfig {
        otlp_endpoint: Some("http://127.0.0.1:1".into()),
        ..TelemetryConfig::default()
    };
    let telemetry = Telemetry::new("svc", &config).unwrap();
    work("lost").with_subscriber(telemetry.dispatch()).await;
    let begin = std::time::Instant::now();
    telemetry.flush(Duration::from_millis(300)).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn disabled_telemetry_still_counts() {
    let telemetry = Telemetry::disabled("svc");
    telemetry.meter().u64_counter("calls").build().add(1, &[]);
    assert!(telemetry.prometheus().contains("calls_total 1"));
    tracing::dispatcher::with_default(&telemetry.dispatch(), || {
        assert_eq!(crate::trace_context::current_traceparent(), None);
    });
}

#[test]
fn faults_name_every_key() {
    use crate::config::Validate as _;
    let config = TelemetryConfig {
        filter: "info,=".into(),
        otlp_endpoint: Some("https://collector".into()),
        trace_sample_ratio: 2.0,
        ..TelemetryConfig::default()
    };
    assert_eq!(config.faults().len(), 3, "{:?}", config.faults());
}
