//! What the watches have told of the pipelines' objects, so that a pass need not ask for it.
//!
//! The objects of the lab's example are 55 KB of JSON, and more as Rust's types. They are kept as JSON, and what
//! a pipeline has of a kind is compressed together, with what another has as the dictionary, since all of them are
//! much alike: 5 KB. It is unpacked for one pass.
//!
//! A cache is always a little behind. What the operator has written itself is put in at once, so it never
//! takes its own write for a stranger's, nor an older state for the newer. Where being behind could do harm,
//! the API server decides: whether an object's name is free, and whether a Secret that is changed is still as it was.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::apply::FIELD_MANAGER;
use crate::resources::names::INSTANCE;

/// What can be kept.
pub trait Cached:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + Any
{
}

impl<K> Cached for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Serialize
        + DeserializeOwned
        + Any
{
}

/// The objects of all pipelines, of every kind that is watched.
#[derive(Default)]
pub struct Cache(Mutex<State>);

#[derive(Default)]
struct State {
    /// By kind, and by the namespace that is watched; none is all.
    kinds: HashMap<(TypeId, Option<String>), Kind>,
    /// Pipelines of which something was not as the cache had it.
    distrusted: HashSet<String>,
    packer: Packer,
}

/// What packs and unpacks: made once, since it takes 300 KB.
struct Packer {
    deflater: Compress,
    inflater: Decompress,
}

impl Default for Packer {
    fn default() -> Self {
        // Without headers: nobody else reads it.
        Self { deflater: Compress::new(Compression::default(), false), inflater: Decompress::new(false) }
    }
}

#[derive(Default)]
struct Kind {
    /// It has been listed as a whole.
    is_filled: bool,
    /// How often it was listed.
    round: u32,
    /// By namespace and pipeline.
    objects: HashMap<String, Group>,
    /// What a pipeline has had of the kind: what is packed from now on is packed with it.
    dictionary: Arc<[u8]>,
}

/// What a pipeline has of a kind.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    /// The objects as JSON, one after the other, in the order of the entries; compressed, without a header.
    packed: Box<[u8]>,
    /// What it was compressed with.
    dictionary: Arc<[u8]>,
}

/// How far back compressed bytes can refer: RFC 1951, section 2.
const WINDOW: usize = 32_768;

struct Entry {
    name: Box<str>,
    version: u64,
    /// The list that had it last, or after whose beginning it was made or changed.
    round: u32,
    /// Of its JSON. 0: it has gone, by a deletion of this version.
    length: usize,
}

/// Namespace and name of the pipeline that an object belongs to, by its labels.
pub fn pipeline_of<K: Resource>(object: &K) -> Option<String> {
    let pipeline = object.labels().get(INSTANCE)?;
    Some(key(object.meta().namespace.as_deref()?, pipeline))
}

fn key(namespace: &str, pipeline: &str) -> String {
    format!("{namespace}/{pipeline}")
}

impl Cache {
    /// Takes in what a watch tells, and says to which pipelines it is news, by namespace and name.
    pub fn follow<K: Cached>(&self, watched: Option<&str>, event: &Event<K>) -> Vec<String> {
        let mut state = self.state();
        let State { kinds, packer, .. } = &mut *state;
        let kind = kinds.entry((TypeId::of::<K>(), watched.map(str::to_owned))).or_default();
        let (object, is_news) = match event {
            Event::Init => {
                kind.round += 1;
                return Vec::new();
            }
            // What has gone since the list before is told by nothing else.
            Event::InitDone => return kind.forget_unlisted(packer),
            Event::InitApply(object) => {
                let is_news = kind.put(object, packer);
                kind.listed(object);
                (object, is_news)
            }
            Event::Apply(object) => (object, kind.put(object, packer)),
            Event::Delete(object) => {
                kind.remove(object, packer);
                (object, true)
            }
        };
        pipeline_of(object).filter(|_| is_news).into_iter().collect()
    }

    /// Takes in what the operator has written, or asked for.
    pub fn put<K: Cached>(&self, object: &K) {
        let namespace = object.meta().namespace.clone();
        let mut state = self.state();
        let State { kinds, packer, .. } = &mut *state;
        for watched in [None, namespace] {
            // A kind that isn't watched would never be heard of again.
            if let Some(kind) = kinds.get_mut(&(TypeId::of::<K>(), watched)) {
                kind.put(object, packer);
            }
        }
    }

