//! What makes backups.

use k8s_openapi::api::batch::v1::CronJob;

use super::{ApplyError, Pass};
use crate::observe::Children;
use crate::plan::Plan;
use crate::resources::backup::BackupObjects;

impl Pass<'_> {
    /// Applies as much of it as there can be. Without the volume nothing is made that would wait for it, and what is
    /// there is not swept.
    pub(super) async fn backups(
        &mut self,
        plan: &Plan,
        objects: &BackupObjects,
        children: &Children,
    ) -> Result<(), ApplyError> {
        let BackupObjects { claim, cron_job, job } = objects;
        let volume = match claim {
            Some(claim) => self.once(&children.claims, claim).await,
            None => Ok(()),
        };
        let is_there = |wanted: &CronJob| {
            children.cron_jobs.iter().any(|live| live.metadata.name == wanted.metadata.name)
        };
        let scheduled = match cron_job {
            Some(cron_job) if volume.is_ok() || is_there(cron_job) => {
                self.one(&children.cron_jobs, cron_job).await.map(|_| ())
            }
            Some(_) | None => Ok(()),
        };
        // While the pipeline hibernates, what was asked for waits; what was done is not forgotten.
        let requested = match job {
            Some(job) if volume.is_ok() && !plan.sleep.broker => self.once(&children.jobs, job).await,
            Some(job) => {
                self.keep(job);
                Ok(())
            }
            None => Ok(()),
        };
        volume.and(scheduled).and(requested)
    }
}
