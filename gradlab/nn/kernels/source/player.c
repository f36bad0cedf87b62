/* Kernels of a stacked network on a CPU: a step as a list of calls, played member by member.

   `compiler.py` compiles this file, and with it all that it includes, for the machine it finds itself on, once with
   -DBITS=32 and once with -DBITS=64; `native.py` says what each kernel computes, in tensors. Nothing here assumes that
   numbers are finite, flushes subnormals, or reorders a sum by chance.

   A kernel sees one member. Shapes: B batch, D width, K outputs, P parameters.                                      */

#include "numbers.h"
#include "products.h"
#include "activations.h"
#include "sums.h"
#include "gates.h"
#include "alignment.h"
#include "norms.h"
#include "convolutions.h"
#include "attention.h"
#include "capsules.h"
#include "probes.h"
#include "losses.h"
#include "dropout.h"
#include "optimizers.h"

#define SIZES 9
#define PLACES 12

/* One kernel with its arguments. A place is an address, that of member 0, and the bytes from there to the next member's:
   none where all members share it, or where no member needs it once its step is done. Where it moves from one step to
   the next, `turn` bytes, it does so by their numbers or, of the places in `counted`, by how often it was played.    */
struct call {
    int64_t kernel;
    int64_t size[SIZES];
    double number[2];
    char *at[PLACES];
    int64_t step[PLACES];
    int64_t turn[PLACES];
    int64_t counted;
};

enum {
    PRODUCT, ACTIVATE, ACTIVATE_BACK, BATCH_NORM, BATCH_NORM_BACK, LAYER_NORM, LAYER_NORM_BACK, BATCH_SUM, ADD, NORMS,
    UNSOUND, SPREAD, DISTANCES, GRADIENTS, WITHIN, DEAD,
    GATHER, GATHER_TOKENS, COPY, LOOK_UP, LOOK_UP_BACK,
    ATTEND, ATTEND_BACK, ATTENTION_SPREAD, ADD_TO_EACH, MEAN_OF_PLACES, MEAN_OF_PLACES_BACK, CROSS_ENTROPY, SQUARED_ERROR, CLIP, SGD, ADAM,
    RMSPROP, ADAGRAD,
    CONVOLVE, CONVOLVE_FILTERS, BLOCK_MEAN, BLOCK_MEAN_BACK, AFFINE, AFFINE_BACK,
    LSTM, LSTM_BACK, GRU, GRU_BACK, SHUT,
    ALIGN_DOT, ALIGN_DOT_BACK, ALIGN_ADDITIVE, ALIGN_ADDITIVE_BACK, ENTROPY, DROPOUT,
    GROUP_NORM, GROUP_NORM_BACK, DIRECTED, DIRECTED_BACK,
    COLUMNS_BY_TWO, SQUASH, SQUASH_BACK, LENGTHS, LENGTHS_BACK, VOTE, VOTE_BACK, ROUTE, ROUTE_BACK, MARGINS,
    SOUND_NORM,
};

