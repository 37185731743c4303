//! The health script for Argo CD, run by the Lua of the version that Argo CD's interpreter speaks (5.1), on the cases
//! beside it. They have the form of Argo CD's own.

use std::fs;

use anyhow::{Result, ensure};
use iotpipeline_e2e::environment::repository;
use mlua::{Lua, Table, Value as LuaValue};
use serde_json::Value;

const FOLDER: &str = "manifests/argocd/iotpipeline.io/IoTPipeline";

fn read(file: &str) -> Result<String> {
    Ok(fs::read_to_string(repository(&format!("{FOLDER}/{file}")))?)
}

fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Null => LuaValue::Nil,
        Value::Bool(state) => LuaValue::Boolean(*state),
        Value::Number(number) => LuaValue::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => LuaValue::String(lua.create_string(text)?),
        Value::Array(values) => {
            let values = values.iter().map(|value| to_lua(lua, value)).collect::<mlua::Result<Vec<_>>>()?;
            LuaValue::Table(lua.create_sequence_from(values)?)
        }
        Value::Object(fields) => {
            let table = lua.create_table()?;
            for (name, value) in fields {
                table.set(name.as_str(), to_lua(lua, value)?)?;
            }
            LuaValue::Table(table)
        }
    })
}

#[test]
fn argo_cd_s_script_tells_healthy_from_degraded_and_from_what_is_under_way() -> Result<()> {
    let (script, cases) = (read("health.lua")?, read("health_test.yaml")?);
    let cases: Value = serde_saphyr::from_str(&cases)?;
    let cases = cases["tests"].as_array().cloned().unwrap_or_default();
    let files = fs::read_dir(repository(&format!("{FOLDER}/testdata")))?.count();
    ensure!(files == cases.len() && files > 5, "{files} files, {} cases", cases.len());
    for case in cases {
        let path = case["inputPath"].as_str().unwrap_or_default();
        let object: Value = serde_saphyr::from_str(&read(path)?)?;
        let told = || -> mlua::Result<(String, String)> {
            let lua = Lua::new();
            lua.globals().set("obj", to_lua(&lua, &object)?)?;
            let health: Table = lua.load(&script).eval()?;
            Ok((health.get("status")?, health.get("message")?))
        };
        let (status, message) = told().map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
        let expected = &case["healthStatus"];
        ensure!(
            expected["status"] == status && expected["message"] == message,
            "{path}: {status}: {message}"
        );
    }
    Ok(())
}
