"""python3 -m unittest"""

import json
import unittest

from convert import NotAReading, convert


class Convert(unittest.TestCase):
    def test_readings_are_converted(self):
        self.assertEqual(json.loads(convert(b'{"value": 20}')), {"value": 68.0})

    def test_what_is_no_reading_is_refused(self):
        for bad in [b"", b"warm", b"{}", b"[]", b'{"value": null}', b'{"value": NaN}', b"\xff"]:
            with self.assertRaises(NotAReading):
                convert(bad)


if __name__ == "__main__":
    unittest.main()
