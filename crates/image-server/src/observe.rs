//! What watchers of the server are told: whether it lives, whether it serves, and how much it does.
//!
//! Prometheus text format 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>), on a listener of its own where one
//! is configured: numbers of everybody's images are for the operator. `/healthz` and `/readyz` are there and beside the API, as
//! they tell nothing. What the catalog knows is asked of it at each scrape, so the numbers are those of all servers on one catalog
//! and survive restarts; traffic is that of this process.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use image_ingest::MemoryBudget;
use tokio::sync::Semaphore;
use tracing::error;

use crate::catalog::{Catalog, CatalogError};

/// What is watched.
pub(crate) struct Observed {
    pub(crate) catalog: Catalog,
    pub(crate) budget: MemoryBudget,
    /// Places for readers of images, and how many there are in all.
    pub(crate) readers: (Arc<Semaphore>, usize),
    pub(crate) traffic: Arc<Traffic>,
    /// Set when the server begins to stop.
    pub(crate) stopping: AtomicBool,
}

/// What passed through this process.
#[derive(Default)]
pub(crate) struct Traffic {
    /// Bytes of sources that were read for guest content.
    pub(crate) bytes_read: AtomicU64,
    /// Ingests that came to their end, good or bad, and the time of all of them.
    pub(crate) ingests: AtomicU64,
    pub(crate) ingest_millis: AtomicU64,
    /// Answers of the API, by the first digit of their status.
    answers: [AtomicU64; 6],
}

/// Counts the answers of the API.
pub(crate) async fn count(State(traffic): State<Arc<Traffic>>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    let class = usize::from(answer.status().as_u16() / 100);
    if let Some(count) = traffic.answers.get(class) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    answer
}

/// `/healthz`: the process answers. `/readyz`: it serves, and its catalog answers.
pub(crate) fn health(observed: Arc<Observed>) -> Router {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).with_state(observed)
}

/// The same, and `/metrics`.
pub(crate) fn metrics(observed: Arc<Observed>) -> Router {
    health(Arc::clone(&observed)).merge(Router::new().route("/metrics", get(scrape)).with_state(observed))
}

async fn ready(State(observed): State<Arc<Observed>>) -> (StatusCode, &'static str) {
    if observed.stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match observed.catalog.ping().await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the catalog does not answer\n"),
    }
}

async fn scrape(State(observed): State<Arc<Observed>>) -> Response {
    match observed.text().await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            error!(error = &error as &dyn std::error::Error, "the catalog cannot be counted");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

impl Observed {
    async fn text(&self) -> Result<String, CatalogError> {
        let mut text = Text(String::new());
        text.family("operations", "gauge", "Operations of the catalog, by kind and state.");
        for found in self.catalog.count_operations().await? {
            let labels = format!("{{kind=\"{}\",state=\"{}\"}}", found.kind, found.state);
            text.sample("operations", &labels, found.count);
        }
        let images = self.catalog.count_images().await?;
        text.single("images", "gauge", "Images that are there or being made.", images.count);
        text.single(
            "storage_bytes",
            "gauge",
            "What they store; shared blocks count for each.",
            images.storage_size,
        );
        let (readers, places) = &self.readers;
        let reading = places.saturating_sub(readers.available_permits());
        text.single("readers", "gauge", "Answers with the content of images that are being given.", reading);
        let (free, total) = (self.budget.free(), self.budget.total());
        text.single("ingest_memory_bytes", "gauge", "Memory that ingests hold.", total.saturating_sub(free));
        text.single("ingest_memory_limit_bytes", "gauge", "Memory that they may hold.", total);
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let traffic = &self.traffic;
        let read = load(&traffic.bytes_read);
        text.single("source_bytes_read_total", "counter", "Bytes read for guest content.", read);
        text.family("ingest_seconds", "summary", "Ingests that ended, and how long they took.");
        let millis = load(&traffic.ingest_millis);
        text.sample("ingest_seconds_sum", "", format_args!("{}.{:03}", millis / 1000, millis % 1000));
        text.sample("ingest_seconds_count", "", load(&traffic.ingests));
        text.family("answers_total", "counter", "Answers of the API, by the class of their status.");
        for (class, count) in traffic.answers.iter().enumerate().skip(1) {
            text.sample("answers_total", &format!("{{status=\"{class}xx\"}}"), load(count));
        }
        Ok(text.0)
    }
}

/// Text that grows. Writing to a string cannot fail.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP image_server_{name} {help}\n# TYPE image_server_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "image_server_{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }
}
