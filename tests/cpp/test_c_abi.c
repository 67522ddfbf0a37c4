/* The C ABI from C: every function with NULL and with nonsense, and one model asked by several threads. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recfuse/recfuse.h"

static int failures = 0;

#define CHECK(condition)                                                                                   \
  do {                                                                                                     \
    if (!(condition)) {                                                                                    \
      fprintf(stderr, "%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, #condition, recfuse_last_error()); \
      ++failures;                                                                                          \
    }                                                                                                      \
  } while (0)

enum { USERS = 11, ITEMS = 10, K = 4, THREADS = 4, ROUNDS = 50 };

static void null_and_nonsense(const recfuse_model* model) {
  int64_t row = 0;
  size_t length = 0;
  char text[4];
  int32_t items[K];
  float scores[K];
  const int64_t user = 0;
  recfuse_query query = RECFUSE_QUERY_INIT;
  recfuse_info info = RECFUSE_INFO_INIT;
  recfuse_modality modality = RECFUSE_MODALITY_INIT;
  recfuse_model* other = NULL;
  query.k = K;

  CHECK(recfuse_model_open(NULL, RECFUSE_VERIFY_SMALL, &other) == RECFUSE_INVALID_ARGUMENT);
  CHECK(strcmp(recfuse_last_error(), "path must not be NULL") == 0);
  CHECK(recfuse_model_open("x", RECFUSE_VERIFY_SMALL, NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_model_open("x", 7, &other) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_model_open("/nowhere", RECFUSE_VERIFY_SMALL, &other) == RECFUSE_IO_ERROR && other == NULL);
  CHECK(recfuse_model_prepare(NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_model_verify(NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_model_info(NULL, &info) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_model_info(model, NULL) == RECFUSE_INVALID_ARGUMENT);
  info.struct_size = 8;
  CHECK(recfuse_model_info(model, &info) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_model_modality(model, -1, &modality) == RECFUSE_OUT_OF_RANGE);
  CHECK(recfuse_model_modality(model, 1, &modality) == RECFUSE_OUT_OF_RANGE);
  CHECK(recfuse_model_modality(model, 0, NULL) == RECFUSE_INVALID_ARGUMENT);
  recfuse_model_close(NULL);

  CHECK(recfuse_user_row(NULL, "a", 1, &row) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_row(model, NULL, 1, &row) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_row(model, NULL, RECFUSE_NUL_TERMINATED, &row) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_row(model, "a", 1, NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_row(model, "a", 1, &row) == RECFUSE_UNKNOWN_ID && row == -1);
  CHECK(recfuse_item_row(NULL, NULL, 0, NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_item_row_of_integer(NULL, 1, &row) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_row_of_integer(model, 1, NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_id(model, USERS, text, sizeof(text), &length) == RECFUSE_OUT_OF_RANGE);
  CHECK(recfuse_user_id(model, 0, NULL, 4, &length) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_id(model, 0, text, sizeof(text), NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_user_id(model, 0, NULL, 0, &length) == RECFUSE_OK && length > 4);
  CHECK(recfuse_user_id(model, 0, text, sizeof(text), &length) == RECFUSE_OK && strlen(text) == 3);
  CHECK(recfuse_user_integer(model, 0, &row) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_item_integer(model, ITEMS, &row) == RECFUSE_OUT_OF_RANGE);

  CHECK(recfuse_recommend(NULL, &user, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_recommend(model, NULL, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_recommend(model, &user, -1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_recommend(model, &user, INT64_MAX, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_recommend(model, &user, 1, &query, NULL, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_recommend(model, &user, 1, &query, items, NULL) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_recommend(model, NULL, 0, &query, NULL, NULL) == RECFUSE_OK);
  query.k = 0;
  CHECK(recfuse_recommend(model, &user, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  query.k = INT64_MAX;
  CHECK(recfuse_recommend(model, &user, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  query.k = K;
  query.n_exclude = 3;
  CHECK(recfuse_recommend(model, &user, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  query.n_exclude = -3;
  CHECK(recfuse_recommend(model, &user, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  query.n_exclude = 0;
  query.struct_size = 3;
  CHECK(recfuse_recommend(model, &user, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  query.struct_size = (size_t)-1;
  CHECK(recfuse_recommend(model, &user, 1, &query, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_similar(model, NULL, 1, NULL, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_search(model, NULL, 1, 1, NULL, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_search(model, NULL, 0, 1, NULL, items, scores) == RECFUSE_INVALID_ARGUMENT);
  CHECK(recfuse_search(model, NULL, -1, 1, NULL, items, scores) == RECFUSE_INVALID_ARGUMENT);
}

/* A program of a later version has longer structs. */
static void longer_structs(const recfuse_model* model) {
  struct {
    recfuse_query known;
    int64_t later;
  } query = {RECFUSE_QUERY_INIT, 0};
  struct {
    recfuse_info known;
    int64_t later;
  } info = {RECFUSE_INFO_INIT, 77};
  int32_t items[K];
  float scores[K];
  const int64_t user = 0;
  query.known.k = K;
  query.known.struct_size = sizeof(query);
  CHECK(recfuse_recommend(model, &user, 1, &query.known, items, scores) == RECFUSE_OK);
  query.later = 1;
  CHECK(recfuse_recommend(model, &user, 1, &query.known, items, scores) == RECFUSE_INVALID_ARGUMENT);
  info.known.struct_size = sizeof(info);
  CHECK(recfuse_model_info(model, &info.known) == RECFUSE_OK);
  CHECK(info.known.n_users == USERS && info.known.struct_size == sizeof(info) && info.later == 77);
}

