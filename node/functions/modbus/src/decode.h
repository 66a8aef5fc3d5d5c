#pragma once

#include <stddef.h>
#include <stdint.h>

/* What the meter says, in SI units. */
struct meter {
    double voltage_v;
    double current_a;
    double power_w;
    uint16_t alarms;
    uint16_t tariff;
};

/* The alarms, by their bit; NULL ends the list. */
extern const char *const ALARMS[];

/* Decodes the answer to `read holding registers` of registers 0 to 6.
 * Returns NULL, or what is wrong with the `length` bytes at `pdu`. */
const char *decode(const uint8_t *pdu, size_t length, struct meter *meter);

/* Writes `meter` as JSON. Returns the length, or -1 if `size` bytes are too few. */
int to_json(const struct meter *meter, char *text, size_t size);
