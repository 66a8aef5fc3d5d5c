#pragma once

#include <stdbool.h>

/* The number that follows `"value":` in a JSON object; false if there is none. `text` ends with a zero byte. */
bool reading_value(const char *text, double *value);

/* °C to °F. */
double fahrenheit(double celsius);
