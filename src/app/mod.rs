//! Start, signals, reload, shutdown: what makes a program of all the rooms.

mod doors;
mod fatal;
mod healthcheck;
mod isready;
mod process;
mod sources;
mod systemd;
mod takeover;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use doors::Doors;
use fatal::Fatal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::show::VERSION;
use crate::cli::{self, Command, Options};
use crate::config::Access;
use crate::config::load;
use crate::config::settings::{self as table, Change};
use crate::config::{Config, Loaded, Source};
use crate::error::{Refusal, sqlstate};
use crate::logging;
use crate::net::descriptors;
use crate::net::uring;
use crate::proxy::handover::{Door, DoorKind};
use crate::proxy::shared::{Lifecycle, Request, Shared, Shutdown};
use crate::proxy::takeover::{Found, Predecessor};
use crate::proxy::threads::{self, Rings};
use crate::proxy::worker::{Inbox, Worker};
use crate::proxy::{certificates, janitor, names, pause, reload, statistics, topology};

/// How often a shutdown under way looks whether it is done.
const POLL: Duration = Duration::from_millis(50);
/// How long the end is put off at most, so that clients get their last answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The program.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if isready::is_name(arguments.next().as_ref()) {
        return isready::run(arguments, || Some(load_running(None).ok()?.config.settings));
    }
    let command = match cli::parse(arguments) {
        Ok(command) => command,
        Err(error) => return complain(&format!("{error}\nTry \"pgweir --help\" for more information.")),
    };
    let result = match command {
        Command::Help => say(cli::HELP),
        Command::Version => say(&format!("{VERSION}\n")),
        Command::Healthcheck(file) => load_running(file).and_then(|loaded| healthcheck::run(&loaded.config)),
        Command::Run(options) => run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => complain(&fatal),
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for on the command line")]
#[expect(clippy::unnecessary_wraps, reason = "one of several outcomes")]
fn say(text: &str) -> Result<(), Fatal> {
    print!("{text}");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "there may be no log yet")]
fn complain(text: &str) -> ExitCode {
    eprintln!("pgweir: {text}");
    ExitCode::FAILURE
}

/// The configuration of the pooler that is running here, as far as one can tell.
fn load_running(file: Option<PathBuf>) -> Result<Loaded, Fatal> {
    sources::load(file.or_else(healthcheck::file_of_process_1).as_deref())
}

fn run(options: &Options) -> Result<(), Fatal> {
    logging::start();
    logging::set_stderr(!options.quiet);
    logging::set_verbosity(options.verbose);
    let Loaded { mut config, warnings, sources } = sources::load(options.file.as_deref())?;
    config.settings.verbose += options.verbose;
    process::become_user(options.user.as_deref().unwrap_or(&config.settings.user))?;
    if options.daemon {
        process::check_daemon(&config)?;
    }
    set_logging(&config)?;
    tracing::info!("configuration from {}", sources.join(", "));
    warnings.iter().for_each(|problem| tracing::warn!("{problem}"));
    let access = reload::read_access(&config, None).map_err(|error| error.to_string())?;
    if options.daemon {
        process::daemonize()?;
    }
    process::raise_file_limit(&config.settings);
    let result = serve(config, access, options.reboot);
    if let Err(fatal) = &result {
        tracing::error!(fatal = true, "{fatal}");
    }
    result
}

fn set_logging(config: &Config) -> Result<(), Fatal> {
    let s = &config.settings;
    logging::set_format(s.log_format);
    logging::set_verbosity(s.verbose);
    logging::set_syslog(s);
    logging::set_file(&s.logfile).map_err(|error| format!("cannot open logfile {}: {error}", s.logfile))
}

/// Starts the workers and serves until the end.
fn serve(config: Config, access: Access, reboot: bool) -> Result<(), Fatal> {
    let count = match config.settings.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n as usize,
    };
    let (workers, inboxes): (Vec<Worker>, Vec<Inbox>) = (0..count).map(Worker::new).unzip();
    let shared = Arc::new(Shared::new(config.clone(), access, workers));
    reload::apply(&shared, config, None).map_err(|error| format!("TLS setup failed: {error}"))?;
    let turns = &shared.workers[0].turns;
    let runtime = threads::runtime(turns).map_err(|error| format!("cannot start: {error}"))?;
    let result = runtime.block_on(async {
        let config = shared.config.load_full();
        let found = if reboot { takeover::find(&config.settings).await? } else { Found::Nobody };
        let takes_over = !matches!(found, Found::Nobody);
        if !takes_over {
            process::Pidfile::check(&config.settings.pidfile)?;
        }
        let (inherited, predecessor) = match found {
            Found::HandsOver(mut old) => (std::mem::take(&mut old.doors), Some(old)),
            Found::Nobody | Found::MakesRoom => (service_manager_doors()?, None),
        };
        // Before anybody can see that the process is there, and send it one.
        let signals = Signals::listen().map_err(|error| format!("cannot handle signals: {error}"))?;
        let doors = Doors::open(&config, inherited, takes_over).await?;
        // Only now: whoever does not get this far leaves the file to the old process.
        let _pidfile = process::Pidfile::write(&config.settings.pidfile)?;
        start_workers(&shared, inboxes)?;
        control(&shared, doors, predecessor, signals).await
    });
    result?;
    // Workers may be in the middle of something; nobody waits for it any more.
    std::process::exit(0)
}

