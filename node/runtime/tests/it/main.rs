//! The runtime from outside: artifacts go in, results and usage come out.

mod cache;
mod command;
mod component;
mod guests;
mod limits;
mod support;
