/* One linear layer, for runners whose steps are torch's. */
#include <dlfcn.h>

typedef struct {
    Use use;
    Block *blocks;
    int64_t run; /* panels a thread takes at a time */
    _Atomic int64_t row, part;
} Job;

static void quantise_rows(void *data) {
    Job *job = data;
    int64_t depth = job->use.layer->depth;
    for (int64_t r; (r = atomic_fetch_add(&job->row, 1)) < job->use.rows;)
        quantise(job->use.x + r * depth, depth, job->blocks + r * num_blocks(depth));
}

static void multiply_rows(void *data) {
    Job *job = data;
    while (multiply_part(job->use, job->run, atomic_fetch_add(&job->part, 1))) {}
}

/* Between operators of torch its own threads, those of OpenMP, are the cheap ones: they are still
 * there (1 us) where new ones take 80 us and share their cores with the old ones that spin. Without
 * OpenMP: on the caller's thread. */
static void in_parallel(void (*body)(void *), void *job, int64_t num_threads) {
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned) = NULL;
    if (num_threads > 1) *(void **)&parallel = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    if (parallel)
        parallel(body, job, num_threads, 0);
    else
        body(job);
}

/* out [rows, layer->width] = x [rows, layer->depth] W^T + bias. `blocks`: for integer weights,
 * room for row_bytes(depth) a row. */
void run_linear(const Linear *layer, int64_t precision, const float *x, int64_t rows, float *out,
                int64_t num_threads, Block *blocks) {
    Use use = {precision, layer, x, layer->depth, rows, out, layer->width, 0};
    Job job = {use, blocks, layer->width / PANEL / (8 * num_threads) + 1, 0, 0};
    if (precision == INT16) {
        if (rows == 1)
            quantise_rows(&job);
        else
            in_parallel(quantise_rows, &job, num_threads);
        job.use.x = (const float *)blocks;
        job.use.x_step = num_blocks(layer->depth) * BLOCK_STEP;
    }
    in_parallel(multiply_rows, &job, num_threads);
}

/* Of a row of activations as a layer with integer weights reads it. */
int64_t row_bytes(int64_t depth) { return num_blocks(depth) * sizeof(Block); }
