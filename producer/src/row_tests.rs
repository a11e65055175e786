use super::*;
use proptest::prelude::*;
use records::SourceId;

const FEED: Feed = Feed { source: SourceId(1), shard: 0 };
const GOOD: &str =
    "2019-10-01 00:00:01 UTC,view,17200506,2053013559792632471,furniture.sofa,ikea,543.10,519107250,566511c2";

fn header() -> Header {
    Header::parse(COLUMNS.join(",").as_bytes()).unwrap()
}

fn expected() -> ShopEvent<'static> {
    ShopEvent {
        feed: FEED,
        time: EventTime::from_seconds(1_569_888_001),
        source_row: 7,
        copy: 0,
        event_type: EventType::View,
        product_id: 17_200_506,
        category_id: Some(2_053_013_559_792_632_471),
        category_code: "furniture.sofa",
        brand: "ikea",
        price: Cents(54310),
        user_id: 519_107_250,
        user_session: "566511c2",
    }
}

fn check_event(header: &Header, line: &str, expected: ShopEvent<'_>) {
    let mut parser = Parser::new();
    let (text, row) = parser.parse(header, line.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why}"));
    assert_eq!(row.event(text, FEED, 7, 0), expected, "{line}");
}

#[test]
fn good_rows() {
    let check = |line: &str, expected| check_event(&header(), line, expected);
    check(GOOD, expected());
    check(&GOOD.replace(" UTC", "+00:00"), expected());
    check(&GOOD.replace("ikea", "\"ikea\""), expected());
    check(&GOOD.replace("ikea", "\"ik,ea \"\"x\"\"\""), ShopEvent { brand: "ik,ea \"x\"", ..expected() });
    check(&GOOD.replace("ikea", "\"ik\rea\""), ShopEvent { brand: "ik\rea", ..expected() });
    check(&GOOD.replace("ikea", "nan"), ShopEvent { brand: "nan", ..expected() });
    check(&GOOD.replace("ikea", "ÍKEA"), ShopEvent { brand: "ÍKEA", ..expected() });
    check(
        &GOOD.replace("2053013559792632471,furniture.sofa,ikea", ",,"),
        ShopEvent { category_id: None, category_code: "", brand: "", ..expected() },
    );
    check(&GOOD.replace("566511c2", ""), ShopEvent { user_session: "", ..expected() });
    check(&GOOD.replace("view", "PURCHASE"), ShopEvent { event_type: EventType::Purchase, ..expected() });
}

#[test]
fn columns_stand_where_the_header_says() {
    let header = Header::parse(
        b"extra,user_session,USER_ID,price,brand,category_code,category_id,product_id,event_type,Event_Time,x",
    )
    .unwrap();
    check_event(
        &header,
        ",566511c2,519107250,543.10,ikea,furniture.sofa,2053013559792632471,17200506,view,2019-10-01 00:00:01 UTC,\"q\"",
        expected(),
    );
}

#[test]
fn bad_rows_say_what_would_be_right() {
    for (from, to, reason) in [
        ("2053013559792632471", "2.10381E+18", "category_id is \"2.10381E+18\": a spreadsheet has rounded it"),
        ("519107250", "5.19E+08", "user_id is \"5.19E+08\": a spreadsheet has rounded it"),
        ("519107250", "", "user_id is \"\": it must be a positive integer"),
        ("17200506", "0", "product_id is \"0\": it must be a positive integer"),
        ("17200506", "-1", "product_id is \"-1\": it must be a positive integer"),
        ("17200506", "9223372036854775808", "of at most 9223372036854775807"),
        ("17200506", "99999999999999999999999", "of at most 9223372036854775807"),
        ("view", "remove_from_cart", "event_type is \"remove_from_cart\": it must be view, cart or purchase"),
        ("543.10", "-543.10", "price is \"-543.10\": a price is never negative"),
        ("543.10", "99999999999999", "price is \"99999999999999\": a price is at most"),
        ("543.10", "", "price is \"\": a price is digits"),
        ("2019-10-01 00:00:01 UTC", "2019-13-01 00:00:01 UTC", "event_time is \"2019-13-01 00:00:01 UTC\": a time is"),
        ("2019-10-01 00:00:01 UTC", "01.10.2019", "a time is YYYY-MM-DD HH:MM:SS UTC"),
        (",ikea", "", "it has 8 fields, its file's header has 9"),
        ("ikea", "ik,ea", "it has 10 fields, its file's header has 9"),
        ("ikea", "\"ikea", "a quote is opened and not closed"),
        ("566511c2", "\"566511c2", "a quote is opened and not closed"),
        ("566511c2", &format!("\"q\"\r{GOOD}"), "it has 17 fields, its file's header has 9; it holds a CR that is no"),
        ("566511c2", &format!("q\r{GOOD}"), "it has 17 fields, its file's header has 9; it holds a CR that is no"),
    ] {
        let line = GOOD.replace(from, to);
        let mut parser = Parser::new();
        let reason_got = parser.parse(&header(), line.as_bytes()).expect_err(&line);
        assert!(reason_got.contains(reason), "{line}: {reason_got}");
        // The next row is read as if nothing had happened.
        assert!(parser.parse(&header(), GOOD.as_bytes()).is_ok());
    }
    let mut line = GOOD.as_bytes().to_vec();
    line[60] = 0xff;
    let reason = Parser::new().parse(&header(), &line).unwrap_err();
    assert_eq!(reason, "it is not UTF-8: byte 60 of the row is wrong");
}

#[test]
fn headers_that_are_none() {
    for (line, why) in [
        (GOOD, "it has no header"),
        ("", "it has no header"),
        (
            "event_time,event_type,product_id,category_id,category_code,brand,user_id,user_session",
            "its header lacks price",
        ),
        ("price,event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session", "twice"),
        ("PK\u{0}\u{1}", "not CSV text"),
        (&format!("{}\r{GOOD}", COLUMNS.join(",")), "its line ends are CR alone"),
        (&format!("{}\r{}", COLUMNS.join(","), GOOD.replace("ikea", "\"ikea\"")), "its line ends are CR alone"),
    ] {
        let error = Header::parse(line.as_bytes()).expect_err(line);
        assert!(error.contains(why), "{line}: {error}");
    }
}

proptest! {
    /// No line panics, and a quoted field means what the plain one means.
    #[test]
    fn any_line_is_an_event_or_a_reason(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Parser::new().parse(&header(), &line);
    }

    #[test]
    fn near_rows(at in 0..GOOD.len(), byte in any::<u8>()) {
        let mut line = GOOD.as_bytes().to_vec();
        line[at] = byte;
        let _ = Parser::new().parse(&header(), &line);
    }

    #[test]
    fn quotes_change_nothing(brand in "[a-z, \"é]{0,20}") {
        let line = GOOD.replace("ikea", &format!("\"{}\"", brand.replace('"', "\"\"")));
        let mut parser = Parser::new();
        let header = header();
        let (text, row) = parser.parse(&header, line.as_bytes()).unwrap();
        prop_assert_eq!(row.event(text, FEED, 7, 0).brand, brand);
    }

    /// No byte of a line is lost, quoted or not.
    #[test]
    fn a_quote_loses_nothing(line in "[a,\"\r]{0,30}") {
        let mut parser = Parser::new();
        if let Ok((text, fields)) = parser.fields(line.as_bytes()) {
            prop_assert!(fields.len() <= line.matches(',').count() + 1);
            for byte in ['a', '\r'] {
                prop_assert_eq!(text.matches(byte).count(), line.matches(byte).count(), "{:?}", text);
            }
        }
    }
}
