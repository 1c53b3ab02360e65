//! Prepared statements, named and unnamed.

use super::*;

#[test]
fn names_are_translated_and_statements_prepared_once() {
    let mut link = Link::new(10);
    link.client_sends(&messages(&[PARSE_A, (b'B', b"\0a\0rest"), SYNC])).unwrap();
    assert_eq!(
        link.to_server,
        messages(&[(b'P', b"PGWEIR_1\0select 1\0\0\0"), (b'B', b"\0PGWEIR_1\0rest"), SYNC])
    );
    link.server_sends(&messages(&[(b'1', b""), (b'2', b""), READY])).unwrap();
    assert!(link.server.is_settled());
    link.to_server.clear();
    link.to_client.clear();

    // Another server: the statement is prepared there, and nobody sees the reply.
    link.server = ServerSession::default();
    link.client_sends(&messages(&[(b'B', b"\0a\0x"), SYNC])).unwrap();
    assert_eq!(
        link.to_server,
        messages(&[(b'P', b"PGWEIR_1\0select 1\0\0\0"), (b'B', b"\0PGWEIR_1\0x"), SYNC])
    );
    link.server_sends(&messages(&[(b'1', b""), (b'2', b""), READY])).unwrap();
    assert_eq!(link.to_client, messages(&[(b'2', b""), READY]));
}

#[test]
fn close_and_known_parse_are_answered_in_place() {
    let mut link = Link::new(10);
    link.client_sends(&messages(&[PARSE_A, SYNC])).unwrap();
    link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
    link.to_server.clear();
    link.to_client.clear();
    link.client_sends(&messages(&[(b'C', b"Sa\0"), PARSE_A])).unwrap();
    assert_eq!(link.to_server, b"");
    assert_eq!(link.to_client, messages(&[(b'3', b""), (b'1', b"")]));
    link.client_sends(&messages(&[SYNC])).unwrap();
    assert!(!link.server.is_settled());
    link.server_sends(&messages(&[READY])).unwrap();
    assert!(link.server.is_settled());
}

#[test]
fn a_name_is_not_given_twice_and_unknown_ones_are_refused() {
    let mut link = Link::new(10);
    assert_eq!(link.client_sends(&messages(&[PARSE_A, PARSE_A, SYNC])).unwrap(), Stop::Hold);
    let twice = [
        (b'P', &b"PGWEIR_1\0select 1\0\0\0"[..]),
        (b'C', b"SPGWEIR_duplicate\0"),
        (b'P', b"PGWEIR_duplicate\0select 1\0\0\0"),
        (b'P', b"PGWEIR_duplicate\0\0\0\0"),
    ];
    assert_eq!(link.to_server, messages(&twice));
    let exists = message(b'E', b"SERROR\0C42P05\0Mx\0\0");
    let received =
        link.server_sends(&[messages(&[(b'1', b""), (b'3', b""), (b'1', b"")]), exists].concat()).unwrap();
    let refused = received.refused.unwrap();
    assert_eq!((refused.sqlstate, &*refused.message), ("42P05", "prepared statement \"a\" already exists"));
    assert_eq!(link.client_sends(b"").unwrap(), Stop::More);
    link.server_sends(&messages(&[READY])).unwrap();
    assert!(link.server.is_settled() && link.client.statements.get(b"a").is_some());
    for (asks, sent) in [
        ((b'D', &b"Sb\0"[..]), (b'D', &b"SPGWEIR_missing\0"[..])),
        ((b'B', b"p\0b\0xyz"), (b'B', b"p\0PGWEIR_missing\0xyz")),
    ] {
        let mut link = Link::new(10);
        link.client_sends(&messages(&[asks, SYNC])).unwrap();
        assert_eq!(link.to_server, messages(&[sent]));
        let received = link.server_sends(&message(b'E', b"SERROR\0C26000\0Mx\0\0")).unwrap();
        assert_eq!(&*received.refused.unwrap().message, "prepared statement \"b\" does not exist");
        link.client_sends(b"").unwrap();
        assert_eq!(link.to_server, messages(&[sent, SYNC]));
        // Another reason comes first.
        let mut link = Link::new(10);
        link.client_sends(&messages(&[asks])).unwrap();
        let aborted = message(b'E', b"SERROR\0C25P02\0Mx\0\0");
        assert!(link.server_sends(&aborted).unwrap().refused.is_none());
        assert_eq!(link.to_client, aborted);
    }
}

