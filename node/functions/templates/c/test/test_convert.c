/* cc -Isrc test/test_convert.c src/convert.c -lm -o target/test && target/test */
#include "convert.h"

#include <assert.h>
#include <math.h>

int main(void) {
    double value;
    assert(reading_value("{\"unit\": \"C\", \"value\" : -4.5}", &value) && fabs(value + 4.5) < 1e-9);
    const char *bad[] = {"", "warm", "{}", "{\"value\": \"a\"}", "{\"value\"", "{\"value\": inf}"};
    for (unsigned at = 0; at < sizeof bad / sizeof *bad; at++) {
        assert(!reading_value(bad[at], &value));
    }
    assert(fabs(fahrenheit(20) - 68) < 1e-9);
    return 0;
}
