//! Which pipelines are refused, and in which words; and what a plan keeps of what exists.

mod support;

use iotpipeline_operator::plan::{Bridges, Broker, Plan, Refusal};
use iotpipeline_operator::resources::{Part, Tokens, desired};
use k8s_openapi::api::apps::v1::StatefulSet;
use support::{Case, config, tokens};

const HEAD: &str = "apiVersion: iotpipeline.io/v1alpha1\nkind: IoTPipeline\nmetadata: {name: lab}\nspec: ";

fn refusal(spec: &str) -> Refusal {
    let case = Case::parse(&format!("{HEAD}{spec}"));
    Plan::new(&case.pipeline, &case.observed, &config()).err().expect("the pipeline is refused")
}

const ROUTES: &str = "routes: [{name: r, topic: a, payload: {float: {}}}]";

#[test]
fn a_secret_that_does_not_exist_is_named() {
    let refusal = refusal(&format!(
        "{{broker: {{users: [{{name: u, passwordSecretRef: {{name: s, key: k}}}}]}}, {ROUTES}}}"
    ));
    assert_eq!(refusal.reason(), "SecretNotFound");
    assert_eq!(
        refusal.to_string(),
        "the Secret s does not exist: create it in the pipeline's namespace (broker.users[u].passwordSecretRef names it)"
    );
}

#[test]
fn a_key_that_is_missing_or_empty_is_named() {
    let spec =
        format!("{{broker: {{users: [{{name: u, passwordSecretRef: {{name: s, key: k}}}}]}}, {ROUTES}}}");
    for data in ["{other: x}", "{k: ''}", "{k: \"\\n\"}"] {
        let refusal = refusal(&format!("{spec}\n---\nmetadata: {{name: s}}\nstringData: {data}"));
        assert_eq!(refusal.reason(), "SecretIncomplete", "{data}");
        assert!(refusal.to_string().starts_with("the Secret s has no key k"), "{refusal}");
    }
}

fn external_broker(url: &str, data: &str) -> String {
    format!(
        "{{broker: {{external: {{url: '{url}', credentialsSecretRef: {{name: s}}}}}}, {ROUTES}}}\n---\n\
         metadata: {{name: s}}\nstringData: {data}"
    )
}

#[test]
fn a_client_certificate_without_its_key_or_without_tls_is_refused() {
    let half = refusal(&external_broker("mqtts://b", "{tls.crt: x, username: u, password: p}"));
    assert_eq!(half.reason(), "SecretIncomplete");
    let expected = "the Secret s has tls.crt and no tls.key, or it is empty or not text: a client certificate needs \
                    both, so add tls.key, or remove tls.crt (broker.external.credentialsSecretRef names it)";
    assert_eq!(half.to_string(), expected);
    let other = refusal(&external_broker("mqtts://b", "{tls.key: x, tls.crt: ''}"));
    assert!(other.to_string().starts_with("the Secret s has tls.key and no tls.crt"), "{other}");
    for url in ["mqtt://b", "ws://b/mqtt"] {
        let bare = refusal(&external_broker(url, "{tls.crt: x, tls.key: y}"));
        assert_eq!(bare.reason(), "InvalidSpec");
        let expected = format!("to {url} is without TLS: write mqtts:// or wss://");
        assert!(bare.to_string().contains(&expected), "{bare}");
    }
}

#[test]
fn a_client_certificate_stands_alone_but_half_a_login_does_not() {
    let plan = |data: &str| {
        let case = Case::parse(&format!("{HEAD}{}", external_broker("mqtts://b", data)));
        Plan::new(&case.pipeline, &case.observed, &config()).map(|plan| match plan.broker {
            Broker::External(external) => (external.login, external.certificate.is_some()),
            Broker::Managed(_) => panic!("the broker is external"),
        })
    };
    assert_eq!(plan("{tls.crt: x, tls.key: y}").expect("a plan"), (None, true));
    let over_websocket = external_broker("wss://b", "{tls.crt: x, tls.key: y}");
    let case = Case::parse(&format!("{HEAD}{over_websocket}"));
    assert!(Plan::new(&case.pipeline, &case.observed, &config()).is_ok());
    let login = Some(("u".to_owned(), "p".to_owned()));
    let both = "{tls.crt: x, tls.key: y, username: u, password: p}";
    assert_eq!(plan(both).expect("a plan"), (login.clone(), true));
    assert_eq!(plan("{username: u, password: p}").expect("a plan"), (login, false));
    let half = plan("{tls.crt: x, tls.key: y, username: u}").expect_err("half a login");
    assert!(half.to_string().starts_with("the Secret s has no key password"), "{half}");
    let nothing = plan("{other: x}").expect_err("nothing to connect with");
    assert!(nothing.to_string().starts_with("the Secret s has no key username"), "{nothing}");
}

