//! The client crate against whole ensembles, which lose members meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use zab_testing::{Ensemble, Runtime, Service};
use zk_client::blocking::{Client, Tcp};
use zk_client::{
    ANY_VERSION, Acl, AddWatchMode, Answer, Code, Create, CreateMode, Event, EventKind, Op,
    Options, ReadOp, Request, WatchEvent,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn client(ensemble: &Ensemble<Service>, root: &str) -> Client {
    Client::connect(&format!("{}{root}", ensemble.connect_string())).unwrap()
}

fn next_watch(client: &Client) -> WatchEvent {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(Event::Watch(event)) = client.event(PATIENCE) {
            return event;
        }
    }
    panic!("no event");
}

/// What is lost with a connection is done again.
fn persist<T>(mut what: impl FnMut() -> Result<T, zk_client::Error>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match what() {
            Ok(value) => return value,
            Err(error) if error.code == Code::ConnectionLoss && Instant::now() < until => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_session_outlives_every_member_it_was_connected_to() {
    let runtimes = Runtime::ALL.to_vec();
    let mut ensemble = Ensemble::builder().runtimes(runtimes).start().unwrap();
    let writer = client(&ensemble, "");
    persist(|| writer.create("/app", "", CreateMode::Persistent));
    let watcher = client(&ensemble, "/app");
    persist(|| watcher.create("/mine", "", CreateMode::Ephemeral));
    persist(|| watcher.add_watch("/", AddWatchMode::PersistentRecursive));
    assert_eq!(watcher.exists("/once", true), Ok(None));
    let (session, _) = watcher.session();
    for round in 0..6 {
        // All members in turn, so that each client is hit.
        let victim = ensemble.members().nth(round % 3).unwrap();
        ensemble.stop(victim);
        ensemble.wait().unwrap();
        let path = format!("/app/{round}");
        persist(|| {
            writer.create(&path, "", CreateMode::Persistent).or_else(|error| match error.code {
                // An attempt whose answer was lost.
                Code::NodeExists => Ok(path.clone()),
                _ => Err(error),
            })
        });
        // What happened between two connections is not told of watches that stay.
        persist(|| watcher.sync("/"));
        persist(|| writer.set(&path, "x", ANY_VERSION));
        loop {
            let event = next_watch(&watcher);
            if event.path == format!("/{round}") && event.kind == EventKind::NodeDataChanged {
                break;
            }
        }
        assert_eq!(watcher.session().0, session, "{round}");
        ensemble.restart(victim).unwrap();
        ensemble.wait().unwrap();
    }
    assert!(persist(|| watcher.exists("/mine", false)).is_some());
    // A watch of the first connection.
    persist(|| writer.create("/app/once", "", CreateMode::Persistent));
    assert_eq!(next_watch(&watcher).path, "/once");
    watcher.close();
    persist(|| writer.sync("/"));
    assert_eq!(persist(|| writer.exists("/app/mine", false)), None);
}

#[test]
fn every_operation() {
    let ensemble = Ensemble::start(1).unwrap();
    let client = client(&ensemble, "");
    let call = |request: Request| client.call(&request);
    assert_eq!(client.create("/a", "1", CreateMode::Persistent).unwrap(), "/a");
    let first = client.create("/a/s-", "", CreateMode::EphemeralSequential).unwrap();
    assert_eq!(first, "/a/s-0000000000");
    client.create("/a/c", "", CreateMode::Container).unwrap();
    let ttl = CreateMode::PersistentWithTtl(Duration::from_secs(1));
    assert_eq!(client.create("/ttl", "", ttl).unwrap_err().code, Code::Unimplemented);
    assert_eq!(client.set("/a", "2", 0).unwrap().version, 1);
    let error = client.set("/a", "2", 0).unwrap_err();
    assert_eq!(error.to_string(), "KeeperErrorCode = BadVersion for /a");
    assert_eq!(&client.get("/a", false).unwrap().0[..], b"2");
    assert_eq!(client.children("/a", false).unwrap(), ["c", "s-0000000000"]);
    assert_eq!(call(Request::GetAllChildrenNumber { path: "/a".into() }), Ok(Answer::Number(2)));
    let names = call(Request::GetEphemerals { prefix: "/".into() });
    assert_eq!(names, Ok(Answer::Names(vec![first])));
    client.auth("digest", "u:p").unwrap();
    let Ok(Answer::Identities(ids)) = call(Request::WhoAmI) else { panic!() };
    assert!(ids.contains(&("digest".into(), "u".into())), "{ids:?}");
    let acl = vec![Acl::new(31, "auth", "")];
    call(Request::SetAcl { path: "/a".into(), acl, version: -1 }).unwrap();
    assert_eq!(client.acl("/a").unwrap().0[0].scheme, "digest");
    let version = None;
    let reconfig = Request::Reconfig {
        joining: None,
        leaving: Some("9".into()),
        members: version,
        version: -1,
    };
    assert_eq!(call(reconfig).unwrap_err().code, Code::ReconfigDisabled);
    assert!(matches!(call(Request::GetConfig { watch: true }), Ok(Answer::Data(..))));

    let node = |path: &str| Op::Create(Create::new(path, "", CreateMode::Persistent));
    let results = client.multi(vec![node("/m"), Op::Check("/m".into(), 0), node("/a")]).unwrap();
    assert_eq!(results[2], Err(Code::NodeExists));
    let ops = vec![node("/m"), Op::SetData("/m".into(), None, 0), Op::Delete("/m".into(), 1)];
    assert!(client.multi(ops).unwrap().iter().all(Result::is_ok));
    let reads = vec![ReadOp::GetData("/a".into()), ReadOp::GetChildren("/none".into())];
    let Ok(Answer::Multi(results)) = call(Request::MultiRead(reads)) else { panic!() };
    assert!(matches!(results[..], [Ok(Answer::Data(..)), Err(Code::NoNode)]));
    assert_eq!(client.delete("/none", -1).unwrap_err().code, Code::NoNode);
    assert_eq!(client.delete("none", -1).unwrap_err().code, Code::BadArguments);
}

#[test]
fn more_requests_than_both_sides_take_at_once() {
    let ensemble = Ensemble::start(1).unwrap();
    let client = client(&ensemble, "");
    client.create("/a", vec![b'x'; 100_000], CreateMode::Persistent).unwrap();
    let get = Request::GetData { path: "/a".into(), watch: false };
    let set =
        Request::SetData { path: "/a".into(), data: Some(vec![b'y'; 100_000].into()), version: -1 };
    // Together they are far more than the buffers of both sockets.
    let tickets: Vec<_> =
        (0..500).map(|i| client.send(if i % 2 == 0 { &get } else { &set }).unwrap()).collect();
    for (i, ticket) in tickets.into_iter().enumerate() {
        match ticket.wait().unwrap() {
            Answer::Data(data, _) => assert_eq!((i % 2, data.unwrap().len()), (0, 100_000)),
            Answer::Stat(stat) => assert_eq!(stat.version, i32::try_from(i / 2 + 1).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_idle_session_lives_and_another_client_takes_it_over() {
    let ensemble = Ensemble::builder().voters(1).start().unwrap();
    let mut options = Options::parse(&ensemble.connect_string()).unwrap();
    options.session_timeout = Duration::from_millis(1);
    let first = Client::start(options.clone(), Box::new(Tcp)).unwrap();
    first.create("/mine", "", CreateMode::Ephemeral).unwrap();
    let granted = first.session_timeout();
    assert!(granted > options.session_timeout);
    std::thread::sleep(granted * 2);
    assert!(first.exists("/mine", false).unwrap().is_some());
    options.resume = Some(first.session());
    let second = Client::start(options.clone(), Box::new(Tcp)).unwrap();
    assert!(second.wait_connected(PATIENCE));
    assert!(second.exists("/mine", false).unwrap().is_some());
    assert_eq!(second.session(), first.session());
    second.close();
    // The first comes back to a session that has ended.
    let until = Instant::now() + PATIENCE;
    while first.event(PATIENCE) != Some(Event::Closed(Code::SessionExpired)) {
        assert!(Instant::now() < until);
    }
    assert_eq!(first.exists("/", false).unwrap_err().code, Code::SessionExpired);
    options.resume = Some((first.session().0, vec![1; 16]));
    let wrong = Client::start(options, Box::new(Tcp)).unwrap();
    assert_eq!(wrong.exists("/", false).unwrap_err().code, Code::SessionExpired);
}
