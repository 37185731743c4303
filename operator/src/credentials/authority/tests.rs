use super::*;
use crate::certificate::CertificateError;

fn day(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * DAY).expect("a time")
}

fn hosts() -> Vec<String> {
    ["lab-broker.n.svc", "*.example.com", "192.0.2.7", "2001:db8::7"].map(Into::into).into()
}

fn pem_count(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn what_the_authority_signs_is_good_for_its_hosts_and_no_others() {
    let own = Authorities::kept_or_new(None, day(0)).expect("an authority");
    let hosts = hosts();
    let pair = own.kept_or_issued(None, Subject::Server(&hosts), day(0)).expect("a certificate");
    let trusted = own.trusted();
    let check = |host: &str, now| pair.check(Subject::Server(&[host.to_owned()]), Some(&trusted), now);
    for host in hosts.iter().map(String::as_str).chain(["mqtt.example.com"]) {
        assert!(check(host, day(0)).is_ok(), "{host}: {:?}", check(host, day(0)));
    }
    assert!(matches!(check("other.n.svc", day(0)), Err(CertificateError::Name(_))));
    assert!(matches!(check("lab-broker.n.svc", day(90)), Err(CertificateError::Expired(_))));
    assert!(matches!(check("lab-broker.n.svc", day(-1)), Err(CertificateError::NotYet(_))));
    let other = Authorities::kept_or_new(None, day(0)).expect("an authority").trusted();
    let refused = pair.check(Subject::Server(&hosts), Some(&other), day(0));
    assert!(matches!(refused, Err(CertificateError::Untrusted(_))));
    let none = pair.check(Subject::Server(&hosts), Some("no PEM"), day(0));
    assert!(matches!(none, Err(CertificateError::Authority)));
}

#[test]
fn a_server_s_certificate_is_none_of_a_client() {
    let own = Authorities::kept_or_new(None, day(0)).expect("an authority");
    let (trusted, hosts) = (own.trusted(), hosts());
    let server = own.kept_or_issued(None, Subject::Server(&hosts), day(0)).expect("a certificate");
    let client = own.kept_or_issued(None, Subject::User("gateway"), day(0)).expect("a certificate");
    assert!(client.check(Subject::User("gateway"), Some(&trusted), day(0)).is_ok());
    assert!(server.check(Subject::User("gateway"), Some(&trusted), day(0)).is_err());
    assert!(client.check(Subject::Server(&[]), Some(&trusted), day(0)).is_err());
}

#[test]
fn a_certificate_is_kept_until_two_thirds_of_its_life_are_over_or_it_lacks_a_host() {
    let own = Authorities::kept_or_new(None, day(0)).expect("an authority");
    let hosts = hosts();
    let first = own.kept_or_issued(None, Subject::Server(&hosts), day(0)).expect("a certificate");
    let next = |hosts: &[String], now| {
        own.kept_or_issued(Some(first.clone()), Subject::Server(hosts), now).expect("a certificate")
    };
    assert!(next(&hosts, day(59)) == first);
    let renewed = next(&hosts, day(60));
    assert!(renewed != first && renewed.key != first.key);
    let more = [hosts.clone(), vec!["broker.example.org".into()]].concat();
    assert!(next(&more, day(1)) != first);
    let broken = Pair { key: renewed.key, ..first.clone() };
    let mended = own.kept_or_issued(Some(broken.clone()), Subject::Server(&hosts), day(0));
    assert!(mended.expect("a certificate") != broken);
}

#[test]
fn an_authority_is_trusted_before_it_signs_and_as_long_as_what_it_signed() {
    let turn = |own: Authorities, at| Authorities::kept_or_new(Some(own), at).expect("an authority");
    let old = Authorities::kept_or_new(None, day(0)).expect("an authority");
    let old = turn(old.clone(), day(2_432));
    assert!(old.before.is_none());

    let both = turn(old.clone(), day(2_434));
    assert_eq!(pem_count(&both.trusted()), 2);
    assert!(both.signing(day(2_434)) == &old.newest);
    let hosts = hosts();
    let signed = both.kept_or_issued(None, Subject::Server(&hosts), day(2_434)).expect("a certificate");
    // Who has not heard of the new one yet still knows the server, and the other way round.
    assert!(signed.check(Subject::Server(&hosts), Some(&old.trusted()), day(2_434)).is_ok());

    let week = turn(both.clone(), day(2_441));
    assert!(week.newest == both.newest && week.signing(day(2_441)) == &both.newest);
    let next = week.kept_or_issued(Some(signed.clone()), Subject::Server(&hosts), day(2_441));
    let next = next.expect("a certificate");
    assert!(next != signed, "it is signed anew by the new one");
    assert!(next.check(Subject::Server(&hosts), Some(&both.trusted()), day(2_441)).is_ok());
    // A client may go on with the old one's for as long as that holds.
    assert!(signed.check(Subject::Server(&hosts), Some(&week.trusted()), day(2_441)).is_ok());

    assert!(turn(week.clone(), day(2_530)).before.is_some());
    let alone = turn(week, day(2_532));
    assert!(alone.before.is_none() && alone.newest == both.newest);
}

#[test]
fn an_authority_that_nobody_renewed_in_time_is_replaced() {
    let old = Authorities::kept_or_new(None, day(0)).expect("an authority");
    let new = Authorities::kept_or_new(Some(old.clone()), day(3_650)).expect("an authority");
    assert!(new.newest != old.newest && new.before.is_none());
    let broken = Pair { certificate: "no PEM".into(), ..old.newest };
    let new = Authorities::kept_or_new(Some(Authorities { newest: broken, before: None }), day(0));
    assert!(new.is_ok_and(|new| new.newest.validity().is_some()));
}