fn given_certificate(now: &str, from: &str, to: &str) -> Option<Refusal> {
    let text = include_str!("golden/given-certificates/pipeline.yaml");
    assert!(text.contains(from));
    let mut case = Case::parse(&text.replace(from, to));
    case.observed.now = now.parse().expect("a time");
    Plan::new(&case.pipeline, &case.observed, &config()).err()
}

#[test]
fn a_certificate_that_clients_would_refuse_is_refused_with_what_to_do() {
    let (good, unchanged) = ("2030-01-01T00:00:00Z", ("works", "works"));
    assert!(given_certificate(good, unchanged.0, unchanged.1).is_none());
    let expired =
        given_certificate("2127-01-01T00:00:00Z", unchanged.0, unchanged.1).expect("it has expired");
    assert_eq!(expired.reason(), "CertificateExpired");
    assert_eq!(
        expired.to_string(),
        "the Secret works-certificate: the certificate in tls.crt has expired, on 2126-10-31T03:50:49Z: replace it \
         (broker.tls names it)"
    );
    let other = given_certificate(good, "metadata: {name: works}", "metadata: {name: other}");
    let other = other.expect("it is for other hosts");
    assert_eq!(other.reason(), "CertificateInvalid");
    assert!(other.to_string().contains("is not for other-broker.test.svc"), "{other}");
    let missing = given_certificate(good, "tls.key:", "key:").expect("there is no key");
    assert_eq!(missing.reason(), "SecretIncomplete");
    let foreign = given_certificate(good, "ca.crt:", "ca.old:");
    assert!(foreign.is_none(), "without ca.crt clients ask public authorities, which can't be asked here");
}

#[test]
fn a_certificate_that_is_not_issued_yet_is_waited_for() {
    let refusal = refusal(&format!("{{broker: {{tls: {{issuerRef: {{name: plant}}}}}}, {ROUTES}}}"));
    assert_eq!(refusal.reason(), "WaitingForCertificate");
    assert!(refusal.to_string().contains("has not made the Secret lab-broker-tls yet"), "{refusal}");
}

#[test]
fn a_password_with_a_line_break_is_refused() {
    let spec =
        format!("{{broker: {{users: [{{name: u, passwordSecretRef: {{name: s, key: k}}}}]}}, {ROUTES}}}");
    let refusal = refusal(&format!("{spec}\n---\nmetadata: {{name: s}}\nstringData: {{k: \"a\\nroot:x\"}}"));
    assert_eq!(refusal.reason(), "InvalidSpec");
}

#[test]
fn a_topic_with_a_line_break_can_t_grant_what_it_does_not_say() {
    for spec in [
        format!("{{broker: {{users: [{{name: u, publish: [\"a\\ntopic readwrite #\"]}}]}}, {ROUTES}}}"),
        "{routes: [{name: r, topic: \"a\\ntopic write b\", payload: {float: {}}}]}".to_owned(),
    ] {
        assert!(refusal(&spec).to_string().contains("control character"), "{spec}");
    }
}

#[test]
fn resources_that_are_no_quantity_are_refused() {
    let refusal = refusal(&format!("{{bridge: {{resources: {{requests: {{cpu: lots}}}}}}, {ROUTES}}}"));
    assert_eq!(
        refusal.to_string(),
        "bridge.resources.cpu: \"lots\" is no quantity: write a number with a unit, such as 100m or 128Mi"
    );
}

