/* What the threads of a block do together. A block plays a member: every thread calls every kernel, so that none may
   leave one early, and what one thread writes others read behind a SYNC() alone.

   CUDA, and C as well: tests/emulation.py says what it is to a processor, whose threads play a block. BITS and the
   numbers of kernels, activations and clips stand before it (blocks.py).                                            */

#if BITS == 32
typedef float REAL;
#else
typedef double REAL;
#endif
typedef long long WIDE;

#if defined(__CUDACC__)
#define THREADS 256
#define THREAD ((int)threadIdx.x)
#define MEMBER ((int)blockIdx.x)
#define SYNC() __syncthreads()
#define SHARED __shared__ __align__(16) /* for four numbers at a time */
#define FUNCTION static __device__
#define KERNEL static __device__ __noinline__ /* else its loops share 128 registers with all others */
/* Two blocks share a multiprocessor: while one waits, the other computes. */
#define ENTRY extern "C" __global__ void __launch_bounds__(THREADS, 2)
#endif

/* Every thread takes its share of 0..n-1. */
#define EACH(i, n) for (int i = THREAD; i < (n); i += THREADS)
#define FIRST (THREAD == 0)
#define LEAVE(place, found)                                                                                            \
    if (FIRST)                                                                                                         \
    *(place) = (found)

/* Rows for teams of threads, each of which takes a row; what is no row any more must be left out by its team. */
#define TEAM (THREADS < 64 ? 2 : 8)
#define TEAMS (THREADS / TEAM)
#define ROWS(i, n) for (int i = THREAD / TEAM, round_ = 0; round_ < (n); round_ += TEAMS, i += TEAMS)
#define IN_ROW(d, n) for (int d = THREAD % TEAM; d < (n); d += TEAM)
#define LEADS (THREAD % TEAM == 0)

/* The same of columns: neighbours take neighbouring columns, and of its own every eighth row, several at a time. */
#define COLUMNS(d, n) for (int d = THREAD % TEAMS, round_ = 0; round_ < (n); round_ += TEAMS, d += TEAMS)
#define IN_COLUMN(i, n) _Pragma("unroll 8") for (int i = THREAD / TEAMS; i < (n); i += TEAM)
#define TOPS (THREAD < TEAMS)

SHARED double part[THREADS];

/* The sum of what the threads of a team hold, known to all of them. */
FUNCTION double summed(double own, int first, int apart)
{
    double sum = 0;
    part[THREAD] = own;
    SYNC();
    for (int j = 0; j < TEAM; j++)
        sum += part[first + j * apart];
    SYNC();
    return sum;
}

#define team_sum(own) summed(own, THREAD / TEAM * TEAM, 1)
#define column_sum(own) summed(own, THREAD % TEAMS, TEAMS)

/* The sum of what all threads hold, known to all of them; taken in one order. */
#define LEADERS (THREADS < 64 ? 2 : 16)
FUNCTION double block_sum(double own)
{
    SHARED double lead[LEADERS];
    double sum = 0;
    part[THREAD] = own;
    SYNC();
    if (THREAD < LEADERS) {
        for (int j = THREAD; j < THREADS; j += LEADERS)
            sum += part[j];
        lead[THREAD] = sum;
    }
    SYNC();
    sum = 0;
    for (int j = 0; j < LEADERS; j++)
        sum += lead[j];
    return sum;
}
