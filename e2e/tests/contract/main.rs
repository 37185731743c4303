//! The stand-in for Grafana, held to what a real Grafana was recorded to answer (`README.md`).
//! InfluxDB's part is played by a server that answers what InfluxDB had answered.

use anyhow::{Context, Result, ensure};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::http;
use iotpipeline_e2e::stand_in::{StandIn, recorded_files};
use serde_json::{Value, json};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_grafana-stand-in");
const TOKEN: &str = "the-right-token";
const SOON: Duration = Duration::from_secs(20);

const BUCKETS: &str = "#datatype,string,long,string\n#group,false,false,false\n#default,_result,,\n\
    ,result,table,name\n,,0,mesure\n\n";

/// A database that answers what InfluxDB had answered; returns its port.
async fn recorded_database() -> Result<u16> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let answer = async |headers: HeaderMap, Json(body): Json<Value>| {
        let authorized = headers.get("Authorization").is_some_and(|value| value == &format!("Token {TOKEN}"));
        if !authorized {
            let refusal = json!({"code": "unauthorized", "message": "unauthorized access"});
            return (StatusCode::UNAUTHORIZED, refusal.to_string());
        }
        let text = if body["query"] == "buckets()" { BUCKETS } else { include_str!("series.csv") };
        (StatusCode::OK, text.to_owned())
    };
    let router = Router::new().route("/api/v2/query", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(port)
}

async fn stand_in(token: &str) -> Result<StandIn> {
    StandIn::start(BINARY, recorded_files(recorded_database().await?, token)?).await
}

fn recorded(name: &str) -> Result<Value> {
    let answers: Value = serde_json::from_str(include_str!("answers.json"))?;
    Ok(answers[name].clone())
}

/// The names and kinds of what is in a value, without the values themselves.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Null => Value::Null,
    }
}

#[tokio::test]
async fn a_query_is_answered_as_recorded() -> Result<()> {
    let stand_in = stand_in(TOKEN).await?;
    let query = serde_json::from_str(include_str!("query.json"))?;
    let mut answer = stand_in.grafana.post("/ds/query", &query).await?;
    let mut expected = recorded("query")?;
    ensure!(shape(&answer) == shape(&expected), "{answer:#}");
    // What ran differs from run to run by its times only.
    let executed = answer.pointer_mut("/results/A/frames/0/schema/meta/executedQueryString");
    let executed = executed.context("no executed query")?.take();
    let executed = executed.as_str().context("no text")?.to_owned();
    ensure!(executed.contains("every: 5m0s") && !executed.contains("v."), "{executed}");
    *expected.pointer_mut("/results/A/frames/0/schema/meta/executedQueryString").context("recorded")? =
        Value::Null;
    ensure!(answer == expected, "{answer:#}");
    Ok(())
}

#[tokio::test]
async fn health_is_answered_as_recorded_but_under_its_own_name() -> Result<()> {
    let stand_in = stand_in(TOKEN).await?;
    let mut health = recorded("health")?;
    health["version"] = "stand-in".into();
    ensure!(stand_in.grafana.get("/health").await? == health);
    ensure!(stand_in.grafana.get("/datasources/uid/influxdb/health").await? == recorded("dataSourceHealth")?);
    Ok(())
}

#[tokio::test]
async fn a_wrong_token_is_reported_as_recorded() -> Result<()> {
    let stand_in = stand_in("a-wrong-token").await?;
    let answer = |path: &str| {
        http::client()
            .get(format!("http://127.0.0.1:{}/api{path}", stand_in.port))
            .basic_auth("admin", Some(iotpipeline_e2e::stand_in::PASSWORD))
    };
    let health = answer("/datasources/uid/influxdb/health").send().await?;
    ensure!(health.status() == 400, "{}", health.status());
    ensure!(health.json::<Value>().await? == recorded("dataSourceHealthWithAWrongToken")?);
    let query = serde_json::from_str(include_str!("query.json"))?;
    let error = stand_in.grafana.post("/ds/query", &query).await.expect_err("the query fails");
    let text = format!("{error:#}");
    ensure!(text.contains("400 Bad Request") && text.contains("\"error\""), "{text}");
    Ok(())
}

