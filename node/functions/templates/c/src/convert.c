#include "convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char KEY[] = "\"value\"";

bool reading_value(const char *text, double *value) {
    const char *at = strstr(text, KEY);
    if (at == NULL) {
        return false;
    }
    at += sizeof KEY - 1;
    at += strspn(at, " \t\r\n");
    if (*at != ':') {
        return false;
    }
    char *end;
    *value = strtod(at + 1, &end);
    return end != at + 1 && isfinite(*value);
}

double fahrenheit(double celsius) {
    return celsius * 1.8 + 32.0;
}
