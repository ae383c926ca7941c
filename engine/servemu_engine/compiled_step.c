/* One step of a Llama-like decoder over a flat row of tokens (compiled.py), in float32 but for the
 * products of integer weights. */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "compiled_products.h"

#define MAX_THREADS 64
#define SPINS 2000

typedef struct {
    Linear qkv, out, gate_up, down; /* gate_up: panels of gate and up in turn */
    const float *norm_in, *norm_post;
    const float *norm_q, *norm_k; /* of Qwen3, or NULL */
    float *keys;                  /* [slots, kv heads, length / PANEL, head size, PANEL] */
    float *values;                /* [slots, kv heads, length, padded head size] */
    int64_t window;               /* keys a token sees; 0: all */
} Layer;

typedef struct {
    int64_t num_layers, hidden, inner, heads, kv_heads, head_size, precision;
    float eps, scaling;
    const Layer *layers;
    const float *norm_last;
    Linear head;
} Model;

/* `count` tokens of one sequence, in rows from `row` on. */
typedef struct { int32_t slot, position, row, count; } Span;

typedef struct {
    int64_t num_rows, num_spans, num_picked, length, num_threads, scratch_size;
    const Span *spans;
    const int32_t *picked;        /* rows whose logits are wanted */
    const float *cos, *sin;       /* [length, head size] */
    float *x, *normed;            /* [rows, padded hidden]; x comes in as embeddings */
    float *qkv, *attended, *gated; /* [rows, ...] */
    Block *blocks;                /* [rows, blocks]: the input of a layer with integer weights */
    float *logits;                /* [picked, padded vocabulary] */
    float *scratch;               /* [threads, scratch_size] */
    _Atomic int32_t *claims;      /* [phases], zeros */
} Step;

typedef struct { atomic_int size, arrived, phase; } Team;

typedef struct {
    Team *team;
    const Model *model;
    const Step *step;
    float *scratch;
    int phase;
} Worker;

/* --- Threads: all walk through the same phases and claim the pieces of each one by one. --- */

INLINE int64_t claim(Worker *w) { return atomic_fetch_add(&w->step->claims[w->phase], 1); }

/* Wait until all are through with the phase. Yields where the others have no core to run on. */
static void meet(Worker *w) {
    Team *team = w->team;
    int phase = ++w->phase;
    if (atomic_fetch_add(&team->arrived, 1) + 1 == atomic_load(&team->size)) {
        atomic_store(&team->arrived, 0);
        atomic_store(&team->phase, phase);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->phase, memory_order_acquire) < phase; spins++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
        if (spins > SPINS) sched_yield();
    }
}

/* The rows of `x` as a layer wants them. */
static Use quantised(Worker *w, Use u) {
    if (u.precision != INT16) return u;
    int64_t depth = u.layer->depth, step = num_blocks(depth);
    for (int64_t r; (r = claim(w)) < u.rows;)
        quantise(u.x + r * u.x_step, depth, w->step->blocks + r * step);
    meet(w);
    u.x = (const float *)w->step->blocks;
    u.x_step = step * BLOCK_STEP;
    return u;
}

static void linear(Worker *w, Use u) {
    u = quantised(w, u);
    int64_t run = u.layer->width / PANEL / (8 * w->step->num_threads) + 1;
    while (multiply_part(u, run, claim(w))) {}
    meet(w);
}

/* out = silu(gate) * up, silu(g) = g / (1 + e^-g) */
static void gated(Worker *w, Use whole) {
    whole = quantised(w, whole);
    for (;;) {
        int64_t first;
        Use u = part_of(whole, 2, claim(w), &first);
        if (u.rows <= 0) break;
        float *out = u.out + first / 2 * PANEL;
        int64_t out_step = u.out_step;
        u.out_step = 2 * PANEL;
        for (int half = 0; half < 2; half++) panel(u, first + half, w->scratch + half * PANEL);
        for (int64_t r = 0; r < u.rows; r++)
            for (int j = 0; j < PANEL; j += LANES) {
                const float *from = w->scratch + r * u.out_step + j;
                vec gate = load(from), up = load(from + PANEL);
                vec silu = gate / (1.f + exponential(-gate));
                store(out + r * out_step + j, silu * up);
            }
    }
    meet(w);
}

