use super::*;

#[test]
fn a_daemon_that_begins_again_and_again_is_seen() {
    let said = |begins: u32, state: &str| format!("Result=exit-code\nExecMainStatus=1\nNRestarts={begins}\nActiveState={state}\n");
    assert_eq!(failure(&said(0, "active")), None);
    assert_eq!(failure(&said(4, "activating")), None);
    assert!(failure(&said(5, "activating")).unwrap().contains("begun anew 5 times, last result exit-code, exit status 1"));
    assert!(failure(&said(1, "failed")).is_some());
    assert_eq!(failure(""), None, "nothing is known");
}

#[test]
fn a_head_that_is_too_long_is_not_read() {
    assert_eq!(read_head(&mut [1, 2, 3].as_slice(), 2).unwrap(), [1, 2]);
    assert!(read_head(&mut [1].as_slice(), 2).is_err());
    assert!(read_head(&mut std::io::repeat(0), u64::MAX).is_err());
}
