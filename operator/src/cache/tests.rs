use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::*;

fn secret(name: &str, version: u64) -> Secret {
    let labels = json!({"app.kubernetes.io/instance": "lab"});
    let version = version.to_string();
    let metadata = json!({"name": name, "namespace": "n", "labels": labels, "resourceVersion": version});
    serde_json::from_value(json!({"metadata": metadata})).expect("a Secret")
}

fn filled(objects: &[Secret]) -> Cache {
    let cache = Cache::default();
    list(&cache, objects);
    cache
}

/// Returns the pipelines that the list's end is news to.
fn list(cache: &Cache, objects: &[Secret]) -> Vec<String> {
    cache.follow::<Secret>(None, &Event::Init);
    for object in objects {
        cache.follow(None, &Event::InitApply(object.clone()));
    }
    cache.follow::<Secret>(None, &Event::InitDone)
}

fn known(cache: &Cache) -> Option<Vec<(String, String)>> {
    let objects = cache.objects::<Secret>("n", "lab")?;
    let mut known: Vec<_> = objects
        .iter()
        .map(|object| (object.name_any(), object.resource_version().unwrap_or_default()))
        .collect();
    known.sort();
    Some(known)
}

fn of(objects: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    Some(objects.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect())
}

#[test]
fn nothing_is_known_of_a_kind_before_all_of_it_is() {
    let cache = Cache::default();
    assert_eq!(known(&cache), None);
    cache.follow::<Secret>(None, &Event::Init);
    cache.follow(None, &Event::InitApply(secret("a", 1)));
    assert_eq!(known(&cache), None);
    cache.follow::<Secret>(None, &Event::InitDone);
    assert_eq!(known(&cache), of(&[("a", "1")]));
}

#[test]
fn an_own_write_is_no_news_and_an_older_state_does_not_undo_it() {
    let cache = filled(&[secret("a", 1)]);
    cache.put(&secret("a", 5));
    assert!(cache.follow(None, &Event::Apply(secret("a", 5))).is_empty());
    assert!(cache.follow(None, &Event::Apply(secret("a", 3))).is_empty());
    assert_eq!(known(&cache), of(&[("a", "5")]));
    assert_eq!(cache.follow(None, &Event::Apply(secret("a", 6))), ["n/lab"]);
    assert_eq!(known(&cache), of(&[("a", "6")]));
}

#[test]
fn what_was_deleted_does_not_come_back_by_an_answer_that_was_late() {
    let cache = filled(&[secret("a", 1), secret("b", 2)]);
    assert_eq!(cache.follow(None, &Event::Delete(secret("a", 7))), ["n/lab"]);
    cache.put(&secret("a", 6));
    assert_eq!(known(&cache), of(&[("b", "2")]));
    cache.put(&secret("a", 8));
    assert_eq!(known(&cache), of(&[("a", "8"), ("b", "2")]));
}

#[test]
fn a_list_ends_what_it_has_not_but_for_what_was_made_after_it() {
    let cache = filled(&[secret("a", 1), secret("b", 2)]);
    cache.put(&secret("gone", 8));
    cache.follow::<Secret>(None, &Event::Init);
    cache.put(&secret("c", 9));
    cache.follow(None, &Event::InitApply(secret("b", 2)));
    assert_eq!(cache.follow::<Secret>(None, &Event::InitDone), ["n/lab"], "it has lost two");
    assert_eq!(known(&cache), of(&[("b", "2"), ("c", "9")]));
    assert_eq!(list(&cache, &[]), ["n/lab"]);
    assert_eq!(known(&cache), of(&[]), "the newest is gone too");
}

#[test]
fn a_pipeline_that_is_distrusted_is_asked_for() {
    let cache = filled(&[secret("a", 1)]);
    cache.distrust("n", "lab");
    assert_eq!(known(&cache), None);
    cache.replace("n", "lab", &[secret("b", 3)], Some(4));
    cache.trust("n", "lab");
    assert_eq!(known(&cache), of(&[("b", "3")]));
}

#[test]
fn of_who_wrote_what_only_our_time_is_kept_and_of_what_a_pod_is_to_be_its_node() {
    let labels = json!({"app.kubernetes.io/instance": "lab"});
    let metadata = json!({
        "name": "p", "namespace": "n", "labels": labels, "resourceVersion": "1", "managedFields": [
            {"manager": "m", "time": "2026-01-01T00:00:01Z"},
            {"manager": FIELD_MANAGER, "time": "2026-01-01T00:00:02Z", "fieldsV1": {"f:spec": {}}},
        ],
    });
    let pod = json!({"metadata": metadata, "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}, "status": {"phase": "Running"}});
    let pod: Pod = serde_json::from_value(pod).expect("a Pod");
    let cache = Cache::default();
    cache.follow::<Pod>(None, &Event::Init);
    cache.follow::<Pod>(None, &Event::InitDone);
    cache.put(&pod);
    let kept = cache.objects::<Pod>("n", "lab").expect("all of the kind is known");
    let ours = json!([{"manager": FIELD_MANAGER, "time": "2026-01-01T00:00:02Z"}]);
    assert_eq!(json!(kept[0].metadata.managed_fields), ours);
    let spec = PodSpec { node_name: Some("n1".into()), ..PodSpec::default() };
    assert_eq!((&kept[0].spec, &kept[0].status), (&Some(spec), &pod.status));
}

#[test]
fn what_is_alike_takes_little() {
    let (mut dictionary, mut packer) = (Arc::default(), Packer::default());
    let objects: Vec<_> =
        (0..10).map(|n| serde_json::to_vec(&secret(&format!("s{n}"), n)).expect("JSON")).collect();
    let groups = [(); 3].map(|()| {
        let mut group = Group::default();
        objects
            .iter()
            .for_each(|json| group.set(entry(&format!("{json:?}")), json, &mut dictionary, &mut packer));
        group
    });
    for group in &groups {
        assert_eq!(group.unpacked(&mut packer), Some(objects.concat()));
    }
    assert!(dictionary.len() > objects.concat().len() / 2, "{} bytes", dictionary.len());
    assert!(groups[2].packed.len() < 128, "{} bytes", groups[2].packed.len());
}

#[test]
fn what_no_window_holds_is_kept_whole() {
    let mut random = 1_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut byte = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as u8
        };
        (0..length).map(|_| byte()).collect()
    };
    let (mut group, mut dictionary, mut packer) = (Group::default(), Arc::default(), Packer::default());
    let mut set = |name: &str, json: &[u8]| {
        group.set(entry(name), json, &mut dictionary, &mut packer);
        (group.unpacked(&mut packer), dictionary.len())
    };
    let (large, small) = (noise(200_000), noise(3));
    assert_eq!(set("large", &large), (Some(large.clone()), 0));
    assert_eq!(set("small", &small), (Some([large, small.clone()].concat()), 0));
    assert_eq!(set("large", &[]), (Some(small), 3));
    assert_eq!(set("small", &[]), (Some(Vec::new()), 3));
}

fn entry(name: &str) -> Entry {
    Entry { name: name.into(), version: 1, round: 1, length: 0 }
}
