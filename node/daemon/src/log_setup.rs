//! Where the daemon's own log goes: the journal under systemd, else stderr.

use log::LevelFilter;

/// Installs the logger. `SEDGED_LOG` sets the level (error, warn, info, debug, trace); default info.
pub(crate) fn init() {
    let level = std::env::var("SEDGED_LOG").ok().and_then(|text| text.parse().ok()).unwrap_or(LevelFilter::Info);
    if systemd_journal_logger::connected_to_journal() && try_journal(level) {
        return;
    }
    env_logger::Builder::new().filter_level(LevelFilter::Warn).filter_module("sedge", level).init();
}

fn try_journal(level: LevelFilter) -> bool {
    let Ok(journal) = systemd_journal_logger::JournalLog::new() else { return false };
    let installed = journal.with_syslog_identifier("sedged".to_owned()).install().is_ok();
    if installed {
        log::set_max_level(level);
    }
    installed
}
