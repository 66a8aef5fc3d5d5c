# What {{name}} does, without anything of the node: so it can be tested anywhere.

require "json"

# The data is not a reading.
class NotAReading < StandardError; end

# A reading in °C becomes one in °F.
def convert(data)
  reading = JSON.parse(data)
  celsius = reading["value"] if reading.is_a?(Hash)
  raise NotAReading, "a reading without a number as its value: #{data[0, 80]}" unless celsius.is_a?(Numeric)

  JSON.generate({ value: (celsius * 1.8 + 32).round(2) })
rescue JSON::ParserError => cause
  raise NotAReading, "not a reading: #{cause.message}"
end
