/* What the table of kernels, which the test writes, and the harness agree on. */
#include <stdint.h>

/* The kernel ABI; see src/codegen.rs. */
typedef void entry(float *const *arguments, int64_t batch, int64_t first_task, int64_t end_task,
                   void *scratch);

struct kernel {
    const char *problem;
    entry *body;
    entry *pack; /* null if the weights are read as they are */
};

extern const struct kernel kernels[];
extern const int kernel_count;
