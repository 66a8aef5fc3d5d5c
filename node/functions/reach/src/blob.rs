//! Files of a container.

use std::io::Write;

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};

use crate::imports::wasi::blobstore::blobstore::{self, ObjectId, get_container};
use crate::imports::wasi::blobstore::types::{IncomingValue, OutgoingValue};
use crate::{Outcome, respond};

pub(crate) fn put(container: &str, name: &str, data: &[u8]) -> Outcome {
    let container = get_container(container)?;
    let value = OutgoingValue::new_outgoing_value();
    container.write_data(name, &value)?;
    {
        let mut stream = value.outgoing_value_write_body().map_err(|()| "no stream")?;
        if let Err(error) = stream.write_all(data) {
            return Err(format!("{error}; {:?}", OutgoingValue::finish(value).err()));
        }
    }
    OutgoingValue::finish(value)?;
    Ok(data.len().to_string().into_bytes())
}

/// Writes and does not finish.
pub(crate) fn abandon(container: &str, name: &str) -> Outcome {
    let container = get_container(container)?;
    let value = OutgoingValue::new_outgoing_value();
    container.write_data(name, &value)?;
    let mut stream = value.outgoing_value_write_body().map_err(|()| "no stream")?;
    stream.write_all(b"half").map_err(|error| error.to_string())?;
    drop(stream);
    Ok(b"abandoned".to_vec())
}

pub(crate) fn get(container: &str, name: &str, start: &str, end: &str) -> Outcome {
    let value = get_container(container)?.get_data(name, start.parse().unwrap_or(0), end.parse().unwrap_or(u64::MAX))?;
    IncomingValue::incoming_value_consume_sync(value)
}

/// Answers an object as it is read.
pub(crate) fn stream(container: &str, name: &str, answer: ResponseOutparam) {
    let opened = get_container(container)
        .and_then(|container| container.get_data(name, 0, u64::MAX))
        .and_then(IncomingValue::incoming_value_consume_async);
    let mut from = match opened {
        Ok(stream) => stream,
        Err(reason) => return respond(answer, 500, reason.as_bytes()),
    };
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(answer, Ok(response));
    if let Ok(mut to) = body.write() {
        let _ = crate::fetch::copy(&mut from, &mut to);
    }
    let _ = OutgoingBody::finish(body, None);
}

pub(crate) fn list(container: &str) -> Outcome {
    let names = get_container(container)?.list_objects()?;
    let mut all = Vec::new();
    loop {
        let (page, last) = names.read_stream_object_names(2)?;
        all.extend(page);
        if last {
            return Ok(all.join(" ").into_bytes());
        }
    }
}

pub(crate) fn info(container: &str, name: &str) -> Outcome {
    let info = get_container(container)?.object_info(name)?;
    Ok(format!("{} {} {}", info.container, info.name, info.size).into_bytes())
}

pub(crate) fn relocate(container: &str, name: &str, to: &str, new: &str) -> Outcome {
    let id = |container: &str, object: &str| ObjectId { container: container.to_owned(), object: object.to_owned() };
    blobstore::copy_object(&id(container, name), &id(to, "copy"))?;
    blobstore::move_object(&id(container, name), &id(to, new))?;
    Ok(b"moved".to_vec())
}

pub(crate) fn delete(container: &str, name: &str) -> Outcome {
    get_container(container)?.delete_object(name)?;
    Ok(b"deleted".to_vec())
}

pub(crate) fn clear(container: &str) -> Outcome {
    get_container(container)?.clear()?;
    Ok(b"cleared".to_vec())
}

/// Begins objects until that is refused; answers how many there were.
pub(crate) fn hoard(container: &str) -> Outcome {
    let container = get_container(container)?;
    let mut values = Vec::new();
    loop {
        let value = OutgoingValue::new_outgoing_value();
        if let Err(reason) = container.write_data(&format!("hoard-{}", values.len()), &value) {
            return Ok(format!("{}: {reason}", values.len()).into_bytes());
        }
        values.push(value);
    }
}
