/* Products of rows of activations with a matrix that is packed in panels.
 *
 * A matrix [width, depth] is packed in panels of PANEL outputs: [width / PANEL, depth, PANEL]; of
 * integers: [width / PANEL, blocks, PANEL scales and then [block size / 2, PANEL, 2] integers].
 * Every sum runs over its depth from 0 upwards, whatever else is in the step, so that the numbers
 * of a token depend on its own sequence only: alone, in a batch, in any chunk of a prompt. */
#include "compiled_integers.h"

#define PANEL (2 * LANES)
#define TILE 6               /* rows whose sums, two vectors each, stay in registers */
#define BLOCK (2048 / LANES) /* depth of the part of a panel, 16 KB, that stays in the L1 cache */
#define ROWS (12 * TILE)     /* that stay in the L2 cache while panels pass by */

enum { FLOAT32, BFLOAT16, INT16 }; /* precision of weights */

typedef struct {
    const void *weight; /* packed */
    const float *bias;  /* [width] or NULL */
    int64_t depth, width;
} Linear;

INLINE int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }
static const float zeros[PANEL];

/* --- Tiles --- */

typedef struct {
    const float *left; /* [rows, depth], rows left_step apart; of integers: Blocks */
    int64_t left_step, depth;
    const float *right; /* [depth, PANEL], rows right_step apart; of integers: scales, pairs */
    int64_t right_step;
    const float *start; /* what is added: a row of its own for each (start_step), or one (0) */
    int64_t start_step;
    float *out; /* [rows, PANEL], rows out_step apart */
    int64_t out_step;
    int is_int;
} Product;

/* out[r] = start[r] + sum over k of left[r][k] * right[k] */
INLINE void float_tile(const int rows, Product p) {
    vec sum[TILE][2];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 2; i++) sum[r][i] = load(p.start + r * p.start_step + i * LANES);
    for (int64_t k = 0; k < p.depth; k++) {
        vec low = load(p.right + k * p.right_step), high = load(p.right + k * p.right_step + LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            vec x = all(p.left[r * p.left_step + k]);
            sum[r][0] += x * low;
            sum[r][1] += x * high;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 2; i++) store(p.out + r * p.out_step + i * LANES, sum[r][i]);
}

INLINE void int_tile(const int rows, Product p) {
    ivec sum[TILE][2];
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (ivec){};
    const pair *left = (const pair *)p.left + 1; /* behind the scale */
    const pair *right = (const pair *)p.right + PANEL;
    for (int64_t k = 0; k < p.depth / 2; k++) {
        ivec low = *(const pairs *)(right + k * PANEL);
        ivec high = *(const pairs *)(right + k * PANEL + LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            ivec x = left[r * p.left_step + k] - (ivec){};
            sum[r][0] = dot(sum[r][0], x, low);
            sum[r][1] = dot(sum[r][1], x, high);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 2; i++) {
            vec start = load(p.start + r * p.start_step + i * LANES);
            vec product = __builtin_convertvector(sum[r][i], vec) * load(p.right + i * LANES);
            store(p.out + r * p.out_step + i * LANES, start + product * p.left[r * p.left_step]);
        }
}

INLINE void tile(const int rows, Product p) {
    if (p.is_int)
        int_tile(rows, p);
    else
        float_tile(rows, p);
}

static void multiply(int64_t rows, Product p) {
    while (rows > 0) {
        int64_t n = rows <= TILE ? rows : rows < 2 * TILE ? (rows + 1) / 2 : TILE;
        switch (n) {
        case 1: tile(1, p); break;
        case 2: tile(2, p); break;
        case 3: tile(3, p); break;
        case 4: tile(4, p); break;
        case 5: tile(5, p); break;
        default: tile(TILE, p);
        }
        rows -= n;
        p.left += n * p.left_step;
        p.start += n * p.start_step;
        p.out += n * p.out_step;
    }
}

/* A linear layer over rows of `x`, and where its outputs go. */
typedef struct {
    int64_t precision;
    const Linear *layer;
    const float *x; /* with integer weights: Blocks */
    int64_t x_step, rows;
    float *out;
    int64_t out_step;
    int adds; /* out += x W^T + bias; else out = */
} Use;

static void panel(Use u, int64_t index, float *out) {
    float wide[BLOCK * PANEL] __attribute__((aligned(64)));
    const Linear *l = u.layer;
    const float *bias = l->bias ? l->bias + index * PANEL : zeros, *weight = l->weight;
    int is_int = u.precision == INT16;
    int64_t size = is_int ? block_size(l->depth) : BLOCK, blocks = (l->depth + size - 1) / size;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = (index * l->depth + b * size) * PANEL;
        int64_t depth = is_int || b < blocks - 1 ? size : l->depth - b * size;
        const float *right = weight + first, *x = u.x + b * size;
        int continues = b > 0 || u.adds;
        if (is_int) {
            right = weight + (index * blocks + b) * (size / 2 + 1) * PANEL;
            x = u.x + b * BLOCK_STEP;
        }
        if (u.precision == BFLOAT16) { /* the upper half of a float32 */
            const uint16_t *half = (const uint16_t *)l->weight + first;
            uint32_t *bits = (uint32_t *)wide;
            for (int64_t i = 0; i < depth * PANEL; i++) bits[i] = (uint32_t)half[i] << 16;
            right = wide;
        }
        multiply(u.rows, (Product){x, u.x_step, depth, right, PANEL, continues ? out : bias,
                                   continues ? u.out_step : 0, out, u.out_step, is_int});
    }
    if (u.adds && l->bias)
        for (int64_t r = 0; r < u.rows; r++)
            for (int i = 0; i < PANEL; i++) out[r * u.out_step + i] += bias[i];
}

/* Part `index` of a product: some of the rows, `run` panels from `*first` on. All rows of one part
 * come before those of the next. No rows: there are no more parts. */
static Use part_of(Use u, int64_t run, int64_t index, int64_t *first) {
    int64_t runs = (u.layer->width / PANEL + run - 1) / run, parts = (u.rows + ROWS - 1) / ROWS;
    int64_t most = (u.rows + parts * TILE - 1) / (parts * TILE) * TILE, row = index / runs * most;
    *first = index % runs * run;
    u.rows = u.rows - row < most ? u.rows - row : most;
    u.x += row * u.x_step;
    u.out += row * u.out_step;
    return u;
}

/* Whether there was such a part. */
static int multiply_part(Use whole, int64_t run, int64_t index) {
    int64_t first, panels = whole.layer->width / PANEL;
    Use u = part_of(whole, run, index, &first);
    if (u.rows <= 0) return 0;
    for (int64_t i = first; i < panels && i < first + run; i++) panel(u, i, u.out + i * PANEL);
    return 1;
}
