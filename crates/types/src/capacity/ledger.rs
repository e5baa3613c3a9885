//! Who holds what of one host.

use std::collections::BTreeMap;

use super::{Capacity, Demand, Device, EncoderGrant, Good, Shortage, WHOLE_MILLI};
use crate::id::ReservationId;

/// The devices a demand was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Ids of the devices; empty without a GPU demand.
    pub devices: Vec<String>,
    /// The part of each in thousandths; zero without devices.
    pub share_milli: u32,
    /// Hardware encoder sessions; `None` for none. Their device is one of
    /// `devices` when there are any; otherwise it is lent for encoding alone.
    pub encoder: Option<EncoderGrant>,
}

impl Grant {
    /// Whether the encoder's device is none of its own, but lent.
    #[must_use]
    pub fn borrows(&self) -> Option<&EncoderGrant> {
        self.encoder.as_ref().filter(|encoder| !self.devices.contains(&encoder.device))
    }
}

/// Exact amounts that one key holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// CPU time in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes; zero is not counted.
    pub disk_bytes: u64,
    /// Whether a desktop slot is held.
    pub desktop: bool,
    /// The devices.
    pub grant: Grant,
}

impl Holding {
    /// What a demand holds once it was granted these devices.
    #[must_use]
    pub fn of(demand: &Demand, grant: Grant) -> Self {
        Self {
            cpu_milli: demand.cpu_milli,
            memory_bytes: demand.memory_bytes,
            disk_bytes: demand.disk_bytes,
            desktop: demand.desktop,
            grant,
        }
    }
}

/// What is free on a host. `None` means not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Free {
    /// CPU time in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk in bytes.
    pub disk_bytes: Option<u64>,
    /// Desktop slots.
    pub desktop_slots: u64,
    /// Thousandths of devices, summed; good for a score, never for a decision.
    pub gpu_milli: u64,
    /// Encoder sessions, summed; good for a score, never for a decision.
    pub encoder_sessions: u64,
}

/// Who holds what of one host. Pure bookkeeping: the same calls in the same
/// order give the same answers everywhere.
#[derive(Debug, Clone)]
pub struct Ledger<K: Ord = ReservationId> {
    capacity: Capacity,
    holdings: BTreeMap<K, Holding>,
    cpu_milli: u64,
    memory_bytes: u64,
    disk_bytes: u64,
    desktops: u64,
    /// By device id, also of devices that are no longer there.
    devices: BTreeMap<String, u64>,
    /// Encoder sessions by device id.
    encoders: BTreeMap<String, u64>,
    /// Holders that borrow a device for encoding alone, by device id. A device
    /// that is lent is not wholly free.
    borrowers: BTreeMap<String, u64>,
}

