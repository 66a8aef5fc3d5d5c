use super::*;

const LIFE: Life = Life { not_before_ms: 0, not_after_ms: 30_000_000 };
const NEXT: Life = Life { not_before_ms: 20_300_000, not_after_ms: 50_300_000 };

/// Both clocks show the same.
fn at(ms: u64) -> Moment {
    Moment { mono_ms: ms, fleet_ms: ms }
}

fn failed(jitter_milli: u32) -> Event {
    Event::Failed { retry_after_ms: None, jitter_milli }
}

fn refused() -> Event {
    Event::Refused { reason: "no".into() }
}

fn revoked(new_claim: bool) -> Event {
    Event::Revoked { reason: "stolen".into(), new_claim, jitter_milli: 0 }
}

#[test]
fn a_box_enrols_after_the_fleet_was_away() {
    let (state, action) = Enrolment::unclaimed().on(Event::ClaimFound, at(0));
    assert_eq!(action, Some(Action::Enrol));
    let (state, action) = state.on(failed(1000), at(10));
    assert_eq!((state.pause_ms(at(10)), action), (Some(1000), None));
    let (state, action) = state.on(Event::Tick, at(1009));
    assert_eq!(action, None);
    let (state, action) = state.on(Event::Tick, at(1010));
    assert_eq!(action, Some(Action::Enrol));
    let (state, action) = state.on(Event::Tick, at(99_999));
    assert_eq!(action, None, "an answer is waited for");
    let (state, _) = state.on(Event::Issued(LIFE), at(100_000));
    assert_eq!(state, Enrolment::enrolled(LIFE));
}

