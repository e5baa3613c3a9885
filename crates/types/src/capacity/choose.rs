//! Which devices and which encoder a demand is given.

use super::ledger::{Grant, Ledger};
use super::{Demand, Device, EncoderDemand, EncoderGrant, Good, GpuDemand, Shortage, WHOLE_MILLI};

impl<K: Ord + Clone> Ledger<K> {
    /// Devices and encoder for a demand. Of devices that qualify the fullest
    /// that still has room comes first, then the one with least memory, then by
    /// id, so that large devices and whole devices stay free.
    pub(super) fn choose(&self, demand: &Demand) -> Result<Grant, Shortage> {
        let own = demand.gpu.is_some();
        let (qualified, free, count) = match &demand.gpu {
            Some(gpu) => {
                let qualified = self.qualified(gpu)?;
                let free = self.free_for(gpu, &qualified)?;
                (qualified, free, gpu.count as usize)
            }
            // Borrowed for encoding: not from one who holds it wholly.
            None => {
                let all: Vec<&Device> = self.capacity().devices.iter().collect();
                let mut free: Vec<&Device> =
                    self.healthy().filter(|device| self.device_free(device) > 0).collect();
                free.sort_by_key(|device| (self.encoder_free(device), device.id.as_str()));
                (all, free, 0)
            }
        };
        let share_milli = demand.gpu.as_ref().map_or(0, |gpu| gpu.share_milli);
        let encoder = match &demand.encoder {
            None => None,
            Some(wanted) => match self.encoder_among(&free, wanted) {
                Some(device) => Some(device),
                None if wanted.required => {
                    return Err(self.encoder_short(&qualified, &free, wanted));
                }
                None => None,
            },
        };
        // The device that encodes is one of the sandbox's own.
        let first = encoder.filter(|_| own);
        let others = free.iter().filter(|device| first.is_none_or(|first| first.id != device.id));
        let devices = first.iter().chain(others).take(count);
        Ok(Grant {
            devices: devices.map(|device| device.id.clone()).collect(),
            share_milli,
            encoder: encoder.zip(demand.encoder).map(|(device, wanted)| EncoderGrant {
                device: device.id.clone(),
                sessions: wanted.sessions,
            }),
        })
    }

    /// The devices that would do if they were free, broken ones too.
    fn qualified(&self, demand: &GpuDemand) -> Result<Vec<&Device>, Shortage> {
        let mut devices: Vec<&Device> = self
            .capacity()
            .devices
            .iter()
            .filter(|device| demand.vendor.is_none() || device.vendor == demand.vendor)
            .collect();
        enough(Good::GpuAbsent, demand, &devices)?;
        devices.retain(|device| {
            demand.models.is_empty()
                || demand.models.iter().any(|model| model.eq_ignore_ascii_case(&device.model))
        });
        enough(Good::GpuModel, demand, &devices)?;
        devices.retain(|device| {
            demand.min_memory_bytes == 0
                || device.memory_bytes.is_some_and(|memory| memory >= demand.min_memory_bytes)
        });
        enough(Good::GpuMemory, demand, &devices)?;
        Ok(devices)
    }

