/* The bytes of a Modbus answer on standard input, JSON on standard output. */
#include "decode.h"

#include <stdio.h>
#include <stdlib.h>

/* The largest a Modbus PDU can be, and one more to notice what is larger. */
enum { PDU_BYTES_MAX = 253, JSON_BYTES_MAX = 512 };

int main(void) {
    uint8_t pdu[PDU_BYTES_MAX + 1];
    size_t length = fread(pdu, 1, sizeof pdu, stdin);
    if (ferror(stdin)) {
        perror("standard input");
        return EXIT_FAILURE;
    }
    struct meter meter;
    const char *fault = decode(pdu, length, &meter);
    char text[JSON_BYTES_MAX];
    if (fault == NULL && to_json(&meter, text, sizeof text) < 0) {
        fault = "the numbers are too long";
    }
    if (fault != NULL) {
        fprintf(stderr, "%zu bytes: %s\n", length, fault);
        return EXIT_FAILURE;
    }
    return puts(text) < 0;
}
