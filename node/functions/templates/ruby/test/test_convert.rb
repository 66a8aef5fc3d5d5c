# ruby test/test_convert.rb

require "minitest/autorun"
require_relative "../app/convert"

class TestConvert < Minitest::Test
  def test_readings_are_converted
    assert_equal '{"value":68.0}', convert('{"value": 20}')
  end

  def test_what_is_no_reading_is_refused
    ["", "warm", "{}", "12", '{"value": "20"}', "\xFF"].each { |bad| assert_raises(NotAReading) { convert(bad) } }
  end
end
