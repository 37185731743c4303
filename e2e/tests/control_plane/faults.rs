//! Whatever goes wrong between the operator and the API server, the objects are the same in the end.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use iotpipeline_e2e::api_proxy::Fault;
use iotpipeline_e2e::convergence::{Outcome, Scene};

/// How many runs at a time.
const AT_ONCE: usize = 4;

/// If set, every moment has its turn, and not only some.
const ALL: &str = "IOTPIPELINE_EVERY_FAULT";

/// The moments that are tried, of so many.
fn moments(count: usize, sample: usize) -> Vec<usize> {
    let mut moments: Vec<usize> = (1..=count).collect();
    if std::env::var_os(ALL).is_none() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        fastrand::Rng::with_seed(seed).shuffle(&mut moments);
        moments.truncate(sample);
    }
    moments
}

/// Runs each, and returns how many faults have happened. Of every kind one must have.
async fn each(scene: &Scene, faults: impl IntoIterator<Item = Fault>, calm: &Outcome) -> Result<usize> {
    static RUNS: AtomicUsize = AtomicUsize::new(1);
    let runs = stream::iter(faults).map(async |fault| {
        let namespace = format!("run-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let outcome = scene.run(&namespace, fault, Some(&calm.state)).await?;
        println!(
            "{fault:?}: {}",
            if outcome.has_happened { "the same in the end" } else { "did not happen" }
        );
        anyhow::Ok((fault, outcome.has_happened))
    });
    let outcomes: Vec<(Fault, bool)> = runs.buffer_unordered(AT_ONCE).try_collect().await?;
    for (fault, _) in &outcomes {
        let is_of_its_kind = |other: &Fault| mem::discriminant(other) == mem::discriminant(fault);
        let has_happened = outcomes.iter().any(|(other, happened)| *happened && is_of_its_kind(other));
        ensure!(has_happened, "no fault such as {fault:?} has happened");
    }
    Ok(outcomes.into_iter().filter(|(_, happened)| *happened).count())
}

async fn calm(scene: &Scene) -> Result<Outcome> {
    let calm = scene.run("calm", Fault::None, None).await?;
    println!("without a fault: {} objects, {:?}", calm.state.len(), calm.passed);
    // What hangs a deletion when the operator is gone.
    let finalizers = calm.state.iter().filter(|(_, object)| !object["finalizers"].is_null());
    let finalized: Vec<&String> = finalizers.map(|(name, _)| name).collect();
    ensure!(finalized.is_empty(), "have finalizers: {finalized:?}");
    ensure!(calm.passed.writes > 10 && calm.state.len() > 5, "{:?}", calm.passed);
    Ok(calm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_at_any_write_leaves_what_the_next_completes() -> Result<()> {
    let scene = Scene::start().await?;
    let calm = calm(&scene).await?;
    let moments = moments(calm.passed.writes, 4);
    let faults = moments.iter().flat_map(|&write| [Fault::LoseWrite(write), Fault::LoseAnswer(write)]);
    let happened = each(&scene, faults, &calm).await?;
    println!("{happened} kills");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_events_refusals_and_stale_answers_change_nothing_in_the_end() -> Result<()> {
    let scene = Scene::start().await?;
    let calm = calm(&scene).await?;
    let mut faults: Vec<Fault> = moments(calm.passed.events, 4).into_iter().map(Fault::LoseEvent).collect();
    let codes = [409, 429, 500, 504];
    let requests = moments(calm.passed.requests, 8).into_iter().enumerate();
    faults.extend(requests.map(|(index, request)| Fault::Refuse(request, codes[index % codes.len()])));
    faults.extend(moments(calm.passed.reads, 4).into_iter().map(Fault::Stale));
    // Each takes half a minute.
    let held = moments(calm.passed.requests, 16).into_iter().step_by(8);
    faults.extend(held.map(Fault::Hold));
    let happened = each(&scene, faults, &calm).await?;
    println!("{happened} faults");
    Ok(())
}
