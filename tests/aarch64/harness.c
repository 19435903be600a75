/* Runs every linked kernel and compares its output, bit for bit, with the file's.
 *
 * The file holds, for each kernel in order, as little-endian words and floats:
 *   batch, tasks, bytes of scratch, which argument the weights are, number of arguments;
 *   the arguments (the weights as the body reads them); the weights before packing; the output.
 * A tensor is its length and its elements.
 *
 * Around every buffer that a kernel writes lie guards, which must keep their bits; buffers are
 * aligned to a float and no better. NaNs compare as a class. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

enum { MAX_ARGUMENTS = 32, GUARD = 17, SCRATCH_ALIGN = 64 };

/* A NaN that no kernel computes. */
static const uint32_t UNTOUCHED = 0x7fc5a5a5;

struct tensor {
    int64_t length;
    float *data;
};

static void stop(const char *why) {
    fprintf(stderr, "harness: %s\n", why);
    exit(2);
}

static void *memory(size_t align, size_t bytes) {
    void *place = aligned_alloc(align, (bytes + align) / align * align);
    if (!place) stop("out of memory");
    return place;
}

/* A buffer between two guards, all of it marked as untouched. */
static float *guarded(int64_t length) {
    float *place = memory(SCRATCH_ALIGN, (length + 2 * GUARD) * sizeof(float));
    for (int64_t i = 0; i < length + 2 * GUARD; i++) memcpy(&place[i], &UNTOUCHED, sizeof(float));
    return place + GUARD;
}

static int guards_hold(const float *data, int64_t length) {
    for (int i = 0; i < GUARD; i++) {
        if (memcmp(&data[-1 - i], &UNTOUCHED, sizeof(float))) return 0;
        if (memcmp(&data[length + i], &UNTOUCHED, sizeof(float))) return 0;
    }
    return 1;
}

static int64_t word(FILE *file) {
    int64_t value;
    if (fread(&value, sizeof value, 1, file) != 1) stop("the file of cases is too short");
    return value;
}

static struct tensor tensor(FILE *file) {
    struct tensor read = {word(file), NULL};
    read.data = guarded(read.length);
    if (fread(read.data, sizeof(float), read.length, file) != (size_t)read.length)
        stop("the file of cases is too short");
    return read;
}

static void drop(float *data) { free(data - GUARD); }

static int same(const char *problem, const char *what, const float *data, struct tensor expected) {
    if (!guards_hold(data, expected.length)) {
        printf("%s: wrote outside of the %s\n", problem, what);
        return 0;
    }
    for (int64_t i = 0; i < expected.length; i++) {
        uint32_t given, wanted;
        memcpy(&given, &data[i], sizeof given);
        memcpy(&wanted, &expected.data[i], sizeof wanted);
        int nans = data[i] != data[i] && expected.data[i] != expected.data[i];
        if (given == wanted || (nans && given != UNTOUCHED)) continue;
        printf("%s: %s %" PRId64 " is %a (%08" PRIx32 "), by the interpreter %a (%08" PRIx32 ")\n",
               problem, what, i, data[i], given, expected.data[i], wanted);
        return 0;
    }
    return 1;
}

static int identical(const struct kernel *kernel, FILE *file) {
    int64_t batch = word(file), tasks = word(file), bytes = word(file), weights = word(file);
    int64_t count = word(file);
    if (count >= MAX_ARGUMENTS || weights >= count) stop("too many arguments");
    struct tensor inputs[MAX_ARGUMENTS];
    float *arguments[MAX_ARGUMENTS];
    for (int64_t i = 0; i < count; i++) {
        inputs[i] = tensor(file);
        arguments[i] = inputs[i].data;
    }
    struct tensor raw = tensor(file), expected = tensor(file);
    float *packed = guarded(inputs[weights].length), *output = guarded(expected.length);
    /* Scratch may hold anything; NaNs show whether the kernel reads what it did not write. */
    char *scratch = memory(SCRATCH_ALIGN, bytes + GUARD);
    memset(scratch, 0xff, bytes + GUARD);

    int good = 1;
    if (kernel->pack) {
        float *from_to[] = {raw.data, packed};
        kernel->pack(from_to, 0, 0, 0, scratch);
        good = same(kernel->problem, "packed weight", packed, inputs[weights]);
        arguments[weights] = packed;
    }
    arguments[count] = output;
    kernel->body(arguments, batch, tasks / 2, tasks, scratch);
    kernel->body(arguments, batch, 0, tasks / 2, scratch);
    good = good && same(kernel->problem, "output", output, expected);
    for (int i = 0; i < GUARD; i++) {
        if (scratch[bytes + i] == (char)0xff) continue;
        printf("%s: wrote outside of the scratch\n", kernel->problem);
        good = 0;
        break;
    }

    for (int64_t i = 0; i < count; i++) drop(inputs[i].data);
    drop(raw.data), drop(expected.data), drop(packed), drop(output);
    free(scratch);
    return good;
}

int main(int count, char **words) {
    FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
    if (!file) stop("usage: harness CASES");
    int good = 0;
    for (int i = 0; i < kernel_count; i++) good += identical(&kernels[i], file);
    if (fgetc(file) != EOF) stop("the file has more cases than there are kernels");
    fclose(file);
    printf("aarch64: %d problems, %d identical\n", kernel_count, good);
    return good == kernel_count ? 0 : 1;
}