/// With another name in it such a Bind could become longer than a length can say.
#[test]
fn a_bind_longer_than_postgresql_takes_is_refused() {
    for (len, possible) in [(0x3fff_fffe_u32, true), (0x3fff_ffff, false), (0x7fff_ffff, false)] {
        let mut link = Link::new(10);
        let bind = [b"B", &len.to_be_bytes()[..], b"\0a\0rest"].concat();
        let sent = link.client_sends(&[message(b'P', PARSE_A.1), bind].concat());
        assert_eq!(sent.is_ok(), possible, "{len:#x}");
    }
}

#[test]
fn a_failed_parse_is_forgotten() {
    let mut link = Link::new(10);
    link.client_sends(&messages(&[PARSE_A, SYNC])).unwrap();
    link.server_sends(&messages(&[(b'E', b"\0"), READY])).unwrap();
    assert!(link.server.statements.is_empty() && link.client.statements.is_empty());
}

#[test]
fn what_is_dropped_in_a_failed_batch_may_come_in_pieces() {
    let batch = messages(&[(b'B', b"\0a\0a longer body"), SYNC]);
    for cut in 8..batch.len() {
        let mut link = Link::new(10);
        link.client_sends(&messages(&[PARSE_A, SYNC])).unwrap();
        link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
        link.client_sends(&messages(&[(b'B', b"\0a\0x"), (b'E', b"\0\0\0\0\0")])).unwrap();
        link.server_sends(&message(b'E', b"SERROR\0C23505\0\0")).unwrap();
        link.to_server.clear();
        link.client_sends(&batch[..cut]).unwrap();
        link.client_sends(&batch[cut..]).unwrap();
        assert_eq!(link.to_server, messages(&[SYNC]), "cut at {cut}");
    }
}

#[test]
fn the_oldest_statement_makes_room() {
    let mut link = Link::new(1);
    link.client_sends(&messages(&[PARSE_A, (b'P', b"b\0select 2\0\0\0"), SYNC])).unwrap();
    assert_eq!(
        link.to_server,
        messages(&[
            (b'P', b"PGWEIR_1\0select 1\0\0\0"),
            (b'C', b"SPGWEIR_1\0"),
            (b'P', b"PGWEIR_2\0select 2\0\0\0"),
            SYNC
        ])
    );
    link.server_sends(&messages(&[(b'1', b""), (b'3', b""), (b'1', b""), READY])).unwrap();
    assert_eq!(link.to_client, messages(&[(b'1', b""), (b'1', b""), READY]));
    assert_eq!(link.server.statements.len(), 1);
}

#[test]
fn what_made_room_in_a_failed_batch_is_undone_backwards() {
    let mut link = Link::new(1);
    let parse_b: (u8, &[u8]) = (b'P', b"b\0select 2\0\0\0");
    link.client_sends(&messages(&[PARSE_A, SYNC])).unwrap();
    link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
    // Both take turns in the one place, but the server stops behind the first one.
    link.client_sends(&messages(&[parse_b, (b'B', b"\0a\0"), (b'D', b"Sb\0"), SYNC])).unwrap();
    link.server_sends(&messages(&[(b'E', b"\0"), READY])).unwrap();
    link.to_server.clear();
    link.client_sends(&messages(&[(b'B', b"\0a\0")])).unwrap();
    assert_eq!(link.to_server, messages(&[(b'B', b"\0PGWEIR_1\0")]));
}

