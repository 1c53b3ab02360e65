//! Looks every few seconds whether TLS certificates have been renewed.

use std::sync::Arc;
use std::time::Duration;

use super::reload;
use super::shared::Shared;

/// How often the files are looked at.
const WATCH: Duration = Duration::from_secs(5);

/// Follows renewed certificates until the task is dropped.
pub async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let config = shared.config.load_full();
        let uses_files = shared.tls.clients.load().is_some() || shared.tls.servers.load().is_some();
        // What cannot be used is complained about once.
        if uses_files && shared.tls.has_news(&config.settings) {
            let _ = reload::refresh_tls(&shared, &config);
        }
    }
}
