use crate::support::{Operator, World};
use sedge_protocol::message::{ErrorReport, FromNode, Report};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

/// Status, headers and body of a request without the bearer token.
async fn ask(
    operator: &Operator,
    method: &'static str,
    path: &str,
    headers: Vec<(&'static str, String)>,
    body: &str,
) -> (u16, ureq::http::HeaderMap, String) {
    let (agent, uri, body) = (operator.http.clone(), format!("{}{path}", operator.base), body.to_owned());
    spawn_blocking(move || {
        let mut request =
            ureq::http::Request::builder().method(method).uri(uri).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut answer = agent.run(request.body(body).unwrap()).unwrap();
        (answer.status().as_u16(), answer.headers().clone(), answer.body_mut().read_to_string().unwrap())
    })
    .await
    .unwrap()
}

async fn sign_in(operator: &Operator) -> String {
    let (status, headers, _) = ask(operator, "POST", "/login", vec![], &format!("token={}", operator.token)).await;
    assert_eq!(status, 303);
    let cookie = headers["set-cookie"].to_str().unwrap();
    for part in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{part}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_behind_a_sign_in_that_can_be_ended() {
    let world = World::new().await;
    let operator = world.operator();
    let (status, headers, _) = ask(&operator, "GET", "/", vec![], "").await;
    assert_eq!((status, headers["location"].to_str().unwrap()), (303, "/login"));
    assert_eq!(ask(&operator, "GET", "/live", vec![], "").await.0, 401);
    assert_eq!(ask(&operator, "POST", "/login", vec![], "token=wrong").await.0, 403);
    assert_eq!(
        ask(&operator, "POST", "/login", vec![("sec-fetch-site", "cross-site".into())], &format!("token={}", operator.token)).await.0,
        403
    );
    let cookie = sign_in(&operator).await;
    let with_cookie = || vec![("cookie", cookie.clone())];
    let (status, headers, page) = ask(&operator, "GET", "/", with_cookie(), "").await;
    assert_eq!(status, 200);
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
    assert_eq!(ask(&operator, "GET", "/api/v1/status", with_cookie(), "").await.0, 200);
    assert_eq!(ask(&operator, "POST", "/api/v1/claims", with_cookie(), "{}").await.0, 401, "a cookie changes nothing");
    assert_eq!(ask(&operator, "POST", "/logout", with_cookie(), "csrf=wrong").await.0, 403);
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(ask(&operator, "POST", "/logout", with_cookie(), &format!("csrf={csrf}")).await.0, 303);
    assert_eq!(ask(&operator, "GET", "/live", with_cookie(), "").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_say_is_escaped() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let (_connection, mut control, _) = node.greet(&world).await;
    let error = ErrorReport {
        number: 1,
        time_ms: 5,
        function: "f".parse().unwrap(),
        revision: None,
        reason: "<script>alert(1)</script>\"'&".into(),
    };
    control.send(&FromNode::Report(Report { errors: vec![error], ..Report::default() })).await;
    let operator = world.operator();
    let cookie = sign_in(&operator).await;
    loop {
        let (_, _, page) = ask(&operator, "GET", "/", vec![("cookie", cookie.clone())], "").await;
        assert!(!page.contains("<script>alert"));
        if page.contains("alert(1)") {
            break assert!(page.contains("&#60;script&#62;alert(1)"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_how_a_node_stands_and_why() {
    let world = World::new().await;
    world.node("gate", &[]).await;
    let operator = world.operator();
    let cookie = sign_in(&operator).await;
    for (standing, shown) in [
        (json!({ "is": "quarantined", "reason": "<b>odd</b>" }), "quarantined: &#60;b&#62;odd&#60;/b&#62;"),
        (json!({ "is": "revoked", "reason": "stolen" }), "revoked: stolen"),
    ] {
        let _: Value = operator.send("PUT", "/api/v1/nodes/gate/standing", &standing).await.unwrap();
        let (_, _, page) = ask(&operator, "GET", "/live", vec![("cookie", cookie.clone())], "").await;
        assert!(page.contains(shown), "{page}");
    }
}