fn service_manager_doors() -> Result<Vec<Door>, Fatal> {
    let sockets = descriptors::from_service_manager()
        .map_err(|error| format!("cannot take sockets from the service manager: {error}"))?;
    Ok(sockets.into_iter().map(|socket| Door { kind: DoorKind::Activated, socket }).collect())
}

/// The first worker shares its thread with everything else there is to do, which is little. With one worker the process
/// has one thread, for which the kernel and the C library take shortcuts: 2 % of the CPU per transaction.
fn start_workers(shared: &Arc<Shared>, inboxes: Vec<Inbox>) -> Result<(), Fatal> {
    let rings = Arc::new(Rings::new(inboxes.len()));
    let mut inboxes = inboxes.into_iter().enumerate();
    let first = inboxes.next();
    for (index, inbox) in inboxes {
        let (shared, rings) = (Arc::clone(shared), Arc::clone(&rings));
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let wants_ring = shared.config.load().settings.io_uring;
                threads::run(&shared.workers[index].turns, inbox, &rings, wants_ring)
            })
            .map_err(|error| format!("cannot start a worker: {error}"))?;
    }
    if let Some((index, inbox)) = first {
        rings.start(shared.config.load().settings.io_uring);
        let turns = Arc::clone(&shared.workers[index].turns);
        tokio::task::spawn_local(async move { inbox.serve(&turns).await });
    }
    Ok(())
}

