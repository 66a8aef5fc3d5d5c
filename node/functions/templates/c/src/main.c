/* The function {{name}}: data on standard input, attributes in the variables CE_…, the reply on standard output.
 * An HTTP request comes the same way, with its method in HTTP_METHOD and its body as the data. */
#include "convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_BYTES_MAX = 64 * 1024 };

int main(void) {
    const char *method = getenv("HTTP_METHOD");
    if (method != NULL && strcmp(method, "GET") == 0) {
        return puts("hello from {{name}}") < 0;
    }
    static char data[DATA_BYTES_MAX + 1];
    size_t length = fread(data, 1, DATA_BYTES_MAX, stdin);
    double value;
    /* Standard error is the function's log; a failure makes the node try the event again. */
    if (ferror(stdin) || (length == DATA_BYTES_MAX && fgetc(stdin) != EOF)) {
        fprintf(stderr, "the data cannot be read, or has more than %d bytes\n", DATA_BYTES_MAX);
        return EXIT_FAILURE;
    }
    if (!reading_value(data, &value)) {
        fprintf(stderr, "not a reading: %.80s\n", data);
        return EXIT_FAILURE;
    }
    return printf("{\"value\":%.2f}\n", fahrenheit(value)) < 0;
}
