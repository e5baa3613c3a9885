//! What was measured of a device, and whether to believe it. A reading that is
//! nonsense is no reading: zero memory is a broken driver, not an idle device.

use wolfpack_proto::types::v1::{GpuTelemetry, TelemetryState};

use super::sysfs::Readings;

/// The longest words the registry takes, in bytes.
const WORDS: usize = 250;

/// The telemetry of a device that said this, or failed to.
pub(super) fn judged(id: &str, readings: &Readings, fault: Option<&str>) -> GpuTelemetry {
    if let Some(fault) = fault {
        return failed(id, fault);
    }
    if readings.memory_total == Some(0) {
        return failed(id, "it tells zero bytes of memory, so its driver does not work");
    }
    if let (Some(total), Some(used)) = (readings.memory_total, readings.memory_used)
        && used > total
    {
        return failed(id, "it tells more memory in use than it has");
    }
    let not_zero = |value: Option<u64>| value.filter(|value| *value > 0);
    let memory_used_bytes = not_zero(readings.memory_used);
    let temperature_celsius = readings.temperature.filter(|degrees| *degrees != 0);
    // Zero is idle only of a device that shows life by another value.
    let alive = memory_used_bytes.is_some() || temperature_celsius.is_some();
    let believed = |value: Option<u32>| value.filter(|value| *value > 0 || alive);
    GpuTelemetry {
        id: id.to_owned(),
        state: TelemetryState::Ok.into(),
        message: String::new(),
        utilisation_percent: believed(readings.utilisation).filter(|percent| *percent <= 100),
        memory_used_bytes,
        temperature_celsius,
        encoder_sessions: believed(readings.encoder_sessions),
    }
}

/// A device that gets nothing new.
pub(super) fn failed(id: &str, why: &str) -> GpuTelemetry {
    let mut end = why.len().min(WORDS);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    GpuTelemetry {
        id: id.to_owned(),
        state: TelemetryState::Failed.into(),
        message: why[..end].to_owned(),
        ..GpuTelemetry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(total: u64, used: u64, busy: u32, degrees: i32) -> Readings {
        Readings {
            memory_total: Some(total),
            memory_used: Some(used),
            utilisation: Some(busy),
            temperature: Some(degrees),
            encoder_sessions: Some(busy),
        }
    }

    #[test]
    fn zeros_are_unknown_or_a_failure_and_never_idle() {
        let idle = judged("g", &readings(10, 1, 0, 40), None);
        assert_eq!((idle.state(), idle.utilisation_percent), (TelemetryState::Ok, Some(0)));
        let dead = judged("g", &readings(0, 0, 0, 0), None);
        assert_eq!(dead.state(), TelemetryState::Failed);
        let blind = judged("g", &readings(10, 0, 0, 0), None);
        assert_eq!(blind.state(), TelemetryState::Ok);
        let values = (blind.utilisation_percent, blind.memory_used_bytes, blind.encoder_sessions);
        assert_eq!((values, blind.temperature_celsius), ((None, None, None), None));
        let odd = judged("g", &readings(10, 11, 5, 40), None);
        assert_eq!((odd.state(), odd.memory_used_bytes), (TelemetryState::Failed, None));
        let much = judged("g", &readings(10, 5, 101, 40), None);
        assert_eq!(much.utilisation_percent, None);
        let said = judged("g", &readings(10, 5, 7, 40), Some(&"ü".repeat(400)));
        assert_eq!((said.state(), said.utilisation_percent), (TelemetryState::Failed, None));
        assert!(said.message.len() <= WORDS);
        let nothing = judged("g", &Readings::default(), None);
        assert_eq!((nothing.state(), nothing.utilisation_percent), (TelemetryState::Ok, None));
    }
}
