# The function {{name}}: data on standard input, attributes in the variables CE_…, the reply on standard output.
# An HTTP request comes the same way, with its method in HTTP_METHOD and its body as the data.

require_relative "convert"

if ENV["HTTP_METHOD"] == "GET"
  puts "hello from {{name}}"
else
  begin
    print convert($stdin.read)
  rescue NotAReading => fault
    # Standard error is the function's log; a failure makes the node try the event again.
    abort fault.message
  end
end