/// Signals that are acted on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Waits for signals and requests, and acts on them, until the end has come.
async fn control(
    shared: &Arc<Shared>,
    mut doors: Doors,
    predecessor: Option<Box<Predecessor>>,
    mut signals: Signals,
) -> Result<(), Fatal> {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let _ = shared.requests.set(sender);

    doors.follow(&shared.config.load().settings);
    doors.serve(shared);
    tokio::task::spawn_local(janitor::run(Arc::clone(shared)));
    tokio::task::spawn_local(janitor::watch_deadlines(Arc::clone(shared)));
    tokio::task::spawn_local(topology::run(Arc::clone(shared)));
    tokio::task::spawn_local(names::run(Arc::clone(shared)));
    tokio::task::spawn_local(certificates::watch(Arc::clone(shared)));
    tokio::task::spawn_local(statistics::run(Arc::clone(shared)));
    tokio::task::spawn_local(systemd::watchdog(Arc::clone(shared)));
    tracing::info!("process up: {VERSION}, {} workers", shared.workers.len());
    systemd::ready();
    if let Some(predecessor) = predecessor {
        predecessor.begin(shared).await.map_err(|error| format!("the old process is lost: {error}"))?;
    }

    loop {
        let shutdown = tokio::select! {
            _ = signals.terminate.recv() => Some(("SIGTERM", Shutdown::WaitForClients)),
            _ = signals.interrupt.recv() => Some(("SIGINT", Shutdown::WaitForServers)),
            _ = signals.quit.recv() => Some(("SIGQUIT", Shutdown::Immediate)),
            _ = signals.hangup.recv() => {
                tracing::info!("got SIGHUP, re-reading config");
                let _ = reload(shared, &doors);
                None
            }
            _ = signals.user1.recv() => {
                if shared.lifecycle() == Lifecycle::Active {
                    tracing::info!("got SIGUSR1, pausing all activity");
                    shared.set_lifecycle(Lifecycle::Paused);
                    pause::pause_all(shared);
                } else {
                    tracing::info!("got SIGUSR1, but already paused/suspended");
                }
                None
            }
            _ = signals.user2.recv() => {
                go_on(shared);
                None
            }
            Some(request) = requests.recv() => match request {
                Request::Reload(answer) => {
                    let _ = answer.send(reload(shared, &doors));
                    None
                }
                Request::Follow => {
                    let config = shared.config.load_full();
                    let _ = set_logging(&config);
                    doors.follow(&config.settings);
                    None
                }
                Request::Shutdown(how) => Some(("SHUTDOWN", how)),
                Request::Doors(answer) => {
                    let _ = answer.send(doors.copies());
                    None
                }
                Request::HandedOver(pid) => {
                    doors.leave();
                    shared.set_shutdown(Shutdown::WaitForClients);
                    systemd::handed_over(pid);
                    None
                }
            },
            () = tokio::time::sleep(POLL), if shared.is_shutting_down() => {
                if is_over(shared) {
                    tracing::info!("nobody is left, shutting down");
                    break;
                }
                None
            }
        };
        let Some((cause, how)) = shutdown else { continue };
        if how == Shutdown::Immediate || (shared.is_shutting_down() && cause != "SHUTDOWN") {
            tracing::info!("got {cause}, fast exit");
            break;
        }
        systemd::stopping();
        doors.close_tcp();
        wind_down(shared, cause, how);
    }
    doors.close();
    let flushed = async {
        for worker in &shared.workers {
            worker.finish(uring::flush).await;
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, flushed).await;
    Ok(())
}

/// SIGUSR2, which is RESUME.
fn go_on(shared: &Arc<Shared>) {
    let from = match shared.lifecycle() {
        Lifecycle::Active if shared.shutdown().is_some() => {
            return tracing::info!("got SIGUSR2 while shutting down, ignoring");
        }
        _ if shared.shutdown() == Some(Shutdown::WaitForServers) => {
            return tracing::info!("got SIGUSR2 while shutting down, ignoring");
        }
        Lifecycle::Active => return tracing::info!("got SIGUSR2, but not paused/suspended"),
        Lifecycle::Paused => "PAUSE",
        Lifecycle::Suspended => "SUSPEND",
    };
    tracing::info!("got SIGUSR2, continuing from {from}");
    shared.set_lifecycle(Lifecycle::Active);
    pause::resume_all(shared);
}

fn wind_down(shared: &Arc<Shared>, cause: &str, how: Shutdown) {
    if how == Shutdown::WaitForClients {
        shared.set_shutdown(how);
        tracing::info!("got {cause}, shutting down, waiting for all clients disconnect");
    } else {
        shared.set_shutdown(how);
        pause::pause_all(shared);
        tracing::info!("got {cause}, shutting down, waiting for all servers connections to be released");
        // Nobody in the queue will get a server any more.
        let refusal = Refusal::new(sqlstate::ADMIN_SHUTDOWN, "server shutting down");
        shared.pools.all().iter().flat_map(|pool| pool.lanes()).for_each(|(_, lane)| {
            lane.refuse_all(&refusal);
        });
    }
}

fn is_over(shared: &Shared) -> bool {
    match shared.shutdown() {
        Some(Shutdown::WaitForClients) => !shared.clients.iter().any(|client| !client.admin),
        Some(Shutdown::WaitForServers) => shared.servers.is_empty(),
        Some(Shutdown::Immediate) | None => false,
    }
}

/// Reads the configuration again. In case of an error everything stays as it was.
fn reload(shared: &Arc<Shared>, doors: &Doors) -> Result<(), String> {
    systemd::reloading();
    let current = shared.config.load_full();
    let result = read_again(&current, &shared.access.load()).and_then(|(config, access)| {
        if let Err(error) = set_logging(&config) {
            tracing::error!("{error}");
        }
        doors.follow(&config.settings);
        reload::apply(shared, config, Some(access)).map_err(|error| format!("TLS setup failed: {error}"))
    });
    if let Err(error) = &result {
        tracing::error!("RELOAD failed: {error}");
    }
    systemd::ready();
    result
}

fn read_again(current: &Config, access: &Access) -> Result<(Config, Access), String> {
    let Loaded { mut config, warnings, .. } = match &current.source {
        Source::File(path) => load::load_file_again(path, current).map_err(|error| error.to_string())?,
        Source::Environment => Loaded { config: current.clone(), warnings: Vec::new(), sources: Vec::new() },
    };
    warnings.iter().for_each(|problem| tracing::warn!("{problem}"));
    let access = reload::read_access(&config, Some(access)).map_err(|error| error.to_string())?;
    // What only a restart can change keeps its value, so that SHOW CONFIG tells the truth.
    for info in table::TABLE.iter().filter(|info| info.change == Change::Restart) {
        let (old, new) = (current.settings.show(info.name), config.settings.show(info.name));
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            tracing::warn!("{} can be changed by a restart only", info.name);
            let _ = config.settings.set(info.name, &old);
        }
    }
    Ok((config, access))
}