#[test]
fn nobody_runs_another_clients_unnamed_statement() {
    let mut link = Link::new(10);
    link.client_sends(&messages(&[(b'B', b"\0\0x")])).unwrap();
    assert_eq!(link.to_server, messages(&[(b'C', b"S\0"), (b'B', b"\0\0x")]), "the server has none either");
    let mut link = Link::new(10);
    link.client_sends(&messages(&[(b'P', b"\0select 1\0\0\0"), SYNC])).unwrap();
    link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
    let mut server = std::mem::take(&mut link.server);
    server.detach(&mut link.client);
    link.server.attach(&link.client, false);
    link.to_server.clear();
    link.client_sends(&messages(&[(b'B', b"\0\0x"), SYNC])).unwrap();
    assert_eq!(link.to_server, messages(&[(b'P', b"\0select 1\0\0\0"), (b'B', b"\0\0x"), SYNC]));
}

#[test]
fn the_unnamed_statement_follows_its_client_however_it_was_cut() {
    let parse = message(b'P', b"\0select 1\0\0\0");
    for cut in 0..parse.len() {
        let mut link = Link::new(10);
        link.client_sends(&parse[..cut]).unwrap();
        link.client_sends(&parse[cut..]).unwrap();
        link.client_sends(&messages(&[SYNC])).unwrap();
        link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
        std::mem::take(&mut link.server).detach(&mut link.client);
        link.to_server.clear();
        link.client_sends(&messages(&[(b'B', b"\0\0x")])).unwrap();
        assert_eq!(link.to_server, [parse.clone(), message(b'B', b"\0\0x")].concat(), "{cut}");
    }
}

#[test]
fn nobody_runs_another_clients_unnamed_statement_after_an_error() {
    let (parse, bind) = ((b'P', &b"\0select 1\0\0\0"[..]), (b'B', &b"\0\0x"[..]));
    // The error is not known yet: what is bound in another batch waits for it.
    let mut link = Link::new(10);
    let stop = link.client_sends(&messages(&[(b'E', b"\0"), parse, SYNC, bind, SYNC])).unwrap();
    assert_eq!((stop, &link.to_server), (Stop::Hold, &messages(&[(b'E', b"\0"), parse, SYNC])));
    link.server_sends(&messages(&[(b'E', b"\0"), READY])).unwrap();
    link.to_server.clear();
    link.client_sends(b"").unwrap();
    assert_eq!(link.to_server, messages(&[(b'C', b"S\0"), bind, SYNC]));
    // It is known, and the server skips the Parse.
    let mut link = Link::new(10);
    link.client_sends(&messages(&[(b'E', b"\0")])).unwrap();
    link.server_sends(&messages(&[(b'E', b"\0")])).unwrap();
    link.to_server.clear();
    link.client_sends(&messages(&[parse, SYNC, bind])).unwrap();
    assert_eq!(link.to_server, messages(&[parse, SYNC, (b'C', b"S\0"), bind]));
    // It comes between Parse and Sync.
    let mut link = Link::new(10);
    link.client_sends(&messages(&[(b'E', b"\0"), parse])).unwrap();
    link.server_sends(&messages(&[(b'E', b"\0")])).unwrap();
    link.client_sends(&messages(&[SYNC])).unwrap();
    link.server_sends(&messages(&[READY])).unwrap();
    link.to_server.clear();
    link.client_sends(&messages(&[bind, (b'D', b"S\0")])).unwrap();
    assert_eq!(link.to_server, messages(&[(b'C', b"S\0"), bind, (b'D', b"S\0")]));
    // So does an error the pooler's own Parse, which is sent again.
    let mut link = Link::new(10);
    link.client_sends(&messages(&[parse, SYNC])).unwrap();
    link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
    std::mem::take(&mut link.server).detach(&mut link.client);
    link.client_sends(&messages(&[(b'E', b"\0"), bind, SYNC])).unwrap();
    link.server_sends(&messages(&[(b'E', b"\0"), READY])).unwrap();
    link.to_server.clear();
    link.client_sends(&messages(&[bind, SYNC])).unwrap();
    assert_eq!(link.to_server, messages(&[parse, bind, SYNC]));
}

