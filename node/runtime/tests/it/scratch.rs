//! The scratch directory, used by programs of other people's standard libraries.

use crate::support::{Bench, ask, ending, guest_path, handle};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sedge_protocol::assets::{self, AssetFile};
use sedge_runtime::limits::INSTANCE_OVERHEAD_BYTES;
use sedge_runtime::{Failure, Function, Invocation};

const MIB: u64 = 1024 * 1024;
const MANIFEST: &str = "[limits]\ntimeout_ms = 10000\nmemory_mb = 8\n[access]\nscratch_mb = 2\n";
const MANIFEST_C: &str = "[limits]\ntimeout_ms = 10000\nmemory_mb = 32\n[access]\nscratch_mb = 2\n";
const REACH: &str = "[limits]\nmemory_mb = 32\n[access]\nscratch_mb = 1\nkeyvalue = [\"default\"]\nblobstore = [\"files\"]\n";
const FULL: &str = "No space left on device";
/// What the standard library of C for 0.2 says of any stream that failed: it does not ask why.
const FAILED: &str = "I/O error";

/// What the program says about each line.
async fn run(function: &Function, script: &str) -> Vec<String> {
    let (reply, _) = handle(function, script.as_bytes()).await;
    String::from_utf8(reply.unwrap().data.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

/// What every program finds; `full` is what its standard library says of a directory that is full.
async fn check_all(function: &Function, full: &str) {
    let expected = COMMON.map(|(_, expected)| expected.replace("{full}", full));
    let lines: Vec<_> = COMMON.iter().zip(&expected).map(|((line, _), expected)| (*line, expected.as_str())).collect();
    check(function, &lines).await;
}

/// Runs lines of which each says what has to come of it.
async fn check(function: &Function, lines: &[(&str, &str)]) {
    let script: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
    let said = run(function, &(script.join("\n") + "\n")).await;
    for (at, (line, expected)) in lines.iter().enumerate() {
        assert_eq!(said.get(at).map(String::as_str), Some(*expected), "{line}, of {said:?}");
    }
}

const COMMON: [(&str, &str); 34] = [
    ("env TMPDIR", "/scratch"),
    ("write /scratch/a first", "done"),
    ("append /scratch/a ,second", "done"),
    ("read /scratch/a", "first,second"),
    ("size /scratch/a", "file 12"),
    ("write /scratch/a short", "done"),
    ("read /scratch/a", "short"),
    ("mkdir /scratch/d", "done"),
    ("mkdir /scratch/d", "File exists"),
    ("size /scratch/d", "directory 0"),
    ("mv /scratch/a /scratch/d/b", "done"),
    ("read /scratch/a", "No such file or directory"),
    ("read /scratch/d/../d/./b", "short"),
    ("write /scratch/c over", "done"),
    ("mv /scratch/c /scratch/d/b", "done"),
    ("read /scratch/d/b", "over"),
    ("rmdir /scratch/d", "Directory not empty"),
    ("mv /scratch/d /scratch/d/e", "Invalid argument"),
    ("mv /scratch/d/b /scratch/d", "Is a directory"),
    ("rm /scratch/d/b", "done"),
    ("rm /scratch/d/b", "No such file or directory"),
    ("rmdir /scratch/d", "done"),
    ("write /scratch/f x", "done"),
    ("write /scratch/f/g x", "Not a directory"),
    ("rmdir /scratch/f", "Not a directory"),
    ("write /etc/passwd x", "No such file or directory"),
    ("fill /scratch/big 1000", "1000"),
    ("fill /scratch/bigger 5000", "1008 {full}"),
    ("write /scratch/h x", "{full}"),
    ("rm /scratch/bigger", "done"),
    ("fill /scratch/bigger 500", "500"),
    ("rm /scratch/big", "done"),
    ("rm /scratch/bigger", "done"),
    ("rm /scratch/f", "done"),
];

#[tokio::test(flavor = "multi_thread")]
async fn programs_in_rust_find_what_they_expect() {
    let bench = Bench::new();
    let clerk = bench.guest("clerk", MANIFEST);
    check_all(&clerk, FAILED).await;
    let long = format!("write /scratch/{} x", "n".repeat(256));
    check(
        &clerk,
        &[
            ("new /scratch/a", "new"),
            ("new /scratch/a", "File exists"),
            ("patch /scratch/a cd", "__cd___."),
            ("copy /scratch/a /scratch/b", "8"),
            ("resize /scratch/b 4", "done"),
            ("size /scratch/b", "file 4"),
            ("mkdirs /scratch/x/y/z", "done"),
            ("write /scratch/x/y/f x", "done"),
            ("list /scratch/x/y", "f z/"),
            ("list /scratch", "a b x/"),
            ("clear /scratch/x", "done"),
            ("list /scratch", "a b"),
            ("gone /scratch/g here", "here false"),
            ("age /scratch/a", "true 1000000"),
            ("link /scratch/a /scratch/c", "Not supported"),
            (&long, "Filename too long"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn core_modules_have_it_too() {
    let bench = Bench::new();
    let clerk = bench.guest("clerk-c", MANIFEST_C);
    check_all(&clerk, FULL).await;
    check(&clerk, &[("list /scratch", "0"), ("write /scratch/a x", "done"), ("list /scratch", "1")]).await;
    check(&clerk, &[("hoard /scratch/a 1000", "124 Out of memory")]).await;
    assert_eq!(handle(&clerk, b"exit 0\n").await.0.unwrap().data, "");
    // As with a component: a function that failed is all that can be said.
    assert_eq!(handle(&clerk, b"exit 3\n").await.0, Err(Failure::Exit { code: 1 }));
    let without = bench.guest("clerk-c", "[limits]\nmemory_mb = 32\n");
    assert_eq!(handle(&without, b"exit 3\n").await.0, Err(Failure::Exit { code: 3 }), "the same artifact, as it is");
    check(&without, &[("write /scratch/a x", "No such file or directory"), ("env TMPDIR", "none")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_do_not_see_each_others_files_and_who_does_not_ask_has_none() {
    let bench = Bench::new();
    let clerk = bench.guest("clerk", MANIFEST);
    for _ in 0..2 {
        check(&clerk, &[("list /scratch", ""), ("write /scratch/a mine", "done"), ("list /scratch", "a")]).await;
    }
    let without = bench.guest("clerk", "[limits]\nmemory_mb = 8\n");
    let nothing = "No such file or directory";
    check(&without, &[("list /scratch", nothing), ("write /scratch/a x", nothing), ("env TMPDIR", "none")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_answered_and_take_no_more_than_is_reserved() {
    let bench = Bench::new();
    let clerk = bench.guest("clerk", MANIFEST);
    assert_eq!(
        clerk.memory_reservation(),
        (8 + 2 + 8 + 1) * MIB + INSTANCE_OVERHEAD_BYTES,
        "linear memory, scratch, input, output, and what every instance costs"
    );
    let deep = format!("mkdirs /scratch/{}", "d/".repeat(2000));
    let deeper = format!("mkdirs /scratch/{}", "d/".repeat(3000));
    for (line, expected) in
        [("many /scratch 1000000", "2048 No space left on device"), (deep.as_str(), "done"), (deeper.as_str(), "Filename too long")]
    {
        check(&clerk, &[(line, expected)]).await;
    }
    let sparse = ["new /scratch/f", "resize /scratch/f 1099511627776", "resize /scratch/f 2000000", "read-all /scratch/f"];
    let (reply, ending) = handle(&clerk, (sparse.join("\n") + "\n").as_bytes()).await;
    assert_eq!(reply.unwrap().data, format!("new\n{FULL}\ndone\n2000000\n"));
    let peak = ending.usage.memory_peak_bytes;
    assert!((2_000_000 + 2 * 65_536..10 * MIB).contains(&peak), "linear memory and scratch are metered together: {peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_never_ends_with_its_files_is_stopped_in_time_and_pays_for_it() {
    let bench = Bench::new();
    let clerk = bench.guest("clerk", &MANIFEST.replace("timeout_ms = 10000", "timeout_ms = 200"));
    let (reply, ending) = handle(&clerk, b"spin /scratch/a\n").await;
    assert_eq!(reply, Err(Failure::Timeout { limit_ms: 200 }));
    assert!((200_000..400_000).contains(&ending.usage.wall_us), "{:?}", ending.usage);
    assert!(ending.usage.cpu_us > 20_000, "host calls count as the function's time: {:?}", ending.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_artifact_stay_as_they_are_beside_it() {
    let bench = Bench::new();
    let plain = std::fs::read(guest_path("clerk")).unwrap();
    let artifact = assets::append(&plain, vec![AssetFile { path: "table.csv".to_owned(), data: b"1,2".as_slice().into() }]).unwrap();
    let clerk = bench.try_bytes(&artifact, MANIFEST).unwrap();
    check(
        &clerk,
        &[
            ("list /assets", "table.csv"),
            ("copy /assets/table.csv /scratch/table.csv", "3"),
            ("append /scratch/table.csv ,3", "done"),
            ("read /scratch/table.csv", "1,2,3"),
            ("mv /scratch/table.csv /assets/other.csv", "Cross-device link"),
            ("mv /assets/table.csv /scratch/other.csv", "Cross-device link"),
            ("write /assets/new x", "Operation not permitted"),
            ("read /scratch/../assets/table.csv", "Operation not permitted"),
            ("list /assets", "table.csv"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_function_has_one_for_each_request() {
    let bench = Bench::new();
    let reach = bench.guest("reach", REACH);
    for _ in 0..2 {
        assert_eq!(ask(&reach, "/reach/file-list?/scratch", "").await.1, "");
        let (status, full, ending) = ask(&reach, "/reach/file-write?/scratch/f&5000", "").await;
        assert!(status == 200 && full.starts_with("1004: ") && full.contains(FAILED), "{full}");
        assert!(ending.usage.memory_peak_bytes > MIB, "{:?}", ending.usage);
    }
}

/// One request in an instance that waits, if there is one; returns when the instance waits again.
async fn in_the_same(function: &Function, path: &str) -> Bytes {
    let (ended, receiver) = ending();
    let invocation = Invocation::new("i-1", (), ended);
    let invocation = match function.warm() {
        Some(warm) => invocation.in_warm(warm),
        None => invocation,
    };
    let request = http::Request::get(format!("http://node/{path}")).body(Full::new(Bytes::new())).unwrap();
    let response = function.http(request, invocation).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    receiver.await.unwrap();
    while function.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    text
}

#[tokio::test(flavor = "current_thread")]
async fn it_lives_as_long_as_a_reused_instance() {
    let bench = Bench::new();
    let reach = bench.guest("reach", &format!("{REACH}[reuse]\ncount = 3\n"));
    for _ in 0..2 {
        assert_eq!(in_the_same(&reach, "file-list?/scratch").await, "");
        assert_eq!(in_the_same(&reach, "file-write?/scratch/kept&1").await, "1");
        assert_eq!(in_the_same(&reach, "file-list?/scratch").await, "kept");
        reach.release(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn components_of_03_have_it_by_both_interfaces() {
    let bench = Bench::new();
    let access = "scratch_mb = 2\nkeyvalue = [\"default\"]\npublish = [\"probe/#\"]\n";
    let probe = bench.guest("probe-03", &format!("[limits]\nmemory_mb = 32\n[access]\n{access}"));
    let (status, said, ending) = ask(&probe, "/probe-03/files?/scratch", "").await;
    let expected = [
        "Ok(\"0 left\")",
        "Ok(\"0 left\")",
        "Ok(\"0 left\")",
        "hello, World!",
        "World!",
        "Some(\"ErrorCode::Exist\")",
        "Some(ErrorCode::NotPermitted)",
        "d g",
        "13",
        "true",
        "Err(ErrorCode::InsufficientSpace)",
        "Err(\"ErrorCode::InsufficientSpace\") 2056192",
        "hello, World!",
        "",
    ];
    assert_eq!((status, said.lines().collect::<Vec<_>>()), (200, expected[..13].to_vec()), "{said}");
    assert!(ending.usage.memory_peak_bytes > 2 * MIB, "{:?}", ending.usage);
    // What the standard library of Rust does goes through 0.2.
    let (status, said, _) = ask(&probe, "/probe-03/read?/scratch/none", "").await;
    assert!(status == 500 && said.starts_with("No such file or directory"), "{said}");
    let without = bench.guest("probe-03", "[access]\nkeyvalue = [\"default\"]\npublish = [\"probe/#\"]\n");
    assert_eq!(ask(&without, "/probe-03/files?/scratch", "").await.1, "none");
}
