use super::*;
use crate::Manifest;
use crate::artifact::{Kind, inspect, inspect_for};

/// An unsigned LEB128 number.
fn leb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(content.len() as u64).as_slice(), content].concat()
}

/// A section that is `count` times `item`.
fn list(id: u8, count: u64, item: &[u8]) -> Vec<u8> {
    section(id, &[leb(count), item.repeat(usize::try_from(count).unwrap())].concat())
}

fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".as_slice(), &sections.concat()].concat()
}

fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x0d\0\x01\0".as_slice(), &sections.concat()].concat()
}

const NO_PARAMETERS: &[u8] = &[0x60, 0, 0];
const EMPTY_BODY: &[u8] = &[2, 0, 0x0b];

/// A command with so many functions that do nothing.
fn functions(count: u64) -> Vec<u8> {
    let start = section(7, &[&[1, 6], b"_start".as_slice(), &[0, 0]].concat());
    module(&[list(1, 1, NO_PARAMETERS), list(3, count, &[0]), start, list(10, count, EMPTY_BODY)])
}

/// One more of something than is allowed is refused, with both numbers.
fn refused(bytes: &[u8], what: &str, max: u64) {
    let fault = inspect(bytes).unwrap_err();
    assert!(matches!(&fault, ArtifactError::Bound { what: found, max: bound, .. } if *found == what && *bound == max), "{fault}");
    let text = fault.to_string();
    assert!(text.contains(what) && text.contains(&max.to_string()), "{text}");
}

#[test]
fn ten_thousand_functions_are_a_function_and_more_than_the_bound_are_not() {
    assert_eq!(inspect(&functions(10_000)), Ok(Kind::CoreCommand));
    assert_eq!(inspect(&functions(FUNCTIONS_MAX)), Ok(Kind::CoreCommand));
    refused(&functions(FUNCTIONS_MAX + 1), "functions", FUNCTIONS_MAX);
}

#[test]
fn functions_count_over_all_modules_of_a_component() {
    let half = section(1, &functions(FUNCTIONS_MAX / 2 + 1));
    refused(&component(&[half.clone(), half]), "functions", FUNCTIONS_MAX);
}

#[test]
fn a_very_long_function_body_is_refused() {
    let body = |bytes: u64| {
        let code = [vec![0], vec![0x01; usize::try_from(bytes).unwrap() - 2], vec![0x0b]].concat();
        let start = section(7, &[&[1, 6], b"_start".as_slice(), &[0, 0]].concat());
        let code = section(10, &[vec![1], leb(bytes), code].concat());
        module(&[list(1, 1, NO_PARAMETERS), list(3, 1, &[0]), start, code])
    };
    assert_eq!(inspect(&body(FUNCTION_BODY_BYTES_MAX)), Ok(Kind::CoreCommand));
    refused(&body(FUNCTION_BODY_BYTES_MAX + 1), "bytes of one function's code", FUNCTION_BODY_BYTES_MAX);
}

#[test]
fn deep_nesting_is_refused_at_once_also_when_it_goes_down_for_ever() {
    let mut inner = component(&[]);
    for _ in 1..NESTING_MAX {
        inner = component(&[section(4, &inner)]);
    }
    assert!(matches!(inspect(&inner), Err(ArtifactError::NotAFunction(_))), "as deep as is allowed");
    for _ in 0..2_000 {
        inner = component(&[section(4, &inner)]);
    }
    refused(&inner, "components and modules inside each other", NESTING_MAX);
}

#[test]
fn many_components_and_modules_are_refused() {
    let parts = vec![section(1, &module(&[])); usize::try_from(PARTS_MAX).unwrap()];
    refused(&component(&parts), "components and modules", PARTS_MAX);
}

#[test]
fn many_instances_types_imports_and_exports_of_components_are_refused() {
    let what = "instances, types, aliases, imports and exports of components";
    let over = COMPONENT_ITEMS_MAX + 1;
    // A core instance made of nothing, a component instance made of nothing, the type u8.
    for (id, item) in [(2, [1, 0].as_slice()), (5, &[1, 0]), (7, &[0x7d])] {
        refused(&component(&[list(id, over, item)]), what, COMPONENT_ITEMS_MAX);
    }
    // Headers that promise what is not there cost nothing.
    for id in [2, 3, 5, 6, 7, 8, 10, 11] {
        let promised = component(&[section(id, &leb(u64::from(u32::MAX)))]);
        assert!(inspect(&promised).is_err(), "section {id}");
    }
}

#[test]
fn many_imports_exports_types_globals_and_segments_of_a_module_are_refused() {
    for (id, what, item, max) in [
        (1, "types in a module", NO_PARAMETERS, MODULE_TYPES_MAX),
        (2, "imports of a module", [1, b'm', 1, b'f', 0, 0].as_slice(), MODULE_IMPORTS_MAX),
        (6, "globals of a module", &[0x7f, 0, 0x41, 0, 0x0b], MODULE_GLOBALS_MAX),
        (7, "exports of a module", &[1, b'f', 0, 0], MODULE_EXPORTS_MAX),
        (9, "element segments of a module", &[1, 0, 0], ELEMENT_SEGMENTS_MAX),
        (11, "data segments of a module", &[1, 0], DATA_SEGMENTS_MAX),
    ] {
        refused(&module(&[list(id, max + 1, item)]), what, max);
    }
}

#[test]
fn huge_tables_and_memories_are_refused_before_they_are_made() {
    let table = |elements: u64| module(&[section(4, &[&[1, 0x70, 0], leb(elements).as_slice()].concat())]);
    assert!(matches!(inspect(&table(TABLE_ELEMENTS_MAX)), Err(ArtifactError::NotAFunction(_))));
    refused(&table(u64::from(u32::MAX)), "elements that a table begins with", TABLE_ELEMENTS_MAX);
    refused(&module(&[list(4, TABLES_PER_MODULE_MAX + 1, &[0x70, 0, 0])]), "tables of a module", TABLES_PER_MODULE_MAX);
    refused(&module(&[list(5, MEMORIES_PER_MODULE_MAX + 1, &[0, 0])]), "memories of a module", MEMORIES_PER_MODULE_MAX);

    let command = wat::parse_str(r#"(module (memory 1025) (func (export "_start")))"#).unwrap();
    let manifest = |megabytes: u32| Manifest::from_toml("f", &format!("name = 'f'\n[limits]\nmemory_mb = {megabytes}\n")).unwrap().0;
    let fault = inspect_for(&command, &manifest(64)).unwrap_err().to_string();
    assert!(fault.contains("begins with 67174400 bytes of memory") && fault.contains("limits.memory_mb is 64"), "{fault}");
    assert_eq!(inspect_for(&command, &manifest(65)), Ok(Kind::CoreCommand));
}

#[test]
fn a_type_that_doubles_with_each_line_is_refused() {
    let mut text = "(component (type $t0 (tuple u8 u8))\n".to_owned();
    for level in 1..64 {
        text.push_str(&format!("(type $t{level} (tuple $t{0} $t{0}))\n", level - 1));
    }
    let fault = inspect(&wat::parse_str(text + ")").unwrap()).unwrap_err().to_string();
    assert!(fault.contains("type size exceeds the limit"), "{fault}");
}

#[test]
fn every_prefix_of_a_large_artifact_is_refused_without_a_panic() {
    let whole = functions(200);
    for end in 0..whole.len() {
        assert!(inspect(&whole[..end]).is_err(), "{end} bytes");
    }
}
