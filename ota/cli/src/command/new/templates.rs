//! The files of the templates, so that the command needs no directory beside it.

/// A file of a template: where it goes, and its text.
pub(super) type File = (&'static str, &'static str);

pub(super) const RUST_HTTP: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/rust-http/.gitignore")),
    ("Cargo.toml", include_str!("../../../../../node/functions/templates/rust-http/Cargo.toml")),
    ("README.md", include_str!("../../../../../node/functions/templates/rust-http/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/rust-http/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/rust-http/function.toml")),
    ("src/lib.rs", include_str!("../../../../../node/functions/templates/rust-http/src/lib.rs")),
    ("tests/answers.toml", include_str!("../../../../../node/functions/templates/rust-http/tests/answers.toml")),
];

pub(super) const RUST_HTTP_03: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/rust-http-03/.gitignore")),
    ("Cargo.toml", include_str!("../../../../../node/functions/templates/rust-http-03/Cargo.toml")),
    ("README.md", include_str!("../../../../../node/functions/templates/rust-http-03/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/rust-http-03/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/rust-http-03/function.toml")),
    ("src/lib.rs", include_str!("../../../../../node/functions/templates/rust-http-03/src/lib.rs")),
    ("tests/answers.toml", include_str!("../../../../../node/functions/templates/rust-http-03/tests/answers.toml")),
];

pub(super) const RUST_COMMAND: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/rust-command/.gitignore")),
    ("Cargo.toml", include_str!("../../../../../node/functions/templates/rust-command/Cargo.toml")),
    ("README.md", include_str!("../../../../../node/functions/templates/rust-command/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/rust-command/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/rust-command/function.toml")),
    ("src/main.rs", include_str!("../../../../../node/functions/templates/rust-command/src/main.rs")),
    ("tests/events.toml", include_str!("../../../../../node/functions/templates/rust-command/tests/events.toml")),
];

pub(super) const GO: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/go/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/go/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/go/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/go/function.toml")),
    ("go.mod", include_str!("../../../../../node/functions/templates/go/go.mod")),
    ("main.go", include_str!("../../../../../node/functions/templates/go/main.go")),
    ("main_test.go", include_str!("../../../../../node/functions/templates/go/main_test.go")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/go/tests/readings.toml")),
];

pub(super) const JAVASCRIPT: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/javascript/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/javascript/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/javascript/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/javascript/function.toml")),
    ("package.json", include_str!("../../../../../node/functions/templates/javascript/package.json")),
    ("src/convert.js", include_str!("../../../../../node/functions/templates/javascript/src/convert.js")),
    ("src/function.js", include_str!("../../../../../node/functions/templates/javascript/src/function.js")),
    ("test/convert.test.js", include_str!("../../../../../node/functions/templates/javascript/test/convert.test.js")),
    ("wit/world.wit", include_str!("../../../../../node/functions/templates/javascript/wit/world.wit")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/javascript/tests/readings.toml")),
];

pub(super) const TYPESCRIPT: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/typescript/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/typescript/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/typescript/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/typescript/function.toml")),
    ("package.json", include_str!("../../../../../node/functions/templates/typescript/package.json")),
    ("src/convert.ts", include_str!("../../../../../node/functions/templates/typescript/src/convert.ts")),
    ("src/function.ts", include_str!("../../../../../node/functions/templates/typescript/src/function.ts")),
    ("test/convert.test.ts", include_str!("../../../../../node/functions/templates/typescript/test/convert.test.ts")),
    ("tsconfig.json", include_str!("../../../../../node/functions/templates/typescript/tsconfig.json")),
    ("wit/world.wit", include_str!("../../../../../node/functions/templates/typescript/wit/world.wit")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/typescript/tests/readings.toml")),
];

pub(super) const PYTHON: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/python/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/python/README.md")),
    ("app.py", include_str!("../../../../../node/functions/templates/python/app.py")),
    ("convert.py", include_str!("../../../../../node/functions/templates/python/convert.py")),
    ("event.json", include_str!("../../../../../node/functions/templates/python/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/python/function.toml")),
    ("test_convert.py", include_str!("../../../../../node/functions/templates/python/test_convert.py")),
    ("wit/world.wit", include_str!("../../../../../node/functions/templates/python/wit/world.wit")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/python/tests/readings.toml")),
];

pub(super) const C: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/c/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/c/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/c/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/c/function.toml")),
    ("src/convert.c", include_str!("../../../../../node/functions/templates/c/src/convert.c")),
    ("src/convert.h", include_str!("../../../../../node/functions/templates/c/src/convert.h")),
    ("src/main.c", include_str!("../../../../../node/functions/templates/c/src/main.c")),
    ("test/test_convert.c", include_str!("../../../../../node/functions/templates/c/test/test_convert.c")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/c/tests/readings.toml")),
];

pub(super) const ZIG: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/zig/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/zig/README.md")),
    ("event.json", include_str!("../../../../../node/functions/templates/zig/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/zig/function.toml")),
    ("src/main.zig", include_str!("../../../../../node/functions/templates/zig/src/main.zig")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/zig/tests/readings.toml")),
];

pub(super) const ASSEMBLYSCRIPT: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/assemblyscript/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/assemblyscript/README.md")),
    ("asconfig.json", include_str!("../../../../../node/functions/templates/assemblyscript/asconfig.json")),
    ("assembly/convert.ts", include_str!("../../../../../node/functions/templates/assemblyscript/assembly/convert.ts")),
    ("assembly/index.ts", include_str!("../../../../../node/functions/templates/assemblyscript/assembly/index.ts")),
    ("assembly/wasi.ts", include_str!("../../../../../node/functions/templates/assemblyscript/assembly/wasi.ts")),
    ("event.json", include_str!("../../../../../node/functions/templates/assemblyscript/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/assemblyscript/function.toml")),
    ("package.json", include_str!("../../../../../node/functions/templates/assemblyscript/package.json")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/assemblyscript/tests/readings.toml")),
];

pub(super) const RUBY: &[File] = &[
    (".gitignore", include_str!("../../../../../node/functions/templates/ruby/.gitignore")),
    ("README.md", include_str!("../../../../../node/functions/templates/ruby/README.md")),
    ("app/convert.rb", include_str!("../../../../../node/functions/templates/ruby/app/convert.rb")),
    ("app/main.rb", include_str!("../../../../../node/functions/templates/ruby/app/main.rb")),
    ("event.json", include_str!("../../../../../node/functions/templates/ruby/event.json")),
    ("function.toml", include_str!("../../../../../node/functions/templates/ruby/function.toml")),
    ("package.json", include_str!("../../../../../node/functions/templates/ruby/package.json")),
    ("test/test_convert.rb", include_str!("../../../../../node/functions/templates/ruby/test/test_convert.rb")),
    ("tests/readings.toml", include_str!("../../../../../node/functions/templates/ruby/tests/readings.toml")),
    ("wasi/handles.wat", include_str!("../../../../../node/functions/templates/ruby/wasi/handles.wat")),
    ("wasi/javascript.wat", include_str!("../../../../../node/functions/templates/ruby/wasi/javascript.wat")),
    ("wasi/start.wat", include_str!("../../../../../node/functions/templates/ruby/wasi/start.wat")),
];
