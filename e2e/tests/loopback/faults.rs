//! Faults at random moments, by seeds: `cargo xtask soak` runs many more of them.

use iotpipeline_e2e::soak::series::{conclude, must_be_good, run_all};

/// The same in every run, so that a failure comes again.
const FIRST: u64 = 1;
const SEEDS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_stored_once_whatever_goes_wrong_on_the_way() -> anyhow::Result<()> {
    let mut log = Vec::new();
    let summary = run_all(FIRST, SEEDS, 1, &mut log).await?;
    conclude(&summary, &mut log)?;
    println!("{}", String::from_utf8_lossy(&log));
    must_be_good(&summary)
}
