/* cc -Isrc test/test_decode.c src/decode.c -lm -o target/test && target/test */
#include "decode.h"

#include <assert.h>
#include <string.h>

static const uint8_t ANSWER[] = {3, 14, 0x08, 0xFC, 0, 0, 0x04, 0xD2, 0x44, 0x89, 0x80, 0, 0, 1, 0, 5};

static void values_have_names_and_units(void) {
    struct meter meter;
    char text[512];
    assert(decode(ANSWER, sizeof ANSWER, &meter) == NULL);
    assert(to_json(&meter, text, sizeof text) > 0);
    assert(strcmp(text, "{\"voltage_v\":230.0,\"current_a\":1.234,\"power_w\":1100.0,\"alarms\":[\"overload\"],\"tariff\":5}") == 0);
    assert(to_json(&meter, text, 20) == -1);
}

static void currents_may_be_negative(void) {
    uint8_t answer[sizeof ANSWER];
    struct meter meter;
    memcpy(answer, ANSWER, sizeof answer);
    memset(answer + 4, 0xFF, 4);
    assert(decode(answer, sizeof answer, &meter) == NULL && meter.current_a == -0.001);
}

static void what_is_no_answer_is_named(void) {
    struct meter meter;
    const uint8_t busy[] = {0x83, 6};
    assert(strstr(decode(busy, 2, &meter), "busy") != NULL);
    for (size_t length = 0; length < sizeof ANSWER; length++) {
        assert(decode(ANSWER, length, &meter) != NULL);
    }
    uint8_t answer[sizeof ANSWER];
    memcpy(answer, ANSWER, sizeof answer);
    memset(answer + 8, 0xFF, 4);
    assert(decode(answer, sizeof answer, &meter) != NULL);
}

int main(void) {
    values_have_names_and_units();
    currents_may_be_negative();
    what_is_no_answer_is_named();
    return 0;
}