#[test]
fn routes_that_clash_are_refused() {
    let refusal = refusal("{routes: [{name: r, topic: 'a/{value}', payload: {float: {}}}]}");
    assert_eq!(refusal.reason(), "InvalidSpec");
}

#[test]
fn without_a_token_the_bridge_and_the_dashboard_are_left_as_they_are() {
    let case = Case::parse(&format!("{HEAD}{{dashboard: {{}}, {ROUTES}}}"));
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let desired = desired(&plan, &Tokens::default());
    assert!(matches!(desired.bridge, iotpipeline_operator::resources::Part::Withheld));
    assert!(matches!(desired.dashboard, iotpipeline_operator::resources::Part::Withheld));
    assert!(desired.database.is_some() && desired.broker.is_some());
}

#[test]
fn the_claim_templates_of_an_existing_set_stay_as_they_are() {
    let mut case = Case::parse(&format!("{HEAD}{{broker: {{storage: {{size: 9Gi}}}}, {ROUTES}}}"));
    let set = |case: &Case| -> StatefulSet {
        let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
        desired(&plan, &tokens()).broker.expect("there is a broker").stateful_set
    };
    let mut existing = set(&case);
    let claims = existing.spec.volume_claim_templates.as_mut().expect("there are claims");
    claims[0].metadata.labels = None;
    let kept = existing.spec.volume_claim_templates.clone();
    case.observed.children.stateful_sets.push(existing);
    assert_eq!(set(&case).spec.volume_claim_templates, kept);
}

#[test]
fn bridges_that_are_too_many_leave_before_one_alone_subscribes_by_itself() {
    let mut case = Case::parse(&format!("{HEAD}{{bridge: {{replicas: 3}}, {ROUTES}}}"));
    let bridges = |case: &Case| Plan::new(&case.pipeline, &case.observed, &config()).expect("a plan").bridges;
    assert_eq!(bridges(&case), Bridges { shared: true, members: 3, running: 3 });
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("a plan");
    let set = desired(&plan, &tokens()).bridge.wanted().expect("a bridge").stateful_set.clone();
    case.observed.children.stateful_sets.push(set);
    case.pipeline.spec.bridge.replicas = None;
    assert_eq!(bridges(&case), Bridges { shared: true, members: 1, running: 3 });
    case.observed.children.stateful_sets[0].spec.replicas = Some(1);
    assert_eq!(bridges(&case), Bridges { shared: false, members: 1, running: 1 });
}

#[test]
fn pipelines_that_share_a_bucket_have_a_folder_each_and_their_keys_are_in_files_only() {
    let bucket = "{url: 'https://s3/copies/', credentialsSecretRef: {name: s}}";
    let spec = format!(
        "{{database: {{backup: {{schedule: 0 3 * * *, s3: {bucket}}}, restoreFrom: {{s3: {bucket}}}}}, {ROUTES}}}\n---\n\
         metadata: {{name: s}}\nstringData: {{accessKeyId: the-id-of-the-key, secretAccessKey: the-key-itself}}"
    );
    let case = Case::parse(&format!("{HEAD}{spec}"));
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("a plan");
    let desired = desired(&plan, &tokens());
    let cron_job = desired.backups.wanted().and_then(|objects| objects.cron_job.as_ref());
    let backup = serde_json::to_string(cron_job.expect("there is a schedule")).expect("it is JSON");
    assert!(backup.contains("\"--s3-url=https://s3/copies/test/lab\""), "{backup}");
    let restore = serde_json::to_string(desired.restore.wanted().expect("a Job")).expect("it is JSON");
    assert!(restore.contains("\"--s3-url=https://s3/copies/\""), "{restore}");
    for objects in [backup, restore] {
        assert!(objects.contains("\"secretName\":\"s\""), "{objects}");
        assert!(!objects.contains("the-id-of-the-key") && !objects.contains("the-key-itself"), "{objects}");
    }
}

