//! What the fake engine has, and what happens to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{Call, FakeContainer, Fault};

/// Events that a reader may be behind.
const BACKLOG: usize = 256;

/// A piece of a log; `None` is its end.
type LogPiece = Option<Bytes>;

pub(super) struct State {
    pub(super) images: BTreeMap<String, Value>,
    pub(super) account: Option<String>,
    pub(super) remote: BTreeMap<String, Value>,
    pub(super) networks: BTreeMap<String, Value>,
    pub(super) volumes: BTreeMap<String, Value>,
    pub(super) remapped: Option<(u32, u32)>,
    pub(super) containers: BTreeMap<String, FakeContainer>,
    pub(super) script: HashMap<Call, VecDeque<Fault>>,
    pub(super) calls: HashMap<Call, usize>,
    pub(super) lose_events: bool,
    pub(super) data: Option<PathBuf>,
    pub(super) counted: BTreeMap<String, u64>,
    events: broadcast::Sender<Value>,
    past: Vec<Value>,
    logs: HashMap<String, (BytesMut, broadcast::Sender<LogPiece>)>,
    made: u64,
    networks_made: u16,
}

impl Default for State {
    fn default() -> Self {
        Self {
            images: BTreeMap::new(),
            account: None,
            remote: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            remapped: None,
            containers: BTreeMap::new(),
            script: HashMap::new(),
            calls: HashMap::new(),
            lose_events: false,
            data: None,
            counted: BTreeMap::new(),
            events: broadcast::channel(BACKLOG).0,
            past: Vec::new(),
            logs: HashMap::new(),
            made: 0,
            networks_made: 0,
        }
    }
}

impl State {
    /// Counts a call and takes the fault that was scripted for it.
    pub(super) fn enter(&mut self, call: Call) -> Option<Fault> {
        *self.calls.entry(call).or_default() += 1;
        self.script.get_mut(&call).and_then(VecDeque::pop_front)
    }

    pub(super) fn find(&self, id_or_name: &str) -> Option<&FakeContainer> {
        self.containers
            .values()
            .find(|container| container.id == id_or_name || container.name == id_or_name)
    }

    fn id(&self, id_or_name: &str) -> Option<String> {
        self.find(id_or_name).map(|container| container.id.clone())
    }

    /// What the engine says of itself.
    pub(super) fn info(&self) -> Value {
        let mut info = json!({
            "ServerVersion": "20.10.0-fake", "Driver": "overlay2", "CgroupVersion": "1",
            "NCPU": 8, "DockerRootDir": "/", "SecurityOptions": ["name=seccomp,profile=default"],
            "DriverStatus": [["Backing Filesystem", "extfs"]],
        });
        if let Some((uid, gid)) = self.remapped {
            info["DockerRootDir"] = json!(format!("/{uid}.{gid}"));
            info["SecurityOptions"] = json!(["name=seccomp,profile=default", "name=userns"]);
        }
        info
    }

    /// Makes a network; each has an address of its own on the loopback.
    pub(super) fn create_network(&mut self, asked: &Value) -> Result<Value, (u16, String)> {
        let name = asked["Name"].as_str().unwrap_or_default().to_owned();
        if self.networks.contains_key(&name) {
            return Err((409, format!("network with name {name} already exists")));
        }
        let [high, low] = self.networks_made.to_be_bytes();
        self.networks_made = self.networks_made.wrapping_add(1);
        let network = json!({
            "Name": name, "Id": name, "Driver": asked["Driver"],
            "EnableIPv6": asked["EnableIPv6"], "Options": asked["Options"], "Labels": asked["Labels"],
            "IPAM": {"Config": [{"Subnet": "127.0.0.0/8", "Gateway": format!("127.{high}.{low}.1")}]},
        });
        self.networks.insert(name.clone(), network);
        Ok(json!({"Id": name, "Warning": ""}))
    }

