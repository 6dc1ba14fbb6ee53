//! Schedules paused and resumed, jobs run and tasks cancelled: what names no mails.

use super::{Error, MAX_NOTE, Operations, Operator, Result};
use crate::store::{NewOperation, Time};
use crate::text::rfc3339_seconds;

impl Operations<'_> {
    /// Lets the ticks of a schedule pass, until a time or until somebody resumes it. Whether
    /// there is such a schedule is the caller's to know.
    ///
    /// # Errors
    /// Where the time has passed already, the reason is longer than [`MAX_NOTE`], or the store cannot write it.
    pub async fn pause(&self, schedule: &str, reason: Option<&str>, until: Option<Time>) -> Result<()> {
        if until.is_some_and(|until| until <= self.now) {
            return Err(Error::Refused("the end of a pause must lie in the future".to_owned()));
        }
        if let Some(reason) = reason.filter(|reason| reason.len() > MAX_NOTE) {
            return Err(Error::Refused(format!("the reason has {} octets, and may have {MAX_NOTE}", reason.len())));
        }
        let until_when = until.map(|until| format!("until {}", rfc3339_seconds(&until, true)));
        let detail: Vec<_> = until_when.as_deref().into_iter().chain(reason).collect();
        let detail = (!detail.is_empty()).then(|| detail.join(": "));
        self.begin_other("pause", format!("schedule={schedule}"), detail.as_deref()).await?;
        Ok(self.store.pause(schedule, reason, until, &self.by.who).await?)
    }

    /// Ends a pause; whether there was one. Ticks that passed meanwhile are not missed ones.
    ///
    /// # Errors
    /// Where the store cannot write it.
    pub async fn resume(&self, schedule: &str) -> Result<bool> {
        if !self.store.paused().await?.iter().any(|(name, _)| name == schedule) {
            return Ok(false);
        }
        self.begin_other("resume", format!("schedule={schedule}"), None).await?;
        self.store.see_schedule(schedule, self.now).await?;
        Ok(self.store.resume(schedule).await?)
    }

    /// Puts on record that somebody ran a job, as a task.
    ///
    /// # Errors
    /// Where the store cannot write it.
    pub async fn note_run(&self, job: &str, all_due: bool, task: &str) -> Result<()> {
        let by = Operator { task: Some(task.to_owned()), ..self.by.clone() };
        let detail = all_due.then_some("as if every mail were due");
        Operations { by: &by, ..*self }.begin_other("run", format!("job={job}"), detail).await
    }

    /// Puts on record that somebody ended a task.
    ///
    /// # Errors
    /// Where the store cannot write it.
    pub async fn note_cancelled(&self, task: &str) -> Result<()> {
        self.begin_other("cancel", format!("task={task}"), None).await
    }

    /// Puts on record what is about no mails.
    async fn begin_other(&self, verb: &str, selection: String, detail: Option<&str>) -> Result<()> {
        let operation = NewOperation {
            who: self.by.who.clone(),
            client: self.by.client,
            verb: verb.to_owned(),
            place: None,
            selection,
            detail: detail.map(str::to_owned),
            task: self.by.task.clone(),
        };
        Ok(self.store.begin_operation(&operation).await.map(drop)?)
    }
}
