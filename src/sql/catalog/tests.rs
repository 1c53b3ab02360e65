use super::*;

/// Rows as the query gives them: fields separated by blanks, `-` for NULL.
fn catalog(rows: &str) -> Catalog {
    Catalog::read(&rows_of(rows)).unwrap()
}

fn rows_of(rows: &str) -> Vec<Row> {
    let field = |text: &str| (text != "-").then(|| text.replace('+', " "));
    let lines = rows.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.split(' ').map(field).collect()).collect()
}

#[test]
fn functions_are_what_they_say() {
    let catalog = catalog(
        "object f 20000 public stable_one t - -
         object f 20001 public volatile_one f - -
         object f 20002 public mixed t - -
         object f 20003 other mixed f - -
         object f 20004 public crosstab t - -
         object f 20005 App \"Quoted t - -",
    );
    let safe = |schema: Option<&str>, name: &str| {
        catalog.has_safe_function(schema.map(|s| (s.as_bytes(), false)), name.as_bytes(), false)
    };
    assert!(safe(None, "stable_one") && safe(None, "STABLE_one") && safe(Some("PUBLIC"), "stable_one"));
    assert!(!safe(Some("other"), "stable_one"));
    assert!(!safe(None, "volatile_one") && !safe(Some("public"), "volatile_one"));
    assert!(!safe(None, "mixed") && safe(Some("public"), "mixed") && !safe(Some("other"), "mixed"));
    assert!(!safe(None, "crosstab"), "runs what it is given");
    assert!(!safe(None, "unknown"));
    assert!(!safe(None, &"x".repeat(64)));
    assert!(catalog.has_safe_function(Some((b"App", true)), b"\"\"Quoted", true));
    assert!(!catalog.has_safe_function(Some((b"app", true)), b"\"\"Quoted", true));
    assert!(!catalog.has_safe_function(None, b"\"\"quoted", true));
}

#[test]
fn namesakes_of_postgresqls_own() {
    let catalog = catalog(
        "object f 20000 public lower f namesake -
         object f 20001 public upper t namesake -
         object f 20002 public nextval t namesake -
         object f 20003 public rollup f - -",
    );
    assert!(catalog.shadows(b"lower") && catalog.shadows(b"LOWER"));
    assert!(!catalog.shadows(b"upper") && !catalog.shadows(b"now"));
    assert!(catalog.shadows(b"rollup"));
    assert!(!catalog.has_safe_function(None, b"nextval", false), "the other one is meant, perhaps");
    assert!(catalog.has_safe_function(Some((b"public", false)), b"nextval", false));
}

#[test]
fn what_uses_a_volatile_function_is_unfit_however_far_away() {
    let catalog = catalog(
        "object f 1574 pg_catalog nextval f - -
         object f 870 pg_catalog lower t - -
         object f 20000 public aggregate t - -
         object f 20001 public step f - -
         object r 20010 public bad_view t - -
         object r 20011 public View_over_it t - -
         object r 20012 public good_view t - -
         object r 20013 public aggregates t - -
         object r 20014 public unlogged f - -
         object r 20015 public checked t - -
         object t 20020 public positive t - -
         object o 20030 public <%> t - -
         object o 20031 public <#> t - -
         use r 20010 - - - f 1574
         use r 20011 - - - r 20010
         use r 20012 - - - f 870
         use r 20013 - - - f 20000
         use f 20000 - - - f 20001
         use t 20020 - - - f 20001
         use r 20015 - - - t 20020
         use o 20030 - - - f 20001
         use o 20031 - - - f 870",
    );
    let forbidden = |name: &str| catalog.forbids(name.as_bytes(), false);
    for name in ["bad_view", "BAD_VIEW", "aggregates", "unlogged", "positive", "checked"] {
        assert!(forbidden(name), "{name}");
    }
    assert!(catalog.forbids(b"View_over_it", true) && !forbidden("View_over_it"), "quoted names are exact");
    for name in ["good_view", "bad_vie", "t", ""] {
        assert!(!forbidden(name), "{name}");
    }
    assert!(forbidden(&"x".repeat(64)), "the server cuts it");
    assert!(!catalog.has_safe_function(None, b"aggregate", false));
    assert!(catalog.distrusts(b"select a <%> b") && !catalog.distrusts(b"select a <#> b"));
    assert_eq!(catalog.unfit_names(), 7);
}

#[test]
fn functions_that_look_like_columns() {
    let catalog = catalog(
        "object f 20000 public full_name f attribute -
         object f 20001 public safe_name t attribute -
         object f 20002 public two_arguments f - -
         object f 1574 pg_catalog nextval f attribute -
         object f 870 pg_catalog lower t attribute -",
    );
    let calls = |name: &str| catalog.calls_attribute(name.as_bytes(), false);
    assert!(calls("full_name") && calls("NEXTVAL"));
    assert!(!calls("safe_name") && !calls("two_arguments") && !calls("lower"));
    assert!(!catalog.forbids(b"full_name", false), "it may be a column's name elsewhere");
}

#[test]
fn what_leaves_something_in_the_session_is_known_with_its_users() {
    let catalog = catalog(
        "object f 20000 public sets_tenant t leaves -
         object f 20001 public harmless f - -
         object r 20010 public triggered t leaves -
         object r 20011 public over_it t - -
         use r 20011 - - - f 20000",
    );
    for name in ["sets_tenant", "SETS_TENANT", "triggered", "over_it"] {
        assert!(catalog.leaves_something(name.as_bytes(), false), "{name}");
    }
    assert!(!catalog.leaves_something(b"harmless", false));
    assert!(!catalog.has_safe_function(None, b"sets_tenant", false), "STABLE or not, it is no read");
}

#[test]
fn names_in_other_alphabets_are_not_compared() {
    assert!(!Catalog::default().forbids("größe".as_bytes(), false));
    let catalog = catalog("object r 20000 public größe f - -");
    assert!(catalog.forbids("Größe".as_bytes(), false) && catalog.forbids(b"gr\xf6\xdfe", false));
    assert!(!catalog.forbids(b"size", false));
}

#[test]
fn what_cannot_be_seen_makes_everything_a_write() {
    for (rows, why) in [
        ("all - - - reason - - -", "reason"),
        ("object f 20000 public f f - -\nuse t 0 - - - f 20000", "a cast that is made"),
        (
            "object f 20000 public f f - -\nobject t 25 pg_catalog text t - -\nuse t 25 - - - f 20000",
            "of type text calls",
        ),
    ] {
        let catalog = catalog(rows);
        assert!(catalog.distrusts(b"select 1"));
        assert!(catalog.opaque().unwrap().contains(why), "{rows}");
    }
    assert!(!Catalog::default().distrusts(b"select 1"));
}

#[test]
fn an_unknown_function_is_not_trusted() {
    let catalog = catalog("object r 20000 public v t - -\nuse r 20000 - - - f 20001");
    assert!(catalog.forbids(b"v", false));
}

#[test]
fn strange_rows_are_an_error() {
    for rows in
        ["object", "what f 1 a b t - -", "object f x a b t - -", "use f 1 - - - f -", "object f 1 - b t - -"]
    {
        assert!(Catalog::read(&rows_of(rows)).is_err(), "{rows}");
    }
}