    /// Removes a network that no container is on.
    pub(super) fn remove_network(&mut self, name: &str) -> Result<(), (u16, String)> {
        if self.containers.values().any(|on| on.request["HostConfig"]["NetworkMode"] == name) {
            return Err((
                403,
                format!("error while removing network: {name} has active endpoints"),
            ));
        }
        let gone = self.networks.remove(name);
        gone.map(drop).ok_or_else(|| (404, format!("network {name} not found")))
    }

    /// Makes a volume; one that is there is answered as it is.
    pub(super) fn create_volume(&mut self, asked: &Value) -> Value {
        let name = asked["Name"].as_str().unwrap_or_default().to_owned();
        let made = json!({
            "Name": name, "Driver": "local", "Mountpoint": "/", "Scope": "local",
            "Labels": asked["Labels"], "Options": asked["DriverOpts"],
        });
        self.volumes.entry(name).or_insert(made).clone()
    }

    /// Removes a volume that no container has.
    pub(super) fn remove_volume(&mut self, name: &str) -> Result<(), (u16, String)> {
        let has = |container: &FakeContainer| {
            let mounts = container.request["HostConfig"]["Mounts"].as_array();
            mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount["Source"] == name))
        };
        if self.containers.values().any(has) {
            return Err((409, format!("volume {name} is in use")));
        }
        let gone = self.volumes.remove(name);
        gone.map(drop).ok_or_else(|| (404, format!("no such volume: {name}")))
    }

    /// Makes a container; the error is status and message.
    pub(super) fn create(&mut self, name: &str, request: Value) -> Result<String, (u16, String)> {
        let image = request["Image"].as_str().unwrap_or_default();
        if !self.images.contains_key(image) {
            return Err((404, format!("No such image: {image}")));
        }
        let network = request["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
        if !self.networks.contains_key(network) {
            return Err((404, format!("network {network} not found")));
        }
        if self.find(name).is_some() {
            return Err((409, format!("the container name {name} is already in use")));
        }
        self.made += 1;
        let id = format!("{:064x}", self.made);
        let container = FakeContainer {
            id: id.clone(),
            name: name.to_owned(),
            request,
            state: "created",
            exit_code: 0,
            out_of_memory: false,
            made: i64::try_from(self.made).unwrap_or(i64::MAX),
        };
        self.logs.insert(id.clone(), (BytesMut::new(), broadcast::channel(BACKLOG).0));
        self.containers.insert(id.clone(), container);
        self.tell(&id, "create");
        Ok(id)
    }

    /// A container of somebody else.
    pub(super) fn add_container(&mut self, image: &str) {
        self.made += 1;
        let id = format!("{:064x}", self.made);
        let container = FakeContainer {
            id: id.clone(),
            name: format!("theirs-{}", self.made),
            request: json!({"Image": image}),
            state: "exited",
            exit_code: 0,
            out_of_memory: false,
            made: i64::try_from(self.made).unwrap_or(i64::MAX),
        };
        self.containers.insert(id, container);
    }

    /// Starts a container and returns it when it did not run.
    pub(super) fn start(
        &mut self,
        id_or_name: &str,
    ) -> Result<Option<FakeContainer>, (u16, String)> {
        let id =
            self.id(id_or_name).ok_or_else(|| (404, format!("No such container: {id_or_name}")))?;
        let Some(container) = self.containers.get_mut(&id) else { return Ok(None) };
        if container.state == "running" {
            return Ok(None);
        }
        container.state = "running";
        let container = container.clone();
        self.tell(&id, "start");
        Ok(Some(container))
    }

    /// Kills a container; the error is status and message.
    pub(super) fn kill(&mut self, id_or_name: &str) -> Result<(), (u16, String)> {
        let found = self.find(id_or_name);
        match found.map(|found| found.state) {
            None => Err((404, format!("No such container: {id_or_name}"))),
            Some("running") => {
                self.exit(id_or_name, 137, false);
                Ok(())
            }
            Some(_) => Err((409, format!("Container {id_or_name} is not running"))),
        }
    }

    /// Where a container's volumes and layer are.
    pub(super) fn data_of(&self, container: &FakeContainer) -> (Value, Value) {
        let Some(folder) = &self.data else { return (Value::Null, Value::Null) };
        let mounts = container.request["HostConfig"]["Mounts"].as_array();
        let volumes = mounts.into_iter().flatten().filter(|mount| mount["Type"] == "volume");
        let volumes = volumes.map(|mount| {
            let name = mount["Source"].as_str().unwrap_or_default();
            json!({
                "Type": "volume", "Name": name, "Source": folder.join(name),
                "Destination": mount["Target"], "Driver": "local",
            })
        });
        let layer = folder.join(format!("layer-{}", container.id));
        let driver = json!({"Name": "overlay2", "Data": {"UpperDir": layer}});
        (volumes.collect(), driver)
    }

    /// What it counts.
    pub(super) fn usage(&self) -> Value {
        let counted = |name: &str| self.counted.get(name).copied().unwrap_or(0);
        let volumes = self
            .volumes
            .keys()
            .map(|name| json!({"Name": name, "UsageData": {"Size": counted(name), "RefCount": 1}}));
        let containers = self.containers.keys().map(|id| json!({"Id": id, "SizeRw": counted(id)}));
        json!({
            "LayersSize": 0, "Images": [], "BuildCache": [],
            "Volumes": volumes.collect::<Vec<_>>(), "Containers": containers.collect::<Vec<_>>(),
        })
    }

    pub(super) fn exit(&mut self, id_or_name: &str, exit_code: i64, out_of_memory: bool) {
        let Some(id) = self.id(id_or_name) else { return };
        if let Some(container) = self.containers.get_mut(&id) {
            container.state = "exited";
            container.exit_code = exit_code;
            container.out_of_memory = out_of_memory;
        }
        if let Some((_, log)) = self.logs.get(&id) {
            let _ = log.send(None);
        }
        self.tell(&id, "die");
    }

    /// Removes a container; whether it was there.
    pub(super) fn remove(&mut self, id_or_name: &str) -> bool {
        let Some(id) = self.id(id_or_name) else { return false };
        if let Some((_, log)) = self.logs.remove(&id) {
            let _ = log.send(None);
        }
        self.tell(&id, "destroy");
        self.containers.remove(&id);
        true
    }

    pub(super) fn log(&mut self, id_or_name: &str, stderr: bool, text: &str) {
        let Some(id) = self.id(id_or_name) else { return };
        let Some((kept, log)) = self.logs.get_mut(&id) else { return };
        let mut frame = BytesMut::new();
        frame.put_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0]);
        frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        frame.put_slice(text.as_bytes());
        kept.extend_from_slice(&frame);
        let _ = log.send(Some(frame.freeze()));
    }

    pub(super) fn read_log(
        &self,
        id_or_name: &str,
    ) -> Option<(Bytes, broadcast::Receiver<LogPiece>)> {
        let (kept, log) = self.logs.get(&self.id(id_or_name)?)?;
        Some((kept.clone().freeze(), log.subscribe()))
    }

    /// What happened already, and what happens from now on.
    pub(super) fn follow(&self) -> (Vec<Value>, broadcast::Receiver<Value>) {
        (self.past.clone(), self.events.subscribe())
    }

    pub(super) fn break_events(&mut self) {
        // Readers end when their sender is gone.
        self.events = broadcast::channel(BACKLOG).0;
    }

    fn tell(&mut self, id: &str, action: &str) {
        if self.lose_events {
            return;
        }
        let labels = self.containers.get(id).map(|container| container.request["Labels"].clone());
        let event = json!({
            "Type": "container", "Action": action,
            "Actor": {"ID": id, "Attributes": labels},
            "time": wolfpack_runtime::clock::now()
                .duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs(),
        });
        self.past.push(event.clone());
        let _ = self.events.send(event);
    }
}