#[test]
fn a_restore_that_is_to_do_something_else_is_another_job() {
    let job = |from: &str, more: &str| {
        let spec = format!("{{database: {{{more}restoreFrom: {from}}}, {ROUTES}}}");
        let secrets = ["s", "t"].map(|name| {
            format!("\n---\nmetadata: {{name: {name}}}\nstringData: {{accessKeyId: i, secretAccessKey: k}}")
        });
        let case = Case::parse(&format!("{HEAD}{spec}{}", secrets.concat()));
        let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("a plan");
        desired(&plan, &tokens())
            .restore
            .wanted()
            .expect("a Job")
            .metadata
            .name
            .clone()
            .expect("it has a name")
    };
    let s3 = |secret: &str, region: &str| {
        format!("{{s3: {{url: 'https://s3/c', region: {region}, credentialsSecretRef: {{name: {secret}}}}}}}")
    };
    let names = [
        job(&s3("s", "a"), ""),
        job(&s3("t", "a"), ""),
        job(&s3("s", "b"), ""),
        job(&s3("s", "a"), "bucket: other, "),
        job("{volume: {claimName: s}}", ""),
        job("{volume: {claimName: t}}", ""),
        job("{backup: 20260101T000000Z, volume: {claimName: t}}", ""),
    ];
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
    assert_eq!(job(&s3("s", "a"), ""), names[0]);
}

#[test]
fn a_backup_that_can_t_be_made_or_restored_leaves_the_rest_of_the_plan_as_it_is() {
    let s3 = "s3: {url: 'https://s3/c', credentialsSecretRef: {name: s}}";
    let half = "\n---\nmetadata: {name: s}\nstringData: {accessKeyId: i}";
    let backwards = "backup: {schedule: 30-10 3 * * *, volume: {size: 1Gi}}";
    for (database, secret, told) in [
        (format!("backup: {{{s3}}}, restoreFrom: {{{s3}}}"), "", "the Secret s does not exist"),
        (format!("backup: {{{s3}}}, restoreFrom: {{{s3}}}"), half, "no key secretAccessKey"),
        (backwards.to_owned(), "", "database.backup.schedule: write minute"),
    ] {
        let case = Case::parse(&format!("{HEAD}{{database: {{{database}}}, {ROUTES}}}{secret}"));
        let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("a plan all the same");
        let refused = |refusal: Option<&Refusal>| refusal.expect("it is refused").to_string();
        let backups = plan.backups.as_ref().expect("there are to be some");
        assert!(refused(backups.refused.as_ref()).contains(told), "{told}");
        let desired = desired(&plan, &tokens());
        assert!(matches!(desired.backups, Part::Withheld), "what there is of backups stays as it is");
        if let Some(restore) = &plan.restore {
            assert!(refused(restore.refused.as_ref()).contains(told), "{told}");
            assert!(matches!(desired.restore, Part::Withheld));
        }
        assert!(desired.bridge.wanted().is_some());
    }
}

#[test]
fn the_name_of_a_bucket_that_is_restored_is_no_pipeline_s() {
    let refusal = refusal(&format!("{{database: {{bucket: iotpipeline_restoring}}, {ROUTES}}}"));
    assert_eq!(refusal.reason(), "InvalidSpec");
    assert!(refusal.to_string().contains("database.bucket: iotpipeline_restoring"), "{refusal}");
}

#[test]
fn a_new_authority_restarts_a_broker_only_if_users_have_certificates() {
    let template = |users: &str, known: Option<&StatefulSet>| {
        let spec = format!("{{broker: {{users: [{users}]}}, {ROUTES}}}");
        let mut case = Case::parse(&format!("{HEAD}{spec}"));
        case.observed.children.stateful_sets.extend(known.cloned());
        let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
        desired(&plan, &tokens()).broker.expect("the broker is managed").stateful_set
    };
    let (password, certificate) = ("{name: u}", "{name: u, certificate: {}}");
    let first = template(password, None);
    assert_eq!(template(certificate, None).spec.template, first.spec.template);
    // It was started with another authority.
    let mut before = first.clone();
    let metadata = before.spec.template.metadata.get_or_insert_default();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert("iotpipeline.io/authority-hash".into(), "0000beef.0".into());
    assert_eq!(template(password, Some(&before)).spec.template, before.spec.template);
    assert_eq!(template(certificate, Some(&before)).spec.template, first.spec.template);
}