struct Asked {
  const recfuse_model* model;
  int32_t items[USERS * K], alike[K];
  float scores[USERS * K], likeness[K];
  int wrong;
};

static void* ask(void* argument) {
  struct Asked* asked = argument;
  recfuse_query query = RECFUSE_QUERY_INIT;
  int64_t users[USERS];
  query.k = K;
  for (int round = 0; round < ROUNDS; ++round) {
    const int64_t item = round % ITEMS, nobody = USERS + round;
    int64_t row;
    for (int64_t u = 0; u < USERS; ++u) users[u] = u;
    asked->wrong += recfuse_recommend(asked->model, users, USERS, &query, asked->items, asked->scores) != RECFUSE_OK;
    asked->wrong += recfuse_similar(asked->model, &item, 1, &query, asked->alike, asked->likeness) != RECFUSE_OK;
    asked->wrong += recfuse_user_row(asked->model, "nobody", RECFUSE_NUL_TERMINATED, &row) != RECFUSE_UNKNOWN_ID;
    asked->wrong += recfuse_recommend(asked->model, &nobody, 1, &query, asked->items, asked->scores) == RECFUSE_OK;
    asked->wrong += strstr(recfuse_last_error(), "users must be in [0, 11)") == NULL;
  }
  return NULL;
}

static void several_threads(const char* path) {
  static struct Asked asked[THREADS];
  pthread_t threads[THREADS];
  recfuse_model* model = NULL;
  CHECK(recfuse_model_open(path, RECFUSE_VERIFY_ALL, &model) == RECFUSE_OK); /* not prepared: all want to be first */
  for (int i = 0; i < THREADS; ++i) {
    asked[i].model = model;
    pthread_create(&threads[i], NULL, ask, &asked[i]);
  }
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  for (int i = 0; i < THREADS; ++i) {
    CHECK(asked[i].wrong == 0);
    CHECK(memcmp(asked[i].items, asked[0].items, sizeof(asked[i].items)) == 0);
    CHECK(memcmp(asked[i].scores, asked[0].scores, sizeof(asked[i].scores)) == 0);
  }
  recfuse_model_close(model);
}

int main(int argc, char** argv) {
  recfuse_model* model = NULL;
  recfuse_info info = RECFUSE_INFO_INIT;
  recfuse_modality modality = RECFUSE_MODALITY_INIT;
  if (argc != 2) return 2;
  CHECK(strcmp(recfuse_last_error(), "") == 0);
  CHECK(recfuse_abi_version() == 1000 && strlen(recfuse_version()) >= 5);
  CHECK(recfuse_model_open(argv[1], RECFUSE_VERIFY_SMALL, &model) == RECFUSE_OK);
  CHECK(recfuse_model_prepare(model) == RECFUSE_OK && recfuse_model_verify(model) == RECFUSE_OK);
  CHECK(recfuse_model_info(model, &info) == RECFUSE_OK);
  CHECK(info.n_users == USERS && info.n_items == ITEMS && info.n_modalities == 1);
  CHECK(info.user_id_kind == RECFUSE_ID_STRING && info.item_id_kind == RECFUSE_ID_INTEGER);
  CHECK(recfuse_model_modality(model, 0, &modality) == RECFUSE_OK);
  CHECK(strcmp(modality.name, "factors") == 0 && modality.dim == 3 && modality.weight == 1.0);
  null_and_nonsense(model);
  longer_structs(model);
  recfuse_model_close(model);
  several_threads(argv[1]);
  printf("%s\n", failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