static void play_one(const struct call *call, void **p, const char *ahead)
{
    const int64_t *n = call->size;
    const double *x = call->number;
    switch (call->kernel) {
    case PRODUCT:
        product(n[0], n[1], n[2], p[0], n[3], n[4], p[1], n[5], n[6], p[2], n[7], p[3], n[8], p[4], ahead);
        break;
    case ACTIVATE: activate(n[0], n[1], p[0], p[1], p[2]); break;
    case ACTIVATE_BACK: activate_back(n[0], n[1], p[0], p[1], p[2], p[3], p[4]); break;
    case BATCH_NORM: batch_norm(n[0], n[1], x[0], x[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]); break;
    case BATCH_NORM_BACK: batch_norm_back(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]); break;
    case LAYER_NORM: layer_norm(n[0], n[1], n[2], x[0], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case LAYER_NORM_BACK: layer_norm_back(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case BATCH_SUM: batch_sum(n[0], n[1], n[2], p[0], p[1]); break;
    case ADD: add(n[0], x[0], p[0], p[1], p[2]); break;
    case NORMS: norms(n[0], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case UNSOUND: unsound(n[0], p[0], p[1]); break;
    case SPREAD: spread(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]); break;
    case DISTANCES: distances(n[0], p[0], p[1], p[2], p[3], p[4]); break;
    case GRADIENTS: gradients(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case WITHIN: within(n[0], p[0], p[1], p[2]); break;
    case DEAD: dead(n[0], n[1], p[0], p[1], p[2], p[3]); break;
    case GATHER: gather(n[0], n[1], p[0], p[1], p[2], p[3]); break;
    case GATHER_TOKENS: gather_tokens(n[0], n[1], p[0], p[1], p[2]); break;
    case COPY: copy(n[0], n[1], n[2], n[3], p[0], p[1]); break;
    case LOOK_UP: look_up(n[0], n[1], n[2], n[3], n[4], n[5], n[6], p[0], p[1], p[2], p[3]); break;
    case LOOK_UP_BACK: look_up_back(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], p[0], p[1], p[2]); break;
    case ATTEND: attend(n[0], n[1], n[2], n[3], n[4], n[5], n[6], x[0], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case ATTEND_BACK:
        attend_back(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], x[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6],
                    p[7], p[8]);
        break;
    case ATTENTION_SPREAD:
        attention_spread(n[0], n[1], n[2], n[3], n[4], n[5], x[0], p[0], p[1], p[2], p[3], p[4], p[5]);
        break;
    case ADD_TO_EACH: add_to_each(n[0], n[1], p[0], p[1], p[2]); break;
    case MEAN_OF_PLACES: mean_of_places(n[0], n[1], n[2], p[0], p[1]); break;
    case MEAN_OF_PLACES_BACK: mean_of_places_back(n[0], n[1], n[2], p[0], p[1]); break;
    case CROSS_ENTROPY: cross_entropy(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4]); break;
    case SQUARED_ERROR: squared_error(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case CLIP: clip(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]); break;
    case ADAM:
        adam(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10]);
        break;
    case RMSPROP: rmsprop(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9]); break;
    case ADAGRAD: adagrad(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case CONVOLVE: convolve(n[0], n[1], n[2], n[3], n[4], n[5], p[0], p[1], p[2], p[3], p[4]); break;
    case CONVOLVE_FILTERS: convolve_filters(n[0], n[1], n[2], n[3], n[4], n[5], p[0], p[1], p[2], p[3]); break;
    case BLOCK_MEAN: block_mean(n[0], n[1], n[2], n[3], n[4], n[5], p[0], p[1]); break;
    case BLOCK_MEAN_BACK: block_mean_back(n[0], n[1], n[2], n[3], n[4], n[5], p[0], p[1]); break;
    case AFFINE: affine(n[0], p[0], p[1], p[2], p[3]); break;
    case AFFINE_BACK: affine_back(n[0], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case SGD: sgd(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]); break;
    case LSTM: lstm(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case LSTM_BACK:
        lstm_back(n[0], n[1], n[2], n[3], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]);
        break;
    case GRU: gru(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case GRU_BACK:
        gru_back(n[0], n[1], n[2], n[3], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10]);
        break;
    case SHUT: shut(n[0], n[1], n[2], n[3], x[0], p[0], p[1]); break;
    case ALIGN_DOT: align_dot(n[0], n[1], n[2], n[3], p[0], p[1], p[2], p[3]); break;
    case ALIGN_DOT_BACK: align_dot_back(n[0], n[1], n[2], n[3], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case ALIGN_ADDITIVE: align_additive(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case ALIGN_ADDITIVE_BACK:
        align_additive_back(n[0], n[1], n[2], n[3], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9]);
        break;
    case ENTROPY: entropy(n[0], n[1], p[0], p[1]); break;
    case GROUP_NORM: group_norm(n[0], n[1], n[2], n[3], x[0], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case GROUP_NORM_BACK: group_norm_back(n[0], n[1], n[2], n[3], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case DIRECTED: directed(n[0], n[1], p[0], p[1], p[2], p[3]); break;
    case DIRECTED_BACK: directed_back(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case COLUMNS_BY_TWO: columns_by_two(n[0], n[1], n[2], n[3], n[4], p[0], p[1]); break;
    case SQUASH: squash(n[0], n[1], x[0], p[0], p[1]); break;
    case SQUASH_BACK: squash_back(n[0], n[1], x[0], p[0], p[1], p[2]); break;
    case LENGTHS: lengths(n[0], n[1], x[0], p[0], p[1]); break;
    case LENGTHS_BACK: lengths_back(n[0], n[1], p[0], p[1], p[2], p[3]); break;
    case VOTE: vote(n[0], n[1], n[2], n[3], p[0], p[1], p[2], p[3]); break;
    case VOTE_BACK: vote_back(n[0], n[1], n[2], n[3], n[4], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case ROUTE: route(n[0], n[1], n[2], n[3], n[4], n[5], x[0], p[0], p[1], p[2], p[3], p[4]); break;
    case ROUTE_BACK: route_back(n[0], n[1], n[2], n[3], n[4], x[0], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case MARGINS: margins(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case SOUND_NORM: sound_norm(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case DROPOUT: dropout(n[0], n[1], p[0], p[1], p[2], p[3], p[4]); break;
    }
}

/* Plays the calls of one step for a member; `next` is who is played after it. */
static void play_step(const struct call *calls, int64_t count, int64_t member, int64_t next, int64_t t, int64_t played)
{
    for (const struct call *call = calls; call < calls + count; call++) {
        void *places[PLACES];
        for (int j = 0; j < PLACES; j++)
            places[j] = call->at[j] + call->step[j] * member + call->turn[j] * (call->counted >> j & 1 ? played : t);
        play_one(call, places, call->at[1] + call->step[1] * next);
    }
}

/* Plays the calls for each of the members, one member after the other: what it computes stays in the cache. While its
   matrices are multiplied, those of the next member are fetched.                                                    */
void play(const struct call *calls, int64_t count, const int64_t *members, int64_t how_many)
{
    for (int64_t i = 0; i < how_many; i++)
        play_step(calls, count, members[i], members[i + 1 < how_many ? i + 1 : 0], 0, 0);
}

/* As above, for each member so many steps from `first` on: step i by the program which[i], one of two.               */
void play_steps(
    const struct call *const *programs, const int64_t *counts, const int64_t *which, int64_t first, int64_t steps,
    const int64_t *members, int64_t how_many)
{
    for (int64_t i = 0; i < how_many; i++) {
        int64_t played[2] = {0, 0};
        for (int64_t s = 0; s < steps; s++) {
            const int64_t one = which[s], next = s + 1 < steps ? i : i + 1 < how_many ? i + 1 : 0;
            play_step(programs[one], counts[one], members[i], members[next], first + s, played[one]++);
        }
    }
}
