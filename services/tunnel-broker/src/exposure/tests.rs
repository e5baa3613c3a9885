use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::Telemetry;
use wolfpack_tunnel::splice::LinkEnd;
use wolfpack_types::{Endpoint, ExposureId, Fault, Reason, Target, WolfId};

use super::audit::Visitor;
use super::{Exposure, Exposures};
use crate::audit_lines::{self, Lines};
use crate::domain::exposure::{ExposureLimits, ExposureSpec};
use crate::metrics::Metrics;
use crate::state::{Broker, Limits};

/// An exposure of a wolf that is not there, whose lines go to `lines`.
fn exposed(lines: &Lines) -> (Arc<Exposures>, Arc<Exposure>) {
    let limits = Limits { dial_timeout: Duration::from_millis(20), ..Limits::default() };
    let broker = Arc::new(Broker::new(limits));
    let metrics = Arc::new(Metrics::new(&Telemetry::disabled("tunnel-broker"), &broker));
    let stop = CancellationToken::new();
    let exposures = Arc::new(Exposures::new(None, broker, metrics, lines.dispatch(), &stop));
    exposures.set_plane(vec![Handle::current()]);
    let spec = ExposureSpec {
        id: ExposureId::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        endpoint: Endpoint::Wolf(WolfId::new()),
        target: Target::parse("tcp:80").unwrap(),
        limits: ExposureLimits::default(),
        origin: None,
    };
    let exposure = exposures.open(spec).unwrap();
    (exposures, exposure)
}

/// As without threads of the data plane's own.
#[tokio::test]
async fn what_its_tasks_say_is_in_the_log_of_the_service() {
    let (own, others) = (Lines::default(), Lines::default());
    let _default = tracing::dispatcher::set_default(&others.dispatch());
    let (_exposures, exposure) = exposed(&own);
    let mut socket = TcpStream::connect(exposure.address).await.unwrap();
    let client = socket.local_addr().unwrap();
    let end = socket.read(&mut [0; 1]).await;
    assert!(end.is_err(), "nobody was reached: {end:?}");
    let spec = &exposure.spec;
    let line = format!(
        "tunnel.exposure_refused exposure={} client={client} endpoint={} dialed=tcp:80 \
         reason=DIAL_TIMEOUT",
        spec.id, spec.endpoint
    );
    assert_eq!(own.take(), [line]);
    assert_eq!(others.take(), [""; 0], "whoever else is in the process");
}

#[tokio::test]
async fn a_connection_has_a_line_and_its_end_says_how_much_passed_and_why() {
    let (_exposures, exposure) = exposed(&Lines::default());
    let client = "10.0.0.7:1234".parse().unwrap();
    let visit = |fault: Option<Fault>| {
        audit_lines::of(|| {
            let visit = Visitor::new(exposure.clone(), client).opened("c1".to_owned());
            visit.ended(&LinkEnd { up: 7, down: 9000, fault });
        })
    };
    let spec = &exposure.spec;
    let who = format!(
        "exposure={} client=10.0.0.7:1234 endpoint={} dialed=tcp:80 connection=\"c1\"",
        spec.id, spec.endpoint
    );
    for (fault, reason) in
        [(None, "OK"), (Some(Fault::new(Reason::TunnelLost, "gone")), "TUNNEL_LOST")]
    {
        let lines = visit(fault);
        assert_eq!(lines[0], format!("tunnel.exposure_dialed {who}"));
        let end = format!("up=7 down=9000 seconds=0 reason=\"{reason}\"");
        assert_eq!(lines[1], format!("tunnel.exposure_ended {who} {end}"));
        assert_eq!(lines.len(), 2);
    }
}