/* --- Norms, rotation, attention --- */

/* out = x / sqrt(mean(x^2) + eps) * weight */
static void rms_norm(const float *x, const float *weight, float *out, int64_t n, float eps) {
    vec squares = {};
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) squares += load(x + i) * load(x + i);
    for (; i < n; i++) rest += x[i] * x[i];
    float scale = 1.f / sqrtf((sum_of(squares) + rest) / n + eps);
    for (i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

/* Rows of x into `normed`. */
static void norm(Worker *w, const float *weight, int64_t rows) {
    int64_t n = w->model->hidden, step = padded(n);
    for (int64_t r; (r = claim(w)) < rows;) {
        rms_norm(w->step->x + r * step, weight, w->step->normed + r * step, n, w->model->eps);
    }
    meet(w);
}

/* Pairs (i, i + n / 2) turn by the angle of the position: transformers' rotate_half. */
static void rotate(float *v, const float *cos, const float *sin, int64_t n) {
    for (int64_t i = 0, j = n / 2; j < n; i++, j++) {
        float a = v[i], b = v[j];
        v[i] = a * cos[i] - b * sin[i];
        v[j] = b * cos[j] + a * sin[j];
    }
}

/* Queries and keys get their position; keys and values go into the slot. */
static void remember(Worker *w, const Layer *l, Span span) {
    const Model *m = w->model;
    const Step *s = w->step;
    int64_t d = m->head_size, dp = padded(d);
    for (int64_t at = span.position; at < span.position + span.count; at++) {
        float *row = s->qkv + (span.row + at - span.position) * l->qkv.width;
        for (int64_t h = 0; h < m->heads + m->kv_heads; h++) {
            const float *weight = h < m->heads ? l->norm_q : l->norm_k;
            if (weight) rms_norm(row + h * d, weight, row + h * d, d, m->eps);
            rotate(row + h * d, s->cos + at * d, s->sin + at * d, d);
        }
        for (int64_t h = 0; h < m->kv_heads; h++) {
            int64_t store_row = (span.slot * m->kv_heads + h) * s->length;
            const float *key = row + (m->heads + h) * d;
            float *keys = l->keys + (store_row + at / PANEL * PANEL) * d + at % PANEL;
            for (int64_t i = 0; i < d; i++) keys[i * PANEL] = key[i];
            memcpy(l->values + (store_row + at) * dp, key + m->kv_heads * d, d * sizeof(float));
        }
    }
}

/* Scores of keys 0 to n - 1 to their shares: e^score / sum, and 0 outside of first..last. */
static void softmax(float *scores, int64_t n, int64_t first, int64_t last) {
    for (int64_t t = 0; t < first; t++) scores[t] = -INFINITY;
    for (int64_t t = last + 1; t < n; t++) scores[t] = -INFINITY;
    vec most = all(-INFINITY), sum = {};
    for (int64_t t = 0; t < n; t += LANES) most = larger(load(scores + t), most);
    float top = largest_of(most);
    for (int64_t t = 0; t < n; t += LANES) {
        vec e = exponential(load(scores + t) - top);
        sum += e;
        store(scores + t, e);
    }
    float share = 1.f / sum_of(sum);
    for (int64_t t = 0; t < n; t += LANES) store(scores + t, load(scores + t) * share);
}

/* The query heads that share kv head h, for the tokens of a span; keys from a panel's border on. */
static void attend(Worker *w, const Layer *l, Span span, int64_t h) {
    const Model *m = w->model;
    const Step *s = w->step;
    int64_t d = m->head_size, dp = padded(d), group = m->heads / m->kv_heads;
    int64_t rows = span.count * group, stop = span.position + span.count;
    int64_t hidden = l->window ? span.position + 1 - l->window : 0; /* keys too old for all rows */
    int64_t from = hidden > 0 ? hidden / PANEL * PANEL : 0, n = padded(stop - from);
    int64_t base = (span.slot * m->kv_heads + h) * s->length + from;
    float *queries = w->scratch, *out = queries + rows * d, *scores = out + rows * dp;
    for (int64_t r = 0; r < rows; r++) {
        const float *row = s->qkv + (span.row + r / group) * l->qkv.width;
        const float *q = row + (h * group + r % group) * d;
        for (int64_t i = 0; i < d; i++) queries[r * d + i] = q[i] * m->scaling;
    }
    for (int64_t t = 0; t < n; t += PANEL)
        multiply(rows, (Product){queries, d, d, l->keys + (base + t) * d, PANEL, zeros, 0,
                                 scores + t, n, 0});
    for (int64_t r = 0; r < rows; r++) {
        int64_t last = span.position + r / group - from;
        softmax(scores + r * n, n, l->window ? last + 1 - l->window : 0, last);
    }
    for (int64_t i = 0; i < dp; i += PANEL)
        multiply(rows, (Product){scores, n, stop - from, l->values + base * dp + i, dp, zeros, 0,
                                 out + i, dp, 0});
    for (int64_t r = 0; r < rows; r++) {
        int64_t head = (span.row + r / group) * m->heads + h * group + r % group;
        memcpy(s->attended + head * d, out + r * dp, d * sizeof(float));
    }
}

/* --- The step --- */

static void attention(Worker *w, const Layer *l) {
    const Step *s = w->step;
    int64_t kv_heads = w->model->kv_heads;
    for (int64_t i; (i = claim(w)) < s->num_spans;) remember(w, l, s->spans[i]);
    meet(w);
    for (int64_t i; (i = claim(w)) < s->num_spans * kv_heads;)
        attend(w, l, s->spans[i / kv_heads], i % kv_heads);
    meet(w);
}

/* Of the last layer only keys and values are wanted of the other rows. `picked` ascends. */
static void keep_picked(Worker *w) {
    const Step *s = w->step;
    int64_t hidden = padded(w->model->hidden), attended = w->model->heads * w->model->head_size;
    if (claim(w) == 0)
        for (int64_t r = 0; r < s->num_picked; r++) {
            int64_t from = s->picked[r];
            memmove(s->x + r * hidden, s->x + from * hidden, hidden * sizeof(float));
            memmove(s->attended + r * attended, s->attended + from * attended,
                    attended * sizeof(float));
        }
    meet(w);
}

static void *work(void *worker) {
    Worker *w = worker;
    const Model *m = w->model;
    const Step *s = w->step;
    int64_t rows = s->num_rows, hidden = padded(m->hidden), inner = padded(m->inner);
    while (!atomic_load(&w->team->size)) sched_yield();
    for (int64_t i = 0; i < m->num_layers; i++) {
        const Layer *l = &m->layers[i];
        norm(w, l->norm_in, rows);
        linear(w, (Use){m->precision, &l->qkv, s->normed, hidden, rows, s->qkv, l->qkv.width, 0});
        attention(w, l);
        if (i == m->num_layers - 1) {
            keep_picked(w);
            rows = s->num_picked;
        }
        linear(w, (Use){m->precision, &l->out, s->attended, m->heads * m->head_size, rows, s->x,
                        hidden, 1});
        norm(w, l->norm_post, rows);
        gated(w, (Use){m->precision, &l->gate_up, s->normed, hidden, rows, s->gated, inner, 0});
        linear(w, (Use){m->precision, &l->down, s->gated, inner, rows, s->x, hidden, 1});
    }
    norm(w, m->norm_last, rows);
    linear(w, (Use){m->precision, &m->head, s->normed, hidden, rows, s->logits, m->head.width, 0});
    return NULL;
}

int64_t panel_width(void) { return PANEL; }

/* Returns when all is done. A thread that cannot be had is done without. */
void run_step(const Model *model, const Step *step) {
    Team team = {0};
    Worker workers[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    int size = 1;
    for (int i = 0; i < step->num_threads && i < MAX_THREADS; i++)
        workers[i] = (Worker){&team, model, step, step->scratch + i * step->scratch_size, 0};
    while (size < step->num_threads && size < MAX_THREADS &&
           !pthread_create(&threads[size], NULL, work, &workers[size]))
        size++;
    atomic_store(&team.size, size);
    work(&workers[0]);
    while (--size > 0) pthread_join(threads[size], NULL);
}

#include "compiled_attention.h"
