;; Makes a WASI command of Ruby: begins the interpreter and loads /assets/main.rb. The status is that of `exit`, or 1 for an exception.
(module
  (import "ruby" "memory" (memory 0))
  (import "ruby" "_initialize" (func $initialize))
  (import "ruby" "cabi_realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
  (import "ruby" "ruby-init: func(args: list<string>) -> ()" (func $ruby_init (param i32 i32)))
  (import "ruby" "rb-eval-string-protect: func(str: string) -> tuple<handle<rb-abi-value>, s32>"
    (func $eval (param i32 i32) (result i32)))

  ;; The words of `ruby -EUTF-8 -e_=0`, each with its zero: an interpreter that has run a script that does nothing.
  (data $words "ruby\00-EUTF-8\00-e_=0\00")
  (data $script
    "begin\n"
    "  load '/assets/main.rb'\n"
    "  status = 0\n"
    "rescue SystemExit => fault\n"
    "  status = fault.status\n"
    "rescue Exception => fault\n"
    "  $stderr.write(fault.full_message(highlight: false))\n"
    "  status = 1\n"
    "end\n"
    "$stdout.flush\n"
    "exit!(status)\n")
  (global $script_bytes i32 (i32.const 220))

  ;; Memory of Ruby's own, which Ruby frees.
  (func $allocate (param $align i32) (param $bytes i32) (result i32)
    (call $realloc (i32.const 0) (i32.const 0) (local.get $align) (local.get $bytes)))

  ;; Writes address and length of a copy of some words to $at.
  (func $word (param $at i32) (param $from i32) (param $bytes i32)
    (local $copy i32)
    (local.set $copy (call $allocate (i32.const 1) (local.get $bytes)))
    (memory.init $words (local.get $copy) (local.get $from) (local.get $bytes))
    (i32.store (local.get $at) (local.get $copy))
    (i32.store offset=4 (local.get $at) (local.get $bytes)))

  (func (export "_start")
    (local $at i32)
    (call $initialize)
    (local.set $at (call $allocate (i32.const 4) (i32.const 24)))
    (call $word (local.get $at) (i32.const 0) (i32.const 5))
    (call $word (i32.add (local.get $at) (i32.const 8)) (i32.const 5) (i32.const 8))
    (call $word (i32.add (local.get $at) (i32.const 16)) (i32.const 13) (i32.const 6))
    (call $ruby_init (local.get $at) (i32.const 3))
    (local.set $at (call $allocate (i32.const 1) (global.get $script_bytes)))
    (memory.init $script (local.get $at) (i32.const 0) (global.get $script_bytes))
    ;; The script ends the process, so nothing comes back.
    (drop (call $eval (local.get $at) (global.get $script_bytes)))))