    /// Takes in all objects of a pipeline that a list had, of this version.
    pub fn replace<K: Cached>(&self, namespace: &str, pipeline: &str, listed: &[K], version: Option<u64>) {
        listed.iter().for_each(|object| self.put(object));
        let Some(version) = version else { return };
        let mut state = self.state();
        let State { kinds, packer, .. } = &mut *state;
        for watched in [None, Some(namespace.to_owned())] {
            let kind = kinds.get_mut(&(TypeId::of::<K>(), watched));
            let group = kind.and_then(|kind| kind.objects.get_mut(&key(namespace, pipeline)));
            let is_listed = |name: &str| listed.iter().any(|object| object.name_any() == name);
            if let Some(group) = group {
                group.retain(|entry| entry.version > version || is_listed(&entry.name), packer);
            }
        }
    }

    /// The objects of a pipeline; None if the API server has to be asked.
    pub fn objects<K: Cached>(&self, namespace: &str, pipeline: &str) -> Option<Vec<K>> {
        let mut state = self.state();
        let State { kinds, packer, distrusted } = &mut *state;
        let key = key(namespace, pipeline);
        let scopes = [None, Some(namespace.to_owned())];
        let kind = scopes.into_iter().find_map(|scope| kinds.get(&(TypeId::of::<K>(), scope)))?;
        if !kind.is_filled || distrusted.contains(&key) {
            return None;
        }
        let Some(group) = kind.objects.get(&key) else { return Some(Vec::new()) };
        let json = group.unpacked(packer)?;
        let ranges = group.ranges().filter(|range| !range.is_empty());
        ranges.map(|range| serde_json::from_slice(json.get(range)?).ok()).collect()
    }

    /// Something of this pipeline was not as expected: the next pass asks.
    pub fn distrust(&self, namespace: &str, pipeline: &str) {
        self.state().distrusted.insert(key(namespace, pipeline));
    }

    /// All of this pipeline was asked for.
    pub fn trust(&self, namespace: &str, pipeline: &str) {
        self.state().distrusted.remove(&key(namespace, pipeline));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    /// Whether it is newer than what was known.
    fn put<K: Cached>(&mut self, object: &K, packer: &mut Packer) -> bool {
        let (Some(key), Some(version)) = (pipeline_of(object), version(object)) else { return true };
        let group = self.objects.entry(key).or_default();
        let name = object.name_any();
        if group.entries.iter().any(|entry| *entry.name == name && entry.version >= version) {
            return false;
        }
        // What can't be kept is no different from what is not known: it is looked for by its name.
        let entry = Entry { name: name.into(), version, round: self.round, length: 0 };
        group.set(entry, &kept(object).unwrap_or_default(), &mut self.dictionary, packer);
        true
    }

    fn remove<K: Cached>(&mut self, object: &K, packer: &mut Packer) {
        let (Some(key), Some(version)) = (pipeline_of(object), version(object)) else { return };
        let Some(group) = self.objects.get_mut(&key) else { return };
        let name = object.name_any();
        if group.entries.iter().any(|entry| *entry.name == name && entry.version <= version) {
            let entry = Entry { name: name.into(), version, round: self.round, length: 0 };
            group.set(entry, &[], &mut self.dictionary, packer);
        }
        if group.entries.iter().all(|entry| entry.length == 0) {
            self.objects.remove(&key);
        }
    }

    fn listed<K: Cached>(&mut self, object: &K) {
        let group = pipeline_of(object).and_then(|key| self.objects.get_mut(&key));
        let name = object.name_any();
        let entries = group.into_iter().flat_map(|group| &mut group.entries);
        entries.filter(|entry| *entry.name == name).for_each(|entry| entry.round = self.round);
    }

    /// What the list has not is gone, unless it was written while it was listed. Returns the pipelines that have lost
    /// something.
    fn forget_unlisted(&mut self, packer: &mut Packer) -> Vec<String> {
        let round = self.round;
        let stays = |entry: &Entry| entry.round == round;
        let mut lost = Vec::new();
        self.objects.retain(|key, group| {
            if group.entries.iter().any(|entry| entry.length > 0 && !stays(entry)) {
                lost.push(key.clone());
            }
            group.retain(stays, packer);
            !group.entries.is_empty()
        });
        self.is_filled = true;
        lost
    }
}

impl Group {
    /// Replaces an object, or adds it. The dictionary becomes what the pipeline has now, if that has clearly more.
    fn set(&mut self, entry: Entry, json: &[u8], dictionary: &mut Arc<[u8]>, packer: &mut Packer) {
        let mut all = self.unpacked(packer).unwrap_or_else(|| {
            // Not to happen; what is forgotten is looked for by its name.
            self.entries.clear();
            Vec::new()
        });
        let known = self.entries.iter().position(|other| other.name == entry.name);
        let index = known.unwrap_or(self.entries.len());
        let range = self.ranges().nth(index).unwrap_or(all.len()..all.len());
        all.splice(range, json.iter().copied());
        let entry = Entry { length: json.len(), ..entry };
        match self.entries.get_mut(index) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
        // A part of what is larger than the window would be unlike what others have.
        if all.len() <= WINDOW && all.len() > dictionary.len() + dictionary.len() / 8 {
            *dictionary = all.as_slice().into();
        }
        self.dictionary = dictionary.clone();
        self.pack(&all, packer);
    }

