//! The HTTP listener of operators and their scripts: James's routes, bodies and messages.
//!
//! `connections` bounds what clients cost, `guard` stands before every route, `error` is how
//! all of them refuse; each group of routes is a file of its own that offers a `routes()`.

mod actor;
mod connections;
mod error;
mod guard;
mod healthcheck;
mod mail_queues;
mod openapi;
#[cfg_attr(not(test), expect(dead_code, reason = "the routes that change something come with the store's new verbs"))]
mod query;

use std::io;
use std::net::SocketAddr;
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
use crate::metrics::Metrics;
use crate::store::Store;
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
    /// The names of the queues beside the spool.
    pub outgoing: Vec<String>,
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
}

struct Shared {
    settings: RwLock<Arc<Settings>>,
    context: Context,
    /// Where it listens: a name by which it may be asked.
    address: SocketAddr,
}

impl Shared {
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
        let shared = Shared { settings: RwLock::new(Arc::new(settings)), context, address };
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
}

fn router(shared: Arc<Shared>) -> Router {
    let (router, document) = routes().split_for_parts();
    router
        .layer(Extension(openapi::Documented(Arc::new(document))))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

#[cfg(test)]
mod tests;
