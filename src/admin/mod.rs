//! The HTTP listener of operators and their scripts: James's routes, bodies and messages.
//!
//! `connections` bounds what clients cost, `guard` stands before every route, `error` is how
//! all of them refuse; each group of routes is a file of its own that offers a `routes()`.

mod actor;
mod answer;
mod body;
mod connections;
mod error;
mod guard;
mod healthcheck;
mod injection;
mod jobs;
mod mail_queues;
mod mail_repositories;
mod metrics;
mod openapi;
mod page;
mod parameters;
mod query;
mod records;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::Uri;
use axum::middleware;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clients::{Users, WrongPasswords};
use crate::clock::Clock;
use crate::health::Health;
use crate::ingest::Intake;
use crate::jobs::Swept;
use crate::live::Live;
use crate::logging::LostLines;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::schedule;
use crate::stop::{Cancellation, Stop};
use crate::store::{self, Store};
use crate::tasks::Tasks;
use connections::Limits;

/// What the listener is told by the configuration.
#[derive(Clone, Default)]
pub struct Settings {
    /// Passwords for everything.
    pub full: Vec<String>,
    /// Passwords for reading.
    pub read_only: Vec<String>,
    /// Passwords for everything but removing.
    pub no_delete: Vec<String>,
    /// Users, each with a role and a password of his own.
    pub users: Option<Arc<Users>>,
    /// The certificate that clients are shown; `None` for HTTP in clear.
    pub tls: Option<TlsAcceptor>,
    /// Where a browser finds us, if a proxy stands in front: our origin.
    pub url: Option<Uri>,
    /// What the configuration says of mails, jobs and schedules.
    pub site: Arc<Site>,
}

/// What routes have to know of the configuration.
#[derive(Default)]
pub struct Site {
    /// The processors.
    pub processors: pipeline::Config,
    /// The URL schemes of repositories, and the one that is real.
    pub schemes: BTreeSet<String>,
    /// The processor that new mail enters.
    pub processor: String,
    /// The jobs by name.
    pub jobs: BTreeMap<String, crate::jobs::Config>,
    /// The schedules by name.
    pub schedules: BTreeMap<String, schedule::Config>,
}

impl Settings {
    fn has_password(&self) -> bool {
        self.users.is_some() || [&self.full, &self.read_only, &self.no_delete].iter().any(|some| !some.is_empty())
    }
}

/// What stands behind the routes.
pub struct Context {
    /// Where mail rests.
    pub store: Arc<dyn Store>,
    /// What is well.
    pub health: Arc<Health>,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Those of all clients; they outlast a reload.
    pub wrong_passwords: Arc<WrongPasswords>,
    /// Long work.
    pub tasks: Arc<Tasks>,
    /// What new mail meets.
    pub intake: Live<Intake>,
    /// What runs jobs.
    pub jobs: Arc<dyn RunJobs>,
    /// Asks all work to end.
    pub stop: Stop,
    /// Lines that the log has lost.
    pub lost_lines: LostLines,
}

/// What a run of a job answers.
pub type JobEnd = Pin<Box<dyn Future<Output = Result<Swept, store::Error>> + Send>>;

/// A run of a job that is to begin: it begins nothing more once the token is cancelled, and breaks
/// off what it has under way once it is cancelled itself.
pub type JobRun = Box<dyn FnOnce(CancellationToken, Cancellation) -> JobEnd + Send>;

/// What runs jobs of this process, one run of each job at a time.
pub trait RunJobs: Send + Sync {
    /// A run of `job`, as if every mail were due where `all_due`; `None` where one is going.
    fn begin(&self, job: &str, all_due: bool) -> Option<JobRun>;
}

struct Shared {
    settings: RwLock<Arc<Settings>>,
    context: Context,
    /// Where it listens: a name by which it may be asked.
    address: SocketAddr,
    /// Who is logged in to the pages.
    sessions: page::Sessions,
}

impl Shared {
    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.settings().site)
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What every route is given.
type State = axum::extract::State<Arc<Shared>>;

/// The name in a path, where it is text.
type Name = Result<axum::extract::Path<String>, axum::extract::rejection::PathRejection>;

/// An open socket, and what answers on it.
pub struct Admin {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// Puts other settings in force while it is served.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

impl Control {
    /// For requests from now on.
    pub fn set(&self, settings: Settings) {
        self.0.sessions.keep_to(&settings);
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

impl Admin {
    /// Opens the socket; requests wait in it until [`Admin::serve`].
    ///
    /// # Errors
    /// Where the address is taken or none of ours.
    pub async fn bind(listen: SocketAddr, settings: Settings, context: Context) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let sessions = page::Sessions::default();
        let shared = Shared { settings: RwLock::new(Arc::new(settings)), context, address, sessions };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens, the port as it was given out.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// For a reload.
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Answers until `stop`; requests under way are still answered.
    pub async fn serve(self, stop: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let tls = move || shared.settings().tls.clone();
        connections::serve(self.listener, tls, router(self.shared), Limits::default(), stop).await;
    }
}

/// Every route with its description.
fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(openapi::index))
        .routes(routes!(openapi::document))
        .merge(healthcheck::routes())
        .merge(mail_queues::routes())
        .merge(mail_repositories::routes())
        .merge(injection::routes())
        .merge(tasks::routes())
        .merge(jobs::routes())
        .merge(records::routes())
        .merge(metrics::routes())
}

fn router(shared: Arc<Shared>) -> Router {
    let (router, document) = routes().split_for_parts();
    // Pages are for people, and no part of the document.
    router
        .merge(page::routes())
        .layer(Extension(openapi::Documented::new(&document)))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

#[cfg(test)]
mod tests;
