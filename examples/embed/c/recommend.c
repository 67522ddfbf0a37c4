/* recommend MODEL USER: what a model file that Python wrote has for somebody. */
#include <inttypes.h>
#include <recfuse/recfuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { K = 3, LONGEST = 256 };

static void check(recfuse_status status) {
  if (status == RECFUSE_OK) return;
  fprintf(stderr, "%s\n", recfuse_last_error());
  exit(1);
}

static const char* name_of(const recfuse_model* model, int32_t item, char text[LONGEST]) {
  size_t length;
  check(recfuse_item_id(model, item, text, LONGEST, &length)); /* longer ones are cut */
  return text;
}

static void show(const recfuse_model* model, const int32_t items[K], const float scores[K]) {
  char text[LONGEST];
  for (int i = 0; i < K && items[i] >= 0; ++i) { /* -1: the list is shorter */
    uint32_t bits;
    memcpy(&bits, &scores[i], sizeof(bits));
    printf("  %s %.6f %08" PRIx32 "\n", name_of(model, items[i], text), (double)scores[i], bits);
  }
}

/* A vector of ones for one modality; the others are not asked. */
static void search_ones(const recfuse_model* model, int64_t n_modalities, int64_t modality, int64_t dim,
                        const recfuse_query* query, int32_t items[K], float scores[K]) {
  const float** vectors = calloc((size_t)n_modalities, sizeof(*vectors));
  float* ones = malloc((size_t)dim * sizeof(*ones));
  if (!vectors || !ones) exit(1);
  for (int64_t i = 0; i < dim; ++i) ones[i] = 1;
  vectors[modality] = ones;
  check(recfuse_search(model, vectors, n_modalities, 1, query, items, scores));
  free(ones);
  free(vectors);
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: recommend MODEL USER\n");
    return 2;
  }
  recfuse_model* model;
  check(recfuse_model_open(argv[1], RECFUSE_VERIFY_SMALL, &model));
  int64_t user;
  check(recfuse_user_row(model, argv[2], RECFUSE_NUL_TERMINATED, &user));
  recfuse_info info = RECFUSE_INFO_INIT;
  check(recfuse_model_info(model, &info));
  recfuse_modality last = RECFUSE_MODALITY_INIT;
  check(recfuse_model_modality(model, info.n_modalities - 1, &last));

  recfuse_query query = RECFUSE_QUERY_INIT;
  query.k = K;
  int32_t items[K];
  float scores[K];
  check(recfuse_recommend(model, &user, 1, &query, items, scores));
  printf("for %s\n", argv[2]);
  show(model, items, scores);

  const int32_t best = items[0];
  const int64_t best_row = best;
  char text[LONGEST];
  name_of(model, best, text);
  double* weights = calloc((size_t)info.n_modalities, sizeof(*weights));
  if (!weights) return 1;
  weights[info.n_modalities - 1] = 1;
  recfuse_query narrow = query;
  narrow.weights = weights;
  narrow.n_weights = info.n_modalities;
  narrow.exclude = &best;
  narrow.n_exclude = 1;
  check(recfuse_recommend(model, &user, 1, &narrow, items, scores));
  printf("for %s, by %s alone, without %s\n", argv[2], last.name, text);
  show(model, items, scores);
  free(weights);

  check(recfuse_similar(model, &best_row, 1, &query, items, scores));
  printf("like %s\n", text);
  show(model, items, scores);

  search_ones(model, info.n_modalities, info.n_modalities - 1, last.dim, &query, items, scores);
  printf("for a vector of %s\n", last.name);
  show(model, items, scores);
  recfuse_model_close(model);
  return 0;
}