#[test]
fn a_query_or_a_close_ends_the_unnamed_statement_on_all_servers() {
    for end in [(b'Q', &b"select 2\0"[..]), (b'C', b"S\0")] {
        let mut link = Link::new(10);
        link.client_sends(&messages(&[(b'P', b"\0select 1\0\0\0"), SYNC])).unwrap();
        link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
        std::mem::take(&mut link.server).detach(&mut link.client);
        link.client_sends(&messages(&[end, SYNC])).unwrap();
        link.to_server.clear();
        link.client_sends(&messages(&[(b'B', b"\0\0x")])).unwrap();
        assert_eq!(link.to_server, messages(&[(b'C', b"S\0"), (b'B', b"\0\0x")]));
    }
}

#[test]
fn names_of_a_failed_batch_may_still_be_used_in_it() {
    let mut link = Link::new(10);
    link.client_sends(&messages(&[(b'P', b"bad\0nonsense\0\0\0"), PARSE_A])).unwrap();
    link.server_sends(&messages(&[(b'E', b"\0")])).unwrap();
    link.to_server.clear();
    link.client_sends(&messages(&[(b'B', b"\0a\0rest"), (b'D', b"Sa\0"), SYNC])).unwrap();
    assert_eq!(link.to_server, messages(&[SYNC]));
    link.server_sends(&messages(&[READY])).unwrap();
    assert!(link.server.is_settled());
    link.client_sends(&messages(&[PARSE_A, (b'B', b"\0a\0rest"), SYNC])).unwrap();
}

#[test]
fn a_long_statement_is_not_copied() {
    let text = [&vec![b'x'; 100_000][..], b"\0\0\0"].concat();
    let registry = Registry::default();
    let (mut client, mut server) = (ClientSession::default(), ServerSession::default());
    let context = Context {
        registry: &registry,
        max_prepared: 2,
        exclusive: false,
        one_at_a_time: false,
        refuse_simple: false,
    };
    let bytes = [message(b'P', &[&b"a\0"[..], &text].concat()), messages(&[(b'B', b"\0a\0"), SYNC])].concat();
    let mut scratch = Vec::new();
    let mut out = Output::new(&bytes, &mut scratch);
    client_to_server(&bytes, &mut client, &mut server, &context, &mut out).unwrap();
    assert!(out.bytes().len() < 100);
    let [long] = out.texts() else { panic!("{:?}", out.texts().len()) };
    let statement = client.statements.get(b"a").unwrap();
    assert!(Arc::ptr_eq(&long.statement, statement) && Arc::strong_count(statement) == 3);
    let (before, after) = out.bytes().split_at(long.at);
    let expected =
        [message(b'P', &[&b"PGWEIR_1\0"[..], &text].concat()), messages(&[(b'B', b"\0PGWEIR_1\0"), SYNC])];
    assert_eq!([before, &*long.statement.text_and_types, after].concat(), expected.concat());
    assert!(Arc::ptr_eq(&registry.intern(&text), statement));
}

#[test]
fn a_name_waits_for_what_an_earlier_batch_does_to_it() {
    let mut link = Link::new(10);
    let fails: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
    // The Parse is skipped, which nobody knows when the next batch comes.
    let stop = link.client_sends(&messages(&[fails, PARSE_A, SYNC, (b'B', b"\0a\0")])).unwrap();
    assert_eq!(stop, Stop::Hold);
    link.server_sends(&messages(&[(b'E', b"SERROR\0C22012\0\0"), READY])).unwrap();
    link.to_server.clear();
    link.client_sends(b"").unwrap();
    assert_eq!(link.to_server, messages(&[(b'B', b"\0PGWEIR_missing\0")]));
}

