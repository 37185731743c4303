//! Somebody with an account at the bridge's broker, who guesses its client id.

use anyhow::ensure;
use iotpipeline_e2e::bridge_process::CLIENT_ID;
use iotpipeline_e2e::conditions::eventually_true;
use iotpipeline_e2e::mqtt::Client;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, with_chain};

const MESSAGES: u64 = 200;

#[tokio::test]
async fn who_connects_by_the_bridge_s_known_client_id_ends_neither_its_connection_nor_its_session() {
    with_chain(NUMBERS, async |chain| {
        chain.bridge.hide_client_id()?;
        eventually_true("the bridge has another session", SOON, async || {
            Ok(chain.bridge.log(100).contains("the configuration has changed")
                && chain.bridge.status().await?.ready())
        })
        .await?;
        for client_id in [CLIENT_ID.to_owned(), format!("{CLIENT_ID}_0")] {
            // Each begins anew, and so ends the session that it names.
            Client::connect(chain.broker.port, &client_id, None).await?;
        }
        ensure!(chain.bridge.status().await?.ready(), "{}", chain.bridge.log(10));

        // What waits for a bridge that is away.
        chain.bridge.terminate().await?;
        let (progress, _seen) = watch::channel(0);
        chain.load(MESSAGES, 2_000).publish(&progress).await?;
        Client::connect(chain.broker.port, CLIENT_ID, None).await?;
        chain.bridge.restart().await?;
        chain.influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        let told = [
            chain.bridge.log(1000),
            chain.bridge.metrics().await?,
            format!("{:?}", chain.bridge.status().await?),
        ];
        let secret = chain.bridge.secret_part()?;
        ensure!(!told.iter().any(|text| text.contains(&secret)), "the bridge tells the secret part");
        Ok(())
    })
    .await;
}