    /// Keeps what the condition holds of. Nothing is packed anew if that is all.
    fn retain(&mut self, holds: impl Fn(&Entry) -> bool, packer: &mut Packer) {
        if self.entries.iter().all(&holds) {
            return;
        }
        let all = self.unpacked(packer).unwrap_or_default();
        let kept = self.ranges().zip(&self.entries).filter(|(_, entry)| holds(entry));
        let kept: Vec<u8> = kept.flat_map(|(range, _)| all.get(range).unwrap_or_default()).copied().collect();
        self.entries.retain(holds);
        self.pack(&kept, packer);
    }

    /// Where each object is.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.entries.iter().scan(0, |end, entry| {
            let start = *end;
            *end += entry.length;
            Some(start..*end)
        })
    }

    fn unpacked(&self, packer: &mut Packer) -> Option<Vec<u8>> {
        let length = self.entries.iter().map(|entry| entry.length).sum();
        let mut json = Vec::with_capacity(length);
        if length > 0 {
            let inflater = &mut packer.inflater;
            inflater.reset(false);
            inflater.set_dictionary(&self.dictionary).ok()?;
            inflater.decompress_vec(&self.packed, &mut json, FlushDecompress::Finish).ok()?;
        }
        Some(json).filter(|json| json.len() == length)
    }

    fn pack(&mut self, json: &[u8], packer: &mut Packer) {
        // What can't be compressed takes 5 bytes more for each 64 KB at most: RFC 1951, section 3.2.4.
        let mut packed = Vec::with_capacity(json.len() + json.len() / 1_000 + 64);
        let deflater = &mut packer.deflater;
        deflater.reset();
        let with_dictionary = deflater.set_dictionary(&self.dictionary);
        let done = deflater.compress_vec(json, &mut packed, FlushCompress::Finish);
        // What isn't packed is noticed when it is unpacked, and then looked for by its name.
        let is_packed = with_dictionary.is_ok() && matches!(done, Ok(Status::StreamEnd));
        self.packed = if is_packed { packed.into() } else { Box::default() };
    }
}

/// What is kept of an object, as JSON: all but which fields somebody wrote, and what a pod runs, which its set says as
/// well.
fn kept<K: Cached>(object: &K) -> serde_json::Result<Vec<u8>> {
    let mut kept = object.clone();
    let times = kept.managed_fields_mut();
    times.retain(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    for entry in times {
        *entry = ManagedFieldsEntry {
            manager: entry.manager.take(),
            time: entry.time.take(),
            ..ManagedFieldsEntry::default()
        };
    }
    if let Some(pod) = (&mut kept as &mut dyn Any).downcast_mut::<Pod>() {
        let node = pod.spec.take().and_then(|spec| spec.node_name);
        pod.spec = Some(PodSpec { node_name: node, ..PodSpec::default() });
    }
    serde_json::to_vec(&kept)
}

/// Versions of a kind can be compared: Kubernetes says so since 1.35, and the API server has always made
/// them so.
pub(crate) fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests;