#[tokio::test]
async fn dashboards_are_read_again_and_those_whose_file_is_gone_are_forgotten() -> Result<()> {
    let stand_in = stand_in(TOKEN).await?;
    let titles = async || {
        let found = stand_in.grafana.get("/search?type=dash-db").await?;
        let titles = found.as_array().context("not a list")?.iter();
        anyhow::Ok(titles.filter_map(|entry| Some(entry["title"].as_str()?.to_owned())).collect::<Vec<_>>())
    };
    let become_titles = async |expected: &[&str]| {
        eventually(format!("dashboards {expected:?}"), SOON, async || {
            let titles = titles().await?;
            Ok(if titles == expected { Probe::Found(()) } else { Probe::NotYet(format!("{titles:?}")) })
        })
        .await
    };
    become_titles(&["lab"]).await?;
    let directory = stand_in.directory.path().join("dashboards");
    std::fs::write(directory.join("b.json"), r#"{"uid": "z", "title": "second"}"#)?;
    become_titles(&["lab", "second"]).await?;
    std::fs::write(directory.join("b.json"), "{")?;
    std::fs::write(directory.join("c.json"), r#"{"uid": "zz", "title": "third"}"#)?;
    become_titles(&["lab", "second", "third"]).await?;
    std::fs::remove_file(directory.join("b.json"))?;
    become_titles(&["lab", "third"]).await
}

#[tokio::test]
async fn only_the_administrator_is_answered() -> Result<()> {
    let stand_in = stand_in(TOKEN).await?;
    let address = format!("http://127.0.0.1:{}/api/search", stand_in.port);
    ensure!(http::get(&address).await?.status() == 401);
    let wrong = http::client().get(&address).basic_auth("admin", Some("wrong")).send().await?;
    ensure!(wrong.status() == 401);
    Ok(())
}

#[tokio::test]
async fn what_keeps_grafana_from_starting_keeps_the_stand_in_too() -> Result<()> {
    // Within braces `$__file{…}` is no YAML, and an unreadable secret is no secret.
    for (good, bad) in [
        ("    token: $__file{", "    {token: $__file{"),
        ("$__file{", "$__file{/no/such"),
        ("datasources:", "datasources: ["),
    ] {
        let files = recorded_files(1, TOKEN)?;
        let path = files.path().join("provisioning/datasources/influxdb.yaml");
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(good), "{text}");
        std::fs::write(&path, text.replace(good, bad))?;
        let error = StandIn::start(BINARY, files).await.err().context(format!("{bad} is accepted"))?;
        ensure!(format!("{error:#}").contains("refusing to start"), "{error:#}");
    }
    Ok(())
}

#[tokio::test]
async fn data_sources_and_dashboards_are_taken_through_the_api() -> Result<()> {
    let stand_in = stand_in(TOKEN).await?;
    let source = json!({
        "uid": "edge", "name": "edge", "type": "influxdb", "access": "proxy",
        "url": format!("http://127.0.0.1:{}", recorded_database().await?),
        "jsonData": {"version": "Flux", "organization": "lab", "defaultBucket": "mesure"},
        "secureJsonData": {"token": TOKEN},
    });
    stand_in.grafana.post("/datasources", &source).await?;
    let shown = stand_in.grafana.get("/datasources/uid/edge").await?;
    ensure!(shown["secureJsonFields"]["token"] == true && !shown.to_string().contains(TOKEN), "{shown}");
    let again = stand_in.grafana.post("/datasources", &source).await.expect_err("it is there already");
    ensure!(format!("{again:#}").contains("409"), "{again:#}");
    ensure!(stand_in.grafana.get("/datasources/uid/edge/health").await? == recorded("dataSourceHealth")?);

    let dashboard = |title: &str| json!({"dashboard": {"uid": "edge", "title": title}, "overwrite": true});
    ensure!(stand_in.grafana.post("/dashboards/db", &dashboard("one")).await?["version"] == 1);
    ensure!(stand_in.grafana.post("/dashboards/db", &dashboard("two")).await?["version"] == 2);
    let answer = stand_in.grafana.get("/dashboards/uid/edge").await?;
    ensure!(answer["dashboard"]["title"] == "two" && answer["meta"]["provisioned"] == false, "{answer}");
    Ok(())
}