    fn free_for<'a>(
        &self,
        demand: &GpuDemand,
        qualified: &[&'a Device],
    ) -> Result<Vec<&'a Device>, Shortage> {
        let mut devices = qualified.to_vec();
        devices.retain(|device| !device.unhealthy);
        enough(Good::GpuUnhealthy, demand, &devices)?;
        let share = u64::from(demand.share_milli);
        let largest = devices.iter().map(|device| self.device_free(device)).max().unwrap_or(0);
        devices.retain(|device| self.device_free(device) >= share);
        if demand.share_milli < WHOLE_MILLI && devices.is_empty() {
            return Err(Shortage { good: Good::GpuBusy, needed: share, free: Some(largest) });
        }
        enough(Good::GpuBusy, demand, &devices)?;
        devices.sort_by_key(|device| {
            (self.device_free(device), device.memory_bytes.unwrap_or(u64::MAX), device.id.as_str())
        });
        Ok(devices)
    }

    fn encoder_among<'a>(
        &self,
        devices: &[&'a Device],
        wanted: &EncoderDemand,
    ) -> Option<&'a Device> {
        let needed = u64::from(wanted.sessions);
        devices
            .iter()
            .copied()
            .find(|device| writes(device, wanted) && self.encoder_free(device) >= needed)
    }

    /// Why no device gives the sessions: none has so many, those that have are
    /// broken, or others hold them.
    fn encoder_short(
        &self,
        qualified: &[&Device],
        free: &[&Device],
        wanted: &EncoderDemand,
    ) -> Shortage {
        let needed = u64::from(wanted.sessions);
        let most = |healthy_only: bool| {
            qualified
                .iter()
                .filter(|device| writes(device, wanted) && !(healthy_only && device.unhealthy))
                .map(|device| self.encoder_all(device))
                .max()
                .unwrap_or(0)
        };
        if most(false) < needed {
            return Shortage { good: Good::EncoderAbsent, needed, free: Some(most(false)) };
        }
        if most(true) < needed {
            return Shortage { good: Good::GpuUnhealthy, needed: 1, free: Some(0) };
        }
        let left = free
            .iter()
            .filter(|device| writes(device, wanted))
            .map(|device| self.encoder_free(device))
            .max();
        Shortage { good: Good::EncodersBusy, needed, free: Some(left.unwrap_or(0)) }
    }

    /// Checks sessions that another ledger chose.
    pub(super) fn check_encoder(&self, grant: &Grant) -> Result<(), Shortage> {
        let Some(encoder) = &grant.encoder else { return Ok(()) };
        let needed = u64::from(encoder.sessions);
        let found = self.capacity().devices.iter().find(|device| device.id == encoder.device);
        let Some(device) = found else {
            return Err(Shortage { good: Good::GpuAbsent, needed: 1, free: Some(0) });
        };
        let all = self.encoder_all(device);
        let lent_of_another = grant.borrows().is_some() && !grant.devices.is_empty();
        if all < needed || lent_of_another {
            let free = if lent_of_another { 0 } else { all };
            return Err(Shortage { good: Good::EncoderAbsent, needed, free: Some(free) });
        }
        if device.unhealthy {
            return Err(Shortage { good: Good::GpuUnhealthy, needed: 1, free: Some(0) });
        }
        let lendable = grant.borrows().is_none() || self.device_free(device) > 0;
        let free = if lendable { self.encoder_free(device) } else { 0 };
        if free < needed {
            return Err(Shortage { good: Good::EncodersBusy, needed, free: Some(free) });
        }
        Ok(())
    }

    /// Sessions that are free on a device, in its own pool and the host's.
    fn encoder_free(&self, device: &Device) -> u64 {
        let own = u64::from(device.encoder_sessions.unwrap_or(0))
            .saturating_sub(self.encoders_used(&device.id));
        if device.encoder_pooled { own.min(self.pool_free()) } else { own }
    }

    /// Sessions a device has when nobody holds any.
    fn encoder_all(&self, device: &Device) -> u64 {
        let own = u64::from(device.encoder_sessions.unwrap_or(0));
        let pool = self.capacity().encoder_sessions.filter(|_| device.encoder_pooled);
        pool.map_or(own, |pool| own.min(u64::from(pool)))
    }

    fn pool_free(&self) -> u64 {
        let Some(pool) = self.capacity().encoder_sessions else { return u64::MAX };
        let used: u64 = self
            .capacity()
            .devices
            .iter()
            .filter(|device| device.encoder_pooled)
            .map(|device| self.encoders_used(&device.id))
            .sum();
        u64::from(pool).saturating_sub(used)
    }

    /// Sessions that are free on all healthy devices together.
    pub(super) fn encoder_free_in_all(&self) -> u64 {
        let sum = |pooled: bool| -> u64 {
            self.healthy()
                .filter(|device| device.encoder_pooled == pooled)
                .map(|device| self.encoder_free(device))
                .sum()
        };
        sum(false).saturating_add(sum(true).min(self.pool_free()))
    }
}

fn enough(good: Good, demand: &GpuDemand, devices: &[&Device]) -> Result<(), Shortage> {
    let (needed, have) = (u64::from(demand.count), devices.len() as u64);
    if have < needed { Err(Shortage { good, needed, free: Some(have) }) } else { Ok(()) }
}

fn writes(device: &Device, wanted: &EncoderDemand) -> bool {
    wanted.codec.is_none_or(|codec| device.encoder_codecs.contains(&codec))
}