impl<K: Ord + Clone> Ledger<K> {
    /// A host of which nothing is held.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            holdings: BTreeMap::new(),
            cpu_milli: 0,
            memory_bytes: 0,
            disk_bytes: 0,
            desktops: 0,
            devices: BTreeMap::new(),
            encoders: BTreeMap::new(),
            borrowers: BTreeMap::new(),
        }
    }

    /// What the host can give.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// The host's capacity changed. What is held stays held, also when it no
    /// longer fits: then nothing is free until enough was given back.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    /// Who holds what.
    #[must_use]
    pub fn holdings(&self) -> &BTreeMap<K, Holding> {
        &self.holdings
    }

    /// Takes the goods of a demand. A key that holds already keeps what it has
    /// and is told so again.
    ///
    /// # Errors
    /// The first good that is short; nothing was taken.
    pub fn try_take(&mut self, key: K, demand: &Demand) -> Result<Grant, Shortage> {
        if let Some(held) = self.holdings.get(&key) {
            return Ok(held.grant.clone());
        }
        let grant = self.fit(demand)?;
        self.adopt(key, Holding::of(demand, grant.clone()));
        Ok(grant)
    }

    /// Takes exact amounts and devices that another ledger chose. A key that
    /// holds already keeps what it has.
    ///
    /// # Errors
    /// The first good that is short; nothing was taken.
    pub fn try_hold(&mut self, key: K, holding: &Holding) -> Result<(), Shortage> {
        if self.holdings.contains_key(&key) {
            return Ok(());
        }
        self.goods_short(
            holding.cpu_milli,
            holding.memory_bytes,
            holding.disk_bytes,
            holding.desktop,
        )?;
        let share = u64::from(holding.grant.share_milli);
        for (index, id) in holding.grant.devices.iter().enumerate() {
            let Some(device) = self.capacity.devices.iter().find(|device| device.id == *id) else {
                let needed = holding.grant.devices.len() as u64;
                return Err(Shortage { good: Good::GpuAbsent, needed, free: Some(index as u64) });
            };
            if device.unhealthy {
                let needed = holding.grant.devices.len() as u64;
                return Err(Shortage {
                    good: Good::GpuUnhealthy,
                    needed,
                    free: Some(index as u64),
                });
            }
            let free = self.device_free(device);
            if free < share || holding.grant.devices[..index].contains(id) {
                return Err(Shortage {
                    good: Good::GpuBusy,
                    needed: share,
                    free: Some(free.min(share.saturating_sub(1))),
                });
            }
        }
        self.check_encoder(&holding.grant)?;
        self.adopt(key, holding.clone());
        Ok(())
    }

    /// Records amounts that are held in fact, whether they fit or not: after a
    /// restart the truth is what runs. Replaces what the key held.
    pub fn adopt(&mut self, key: K, holding: Holding) {
        self.give_back(&key);
        self.cpu_milli += holding.cpu_milli;
        self.memory_bytes += holding.memory_bytes;
        self.disk_bytes += holding.disk_bytes;
        self.desktops += u64::from(holding.desktop);
        for id in &holding.grant.devices {
            *self.devices.entry(id.clone()).or_default() += u64::from(holding.grant.share_milli);
        }
        if let Some(encoder) = &holding.grant.encoder {
            *self.encoders.entry(encoder.device.clone()).or_default() +=
                u64::from(encoder.sessions);
        }
        if let Some(lent) = holding.grant.borrows() {
            *self.borrowers.entry(lent.device.clone()).or_default() += 1;
        }
        self.holdings.insert(key, holding);
    }

    /// Gives back all a key holds; `None` when it holds nothing.
    pub fn give_back(&mut self, key: &K) -> Option<Holding> {
        let holding = self.holdings.remove(key)?;
        self.cpu_milli -= holding.cpu_milli;
        self.memory_bytes -= holding.memory_bytes;
        self.disk_bytes -= holding.disk_bytes;
        self.desktops -= u64::from(holding.desktop);
        for id in &holding.grant.devices {
            less(&mut self.devices, id, u64::from(holding.grant.share_milli));
        }
        if let Some(encoder) = &holding.grant.encoder {
            less(&mut self.encoders, &encoder.device, u64::from(encoder.sessions));
        }
        if let Some(lent) = holding.grant.borrows() {
            less(&mut self.borrowers, &lent.device, 1);
        }
        Some(holding)
    }

    /// What is short for a demand, without taking anything; `None` when it fits.
    #[must_use]
    pub fn shortage(&self, demand: &Demand) -> Option<Shortage> {
        self.fit(demand).err()
    }

    /// The devices a demand would be given, without taking anything.
    ///
    /// # Errors
    /// The first good that is short.
    pub fn fit(&self, demand: &Demand) -> Result<Grant, Shortage> {
        self.goods_short(demand.cpu_milli, demand.memory_bytes, demand.disk_bytes, demand.desktop)?;
        self.choose(demand)
    }

    /// What is free.
    #[must_use]
    pub fn free(&self) -> Free {
        let left = |capacity: Option<u64>, used: u64| capacity.map(|all| all.saturating_sub(used));
        Free {
            cpu_milli: left(self.capacity.cpu_milli, self.cpu_milli),
            memory_bytes: left(self.capacity.memory_bytes, self.memory_bytes),
            disk_bytes: left(self.capacity.disk_bytes, self.disk_bytes),
            desktop_slots: u64::from(self.capacity.desktop_slots).saturating_sub(self.desktops),
            gpu_milli: self.healthy().map(|device| self.device_free(device)).sum(),
            encoder_sessions: self.encoder_free_in_all(),
        }
    }

    /// The free part of a device in thousandths; `None` for a device that the
    /// host does not have.
    #[must_use]
    pub fn free_share(&self, id: &str) -> Option<u64> {
        let device = self.capacity.devices.iter().find(|device| device.id == id)?;
        Some(self.device_free(device))
    }

    pub(super) fn healthy(&self) -> impl Iterator<Item = &Device> {
        self.capacity.devices.iter().filter(|device| !device.unhealthy)
    }

    pub(super) fn device_free(&self, device: &Device) -> u64 {
        let used = self.devices.get(&device.id).copied().unwrap_or(0);
        // Lent for encoding: it can be shared still, but is nobody's wholly.
        let lent = u64::from(self.borrowers.contains_key(&device.id));
        u64::from(WHOLE_MILLI).saturating_sub(used.max(lent))
    }

    /// Encoder sessions that are held of a device.
    pub(super) fn encoders_used(&self, id: &str) -> u64 {
        self.encoders.get(id).copied().unwrap_or(0)
    }

    fn goods_short(&self, cpu: u64, memory: u64, disk: u64, desktop: bool) -> Result<(), Shortage> {
        let free = self.free();
        let check = |good: Good, needed: u64, free: Option<u64>| {
            if needed == 0 || free.is_some_and(|free| free >= needed) {
                Ok(())
            } else {
                Err(Shortage { good, needed, free })
            }
        };
        check(Good::Cpu, cpu, free.cpu_milli)?;
        check(Good::Memory, memory, free.memory_bytes)?;
        check(Good::Disk, disk, free.disk_bytes)?;
        check(Good::DesktopSlots, u64::from(desktop), Some(free.desktop_slots))
    }
}

/// Takes an amount off an entry; one of which nothing is left goes.
fn less(amounts: &mut BTreeMap<String, u64>, id: &str, amount: u64) {
    let left = amounts.get(id).map_or(0, |used| used.saturating_sub(amount));
    if left == 0 {
        amounts.remove(id);
    } else {
        amounts.insert(id.to_owned(), left);
    }
}

#[cfg(test)]
#[path = "ledger_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
