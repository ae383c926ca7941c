/* Attention of a flat step over torch's cache: keys and values [slots, kv heads, length, head size].
 * A row sees the keys before it and its own: there is no mask, what lies behind is never read, and a
 * row's numbers do not depend on the rows beside it. */
#include "compiled_linear.h"

typedef struct {
    int64_t num_spans, heads, kv_heads, head_size, length;
    int64_t window;         /* keys a row sees; 0: all */
    float scaling, softcap; /* scores become softcap * tanh(score / softcap); 0: they stay */
    int64_t row_step, head_step;
    const float *query; /* at row * row_step + head * head_step */
    const float *keys, *values;
    float *out; /* [rows, heads, head size] */
    const Span *spans;
    float *scratch; /* [threads, scratch_size] */
    int64_t scratch_size;
    _Atomic int64_t thread, piece;
} Attention;

/* `count` keys, at most PANEL, as [head size, PANEL]; zeros in place of the others. */
static void turn(const float *keys, int64_t count, int64_t d, float *panel) {
    if (count < PANEL) memset(panel, 0, d * PANEL * sizeof(float));
    for (int64_t t = 0; t < count && t < PANEL; t++)
        for (int64_t i = 0; i < d; i++) panel[i * PANEL + t] = keys[t * d + i];
}

static void cap(float *scores, int64_t n, float softcap) {
    for (int64_t t = 0; t < n; t += LANES) {
        vec e = exponential(load(scores + t) * (2.f / softcap));
        store(scores + t, softcap - 2.f * softcap / (e + 1.f));
    }
}

/* The query heads that share kv head h, for the tokens of a span. */
static void attend_span(const Attention *a, Span span, int64_t h, float *scratch) {
    int64_t d = a->head_size, group = a->heads / a->kv_heads, rows = span.count * group;
    int64_t stop = span.position + span.count;
    int64_t hidden = a->window ? span.position + 1 - a->window : 0; /* keys too old for all rows */
    int64_t from = hidden > 0 ? hidden : 0, n = padded(stop - from);
    int64_t base = ((span.slot * a->kv_heads + h) * a->length + from) * d;
    float *panel = scratch, *queries = panel + d * PANEL, *out = queries + rows * d;
    float *scores = out + rows * d;
    for (int64_t r = 0; r < rows; r++) {
        const float *q = a->query + (span.row + r / group) * a->row_step;
        q += (h * group + r % group) * a->head_step;
        for (int64_t i = 0; i < d; i++) queries[r * d + i] = q[i] * a->scaling;
    }
    for (int64_t t = 0; t < n; t += PANEL) {
        turn(a->keys + base + t * d, stop - from - t, d, panel);
        multiply(rows, (Product){queries, d, d, panel, PANEL, zeros, 0, scores + t, n, 0});
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t last = span.position + r / group - from;
        int64_t first = a->window && last >= a->window ? last + 1 - a->window : 0;
        if (a->softcap > 0) cap(scores + r * n, n, a->softcap);
        softmax(scores + r * n, n, first, last);
    }
    for (int64_t i = 0; i < d; i += PANEL)
        multiply(rows, (Product){scores, n, stop - from, a->values + base + i, d, zeros, 0, out + i,
                                 d, 0});
    for (int64_t r = 0; r < rows; r++) {
        int64_t head = (span.row + r / group) * a->heads + h * group + r % group;
        memcpy(a->out + head * d, out + r * d, d * sizeof(float));
    }
}

static void attend_spans(void *data) {
    Attention *a = data;
    float *scratch = a->scratch + atomic_fetch_add(&a->thread, 1) * a->scratch_size;
    for (int64_t i; (i = atomic_fetch_add(&a->piece, 1)) < a->num_spans * a->kv_heads;)
        attend_span(a, a->spans[i / a->kv_heads], i % a->kv_heads, scratch);
}

void run_attention(Attention *attention, int64_t num_threads) {
    in_parallel(attend_spans, attention, num_threads);
}

/* RMS norms of rows. */
typedef struct {
    const float *x, *weight;
    float *out;
    int64_t rows, size;
    float eps;
    _Atomic int64_t row;
} Norm;

static void norm_rows(void *data) {
    Norm *n = data;
    for (int64_t r; (r = atomic_fetch_add(&n->row, 1)) < n->rows;)
        rms_norm(n->x + r * n->size, n->weight, n->out + r * n->size, n->size, n->eps);
}

void run_norm(Norm *norm, int64_t num_threads) { in_parallel(norm_rows, norm, num_threads); }
