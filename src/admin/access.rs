//! Who may do what at the console: one table, and whatever is not in it is denied.

use super::parse::Command;

/// Who somebody at the console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// One of `admin_users`, or the process's own user on the Unix socket.
    Admin,
    /// One of `stats_users`.
    Stats,
}

/// Kinds of commands, as far as access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Show,
    /// Rows about sockets to be handed over, secrets included.
    ShowFds,
    /// What drivers say, to no effect.
    Small,
    Set,
    Reload,
    Pause,
    Resume,
    Suspend,
    Disable,
    Enable,
    Reconnect,
    Kill,
    KillClient,
    WaitClose,
    Shutdown,
}

use Role::{Admin, Stats};

const MAY: &[(Kind, &[Role])] = &[
    (Kind::Show, &[Admin, Stats]),
    (Kind::ShowFds, &[Admin]),
    (Kind::Small, &[Admin, Stats]),
    (Kind::Set, &[Admin]),
    (Kind::Reload, &[Admin]),
    (Kind::Pause, &[Admin]),
    (Kind::Resume, &[Admin]),
    (Kind::Suspend, &[Admin]),
    (Kind::Disable, &[Admin]),
    (Kind::Enable, &[Admin]),
    (Kind::Reconnect, &[Admin]),
    (Kind::Kill, &[Admin]),
    (Kind::KillClient, &[Admin]),
    (Kind::WaitClose, &[Admin]),
    (Kind::Shutdown, &[Admin]),
];

/// Whether a role may use a kind of command.
pub(super) fn may(role: Role, kind: Kind) -> bool {
    MAY.iter().any(|(allowed, roles)| *allowed == kind && roles.contains(&role))
}

/// The kind of a command.
pub(super) fn kind(command: &Command) -> Kind {
    match command {
        Command::Show(view) if view.name == "fds" => Kind::ShowFds,
        Command::Help | Command::Show(_) | Command::Setting(_) | Command::ApplicationName => Kind::Show,
        Command::Constant(_)
        | Command::SetSession(..)
        | Command::Transaction(..)
        | Command::Deallocate(_)
        | Command::Nothing(_) => Kind::Small,
        Command::Set(..) => Kind::Set,
        Command::Reload => Kind::Reload,
        Command::Pause(_) => Kind::Pause,
        Command::Resume(_) => Kind::Resume,
        Command::Suspend => Kind::Suspend,
        Command::Disable(_) => Kind::Disable,
        Command::Enable(_) => Kind::Enable,
        Command::Reconnect(_) => Kind::Reconnect,
        Command::Kill(_) => Kind::Kill,
        Command::KillClient(_) => Kind::KillClient,
        Command::WaitClose(_) => Kind::WaitClose,
        Command::Shutdown(_) => Kind::Shutdown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::one;
    use super::super::show::VIEWS;
    use super::*;

    /// Every command there is, and whether stats_users may use it.
    const COMMANDS: &[(&str, bool)] = &[
        ("show help", true),
        ("show default_pool_size", true),
        ("show application_name", true),
        ("show server_version", true),
        ("select 1", true),
        ("set extra_float_digits = 3", true),
        ("set application_name = 'x'", true),
        ("begin", true),
        ("commit", true),
        ("rollback", true),
        ("discard all", true),
        ("deallocate a", true),
        ("set max_client_conn = 1", false),
        ("set admin_users = me", false),
        ("reload", false),
        ("pause", false),
        ("pause a", false),
        ("resume", false),
        ("resume a", false),
        ("suspend", false),
        ("disable a", false),
        ("enable a", false),
        ("reconnect", false),
        ("reconnect a", false),
        ("kill", false),
        ("kill a", false),
        ("kill_client 1", false),
        ("wait_close", false),
        ("wait_close a", false),
        ("shutdown", false),
        ("shutdown wait_for_servers", false),
        ("shutdown wait_for_clients", false),
    ];

    #[test]
    fn each_role_may_do_what_it_should() {
        let views = VIEWS.iter().map(|view| (format!("show {}", view.name), view.name != "fds"));
        let commands = COMMANDS.iter().map(|(text, stats)| ((*text).to_owned(), *stats));
        let mut seen = Vec::new();
        for (text, stats) in commands.chain(views) {
            let kind = kind(&one(&text).unwrap());
            assert!(may(Admin, kind), "{text}");
            assert_eq!(may(Stats, kind), stats, "{text}");
            seen.push(kind);
        }
        assert!(MAY.iter().all(|(kind, _)| seen.contains(kind)), "the test names every kind");
    }
}
