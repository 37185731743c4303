//! Which topic filters include which: a broker that delivers a copy for each filter that matches, and can't say
//! for which, must not be asked for two that match the same messages.

use std::collections::BTreeMap;

use crate::table::Subscription;

/// The filters that no other includes, each with the highest quality of service of all that it includes.
/// One that is refused includes none. What remains can still overlap, as `a/+` and `+/b` do.
pub(super) fn largest(
    filters: &BTreeMap<String, Subscription>,
    is_refused: impl Fn(&str) -> bool,
) -> BTreeMap<String, Subscription> {
    // Only these can include others.
    let wild = filters.keys().filter(|filter| filter.contains(['#', '+']) && !is_refused(filter));
    let wild: Vec<&String> = wild.collect();
    let mut largest = BTreeMap::new();
    for (filter, subscription) in filters {
        let including = wild.iter().copied().filter(|other| *other != filter && includes(other, filter));
        // One that is included in turn passes it on.
        let top = including.min_by_key(|other| wild.iter().filter(|all| includes(all, other)).count());
        let top = top.unwrap_or(filter);
        let entry = largest.entry(top.clone()).or_insert_with(|| filters[top]);
        entry.qos = entry.qos.max(subscription.qos);
    }
    largest
}

/// Whether every topic that matches `inner` matches `outer` too (MQTT 3.1.1, section 4.7).
fn includes(outer: &str, inner: &str) -> bool {
    // A wildcard at the beginning leaves out the broker's own topics.
    if inner.starts_with('$') && outer.starts_with(['#', '+']) {
        return false;
    }
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            // It stands for the level above it as well.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Two filters that match messages in common though neither includes the other, if there are such.
pub(super) fn overlap(filters: &BTreeMap<String, Subscription>) -> Option<(&str, &str)> {
    let mut rest = filters.keys();
    while let Some(one) = rest.next() {
        if let Some(other) = rest.clone().find(|other| overlaps(one, other)) {
            return Some((one, other));
        }
    }
    None
}

fn overlaps(one: &str, other: &str) -> bool {
    if one.starts_with('$') != other.starts_with('$') {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(level), Some(another)) if level == another => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use api::topic::TopicPattern;
    use proptest::prelude::*;

    use super::*;

    fn filters(list: &[(&str, u8)]) -> BTreeMap<String, Subscription> {
        let subscription = |qos| Subscription { qos, id: 1, undivided: false, own: false };
        list.iter().map(|(filter, qos)| ((*filter).into(), subscription(*qos))).collect()
    }

    #[test]
    fn what_another_filter_includes_is_not_asked_for_but_its_quality_is() {
        let all = filters(&[("a/+", 1), ("a/b", 2), ("a/#", 0), ("b/c", 1), ("+/c", 0), ("$SYS/x", 0)]);
        let expected = filters(&[("a/#", 2), ("+/c", 1), ("$SYS/x", 0)]);
        assert_eq!(largest(&all, |_| false), expected);
    }

    #[test]
    fn a_refused_filter_includes_none_and_is_still_asked_for() {
        let all = filters(&[("#", 0), ("a/+", 1), ("a/b", 2)]);
        assert_eq!(largest(&all, |filter| filter == "#"), filters(&[("#", 0), ("a/+", 2)]));
    }

    #[test]
    fn filters_overlap_where_a_topic_matches_both() {
        assert_eq!(overlap(&filters(&[("a/+", 1), ("b/c", 1), ("$SYS/+", 1)])), None);
        assert_eq!(overlap(&filters(&[("a/+/c", 1), ("b", 1), ("+/b/#", 1)])), Some(("+/b/#", "a/+/c")));
    }

    proptest! {
        #[test]
        fn a_filter_includes_what_only_matches_where_it_does(
            outer in r"(\$S|[ab+])(/[ab+]){0,2}(/#)?|#", inner in r"(\$S|[ab+])(/[ab+]){0,2}(/#)?|#",
            topics in prop::collection::vec(r"(\$S|[abc])(/[abc]){0,3}", 20),
        ) {
            let [one, other]: [TopicPattern; 2] = [&outer, &inner].map(|text| text.parse().expect("a filter"));
            for topic in topics.iter().filter(|_| includes(&outer, &inner)) {
                prop_assert!(other.matches(topic).is_none() || one.matches(topic).is_some(), "{}", topic);
            }
            for topic in topics.iter().filter(|_| !overlaps(&outer, &inner)) {
                prop_assert!(other.matches(topic).is_none() || one.matches(topic).is_none(), "{}", topic);
            }
        }
    }
}
