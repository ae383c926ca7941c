/* Products of the compiled step: rows of activations with a matrix that is packed in panels.
 *
 * A matrix [width, depth] is packed in panels of PANEL outputs: [width / PANEL, depth, PANEL]; of
 * integers: [width / PANEL, blocks, PANEL scales and then [block size / 2, PANEL, 2] integers].
 * Every sum runs over its depth from 0 upwards, whatever else is in the step, so that the numbers
 * of a token depend on its own sequence only: alone, in a batch, in any chunk of a prompt.
 *
 * One source for all CPUs: `vec` is GCC's and clang's vector type, as wide as -march=native allows.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

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
#define ROWS (12 * TILE)     /* that stay in the L2 cache while panels pass by */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef vec unaligned __attribute__((aligned(4), may_alias));

enum { FLOAT32, BFLOAT16, INT16 }; /* precision of weights */

typedef struct {
    const void *weight; /* packed */
    const float *bias;  /* [width] or NULL */
    int64_t depth, width;
} Linear;

INLINE vec load(const float *p) { return *(const unaligned *)p; }
INLINE void store(float *p, vec v) { *(unaligned *)p = v; }
INLINE vec all(float x) { return x - (vec){}; }
INLINE vec larger(vec a, vec b) {
#if defined(__AVX512F__)
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    ivec first = a > b;
    return (vec)((first & (ivec)a) | (~first & (ivec)b));
#endif
}
INLINE int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }
static const float zeros[PANEL];

INLINE float sum_of(vec v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

INLINE float largest_of(vec v) {
    float largest = v[0];
    for (int i = 1; i < LANES; i++) largest = v[i] > largest ? v[i] : largest;
    return largest;
}

/* e^x = 2^n e^r with |r| <= ln(2) / 2 and e^r by a polynomial (Cephes expf). n is at least -127,
 * where the float of exponent 0 stands for 2^n: 0 below x = -87.7. */
INLINE vec exponential(vec x) {
    const vec magic = all(12582912.f); /* 1.5 * 2^23: adding it rounds to an integer */
    x = -larger(-larger(x, all(-88.1f)), all(-88.f));
    vec n = (x * 1.44269504f + magic) - magic;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    return p * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}

/* --- Integers of 16 bits ---
 *
 * Up to INTEGERS consecutive numbers of a row share a scale, with which the integers have a Euclidean
 * norm of NORM; rounding adds at most sqrt(INTEGERS) / 2. So no integer needs more than 15 bits
 * beside the sign, and a sum of products of two blocks is below (NORM + 12)^2 < 2^31
 * (Cauchy-Schwarz): it cannot overflow, whatever the numbers are, and is exact. The rounding error
 * of a number is at most 0.5 sqrt(INTEGERS) / NORM = 3.7e-4 of the root mean square. Products of
 * random numbers: off by 2.9e-4 of their norm, with bfloat16 weights by 1.6e-3. Run so far: AVX2 and
 * the path of no extension; whatever is built is checked at load. */

#define INTEGERS 576
#define NORM 32755.f
#define SMALLEST 1e-18f /* norm of a block that is not zeros; squares of less vanish */

typedef struct {
    float scale; /* number = scale * integer */
    int16_t integers[INTEGERS];
} Block;

#define BLOCK_STEP (sizeof(Block) / sizeof(float))

typedef ivec pairs __attribute__((aligned(4), may_alias)); /* two numbers of 16 bits in a lane */
typedef int32_t pair __attribute__((may_alias));
typedef int16_t narrow __attribute__((vector_size(2 * LANES)));
typedef narrow integers __attribute__((aligned(2), may_alias));

/* Of a block: even, and all blocks of a row alike (compiled_weights.py). */
INLINE int64_t block_size(int64_t depth) {
    int64_t blocks = (depth + INTEGERS - 1) / INTEGERS;
    return ((depth + blocks - 1) / blocks + 1) / 2 * 2;
}
INLINE int64_t num_blocks(int64_t depth) {
    return (depth + block_size(depth) - 1) / block_size(depth);
}

/* A row as blocks. Where it holds a NaN or an infinity the scale is NaN. */
static void quantise(const float *x, int64_t depth, Block *out) {
    const vec magic = all(12582912.f); /* 1.5 * 2^23: its sum with n has n in the lower bits */
    int64_t size = block_size(depth);
    for (; depth > 0; depth -= size, x += size, out++) {
        float copy[INTEGERS];
        const float *block = x;
        if (depth < size || size % LANES) { /* zeros up to whole vectors */
            memset(copy, 0, sizeof(copy));
            block = memcpy(copy, x, (depth < size ? depth : size) * sizeof(float));
        }
        vec squares = {};
        for (int i = 0; i < size; i += LANES) squares += load(block + i) * load(block + i);
        float norm = sqrtf(sum_of(squares)), factor = norm > SMALLEST ? NORM / norm : 0;
        out->scale = norm / NORM;
        for (int i = 0; i < size; i += LANES) {
            ivec n = (ivec)(load(block + i) * factor + magic);
            *(integers *)(out->integers + i) = __builtin_convertvector(n, narrow);
        }
    }
}

/* sum + the products of both pairs of each lane */
INLINE ivec dot(ivec sum, ivec a, ivec b) {
#if defined(__AVX512VNNI__)
    return (ivec)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (ivec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVXVNNI__) && LANES == 8
    return (ivec)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#elif defined(__AVX2__) && LANES == 8
    return sum + (ivec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

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
