//! Counts requests of one route: by method and status, and how many are open.
//!
//! Method and status are indices, so a request costs no look-up but the first of its kind. What a client or a guest may choose freely
//! is folded: unknown methods into `_OTHER`, unknown statuses into the first of their class.

use super::histogram::{DURATION_US, Distribution, Histogram};
use crate::holding::Holding;
use http::{Method, StatusCode};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"];

/// The statuses that are told apart, in order; the last place after them is for answers that never came.
const STATUSES: [u16; 46] = [
    100, 101, 103, 200, 201, 202, 203, 204, 205, 206, 207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409,
    410, 411, 412, 413, 414, 415, 416, 422, 423, 425, 426, 428, 429, 431, 500, 501, 502, 503, 504,
];
const CELLS: usize = STATUSES.len() + 1;

/// The requests of one route.
#[derive(Debug)]
pub(crate) struct Requests {
    /// As the trigger has it; none for requests that no route takes.
    route: Option<String>,
    methods: [OnceLock<Box<[OnceLock<Histogram>; CELLS]>>; METHODS.len()],
    active: [AtomicU64; METHODS.len()],
}

/// Requests of one route, method and status.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) route: Option<String>,
    pub(crate) method: &'static str,
    /// None when the client went away before the answer.
    pub(crate) status: Option<u16>,
    pub(crate) duration_us: Distribution,
}

/// One request until its answer is delivered or given up.
#[derive(Debug)]
pub(crate) struct Open {
    requests: Arc<Requests>,
    method: usize,
    cell: usize,
    begin: Instant,
}

impl Requests {
    pub(crate) fn of(route: Option<&str>) -> Self {
        Self { route: route.map(str::to_owned), methods: Default::default(), active: Default::default() }
    }

    /// The route, as the trigger has it.
    pub(crate) fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// A request comes.
    pub(crate) fn open(self: &Arc<Self>, method: &Method, begin: Instant) -> Open {
        let known = METHODS.iter().position(|name| *name == method.as_str());
        let method = known.unwrap_or(METHODS.len() - 1);
        self.active[method].fetch_add(1, Relaxed);
        Open { requests: Arc::clone(self), method, cell: CELLS - 1, begin }
    }

    /// What was served.
    pub(crate) fn served(&self) -> Vec<Served> {
        let methods = self.methods.iter().zip(METHODS).filter_map(|(cells, method)| Some((cells.get()?, method)));
        methods
            .flat_map(|(cells, method)| {
                cells.iter().enumerate().filter_map(move |(at, cell)| {
                    let duration_us = cell.get()?.read();
                    Some(Served { route: self.route.clone(), method, status: STATUSES.get(at).copied(), duration_us })
                })
            })
            .collect()
    }

    /// How many are open, by method.
    pub(crate) fn active(&self) -> impl Iterator<Item = (&'static str, u64)> {
        METHODS.into_iter().zip(self.active.iter().map(|active| active.load(Relaxed)))
    }
}

impl Open {
    /// The answer begins; the request ends with its body.
    pub(crate) fn answered<B>(mut self, status: StatusCode, body: B) -> Holding<B, Self> {
        self.cell = cell_of(status);
        Holding::new(body, self)
    }
}

fn cell_of(status: StatusCode) -> usize {
    let class = status.as_u16() / 100 * 100;
    let known = STATUSES.binary_search(&status.as_u16()).or_else(|_| STATUSES.binary_search(&class));
    known.unwrap_or(CELLS - 1)
}

impl Drop for Open {
    fn drop(&mut self) {
        self.requests.active[self.method].fetch_sub(1, Relaxed);
        let cells = self.requests.methods[self.method].get_or_init(|| Box::new([const { OnceLock::new() }; CELLS]));
        let duration_us = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        cells[self.cell].get_or_init(|| Histogram::new(DURATION_US)).observe(duration_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;

    #[test]
    fn a_request_is_open_until_its_body_is_gone_and_counts_once() {
        let requests = Arc::new(Requests::of(Some("/a/*")));
        let open = |method: &Method| requests.open(method, Instant::now());
        let active = |name: &str| requests.active().find(|(method, _)| *method == name).unwrap().1;
        let body = open(&Method::GET).answered(StatusCode::OK, Full::new(Bytes::new()));
        assert_eq!((active("GET"), requests.served().len()), (1, 0));
        drop(body);
        drop(open(&Method::GET).answered(StatusCode::from_u16(299).unwrap(), Full::new(Bytes::new())));
        drop(open(&Method::from_bytes(b"BREW").unwrap()).answered(StatusCode::IM_A_TEAPOT, Full::new(Bytes::new())));
        drop(open(&Method::GET));
        let served: Vec<_> =
            requests.served().into_iter().map(|served| (served.method, served.status, served.duration_us.count())).collect();
        assert_eq!(served, [("GET", Some(200), 2), ("GET", None, 1), ("_OTHER", Some(400), 1)]);
        assert_eq!((active("GET"), active("_OTHER")), (0, 0));
    }

    #[test]
    fn statuses_are_in_order_and_each_class_has_its_first() {
        assert!(STATUSES.is_sorted());
        for class in [100, 200, 300, 400, 500] {
            assert!(STATUSES.contains(&class));
        }
    }
}
