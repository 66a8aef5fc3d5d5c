/* Does with files what each line of its input says, and writes a line about what came of it. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE = 8192, KIB = 1024 };

static int failed(void) {
    printf("%s\n", strerror(errno));
    return 0;
}

static int done(int result) {
    return result == 0 ? puts("done") : failed();
}

static int put(const char *path, const char *text, const char *mode) {
    FILE *file = fopen(path, mode);
    if (file == NULL) {
        return failed();
    }
    int short_of = fputs(text, file) < 0;
    return done(fclose(file) != 0 || short_of ? -1 : 0);
}

static int get(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return failed();
    }
    char text[LINE];
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = 0;
    fclose(file);
    return puts(text);
}

static int list(const char *path) {
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return failed();
    }
    int names = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        names += entry->d_name[0] != '.';
    }
    closedir(directory);
    return printf("%d\n", names);
}

/* Writes so many KiB; says how many went in, and what stood in the way of more. */
static int fill(const char *path, int kib) {
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (file < 0) {
        return failed();
    }
    static char piece[KIB];
    int number = 0;
    while (number < kib && write(file, piece, KIB) == KIB) {
        number += 1;
    }
    printf("%d%s%s\n", number, number < kib ? " " : "", number < kib ? strerror(errno) : "");
    return close(file);
}

/* Opens so many files and closes none; says how many there are, and what stood in the way of more. */
static int hoard(const char *path, int wanted) {
    int number = 0;
    while (number < wanted && open(path, O_CREAT | O_RDWR, 0644) >= 0) {
        number += 1;
    }
    return printf("%d%s%s\n", number, number < wanted ? " " : "", number < wanted ? strerror(errno) : "");
}

static int size(const char *path) {
    struct stat data;
    return stat(path, &data) == 0 ? printf("%s %lld\n", S_ISDIR(data.st_mode) ? "directory" : "file", (long long)data.st_size) : failed();
}

int main(void) {
    static char line[LINE];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *verb = strtok(line, " \n"), *path = strtok(NULL, " \n"), *other = strtok(NULL, " \n");
        if (verb == NULL || path == NULL) {
            continue;
        }
        if (strcmp(verb, "write") == 0) put(path, other ? other : "", "w");
        else if (strcmp(verb, "append") == 0) put(path, other ? other : "", "a");
        else if (strcmp(verb, "read") == 0) get(path);
        else if (strcmp(verb, "list") == 0) list(path);
        else if (strcmp(verb, "mkdir") == 0) done(mkdir(path, 0755));
        else if (strcmp(verb, "rmdir") == 0) done(rmdir(path));
        else if (strcmp(verb, "rm") == 0) done(unlink(path));
        else if (strcmp(verb, "mv") == 0) done(rename(path, other ? other : ""));
        else if (strcmp(verb, "size") == 0) size(path);
        else if (strcmp(verb, "fill") == 0) fill(path, other ? atoi(other) : 0);
        else if (strcmp(verb, "hoard") == 0) hoard(path, other ? atoi(other) : 0);
        else if (strcmp(verb, "env") == 0) puts(getenv(path) ? getenv(path) : "none");
        else if (strcmp(verb, "exit") == 0) return atoi(path);
        else puts("unknown");
    }
    return 0;
}
