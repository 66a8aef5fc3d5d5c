//! Files of functions, files inside artifacts, stores that are shared, and secrets.

use crate::support::{Bench, ask};
use sedge_protocol::assets::{self, AssetFile};
use sedge_runtime::BlobChange;

const MANIFEST: &str = "[limits]\ntimeout_ms = 10000\nmemory_mb = 32\n[access]\nkeyvalue = [\"own\"]\nkeyvalue_shared = [\"plant\"]\n\
                        blobstore = [\"files\", \"more\"]\nsecrets = [\"token\"]\n[settings]\ncolour = \"red\"\n[quota]\nblobstore_mb = 1\n";

async fn text(bench: &Bench, path: &str, body: impl Into<bytes::Bytes>) -> (u16, String) {
    let reach = bench.guest("reach", MANIFEST);
    let (status, text, _) = ask(&reach, &format!("/reach/{path}"), body).await;
    (status, text)
}

fn said(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_written_listed_read_in_parts_moved_and_deleted() {
    let bench = Bench::new();
    for name in ["c", "a", "b"] {
        assert_eq!(text(&bench, &format!("blob-put?files&{name}"), "0123456789").await, said(200, "10"));
    }
    assert_eq!(text(&bench, "blob-list?files", "").await, said(200, "a b c"));
    assert_eq!(text(&bench, "blob-info?files&a", "").await, said(200, "files a 10"));
    assert_eq!(text(&bench, "blob-get?files&a&2&4", "").await, said(200, "234"), "both ends are inclusive");
    assert_eq!(text(&bench, "blob-get?files&a&8&99", "").await, said(200, "89"));
    assert_eq!(text(&bench, "blob-get?files&a&11&12", "").await, said(500, "`a` has 10 bytes, none from 11"));
    for start in [i64::MAX as u64, 1 << 63, u64::MAX] {
        let beyond = format!("blob-get?files&a&{start}&{}", u64::MAX);
        assert_eq!(text(&bench, &beyond, "").await, said(500, &format!("`a` has 10 bytes, none from {start}")));
    }
    assert_eq!(text(&bench, "blob-get?files&z&0&1", "").await, said(500, "there is no object `z`"));
    assert_eq!(text(&bench, "blob-move?files&a&more&new", "").await, said(200, "moved"));
    assert_eq!(text(&bench, "blob-list?more", "").await, said(200, "copy new"));
    assert_eq!(text(&bench, "blob-delete?files&b", "").await, said(200, "deleted"));
    assert_eq!(text(&bench, "blob-delete?files&b", "").await, said(200, "deleted"), "a second time nothing happens");
    assert_eq!(text(&bench, "blob-clear?more", "").await, said(200, "cleared"));
    let change = |container: &str, name: &str, size| BlobChange { container: container.to_owned(), name: name.to_owned(), size };
    assert_eq!(
        *bench.host.changes.lock().unwrap(),
        [
            change("files", "c", Some(10)),
            change("files", "a", Some(10)),
            change("files", "b", Some(10)),
            change("more", "copy", Some(10)),
            change("more", "new", Some(10)),
            change("files", "a", None),
            change("files", "b", None),
            change("more", "copy", None),
            change("more", "new", None),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_streams_both_ways_and_is_metered() {
    let bench = Bench::new();
    let reach = bench.guest("reach", &MANIFEST.replace("blobstore_mb = 1", "blobstore_mb = 16"));
    let body = vec![b'y'; 6 * 1024 * 1024];
    let bytes = body.len() as u64;
    let (_, text, ending) = ask(&reach, "/reach/blob-put?files&big", body).await;
    assert_eq!((text, ending.usage.bytes_in, ending.usage.bytes_out), (bytes.to_string(), bytes, bytes + 7));
    let (_, text, ending) = ask(&reach, "/reach/blob-stream?files&big", "").await;
    assert_eq!((text.len() as u64, ending.usage.bytes_in, ending.usage.bytes_out), (bytes, bytes, bytes));
    assert!(ending.usage.memory_peak_bytes < bytes / 2, "{}", ending.usage.memory_peak_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_and_what_is_not_finished_leaves_nothing() {
    let bench = Bench::new();
    let (status, full) = text(&bench, "blob-put?files&big", vec![b'x'; 2 * 1024 * 1024]).await;
    assert!(status == 500 && full.contains("full: the quota of 1048576 bytes is used up"), "{full}");
    assert_eq!(text(&bench, "blob-abandon?files&half", "").await, said(200, "abandoned"));
    let (_, hoard) = text(&bench, "blob-hoard?files", "").await;
    assert_eq!(hoard, "32: full: 32 objects are open: drop some first");
    assert_eq!(text(&bench, "blob-list?files", "").await, said(200, ""));
    assert_eq!(text(&bench, "blob-put?files&fits", vec![b'x'; 1024 * 1024 - 1024]).await, said(200, "1047552"), "to the byte");
    assert_eq!(bench.host.changes.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_or_store_that_is_not_granted_is_refused_with_the_line_to_add() {
    let bench = Bench::new();
    let (status, refused) = text(&bench, "blob-list?secret", "").await;
    assert_eq!((status, refused.as_str()), (500, "not allowed: add `blobstore = [\"secret\"]` under [access] in function.toml"));
    assert!(bench.host.logged(&["wasi:blobstore/blobstore: the container `secret` was refused"]));
    let (status, refused) = text(&bench, "kv-get?other&k", "").await;
    assert!(status == 500 && refused.contains("AccessDenied"), "{refused}");
    assert!(bench.host.logged(&["wasi:keyvalue/store: the store `other` was refused", "add `keyvalue = [\"other\"]` under [access]"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn own_and_shared_stores_are_told_apart() {
    let bench = Bench::new();
    for store in ["own", "plant"] {
        assert_eq!(text(&bench, &format!("kv-set?{store}&k"), store).await, said(200, "set"));
    }
    assert_eq!(bench.host.value("own", "k").as_deref(), Some("own"));
    assert_eq!(bench.host.value("shared plant", "k").as_deref(), Some("plant"));
    assert_eq!(text(&bench, "kv-get?plant&k", "").await, said(200, "plant"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_given_by_name_only_and_a_missing_one_is_an_error_that_helps() {
    let bench = Bench::new();
    let (status, missing) = text(&bench, "config?token", "").await;
    assert!(
        status == 500 && missing.contains("the secret `token` is not on this node yet: run `sedge secret set token` there"),
        "{missing}"
    );
    bench.host.secrets.lock().unwrap().extend([("token", "s3cret"), ("other", "hidden")].map(|(name, value)| (name.into(), value.into())));
    assert_eq!(text(&bench, "config?token", "").await, said(200, "s3cret"));
    assert_eq!(text(&bench, "config?other", "").await, said(500, "none"), "it was not asked for in the manifest");
    assert_eq!(text(&bench, "config?colour", "").await, said(200, "red"));
    let (_, all) = text(&bench, "config-all", "").await;
    assert_eq!(all, r#"[("colour", "red")]"#);
    assert!(!bench.host.logged(&["s3cret"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_artifact_can_be_read_and_not_written() {
    let bench = Bench::new();
    let plain = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guests/reach.wasm")).unwrap();
    let file = |path: &str, text: &'static str| AssetFile { path: path.to_owned(), data: text.as_bytes().into() };
    let artifact = assets::append(&plain, vec![file("index.html", "<h1>hi</h1>"), file("css/a.css", "body{}")]).unwrap();
    let reach = bench.try_bytes(&artifact, MANIFEST).unwrap();
    for (path, expected) in [
        ("file-read?/assets/index.html", (200, "<h1>hi</h1>")),
        ("file-read?/assets/css/a.css", (200, "body{}")),
        ("file-list?/assets", (200, "css index.html")),
    ] {
        let (status, text, _) = ask(&reach, &format!("/reach/{path}"), "").await;
        assert_eq!((status, text.as_str()), expected, "{path}");
    }
    for path in
        ["file-write?/assets/index.html&1", "file-write?/assets/new&1", "file-read?/assets/../../etc/passwd", "file-read?/etc/passwd"]
    {
        let (status, text, _) = ask(&reach, &format!("/reach/{path}"), "").await;
        assert_eq!(status, 500, "{path}: {text}");
    }
    let without = bench.guest("reach", MANIFEST);
    assert_eq!(ask(&without, "/reach/file-list?/assets", "").await.0, 500);
}
