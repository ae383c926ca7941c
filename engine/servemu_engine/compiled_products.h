/* Products of the compiled step: rows of activations with a matrix that is packed in panels.
 *
 * A matrix [width, depth] is packed in panels of PANEL outputs: [width / PANEL, depth, PANEL].
 * Every sum runs over its depth from 0 upwards, whatever else is in the step, so that the numbers
 * of a token depend on its own sequence only: alone, in a batch, in any chunk of a prompt.
 *
 * One source for all CPUs: `vec` is GCC's and clang's vector type, as wide as -march=native allows.
 */
#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define PANEL (2 * LANES)
#define TILE 6               /* rows whose sums, two vectors each, stay in registers */
#define BLOCK (2048 / LANES) /* depth of the part of a panel, 16 KB, that stays in the L1 cache */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef vec unaligned __attribute__((aligned(4), may_alias));

enum { FLOAT32, BFLOAT16 }; /* precision of weights */

typedef struct {
    const void *weight; /* packed, float32 or bfloat16 */
    const float *bias;  /* [width] or NULL */
    int64_t depth, width;
} Linear;

INLINE vec load(const float *p) { return *(const unaligned *)p; }
INLINE void store(float *p, vec v) { *(unaligned *)p = v; }
INLINE vec all(float x) { return x - (vec){}; }
INLINE vec choose(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }
INLINE vec smaller(vec a, vec b) { return choose(a < b, a, b); }
INLINE int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }
static const float zeros[PANEL];

INLINE float sum_of(vec v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* e^x = 2^n e^r with |r| <= ln(2) / 2 and e^r by a polynomial (Cephes expf); 0 below -87. */
INLINE vec exponential(vec x) {
    const vec magic = all(12582912.f); /* 1.5 * 2^23: adding it rounds to an integer */
    ivec vanishes = x < all(-87.f);
    x = larger(smaller(x, all(88.f)), all(-87.f));
    vec n = (x * 1.44269504f + magic) - magic;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return (vec)((ivec)(p * (vec)power) & ~vanishes);
}

typedef struct {
    const float *left; /* [rows, depth], rows left_step apart */
    int64_t left_step, depth;
    const float *right; /* [depth, PANEL], rows right_step apart */
    int64_t right_step;
    const float *start; /* what is added: a row of its own for each (start_step), or one (0) */
    int64_t start_step;
    float *out; /* [rows, PANEL], rows out_step apart */
    int64_t out_step;
} Product;

/* out[r] = start[r] + sum over k of left[r][k] * right[k] */
INLINE void tile(const int rows, Product p) {
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
    const float *x;
    int64_t x_step, rows;
    float *out;
    int64_t out_step;
    int adds; /* out += x W^T + bias; else out = */
} Use;

static void panel(Use u, int64_t index) {
    float wide[BLOCK * PANEL] __attribute__((aligned(64)));
    const Linear *l = u.layer;
    const float *bias = l->bias ? l->bias + index * PANEL : zeros;
    for (int64_t k = 0; k < l->depth; k += BLOCK) {
        int64_t first = (index * l->depth + k) * PANEL;
        int64_t depth = l->depth - k < BLOCK ? l->depth - k : BLOCK;
        const float *right = (const float *)l->weight + first;
        int continues = k > 0 || u.adds;
        if (u.precision == BFLOAT16) { /* the upper half of a float32 */
            const uint16_t *half = (const uint16_t *)l->weight + first;
            uint32_t *bits = (uint32_t *)wide;
            for (int64_t i = 0; i < depth * PANEL; i++) bits[i] = (uint32_t)half[i] << 16;
            right = wide;
        }
        multiply(u.rows, (Product){u.x + k, u.x_step, depth, right, PANEL, continues ? u.out : bias,
                                   continues ? u.out_step : 0, u.out, u.out_step});
    }
    if (u.adds && l->bias)
        for (int64_t r = 0; r < u.rows; r++)
            for (int i = 0; i < PANEL; i++) u.out[r * u.out_step + i] += bias[i];
}
