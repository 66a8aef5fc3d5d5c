use super::*;

fn gate(memory_bytes: u64) -> Gate {
    Gate::new(Capacity { memory_bytes, invocations: 64, cores: 2 }, Arc::default())
}

fn manifest(text: &str) -> Manifest {
    Manifest::from_toml("f", &format!("name = 'f'\n{text}")).unwrap().0
}

fn run(gate: &Gate, name: &FunctionName) -> (Permit, Room) {
    match gate.state().controller.arrive(name, false, 0, clock::micros()) {
        Arrival::Run(id) => (Permit { gate: gate.clone(), function: name.clone(), used: None }, Room { gate: gate.clone(), id: Some(id) }),
        other => panic!("{other:?}"),
    }
}

fn wait<'a>(gate: &'a Gate, name: &'a FunctionName) -> InLine<'a> {
    let mut state = gate.state();
    match state.controller.arrive(name, false, 0, clock::micros()) {
        Arrival::Wait(ticket) => {
            let (sender, verdict) = oneshot::channel();
            state.waiting.insert(ticket, (name.clone(), sender));
            InLine { gate, function: name, ticket, verdict }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_waits_starts_when_another_has_ended() {
    let (gate, manifest) = (gate(1 << 30), manifest("[limits]\nconcurrency = 1\n"));
    gate.open(&manifest, 1 << 20);
    let (permit, room) = run(&gate, &manifest.name);
    let line = wait(&gate, &manifest.name);
    drop(permit);
    let id = line.verdict().await.unwrap();
    assert_eq!(gate.gauge().running, 1);
    drop((room, Room { gate: gate.clone(), id: Some(id) }));
    assert_eq!(gate.gauge().memory_free_bytes, 1 << 30);
}

#[tokio::test]
async fn who_goes_away_leaves_no_trace_whether_answered_or_not() {
    let (gate, manifest) = (gate(1 << 30), manifest("[limits]\nconcurrency = 1\n"));
    gate.open(&manifest, 1 << 20);
    let (permit, room) = run(&gate, &manifest.name);
    drop(wait(&gate, &manifest.name));
    assert_eq!(gate.gauge().waiting, 0);
    let answered = wait(&gate, &manifest.name);
    drop((permit, room));
    drop(answered);
    let Admission { running, waiting, memory_free_bytes, .. } = gate.gauge();
    assert_eq!((running, waiting, memory_free_bytes), (0, 0, 1 << 30));
}

#[tokio::test]
async fn who_waits_for_a_function_that_goes_hears_of_it() {
    let (gate, manifest) = (gate(1 << 20), manifest(""));
    gate.open(&manifest, 1 << 20);
    let _held = run(&gate, &manifest.name);
    let line = wait(&gate, &manifest.name);
    gate.close(&manifest.name);
    assert!(line.verdict().await.is_err());
}
