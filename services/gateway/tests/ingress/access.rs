//! Who is let in: by a key, or by a link and the cookie it becomes.

use std::time::Duration;

use wolfpack_types::{Fault, Reason};

use super::raw::{HOST, client, get, head, header, mirror, rig};
use crate::rig::{KEY, OTHER_KEY, link};

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Duration = Duration::ZERO;

fn visit(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{more}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_becomes_a_cookie_and_leaves_the_address() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    let token = link("box", 8080, HOUR, NOW);
    wire.send(visit(&format!("//x/y?a=1&wp_link={token}&b=2"), "")).await;
    let raw = wire.head().await;
    let answer = raw.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 303 "), "{answer}");
    let location = format!("http://{HOST}//x/y?a=1&b=2");
    assert_eq!(header(&answer, "location"), Some(location.as_str()));
    let cookie = raw.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.starts_with(&format!("wp_link={token}; Path=/; Max-Age=3")), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax"), "{cookie}");
    assert!(!cookie.contains("Domain"), "{cookie}");
    assert_eq!(header(&answer, "referrer-policy"), Some("no-referrer"));
    assert_eq!(header(&answer, "cache-control"), Some("no-store"));
    assert_eq!(rig.sandboxes().dialed(), ["links/box:8080"], "the broker was asked first");

    let mine = format!("cookie: a=1; wp_link={token}\r\nauthorization: Basic dTpw\r\n");
    wire.send(visit("/x", &mine)).await;
    let (status, _, seen) = wire.answer().await;
    assert_eq!(status, 200);
    let seen = seen.to_ascii_lowercase();
    assert_eq!(header(&seen, "cookie"), Some("a=1"));
    assert_eq!(header(&seen, "authorization"), Some("basic dtpw"), "the target's own passes");
    assert!(rig.sandboxes().dialed().iter().all(|who| who == "links/box:8080"));

    // What a program sends is not sent on to another address.
    let post =
        format!("POST /x?wp_link={token} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1\r\n\r\nb");
    wire.send(post).await;
    let (status, _, seen) = wire.answer().await;
    assert!(status == 200 && seen.starts_with("POST /x HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("wpl_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_cookie_is_bound_to_its_host() {
    let rig = rig(mirror).await;
    let token = link("box", 8080, HOUR, NOW);
    let mut wire = super::raw::tls(&rig).await;
    wire.send(visit(&format!("/?wp_link={token}"), "")).await;
    let answer = wire.head().await;
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.starts_with(&format!("__Host-wp_link={token}; Path=/; ")), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
    assert!(answer.contains(&format!("location: https://{HOST}/\r\n")), "{answer}");
    wire.send(visit("/", &format!("cookie: __Host-wp_link={token}\r\n"))).await;
    let (status, _, seen) = wire.answer().await;
    assert_eq!(status, 200);
    assert!(seen.to_ascii_lowercase().contains("x-forwarded-proto: https"), "{seen}");
    assert!(!seen.contains("wp"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_not_good_here_is_refused_in_the_query_and_as_a_cookie() {
    let rig = rig(mirror).await;
    let good = link("box", 8080, HOUR, NOW);
    let tampered = {
        let (start, signature) = good.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        format!("{start}.{first}{}", &signature[1..])
    };
    let over = link("box", 8080, HOUR, 2 * HOUR);
    let (port, sandbox) = (link("box", 8081, HOUR, NOW), link("other", 8080, HOUR, NOW));
    let unsigned = good.rsplit_once('.').unwrap().0.to_owned() + ".";
    rig.sandboxes().listen("other", 8080, rig.plaintext());
    let mut wire = client(&rig).await;
    for (what, token, status) in [
        ("over", &over, 401),
        ("of another port", &port, 403),
        ("of another sandbox", &sandbox, 404),
        ("tampered", &tampered, 401),
        ("unsigned", &unsigned, 401),
        ("no link", &"wpl_x".to_owned(), 401),
        ("a key", &"wp_wrong".to_owned(), 401),
    ] {
        wire.send(visit("/", &format!("cookie: wp_link={token}\r\n"))).await;
        let (got, answer, body) = wire.answer().await;
        assert_eq!(got, status, "{what}: {body}");
        // One that is no good any more is not brought again.
        let forgets = answer.contains("set-cookie: wp_link=; path=/; max-age=0;");
        assert_eq!(forgets, body.contains("LINK_INVALID"), "{what}: {answer}");
    }
    let cut = |bytes: usize| good[..good.len() - bytes].to_owned();
    for (what, token) in [
        ("over", over),
        ("of another port", port),
        ("of another sandbox", sandbox),
        ("with more in it", format!("{good};%20Domain=localhost")),
        ("with more in it", format!("{good};Domain=localhost")),
        ("tampered", tampered),
        ("unsigned", unsigned),
        ("cut in its signature", cut(8)),
        ("cut in what it says", cut(120)),
    ] {
        // Whoever has a good cookie keeps it.
        for (accept, kind) in
            [("text/html,*/*", "text/html; charset=utf-8"), ("*/*", "application/json")]
        {
            let more = format!("accept: {accept}\r\ncookie: wp_link={good}\r\n");
            wire.send(visit(&format!("/?wp_link={token}"), &more)).await;
            let (got, answer, body) = wire.answer().await;
            assert_eq!(got, 401, "{what}: {body}");
            assert!(body.contains("LINK_INVALID"), "{what}: {body}");
            assert_eq!(header(&answer, "content-type"), Some(kind), "{what}");
            assert!(!answer.contains("set-cookie"), "{what}: {answer}");
        }
    }
    assert_eq!(rig.sandboxes().dialed(), Vec::<String>::new());
    wire.send(visit("/", &format!("cookie: wp_link={good}\r\n"))).await;
    assert_eq!(wire.answer().await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_let_in_becomes_a_cookie_though_nothing_listens() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    let token = link("box", 9999, HOUR, NOW);
    wire.send(visit(&format!("/?wp_link={token}"), "").replace("8080--", "9999--")).await;
    let (status, answer, _) = wire.answer().await;
    assert_eq!(status, 303, "{answer}");
    // What the broker could not say anything of is no cookie.
    let fault = Fault::new(Reason::DependencyUnavailable, "the registry does not answer");
    rig.sandboxes().refuse(fault);
    let token = link("box", 8080, HOUR, NOW);
    wire.send(visit(&format!("/?wp_link={token}"), "")).await;
    let (status, answer, body) = wire.answer().await;
    assert_eq!(status, 503, "{body}");
    assert!(!answer.contains("set-cookie"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_sandbox_it_is_not_finds_nothing() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    let mut answers = Vec::new();
    for request in [
        get("/").replace(KEY, OTHER_KEY),
        get("/").replace("--box", "--none"),
        get("/v1/sandboxes/box/ports/8080/").replace(HOST, "localhost").replace(KEY, OTHER_KEY),
        get("/v1/sandboxes/none/ports/8080/").replace(HOST, "localhost"),
    ] {
        wire.send(request).await;
        let (status, _, body) = wire.answer().await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["reason"].as_str()), (404, Some("ENDPOINT_NOT_FOUND")));
        answers.push(body["message"].clone());
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]), "all look the same: {answers:?}");
    wire.send(get("/").replace(KEY, "wp_unknown")).await;
    let (status, answer, body) = wire.answer().await;
    assert!(status == 401 && body.contains("API_KEY_INVALID"), "{body}");
    assert_eq!(header(&answer, "www-authenticate"), Some("bearer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_a_display_name_is_told_to_write_the_id() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    let by_path =
        |name: &str| get(&format!("/v1/sandboxes/{name}/ports/8080/")).replace(HOST, "localhost");
    for (request, status) in [
        // One that could be an id, and ones that could not.
        (get("/").replace("--box", "--first"), 404),
        (get("/").replace("--box", "--my_box"), 404),
        (get("/").replace(HOST, "first.localhost"), 404),
        (by_path("first"), 404),
        (by_path("My%20box"), 400),
    ] {
        for accept in ["text/html", "*/*"] {
            let end = format!("\r\naccept: {accept}\r\n\r\n");
            wire.send(request.replace("\r\n\r\n", &end)).await;
            let (got, _, body) = wire.answer().await;
            assert_eq!(got, status, "{request} {body}");
            assert!(body.contains("id, which `wolfpack sandbox list` shows"), "{request} {body}");
        }
    }
    // By host a bearer was meant for us, and a login is the page's own.
    for (sent, reason) in [("Bearer bad", "API_KEY_INVALID"), ("Basic dTpw", "CREDENTIAL_MISSING")]
    {
        wire.send(visit("/", &format!("authorization: {sent}\r\n"))).await;
        let (status, _, body) = wire.answer().await;
        assert!(status == 401 && body.contains(reason), "{sent}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_pages_do_nothing_in_the_name_of_who_has_a_cookie() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    let token = link("box", 8080, HOUR, NOW);
    let ask = |method: &str, origin: &str, more: &str| {
        format!(
            "{method} / HTTP/1.1\r\nhost: {HOST}\r\ncookie: wp_link={token}\r\norigin: {origin}\r\n\
             {more}content-length: 0\r\n\r\n"
        )
    };
    let socket = "upgrade: websocket\r\nconnection: upgrade\r\n";
    let own = format!("http://{HOST}");
    for (method, origin, more, expected) in [
        ("POST", own.as_str(), "", 200),
        ("POST", "http://3000--box.localhost:8080", "", 200),
        ("GET", "http://8080--evil.localhost", "", 200),
        ("POST", "http://8080--evil.localhost", "", 403),
        ("POST", "https://evil.example", "", 403),
        ("DELETE", "null", "", 403),
        ("GET", "http://8080--evil.localhost", socket, 403),
    ] {
        wire.send(ask(method, origin, more)).await;
        let (status, _, body) = wire.answer().await;
        assert_eq!(status, expected, "{method} {origin} {more}: {body}");
    }
    // Whoever has the key itself is no page.
    wire.send(head("POST /") + "origin: https://evil.example\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(wire.answer().await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_path_a_key_is_needed_and_the_answer_is_in_a_box() {
    let rig = rig(|mut wire| async move {
        loop {
            let seen = wire.head().await.to_ascii_lowercase();
            assert!(seen.starts_with("get /app?q=1 http/1.1\r\n"), "{seen}");
            assert_eq!(header(&seen, "host"), Some("localhost:8080"));
            assert_eq!(header(&seen, "x-forwarded-prefix"), Some("/v1/sandboxes/box/ports/8080"));
            assert!(!seen.contains("cookie") && !seen.contains("wp"), "{seen}");
            wire.send(
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/html\r\nset-cookie: a=1\r\n\
                 content-security-policy: sandbox allow-scripts allow-same-origin\r\n\
                 clear-site-data: \"*\"\r\nservice-worker-allowed: /\r\nx-own: kept\r\n\r\nok",
            )
            .await;
        }
    })
    .await;
    let mut wire = client(&rig).await;
    let path = |more: &str| {
        format!(
            "GET /v1/sandboxes/box/ports/8080/app?q=1 HTTP/1.1\r\nhost: localhost\r\n{more}\r\n"
        )
    };
    let token = link("box", 8080, HOUR, NOW);
    for (none, reason) in [
        (String::new(), "CREDENTIAL_MISSING"),
        (format!("cookie: wp_link={token}\r\n"), "CREDENTIAL_MISSING"),
        (format!("authorization: Bearer {token}\r\n"), "LINK_INVALID"),
        ("authorization: Basic dTpw\r\n".to_owned(), "API_KEY_INVALID"),
        ("authorization: Bearer bad\r\n".to_owned(), "API_KEY_INVALID"),
    ] {
        wire.send(path(&none)).await;
        let (status, _, body) = wire.answer().await;
        assert!(status == 401 && body.contains(reason), "{none} {body}");
        assert!(body.contains("Bearer wp_..."), "what is taken: {body}");
    }
    wire.send(path(&format!("cookie: a=1; wp_link={token}\r\nauthorization: Bearer {KEY}\r\n")))
        .await;
    let (status, answer, body) = wire.answer().await;
    assert_eq!((status, body.as_str()), (200, "ok"));
    assert_eq!(header(&answer, "content-security-policy"), Some("sandbox"));
    assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"));
    assert_eq!(header(&answer, "x-own"), Some("kept"));
    for gone in ["set-cookie", "clear-site-data", "service-worker-allowed"] {
        assert_eq!(header(&answer, gone), None, "{answer}");
    }
}