#[test]
fn columns_are_compared_where_a_statement_is_prepared_anew() {
    let columns = |name: &[u8]| {
        [&b"\0\x01"[..], name, &b"\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"[..]].concat()
    };
    let mut link = Link::new(10);
    link.client_sends(&messages(&[PARSE_A, (b'D', b"Sa\0"), SYNC])).unwrap();
    link.server_sends(&messages(&[(b'1', b""), (b't', b"\0\0"), (b'T', &columns(b"x")), READY])).unwrap();
    for (now, same) in [(columns(b"x"), true), (columns(b"y"), false)] {
        std::mem::take(&mut link.server).detach(&mut link.client);
        link.server.attach(&link.client, false);
        link.to_server.clear();
        link.to_client.clear();
        let bind = (b'B', &b"\0a\0x"[..]);
        assert_eq!(link.client_sends(&messages(&[bind, SYNC])).unwrap(), Stop::Hold);
        let asked = messages(&[(b'P', b"PGWEIR_1\0select 1\0\0\0"), (b'D', b"SPGWEIR_1\0"), (b'H', b"")]);
        assert!(link.to_server.starts_with(&asked));
        link.server_sends(&messages(&[(b'1', b""), (b't', b"\0\0"), (b'T', &now)])).unwrap();
        link.to_server.clear();
        link.client_sends(b"").unwrap();
        if same {
            assert_eq!(link.to_server, messages(&[(b'B', b"\0PGWEIR_1\0x"), SYNC]));
            link.server_sends(&messages(&[(b'2', b""), READY])).unwrap();
            assert_eq!(link.to_client, messages(&[(b'2', b""), READY]));
        } else {
            let refused =
                link.server_sends(&message(b'E', b"SERROR\0C26000\0Mx\0\0")).unwrap().refused.unwrap();
            assert_eq!(refused.sqlstate, "0A000");
        }
    }
}

/// A Parse that an error skips leaves the unnamed statement of an earlier batch, which is not known any more: none is run
/// rather than a wrong one.
#[test]
fn an_unnamed_statement_that_was_skipped_is_not_run() {
    let mut link = Link::new(10);
    let parse = |text: &[u8]| message(b'P', &[b"\0", text, b"\0\0\0"].concat());
    let (bind, sync) = (message(b'B', b"\0\0\0\0\0\0\0\0"), message(b'S', b""));
    link.client_sends(&[parse(b"select 1"), sync.clone()].concat()).unwrap();
    link.server_sends(&messages(&[(b'1', b""), (b'Z', b"I")])).unwrap();
    let wrong = message(b'E', b"\0\0\0\0\0");
    link.client_sends(&[wrong, parse(b"delete"), sync.clone()].concat()).unwrap();
    link.server_sends(&messages(&[(b'E', b"SERROR\0C34000\0\0"), (b'Z', b"I")])).unwrap();
    link.to_server.clear();
    link.client_sends(&[bind, sync].concat()).unwrap();
    let sent = String::from_utf8_lossy(&link.to_server).into_owned();
    assert!(sent.starts_with('C') && !sent.contains("delete"), "{sent:?}");
}

/// However much of a long error has come, it is read the same.
#[test]
fn of_a_long_error_the_beginning_counts() {
    let error = [&b"SFATAL\0VFATAL\0C57P01\0Mwhy\0D"[..], &[b'x'; 70_000], b"\0\0"].concat();
    let said = message(b'E', &error);
    let last = |cut: usize| {
        let mut link = Link::new(10);
        link.client_sends(&message(b'Q', b"select 1\0")).unwrap();
        let first = link.server_sends(&said[..cut]).unwrap();
        (first.is_last || link.server_sends(&said[cut..]).unwrap().is_last, link.to_client.len())
    };
    assert_eq!(last(2000), last(said.len()));
}
