"""What {{name}} does, without anything of the node: so it can be tested anywhere."""

import json
import math


class NotAReading(ValueError):
    """The data is not a reading."""


def convert(data: bytes) -> bytes:
    """A reading in °C becomes one in °F."""
    try:
        celsius = float(json.loads(data)["value"])
    except (ValueError, TypeError, KeyError) as cause:
        raise NotAReading(f"not a reading: {cause!r}") from cause
    if not math.isfinite(celsius):
        raise NotAReading("not a finite number")
    return json.dumps({"value": round(celsius * 1.8 + 32, 2)}).encode()
