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

#[test]
fn a_version_whose_kernel_image_was_lost_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (here, images) = (directory.path(), directory.path().join("EFI/Linux"));
    fs::create_dir_all(&images).unwrap();
    let boot = BootPartition::new(here, here);
    let trouble = || {
        let place = Place {
            board: "x".to_owned(),
            running: "1.0".parse().unwrap(),
            slot: "a".to_owned(),
            devices: here.to_owned(),
            trust: here.to_owned(),
            root_bytes: 0,
            unit: String::new(),
            restart: Vec::new(),
            trial_began: here.join("trial-began"),
        };
        Updates::open(place, &boot, Duration::from_secs(600)).unwrap().report().trouble
    };
    assert!(trouble().unwrap().contains("no kernel image of 1.0"));
    fs::write(images.join("sedge_1.0.efi"), "kernel").unwrap();
    assert_eq!(trouble(), None);
}
