#include "decode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* 0: voltage, 0.1 V, unsigned 16 bits.    1-2: current, 1 mA, signed 32 bits, high word first.
 * 3-4: power, W, IEEE 754 single.         5: alarms, one bit each.         6: tariff. */
enum { FUNCTION = 3, EXCEPTION = 0x80, REGISTERS = 7, BYTES = 2 * REGISTERS };

const char *const ALARMS[] = {"overload", "undervoltage", "overvoltage", "phase", "temperature", NULL};

static const char *exception(uint8_t code) {
    switch (code) {
    case 1: return "the device answers: illegal function";
    case 2: return "the device answers: illegal data address";
    case 3: return "the device answers: illegal data value";
    case 4: return "the device answers: device failure";
    case 6: return "the device answers: busy";
    default: return "the device answers with an exception";
    }
}

static uint16_t word(const uint8_t *registers, unsigned number) {
    return (uint16_t)(registers[2 * number] << 8 | registers[2 * number + 1]);
}

static uint32_t double_word(const uint8_t *registers, unsigned number) {
    return (uint32_t)word(registers, number) << 16 | word(registers, number + 1);
}

const char *decode(const uint8_t *pdu, size_t length, struct meter *meter) {
    if (length == 2 && pdu[0] == (FUNCTION | EXCEPTION)) {
        return exception(pdu[1]);
    }
    if (length < 2 || pdu[0] != FUNCTION) {
        return "not an answer to `read holding registers` (function 3)";
    }
    if (pdu[1] != BYTES || length != 2 + BYTES) {
        return "not the seven registers of this meter";
    }
    const uint8_t *registers = pdu + 2;
    uint32_t bits = double_word(registers, 3);
    float power;
    memcpy(&power, &bits, sizeof power);
    if (!isfinite(power)) {
        return "the power is not a number";
    }
    *meter = (struct meter){
        .voltage_v = word(registers, 0) / 10.0,
        .current_a = (int32_t)double_word(registers, 1) / 1000.0,
        .power_w = power,
        .alarms = word(registers, 5),
        .tariff = word(registers, 6),
    };
    return NULL;
}

int to_json(const struct meter *meter, char *text, size_t size) {
    char alarms[128] = "";
    for (unsigned bit = 0; ALARMS[bit] != NULL; bit++) {
        if (meter->alarms >> bit & 1) {
            size_t used = strlen(alarms);
            snprintf(alarms + used, sizeof alarms - used, "%s\"%s\"", used ? "," : "", ALARMS[bit]);
        }
    }
    const char *format = "{\"voltage_v\":%.1f,\"current_a\":%.3f,\"power_w\":%.1f,\"alarms\":[%s],\"tariff\":%u}";
    int length = snprintf(text, size, format, meter->voltage_v, meter->current_a, meter->power_w, alarms, meter->tariff);
    return length < 0 || (size_t)length >= size ? -1 : length;
}
