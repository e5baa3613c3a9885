//! Who is let in, by the registry's word: with a key, and with a link.

use std::time::Duration;

use crate::fleet::Fleet;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn by_path_with_a_key_and_by_host_with_a_link() {
    let fleet = Fleet::start().await;
    let sandbox = fleet.sandbox().await;
    let answer = fleet.ask(fleet.by_path(&sandbox, "/")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "hello from the sandbox"));

    // A browser brings the link in the address, and from then on as a cookie.
    let link = fleet.link(&sandbox).await;
    let answer = fleet.ask(fleet.by_host(&sandbox, &format!("/?wp_link={link}"))).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(answer.header("location"), format!("http://{}/", sandbox.host()));
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let answer = fleet.ask(fleet.by_host(&sandbox, "/").header("cookie", cookie)).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "hello from the sandbox"));

    // Neither key nor link comes to where the program reads.
    let heads = sandbox.program.heads();
    assert_eq!(heads.len(), 2);
    for head in &heads {
        let said = format!("{head:?}");
        assert!(!said.contains("wp_") && !said.contains("wpl_"), "{said}");
        assert!(!head.contains_key("authorization") && !head.contains_key("cookie"), "{said}");
    }
    assert_eq!(heads[0]["x-forwarded-prefix"], sandbox.path(""));
    assert_eq!(heads[1]["host"], sandbox.host());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_its_sandbox_until_it_ends() {
    let fleet = Fleet::start().await;
    let (sandbox, other) = (fleet.sandbox().await, fleet.sandbox().await);
    let cookie = |link: String| format!("wp_link={link}");
    let ask = async |link: String| {
        fleet.ask(fleet.by_host(&sandbox, "/").header("cookie", cookie(link))).await
    };
    // Made by the same key: what follows is refused for its time alone.
    assert_eq!(ask(fleet.link_of(&sandbox, HOUR / 2)).await.status, 200);
    let answer = ask(fleet.link_of(&sandbox, 2 * HOUR)).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (401, "LINK_INVALID"));
    assert!(answer.header("set-cookie").contains("Max-Age=0"), "it is forgotten: {answer:?}");
    let over = fleet.link_of(&sandbox, 2 * HOUR);
    let answer = fleet.ask(fleet.by_host(&sandbox, &format!("/?wp_link={over}"))).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (401, "LINK_INVALID"));
    assert_eq!(answer.header("set-cookie"), "");

    // Of another sandbox of the same project, which it does open.
    let link = fleet.link(&other).await;
    let request = fleet.by_host(&other, "/").header("cookie", cookie(link.clone()));
    assert_eq!(fleet.ask(request).await.status, 200);
    let answer = ask(link.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "ENDPOINT_NOT_FOUND"));
    let answer = fleet.ask(fleet.by_host(&sandbox, &format!("/?wp_link={link}"))).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (401, "LINK_INVALID"));

    // Damaged on the way: no cookie takes the place of the one that is there.
    let good = fleet.link(&sandbox).await;
    let (says, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    for damaged in
        [format!("{says}.{first}{}", &signature[1..]), format!("{says}.{}", &signature[9..])]
    {
        let request = fleet.by_host(&sandbox, &format!("/?wp_link={damaged}"));
        let answer = fleet.ask(request.header("cookie", cookie(good.clone()))).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (401, "LINK_INVALID"));
        assert_eq!(answer.header("set-cookie"), "", "{answer:?}");
    }

    // By a key that the registry does not know, and by none.
    let request = fleet.by_host(&sandbox, "/").header("authorization", "Bearer wp_live_nobodys");
    let answer = fleet.ask(request).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (401, "API_KEY_INVALID"));
    let answer = fleet.ask(fleet.by_host(&sandbox, "/")).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (401, "CREDENTIAL_MISSING"));
    assert_eq!(sandbox.program.heads().len(), 1, "the program saw the good one alone");
}