#[test]
fn a_refused_claim_is_not_presented_again() {
    let (state, _) = Enrolment::unclaimed().on(Event::ClaimFound, at(0));
    let (state, _) = state.on(Event::Refused { reason: "used".into() }, at(1));
    assert_eq!(state, Enrolment::Unclaimed { refused: Some("used".into()) });
    assert_eq!(state.on(Event::Tick, at(u64::MAX)).1, None);
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_and_kept_while_that_fails() {
    let (state, action) = Enrolment::enrolled(LIFE).on(Event::Tick, at(19_999_999));
    assert_eq!(action, None);
    let (state, action) = state.on(Event::Tick, at(20_000_000));
    assert_eq!(action, Some(Action::Renew));
    let (state, _) = state.on(Event::Refused { reason: "later".into() }, at(20_000_000));
    assert!(matches!(state, Enrolment::Renewing { life: LIFE, .. }) && state.may_connect());
    let (state, action) = state.on(Event::Tick, at(20_300_000));
    assert_eq!(action, Some(Action::Renew));
    assert_eq!(state.on(Event::Issued(NEXT), at(20_300_001)).0, Enrolment::enrolled(NEXT));
}

#[test]
fn nothing_is_due_before_the_fleet_has_told_its_time_and_pauses_do_not_jump_with_it() {
    let unknown = Moment { mono_ms: 99_000_000, fleet_ms: 0 };
    assert_eq!(Enrolment::enrolled(LIFE).pause_ms(unknown), None);
    assert_eq!(Enrolment::enrolled(LIFE).on(Event::Tick, unknown).1, None);
    let (state, _) = Enrolment::enrolled(LIFE).on(Event::Tick, at(20_000_000));
    let (state, _) = state.on(failed(1000), Moment { mono_ms: 5, fleet_ms: u64::MAX });
    assert_eq!(state.pause_ms(Moment { mono_ms: 5, fleet_ms: 0 }), Some(1000), "whatever the fleet's clock does");
}

#[test]
fn an_expired_certificate_is_replaced_on_the_way_back() {
    for member in [Enrolment::enrolled(LIFE), Enrolment::Renewing { life: LIFE, attempt: ASKING }] {
        let (state, action) = member.on(Event::Expired, at(5));
        assert_eq!((action, state.may_connect()), (Some(Action::Return), false));
        let (state, action) = state.on(Event::Expired, at(6));
        assert_eq!(action, None, "an answer is waited for");
        let (state, _) = state.on(failed(1000), at(10));
        let (state, action) = state.on(Event::Tick, at(1010));
        assert_eq!(action, Some(Action::Return));
        assert_eq!(state.on(Event::Issued(NEXT), at(1020)), (Enrolment::enrolled(NEXT), None));
    }
}

#[test]
fn when_the_way_back_is_closed_the_claim_is_tried_and_everything_anew_rarely() {
    let (state, _) = Enrolment::enrolled(LIFE).on(Event::Expired, at(0));
    let (state, action) = state.on(refused(), at(1));
    assert_eq!(action, Some(Action::Enrol));
    let (state, action) = state.on(refused(), at(2));
    assert_eq!((action, state.may_connect(), state.pause_ms(at(2))), (None, true, Some(FORGOTTEN_MS)));
    let (state, action) = state.on(Event::Expired, at(3));
    assert_eq!(action, None, "the same answer as before leads to no other try");
    assert_eq!(state.on(Event::Tick, at(2 + FORGOTTEN_MS)), (Enrolment::enrolled(LIFE), None));
}

#[test]
fn a_node_that_was_forgotten_joins_again_or_is_remembered() {
    let (state, action) = Enrolment::enrolled(LIFE).on(Event::Unknown, at(0));
    assert_eq!(action, Some(Action::Enrol));
    assert_eq!(state.clone().on(Event::Issued(NEXT), at(1)).0, Enrolment::enrolled(NEXT));
    let (state, _) = state.on(failed(0), at(1));
    assert_eq!(state.on(Event::Greeted { fleet_ms: 5 }, at(2)).0, Enrolment::enrolled(LIFE));
}

#[test]
fn revocation_lasts_until_a_new_claim_or_another_word_at_a_rare_try() {
    let (returning, _) = Enrolment::enrolled(LIFE).on(Event::Expired, at(0));
    for state in [Enrolment::enrolled(LIFE), returning] {
        let (state, action) = state.on(revoked(false), at(5));
        assert_eq!((action, state.may_connect(), state.note()), (None, false, Some("revoked: stolen".to_owned())));
        let (state, action) = state.on(Event::Greeted { fleet_ms: 6 }, at(6));
        assert!(action.is_none() && !state.may_connect(), "a late word of the old connection");
        let (asked, action) = state.clone().on(Event::ClaimFound, at(7));
        assert_eq!(action, Some(Action::Enrol));
        assert_eq!(asked.on(Event::Issued(NEXT), at(8)).0, Enrolment::enrolled(NEXT));
        let (state, _) = state.on(Event::Tick, at(5 + REVOKED_MS / 2 - 1));
        assert!(!state.may_connect());
        assert!(state.on(Event::Tick, at(5 + REVOKED_MS / 2)).0.may_connect());
    }
    let (state, action) = Enrolment::enrolled(LIFE).on(revoked(true), at(0));
    assert_eq!(action, Some(Action::Enrol), "the claim may be newer than the revocation");
    let (state, _) = state.on(refused(), at(1));
    assert_eq!((state.may_connect(), state.pause_ms(at(1))), (false, Some(REVOKED_MS)));
}

#[test]
fn the_pause_doubles_up_to_its_bound_and_obeys_the_fleet() {
    assert_eq!(backoff_ms(1, 0), 500);
    assert_eq!(backoff_ms(1, 1000), 1000);
    assert_eq!(backoff_ms(3, 1000), 4000);
    assert_eq!(backoff_ms(u32::MAX, 5000), BACKOFF_MS_MAX);
    for (asked, waited) in [(60_000, 60_000), (u64::MAX, RETRY_AFTER_MS_MAX)] {
        let (state, _) = Enrolment::unclaimed().on(Event::ClaimFound, at(0));
        let (state, _) = state.on(Event::Failed { retry_after_ms: Some(asked), jitter_milli: 0 }, at(0));
        assert_eq!(state.pause_ms(at(0)), Some(waited));
    }
}

#[test]
fn what_does_not_concern_a_state_changes_nothing() {
    let outside = Enrolment::Revoked { life: LIFE, reason: "r".into(), attempt: Attempt { failed: 0, next_ms: Some(100) } };
    for event in [Event::Expired, Event::Unknown, Event::Greeted { fleet_ms: 1 }, revoked(true), Event::Tick] {
        for state in [outside.clone(), Enrolment::unclaimed(), Enrolment::Claimed { attempt: ASKING }] {
            assert_eq!(state.clone().on(event.clone(), at(50)), (state, None), "{event:?}");
        }
    }
    for event in [Event::Greeted { fleet_ms: 1 }, Event::ClaimFound, Event::Issued(NEXT), failed(0), refused()] {
        assert_eq!(Enrolment::enrolled(LIFE).on(event.clone(), at(50)), (Enrolment::enrolled(LIFE), None), "{event:?}");
    }
}
